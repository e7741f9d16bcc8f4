//! Cross entropy of next tokens, in nats.

use tch::{Kind, Reduction, Tensor};

use super::attention::Attention;
use super::transformer::Transformer;

impl Transformer {
    /// Loss of every predicted token: `tokens` is int64 `[B, T + 1]`, the result `[B, T]`, in f32 or wider.
    ///
    /// # Panics
    /// As [`Transformer::logits`].
    pub fn token_losses(&self, params: &[Tensor], tokens: &Tensor, attention: Attention) -> Tensor {
        let length = tokens.size()[1] - 1;
        let logits = self.logits(params, &tokens.narrow(1, 0, length), attention);
        let targets = tokens.narrow(1, 1, length);
        cross_entropy(&logits, &targets)
    }

    /// Sum of the token losses, accumulated in f64, for a caller that divides by a count of its own.
    ///
    /// # Panics
    /// As [`Transformer::logits`].
    pub fn loss_sum(&self, params: &[Tensor], tokens: &Tensor, attention: Attention) -> Tensor {
        self.token_losses(params, tokens, attention).sum(Kind::Double)
    }

    /// Mean of the token losses, accumulated in f64.
    ///
    /// # Panics
    /// As [`Transformer::logits`].
    pub fn loss(&self, params: &[Tensor], tokens: &Tensor, attention: Attention) -> Tensor {
        self.token_losses(params, tokens, attention).mean(Kind::Double)
    }

    /// Mean of the token losses of each sequence, `[B]`, accumulated in f64.
    ///
    /// # Panics
    /// As [`Transformer::logits`].
    pub fn losses(&self, params: &[Tensor], tokens: &Tensor, attention: Attention) -> Tensor {
        self.token_losses(params, tokens, attention).mean_dim([1_i64].as_slice(), false, Kind::Double)
    }
}

/// `-log softmax(logits)[target]` for `logits [B, T, V]` and `targets [B, T]`.
fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    let wide = if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let rows = logits.to_kind(wide).flatten(0, 1);
    let losses = rows.cross_entropy_loss(&targets.flatten(0, 1), None::<&Tensor>, Reduction::None, -100, 0.0);
    losses.view_as(targets)
}
