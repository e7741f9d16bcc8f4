//! What the host computes for a plugin: tensors on libtorch, batches, the loss and its derivatives.

mod backend;
mod ema;
mod problem;
mod recorded;
pub mod tensor;
mod transformer;

pub use backend::{CallCount, RunFacts, Streams, TorchBackend};
pub use ema::Ema;
pub use problem::Problem;
pub use recorded::Recorded;
pub use transformer::LanguageModel;

use gauntlet_plugin_api::backend::Session;

/// A session on libtorch.
pub type TorchSession = Session<TorchBackend>;
