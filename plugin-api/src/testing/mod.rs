//! Tests of a plugin without libtorch: small problems in plain Rust, behind the same table that the host offers.
//!
//! Turn it on for tests alone:
//!
//! ```toml
//! [dev-dependencies]
//! gauntlet-plugin-api = { path = "...", features = ["testing"] }
//! ```
//!
//! [`conformance`] runs the checks that every plugin has to pass; a [`Harness`] runs one optimizer step by step on a
//! [`Problem`] or on recorded gradients. A [`Subject`] is an optimizer of a loaded library, for the same checks.
//!
//! ```
//! use gauntlet_plugin_api::prelude::*;
//! use gauntlet_plugin_api::testing::{Harness, Problem, conformance, json};
//!
//! #[derive(Deserialize, Serialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     lr: f64,
//! }
//!
//! struct Descent(Config);
//!
//! impl Optimizer for Descent {
//!     const NAME: &'static str = "descent";
//!     type Config = Config;
//!
//!     fn new(config: Config, _: &Setup) -> Result<Self> {
//!         Ok(Self(config))
//!     }
//!
//!     fn state_bytes(_: &Config, _: &Params) -> u64 {
//!         0
//!     }
//!
//!     fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
//!         let batch = ctx.next_batch()?;
//!         let (loss, gradient) = ctx.loss_and_gradient(ctx.params(), &batch)?;
//!         ctx.params_mut().axpy_(-self.0.lr, &gradient)?;
//!         Ok(StepReport::new(loss))
//!     }
//!
//!     fn save(&self, _: &mut StateWriter) -> Result<()> {
//!         Ok(())
//!     }
//!
//!     fn load(&mut self, _: &StateReader) -> Result<()> {
//!         Ok(())
//!     }
//! }
//!
//! // In a plugin these are `#[test]` functions.
//! conformance::<Descent>(json!({ "lr": 0.1 }));
//!
//! let mut harness = Harness::<Descent>::new(json!({ "lr": 0.3 }), Problem::softmax_regression())?;
//! let before = harness.loss()?;
//! for _ in 0..20 {
//!     harness.step()?;
//! }
//! assert!(harness.loss()? < before);
//! # Ok::<(), gauntlet_plugin_api::Error>(())
//! ```

mod array;
mod backend;
mod conformance;
mod data;
mod dense;
mod harness;
mod hyper_dual;
mod loss;
mod ops;
mod problem;
mod products;
mod subject;
mod trace;

pub use array::Array;
pub use backend::PlainBackend;
pub use conformance::{Figures, Report, Verdict, check, check_some, check_subject, conformance, measure};
pub use harness::{Harness, Snapshot};
pub use loss::Fault;
pub use problem::Problem;
pub use serde_json::json;
pub use subject::Subject;
pub use trace::{Deviation, Trace};

pub use crate::backend::{Outcome, SavedEntry, SavedState, SavedTensor, StepResult};
