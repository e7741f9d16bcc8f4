//! What an optimizer is given: the run at creation, and the host during a step.

use crate::batch::{Batch, Position};
use crate::curvature::{Labels, Linearization, Per, json, scalar};
use crate::error::{Error, Result};
use crate::host::{Answer, Link};
use crate::params::Params;
use crate::random::Rng;
use crate::spec::ParamSpec;
use crate::structure::{Blocks, Structure};
use crate::tensor::Tensor;
use gauntlet_plugin_abi::*;
use std::sync::Arc;

/// What the run is, when an optimizer is made.
#[derive(Debug)]
pub struct Setup {
    link: Link,
    params: Params,
}

impl Setup {
    pub(crate) fn new(link: Link) -> Result<Self> {
        Ok(Self { link, params: run_params(link)? })
    }

    /// The model's parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// A random stream for a purpose, independent of every step.
    pub fn rng(&self, purpose: &str) -> Result<Rng> {
        Ok(Rng::new(self.link, self.link.integer_or_fail(IntegerQuery::SEED)?, purpose, u64::MAX))
    }

    /// The global batch of one step, in sequences.
    pub fn batch_size(&self) -> Result<usize> {
        Ok(self.link.integer_or_fail(IntegerQuery::BATCH_SIZE)? as usize)
    }

    /// Predicted tokens of one sequence.
    pub fn seq_len(&self) -> Result<usize> {
        Ok(self.link.integer_or_fail(IntegerQuery::SEQ_LEN)? as usize)
    }

    /// Size of the vocabulary.
    pub fn vocab_size(&self) -> Result<usize> {
        Ok(self.link.integer_or_fail(IntegerQuery::VOCAB_SIZE)? as usize)
    }

    /// Steps of the run; `None` where it ends by tokens or by loss.
    pub fn total_steps(&self) -> Result<Option<u64>> {
        self.link.integer(IntegerQuery::TOTAL_STEPS)
    }

    /// Element type of parameters and products.
    pub fn dtype(&self) -> DType {
        self.params.dtype()
    }

    /// Device of parameters and products: `cpu` or `cuda:N`.
    pub fn device(&self) -> Result<String> {
        self.link.text(TextQuery::DEVICE)
    }

    /// Number of ranks.
    pub fn world_size(&self) -> Result<u64> {
        self.link.integer_or_fail(IntegerQuery::WORLD_SIZE)
    }

    /// Whether the host offers something.
    pub fn supports(&self, what: Capability) -> bool {
        self.link.supports(what)
    }

    /// This rank, from 0.
    pub fn rank(&self) -> Result<u64> {
        self.link.integer_or_fail(IntegerQuery::RANK)
    }
}

/// The host during a step. Methods take `&self` (the state lives in the host); only `params_mut` takes `&mut self`.
#[derive(Debug)]
pub struct StepContext {
    link: Link,
    params: Params,
    step: u64,
}

impl StepContext {
    pub(crate) fn new(link: Link, step: u64) -> Result<Self> {
        Ok(Self { link, params: run_params(link)?, step })
    }

    /// The model's parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The model's parameters, to write to.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Finished steps before this one.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Steps of the run; `None` where it ends by tokens or by loss.
    pub fn total_steps(&self) -> Result<Option<u64>> {
        self.link.integer(IntegerQuery::TOTAL_STEPS)
    }

    /// The schedule's multiplier in [0, 1] at this step. A host without one ends the step with its error.
    pub fn schedule(&self) -> f64 {
        self.schedule_at(self.step as f64)
    }

    /// The schedule's multiplier in [0, 1] at a fractional step.
    pub fn schedule_at(&self, step: f64) -> f64 {
        self.link.real(RealQuery::SCHEDULE, step).unwrap_or_else(|error| crate::error::raise(error))
    }

    /// The next global batch (`data.batch_size` sequences).
    pub fn next_batch(&self) -> Result<Batch> {
        Batch::next(self.link, Purpose::STEP, 0)
    }

    /// The next `count` sequences of a stream of their own.
    pub fn next_batch_for(&self, purpose: Purpose, count: usize) -> Result<Batch> {
        match count {
            0 => Err(Error::argument("next_batch_for", "a batch of 0 sequences")),
            count => Batch::next(self.link, purpose, count),
        }
    }

    /// The batch at a position: the same data again. Its tokens are not counted again.
    pub fn batch(&self, position: &Position) -> Result<Batch> {
        Batch::at(self.link, position)
    }

    /// Mean loss over the tokens of a batch, in nats.
    pub fn loss(&self, params: &Params, batch: &Batch) -> Result<f64> {
        scalar(&self.evaluate(Capability::LOSS, params, batch, None, "")?)
    }

    /// Mean loss of each sequence of a batch, in nats a token.
    pub fn losses(&self, params: &Params, batch: &Batch) -> Result<Vec<f64>> {
        Ok(self.evaluate(Capability::LOSSES, params, batch, None, "")?.values)
    }

    /// Mean loss over the tokens of a batch and its gradient.
    pub fn loss_and_gradient(&self, params: &Params, batch: &Batch) -> Result<(f64, Params)> {
        self.loss_and_gradient_at(params, batch, Labels::Data)
    }

    /// As [`StepContext::loss_and_gradient`], with labels from the data or drawn from the model.
    pub fn loss_and_gradient_at(&self, params: &Params, batch: &Batch, labels: Labels) -> Result<(f64, Params)> {
        let args = json(&serde_json::json!({ "labels": labels }))?;
        let answer = self.evaluate(Capability::GRADIENT, params, batch, None, &args)?;
        Ok((scalar(&answer)?, params.like(answer.tensors)?))
    }

    /// Mean over cases of the squared gradient of a case (Martens 2010, the preconditioner; Sophia's estimator).
    pub fn squared_gradient(&self, params: &Params, batch: &Batch, per: Per, labels: Labels) -> Result<Params> {
        let args = json(&serde_json::json!({ "per": per, "labels": labels }))?;
        params.like(self.evaluate(Capability::SQUARED_GRADIENT, params, batch, None, &args)?.tensors)
    }

    /// sum over tokens t of (w_t / W) J_t^T (p_t - y_t)(p_t - y_t)^T J_t v.
    pub fn fisher_vector_product(&self, params: &Params, batch: &Batch, v: &Params, labels: Labels) -> Result<Params> {
        let args = json(&serde_json::json!({ "labels": labels }))?;
        params.like(self.evaluate(Capability::FISHER_VECTOR_PRODUCT, params, batch, Some(v), &args)?.tensors)
    }

    /// Linearizes the model at an anchor on a batch.
    pub fn linearize(&self, anchor: &Params, batch: &Batch, structure: &Structure) -> Result<Linearization> {
        Linearization::new(anchor, batch, structure)
    }

    /// The blocks of a structure.
    pub fn blocks(&self, structure: &Structure) -> Result<Blocks> {
        Blocks::resolve(structure, self.params.specs())
    }

    /// A random stream for a purpose within this step. Every call starts at draw 0; see [`Rng::skip_to`].
    pub fn rng(&self, purpose: &str) -> Result<Rng> {
        Ok(Rng::new(self.link, self.link.integer_or_fail(IntegerQuery::SEED)?, purpose, self.step))
    }

    /// Whether a long step should return `StepReport::more()` at its next good point.
    pub fn should_return(&self) -> Result<bool> {
        Ok(self.link.integer(IntegerQuery::SHOULD_RETURN)?.unwrap_or(0) != 0)
    }

    /// Averages inner iterates into the run's EMA; the host then makes no update of its own.
    ///
    /// # Errors
    ///
    /// The run keeps no average (`ema.decay` is not set); [`StepContext::supports`] tells.
    pub fn ema_update(&self, params: &Params) -> Result<()> {
        self.link.ema_update(&params.raw())
    }

    /// A line in the run's log.
    pub fn log(&self, level: LogLevel, message: &str) {
        self.link.log(level, "plugin", message);
    }

    /// The value of a metric that the optimizer declares.
    pub fn metric(&self, name: &str, value: f64) -> Result<()> {
        self.link.metric(name, value)
    }

    /// Whether the host offers something.
    pub fn supports(&self, what: Capability) -> bool {
        self.link.supports(what)
    }

    fn evaluate(
        &self,
        what: Capability,
        params: &Params,
        batch: &Batch,
        direction: Option<&Params>,
        args: &str,
    ) -> Result<Answer> {
        let direction = direction.map(Params::raw).unwrap_or_default();
        self.link.evaluate(what, &params.raw(), batch.raw(), &direction, args)
    }
}

/// How a call of `step` ended.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    pub(crate) outcome: Outcome,
    pub(crate) loss: f64,
    pub(crate) reason: String,
    pub(crate) metrics: Vec<(String, f64)>,
}

impl StepReport {
    /// A finished step with its training loss in nats a token, at the parameters before the update.
    pub fn new(loss: f64) -> Self {
        Self { outcome: Outcome::FINISHED, loss, reason: String::new(), metrics: vec![] }
    }

    /// The step goes on: the host serves signals, checkpoints and metrics, and calls `step` again.
    pub fn more() -> Self {
        Self { outcome: Outcome::MORE, ..Self::new(f64::NAN) }
    }

    /// A step that counts and consumes its data, but leaves the parameters as they were. It must not have written to
    /// them, not even the values that they had: the host takes that as the plugin's error.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::REJECTED, reason: reason.into(), ..Self::new(f64::NAN) }
    }

    /// The training loss of a rejected or unfinished step.
    pub fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// The gradient's norm, a metric of every run.
    pub fn gradient_norm(self, norm: f64) -> Self {
        self.metric("gradient_norm", norm)
    }

    /// A metric of this step that the optimizer declares.
    pub fn metric(mut self, name: &str, value: f64) -> Self {
        self.metrics.push((name.into(), value));
        self
    }
}

/// The run's parameters as handles that stay the host's.
pub(crate) fn run_params(link: Link) -> Result<Params> {
    let specs: Vec<ParamSpec> = serde_json::from_str(&link.text(TextQuery::PARAM_SPECS)?)
        .map_err(|error| Error::new(ErrorCode::HOST, "param_specs", error.to_string()))?;
    let dtype = DType(link.integer_or_fail(IntegerQuery::DTYPE)? as u32);
    let tensors = link.params()?.into_iter().map(|raw| Tensor::borrowed(link, raw)).collect();
    Params::new(link, dtype, specs.into_iter().map(Arc::new).collect(), tensors)
}
