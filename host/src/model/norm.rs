//! Normalisation layers.

use tch::Tensor;

use super::params::NormWeights;

/// RMSNorm over the last dimension, `x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich, arXiv 1910.07467).
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    x.rms_norm(weight.size(), Some(weight), eps)
}

/// LayerNorm over the last dimension (Ba et al., arXiv 1607.06450).
pub(super) fn layer_norm(x: &Tensor, norm: &NormWeights, eps: f64) -> Tensor {
    x.layer_norm(norm.weight.size(), Some(norm.weight), Some(norm.bias), eps, false)
}
