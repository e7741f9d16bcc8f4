//! AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as PyTorch computes it.

use gauntlet_plugin_api::{Params, Result, fused};

/// The numbers of one step t = 1, 2, ...
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size, the schedule included.
    pub lr: f64,
    /// Decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the bias-corrected root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; it multiplies `lr`.
    pub weight_decay: f64,
    /// Whether the update looks ahead by one step of the first moment (Dozat 2016, as optax computes it).
    pub nesterov: bool,
    /// The step, from 1.
    pub t: u64,
}

impl AdamW {
    /// One step on lists of equal shapes:
    ///
    /// ```text
    /// m <- m + (1 - b1) (g - m)
    /// v <- b2 v + (1 - b2) g^2
    /// w <- (1 - lr wd) w - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
    /// ```
    ///
    /// computed with the corrections moved into the step size and eps (Kingma and Ba, arXiv 1412.6980, section 2):
    /// lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps sqrt(1 - b2^t)), a division less for each element.
    ///
    /// With `nesterov`, b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t) stands for m / (1 - b1^t).
    pub fn step(&self, w: &mut Params, m: &mut Params, v: &mut Params, g: &Params) -> Result<()> {
        let Self { lr, betas: [b1, b2], eps, weight_decay, nesterov, t } = *self;
        let (correction1, correction2) = (bias_correction(b1, t), bias_correction(b2, t).sqrt());
        let ahead = bias_correction(b1, t + 1);
        let lr_corrected = lr * correction2;
        fused([w, m, v], [g], |[w, m, v], [g]| {
            let m = m + (1.0 - b1) * (g - m);
            let v = b2 * v + (1.0 - b2) * g * g;
            let denominator = v.sqrt() + eps * correction2;
            let direction = match nesterov {
                false => lr_corrected / correction1 * m,
                true => lr_corrected * b1 / ahead * m + lr_corrected * (1.0 - b1) / correction1 * g,
            };
            let w = (1.0 - lr * weight_decay) * w - direction / denominator;
            [w, m, v]
        })
    }
}

/// 1 - beta^t.
pub(crate) fn bias_correction(beta: f64, t: u64) -> f64 {
    1.0 - beta.powf(t as f64)
}
