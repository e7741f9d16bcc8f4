//! The one trait that a plugin implements.

use crate::context::{Setup, StepContext, StepReport};
use crate::error::Result;
use crate::params::Params;
use crate::spec::ParamSpec;
use crate::state::{StateReader, StateWriter};
use gauntlet_plugin_abi::Capability;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// An optimizer.
///
/// `new` gets a configuration that has already been parsed (derive `Deserialize`, `Serialize` and `JsonSchema` with
/// `deny_unknown_fields`); it checks ranges with [`crate::Error::config`]. An error ends
/// the step (and the run, unless its policy skips failed steps: then the host restores parameters and state); a panic is
/// turned into an error too, and the instance is not used again until `load`.
pub trait Optimizer: Sized + Send + 'static {
    /// The kebab-case name that configurations use.
    const NAME: &'static str;
    /// What the host must offer, checked before step 1.
    const NEEDS: &'static [Capability] = &[Capability::GRADIENT];
    /// Metrics beyond the loss and `gradient_norm`; others are not exported.
    const METRICS: &'static [Metric] = &[];
    /// Version of the layout of the saved state.
    const STATE_VERSION: u32 = 1;
    /// Whether `lr` follows the run's `[schedule]`; where it does not, the host refuses a configured schedule.
    const USES_SCHEDULE: bool = true;

    /// The plugin's own configuration, `[optimizer.config]`.
    type Config: DeserializeOwned + Serialize + JsonSchema;

    /// Makes the optimizer for a run.
    fn new(config: Self::Config, setup: &Setup) -> Result<Self>;

    /// Bytes of tensors that it will hold beside the parameters, to predict memory before step 1: what `save` takes
    /// between steps, and for long steps at most what they hold in between.
    fn state_bytes(config: &Self::Config, params: &Params) -> u64;

    /// One step, or one part of a long step.
    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport>;

    /// Saves everything that the next call of `step` depends on.
    fn save(&self, state: &mut StateWriter) -> Result<()>;

    /// Restores what `save` took.
    fn load(&mut self, state: &StateReader) -> Result<()>;

    /// The rule that a parameter follows, in a few words, to be shown before a run: `adamw`, `muon`.
    fn rule_of(&self, _spec: &ParamSpec) -> String {
        Self::NAME.into()
    }

    /// Parameters to evaluate, generate and export at, where they are not the run's own (schedule-free methods).
    fn evaluation_params(&self) -> Option<&Params> {
        None
    }
}

/// A metric that an optimizer reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Snake-case name; well-known ones (`damping`, `cg_residual_ratio`) become the host's own.
    pub name: &'static str,
    /// Unit, for example `ratio`, `nats`; empty for a plain number.
    pub unit: &'static str,
    /// One sentence.
    pub help: &'static str,
}

impl Metric {
    /// A metric with its name, unit and one sentence.
    pub const fn new(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, unit, help }
    }
}
