//! What an optimizer plugin of Gauntlet depends on.
//!
//! An author implements [`Optimizer`] for one struct and ends the file with [`export_optimizer!`]. The host owns all
//! tensors and runs the model; this crate asks it by handle and never links libtorch. `docs/plugin-guide.md` is the
//! author's guide, `plugins/sgd` the template.

pub mod backend;
mod batch;
mod context;
mod curvature;
mod error;
#[doc(hidden)]
pub mod export;
mod fused;
pub mod groups;
mod guard;
mod host;
pub mod metadata;
mod optimizer;
mod params;
pub mod random;
pub mod spec;
mod state;
mod structure;
mod tensor;
#[cfg(feature = "testing")]
pub mod testing;

pub use batch::{Batch, Part, Position};
pub use context::{Setup, StepContext, StepReport};
pub use curvature::{KroneckerFactors, Labels, Linearization, Per, ProxLinear, Quadratic, Sharing};
pub use error::{Error, Result};
pub use fused::{Expr, Operand, TensorList, fused};
pub use gauntlet_plugin_abi::{Capability, DType, ErrorCode, LogLevel, Purpose};
pub use optimizer::{Metric, Optimizer};
pub use params::{Params, Selection, SelectionMut};
pub use spec::{ParamSpec, Role, SubBlocks};
pub use state::{StateReader, StateWriter};
pub use structure::{Blocks, Structure};
pub use tensor::Tensor;

/// Everything that a plugin's file needs, in one line.
pub mod prelude {
    pub use crate::groups::Group;
    pub use crate::{
        Batch, Blocks, Capability, DType, Error, Expr, KroneckerFactors, Labels, Linearization, LogLevel, Metric,
        Optimizer, ParamSpec, Params, Per, Position, ProxLinear, Purpose, Quadratic, Result, Role, Setup, Sharing,
        StateReader, StateWriter, StepContext, StepReport, Structure, Tensor, export_optimizer, fused, groups,
    };
    pub use schemars::{self, JsonSchema};
    pub use serde::{self, Deserialize, Serialize};
}
