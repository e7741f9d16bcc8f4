//! The language model: a decoder-only transformer as pure functions of its parameters.
//!
//! A [`Transformer`] holds no parameters, only its [`ModelConfig`] and tables; parameters are a slice of tensors in the
//! order of [`param_specs`]. Linear layers have no biases, and q, k and v are separate matrices `[out, in]`.

mod attention;
mod generate;
mod init;
mod loss;
mod norm;
mod params;
mod random;
mod resolve;
mod rope;
mod spec;
mod transformer;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

pub use attention::Attention;
pub use generate::{Sampling, generate};
pub use init::init_params;
pub use params::{BlockPlaces, BlockWeights, NormPlaces, NormWeights, Places, Weights, num_params, param_specs};
pub use resolve::ModelSection;
pub use rope::{Rope, RopeTable};
pub use spec::{Mlp, ModelConfig, PRESETS, Violation};
pub use transformer::Transformer;
