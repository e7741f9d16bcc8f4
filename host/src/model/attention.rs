//! Causal attention by two paths: libtorch's fused kernel for gradients, plain operations for curvature.

use tch::Tensor;

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// libtorch's fused kernel: fast and without a score matrix, but it has neither forward-mode derivatives nor a
    /// second reverse pass.
    Fused,
    /// Product, mask, softmax, product: every derivative exists, and the scores `[batch, heads, T, T]` are held.
    Math,
}

impl Attention {
    /// Attends from `q [B, heads, T, head_width]` to `k`, `v` of the same shape, each position to itself and earlier
    /// ones. `mask [T, T]` is 0 where a row attends and minus infinity elsewhere.
    pub(super) fn attend(self, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor) -> Tensor {
        match self {
            Self::Fused => {
                Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, true, None::<f64>, false)
            }
            Self::Math => {
                let scale = q.size().last().map_or(1.0, |&width| (width as f64).sqrt().recip());
                let scores = (q * scale).matmul(&k.transpose(-2, -1)) + mask;
                scores.softmax(-1, None).matmul(v)
            }
        }
    }
}

/// Repeats each head of `x [B, T, kv_heads, head_width]` for the `repeats` query heads that share it.
pub(super) fn repeat_heads(x: Tensor, repeats: i64) -> Tensor {
    if repeats == 1 {
        return x;
    }
    x.unsqueeze(3).expand([-1, -1, -1, repeats, -1], false).flatten(2, 3)
}
