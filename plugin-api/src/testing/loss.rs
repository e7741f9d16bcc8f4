//! The losses of one token: cross-entropy, and half the squared distance.

use super::data::{Target, draw_class, normal, softmax};
use crate::random::stream;
use gauntlet_plugin_abi::RandomKey;

/// What goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Derivatives of the loss are NaN, and with them every gradient.
    NanGradients,
    /// Derivatives of the loss are 0, and with them every gradient; curvature stays.
    ZeroGradients,
}

/// The loss l(z) of one token in nats.
pub(super) fn value(z: &[f64], target: &Target) -> f64 {
    match target {
        Target::Class(class) => {
            let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            largest + z.iter().map(|z| (z - largest).exp()).sum::<f64>().ln() - z[*class]
        }
        Target::Values(values) => z.iter().zip(values).map(|(z, y)| 0.5 * (z - y).powi(2)).sum(),
    }
}

/// dl/dz.
pub(super) fn gradient(z: &[f64], target: &Target, fault: Option<Fault>) -> Vec<f64> {
    match (fault, target) {
        (Some(Fault::NanGradients), _) => vec![f64::NAN; z.len()],
        (Some(Fault::ZeroGradients), _) => vec![0.0; z.len()],
        (None, Target::Class(class)) => {
            let mut p = softmax(z);
            p[*class] -= 1.0;
            p
        }
        (None, Target::Values(values)) => z.iter().zip(values).map(|(z, y)| z - y).collect(),
    }
}

/// (d2l/dz2) v: `p * (v - <p, v>)` for cross-entropy, v for the squared loss.
pub(super) fn hessian_product(z: &[f64], target: &Target, v: &[f64]) -> Vec<f64> {
    match target {
        Target::Class(_) => {
            let p = softmax(z);
            let mean: f64 = p.iter().zip(v).map(|(p, v)| p * v).sum();
            p.iter().zip(v).map(|(p, v)| p * (v - mean)).collect()
        }
        Target::Values(_) => v.to_vec(),
    }
}

/// A target drawn from the model's own distribution: the softmax, or a normal distribution around z.
pub(super) fn sample(z: &[f64], like: &Target, key: &RandomKey) -> Target {
    match like {
        Target::Class(_) => Target::Class(draw_class(&softmax(z), &mut stream(key))),
        Target::Values(_) => Target::Values(z.iter().zip(normal(key, z.len())).map(|(z, noise)| z + noise).collect()),
    }
}
