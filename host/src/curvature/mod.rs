//! What the host computes for a plugin: tensors on libtorch, batches, the loss and its derivatives.

mod backend;
mod ema;
mod hessian;
mod kronecker;
mod labels;
mod lanczos;
mod linearization;
pub mod passes;
mod problem;
mod recorded;
mod rules;
pub mod tensor;
#[cfg(test)]
mod tests;
mod transformer;

pub use backend::{CallCount, RunFacts, Streams, TorchBackend};
pub use ema::Ema;
pub use labels::LabelDraws;
pub use lanczos::{Eigenvalue, Estimate, largest, trace};
pub use linearization::{Linearization, Tokens};
pub use problem::Problem;
pub use recorded::Recorded;
pub use transformer::{LanguageModel, automatic_micro_batch, forward_flops};

use gauntlet_plugin_api::backend::Session;

/// A session on libtorch.
pub type TorchSession = Session<TorchBackend>;
