//! RMSNorm and LayerNorm at a point: both are `y = w * n + b` with the normal form n of x, and share their derivative.

use gauntlet_torch_ext::kernels::{Normal, VectorCotangents};
use tch::{Kind, Tensor};

/// A norm's values.
#[derive(Debug)]
pub struct Normed {
    /// `w * n + b`, `[N, width]`.
    pub output: Tensor,
    at: Normal,
}

impl Normed {
    /// RMSNorm of `x [N, width]`.
    pub fn rms(x: &Tensor, weight: &Tensor, eps: f64) -> Self {
        Self::of(x, weight, None, eps)
    }

    /// LayerNorm of `x [N, width]`.
    pub fn layer(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Self {
        Self::of(x, weight, Some(bias), eps)
    }

    fn of(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f64) -> Self {
        let centred = bias.is_some();
        if let Some((output, at)) = Normal::of(x, weight, bias, eps, centred) {
            return Self { output, at };
        }
        let (normal, scale) = if centred { normalise(&(x - row_mean(x)), eps) } else { normalise(x, eps) };
        let output = bias.map_or_else(|| &normal * weight, |bias| bias.addcmul(&normal, weight));
        Self { output, at: Normal { normal, scale, centred } }
    }

    /// The derivative of n along `t`, which is also its own transpose: `s (t - mean(t) - n mean(n t))`, the mean of t
    /// for LayerNorm only.
    fn project(&self, t: &Tensor) -> Tensor {
        let along = row_mean(&(&self.at.normal * t)).neg();
        let mut rest = t.addcmul(&self.at.normal, &along);
        if self.at.centred {
            rest = rest.g_sub_(&row_mean(t));
        }
        rest.g_mul_(&self.at.scale)
    }

    /// `w * n' + w' * n + b'`, of the tangents that there are.
    pub fn tangent(
        &self,
        dx: Option<&Tensor>,
        weight: &Tensor,
        dw: Option<&Tensor>,
        db: Option<&Tensor>,
    ) -> Option<Tensor> {
        let served = dx.and_then(|dx| self.at.tangent(dx, weight, dw, db));
        served.or_else(|| self.tangent_by_parts(dx, weight, dw, db))
    }

    fn tangent_by_parts(
        &self,
        dx: Option<&Tensor>,
        weight: &Tensor,
        dw: Option<&Tensor>,
        db: Option<&Tensor>,
    ) -> Option<Tensor> {
        let moved = dx.map(|dx| self.project(dx).g_mul_(weight));
        let moved = match (moved, dw) {
            (Some(mut moved), Some(dw)) => Some(moved.addcmul_(&self.at.normal, dw)),
            (moved, None) => moved,
            (None, Some(dw)) => Some(&self.at.normal * dw),
        };
        match (moved, db) {
            (Some(mut moved), Some(db)) => Some(moved.g_add_(db)),
            (moved, None) => moved,
            (None, Some(db)) => Some(db.expand_as(&self.at.normal).copy()),
        }
    }

    /// The cotangent of x for that of y, added to `into` if there is one, and those of w and b where they are wanted.
    pub fn pullback(
        &self,
        dy: &Tensor,
        weight: &Tensor,
        into: Option<Tensor>,
        wants: [bool; 2],
    ) -> (Tensor, VectorCotangents) {
        if let Some(served) = self.at.pullback(dy, weight, into.as_ref(), wants) {
            return served;
        }
        let vectors = VectorCotangents {
            weight: wants[0].then(|| row_sum(&(dy * &self.at.normal))),
            bias: wants[1].then(|| row_sum(dy)),
        };
        let dx = self.project(&(dy * weight));
        (into.map_or_else(|| dx.shallow_clone(), |mut into| into.g_add_(&dx)), vectors)
    }
}

fn normalise(x: &Tensor, eps: f64) -> (Tensor, Tensor) {
    let scale = (row_mean(&x.square()) + eps).rsqrt_();
    (x * &scale, scale)
}

fn row_mean(x: &Tensor) -> Tensor {
    x.mean_dim([-1_i64].as_slice(), true, None::<Kind>)
}

/// The sum over rows.
fn row_sum(x: &Tensor) -> Tensor {
    x.sum_dim_intlist([0_i64].as_slice(), false, None::<Kind>)
}
