//! RMSNorm and LayerNorm at a point: both are `y = w * n + b` with the normal form n of x, and share their derivative.

use tch::{Kind, Tensor};

/// The normal form of an input: `n = (x - m) s`, m the mean (LayerNorm) or 0 (RMSNorm), s one number a row.
#[derive(Debug)]
pub struct Normed {
    /// `w * n + b`, `[N, width]`.
    pub output: Tensor,
    /// n, `[N, width]`.
    normal: Tensor,
    /// s, `[N, 1]`.
    scale: Tensor,
    centred: bool,
}

impl Normed {
    /// RMSNorm of `x [N, width]`.
    pub fn rms(x: &Tensor, weight: &Tensor, eps: f64) -> Self {
        let (normal, scale) = normalise(x, eps);
        Self { output: &normal * weight, normal, scale, centred: false }
    }

    /// LayerNorm of `x [N, width]`.
    pub fn layer(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Self {
        let (normal, scale) = normalise(&(x - row_mean(x)), eps);
        Self { output: bias.addcmul(&normal, weight), normal, scale, centred: true }
    }

    /// The derivative of n along `t`, which is also its own transpose: `s (t - mean(t) - n mean(n t))`, the mean of t
    /// for LayerNorm only.
    fn project(&self, t: &Tensor) -> Tensor {
        let along = row_mean(&(&self.normal * t)).neg();
        let mut rest = t.addcmul(&self.normal, &along);
        if self.centred {
            rest = rest.g_sub_(&row_mean(t));
        }
        rest.g_mul_(&self.scale)
    }

    /// `w * n' + w' * n + b'`, of the tangents that there are.
    pub fn tangent(
        &self,
        dx: Option<&Tensor>,
        weight: &Tensor,
        dw: Option<&Tensor>,
        db: Option<&Tensor>,
    ) -> Option<Tensor> {
        let moved = dx.map(|dx| self.project(dx).g_mul_(weight));
        let moved = match (moved, dw) {
            (Some(mut moved), Some(dw)) => Some(moved.addcmul_(&self.normal, dw)),
            (moved, None) => moved,
            (None, Some(dw)) => Some(&self.normal * dw),
        };
        match (moved, db) {
            (Some(mut moved), Some(db)) => Some(moved.g_add_(db)),
            (moved, None) => moved,
            (None, Some(db)) => Some(db.expand_as(&self.normal).copy()),
        }
    }

    /// The cotangent of x for that of y.
    pub fn pullback(&self, dy: &Tensor, weight: &Tensor) -> Tensor {
        self.project(&(dy * weight))
    }

    /// The cotangent of w.
    pub fn weight_cotangent(&self, dy: &Tensor) -> Tensor {
        row_sum(&(dy * &self.normal))
    }
}

/// The cotangent of b, which every row of y has added.
pub fn bias_cotangent(dy: &Tensor) -> Tensor {
    row_sum(dy)
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
