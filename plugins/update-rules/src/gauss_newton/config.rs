//! `[optimizer.config]` of full-gn and layerwise-gn.

use crate::by_role;
use crate::by_shape;
use crate::check;
use crate::inner::{AdamWConfig, InnerConfig, SgdConfig};
use crate::inner_schedule::{Course, InnerSchedule, OuterAt};
use crate::newton_cg;
use gauntlet_plugin_api::prelude::*;

/// `[optimizer.config]` of full-gn and layerwise-gn.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What minimises the model: a rule's name for its defaults, or one table such as `muon = { lr = 0.01 }`.
    #[serde(default)]
    pub inner: Inner,
    /// Sequences of one inner step; it divides `data.batch_size`.
    pub inner_batch_size: usize,
    /// What is minimised within a step.
    #[serde(default)]
    pub model: Model,
    /// Course of the inner rule's step size over the inner steps of one step.
    #[serde(default)]
    pub inner_schedule: Course,
    /// Inner steps over which the step size rises from 0.1 of its peak, in every step.
    #[serde(default)]
    pub inner_warmup_steps: usize,
    /// Share of its peak at which the inner cosine would end, in [0, 1].
    #[serde(default)]
    pub inner_final_fraction: f64,
    /// Whether the run's schedule is read once a step, or at the fraction of the step that an inner step begins at.
    #[serde(default)]
    pub outer_at: OuterAt,
    /// Largest norm of an inner gradient; no clipping when absent.
    #[serde(default)]
    pub clip_norm: Option<f64>,
    /// Parts whose norms are clipped apart; when absent `per_optimizer_group` in full-gn, `per_block` in layerwise-gn.
    #[serde(default)]
    pub clip: Option<Clip>,
    /// What a step takes over from the last one.
    #[serde(default)]
    pub warm_start: WarmStart,
    /// lambda of a penalty lambda / 2 |delta|^2 on the model, lambda >= 0.
    #[serde(default)]
    pub tikhonov: f64,
    /// Whether a line search on data of its own chooses the step size; without it the step size is 1.
    #[serde(default = "yes")]
    pub line_search: bool,
    /// Step sizes 2^(-i/2), i = 0, 1, ..., that the line search tries.
    #[serde(default = "ten")]
    pub line_search_candidates: usize,
    /// Minibatches of the line search; when absent as many as there are inner steps.
    #[serde(default)]
    pub line_search_batches: Option<usize>,
    /// Where its data come from.
    #[serde(default)]
    pub line_search_stream: Stream,
    /// Whether a step is rejected when no step size lowers the loss of the line search's data.
    #[serde(default)]
    pub line_search_reject: bool,
}

/// What is minimised within a step, with delta the way from the parameters at its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// L + <g0, J delta> + 1/2 <J delta, H J delta>: Gauss-Newton.
    #[default]
    Quadratic,
    /// L(z0 + J delta): Gauss-Newton prox-linear.
    ProxLinear,
    /// L + <g0, J delta>: no curvature. What remains of a step shows what curvature adds to it.
    Linear,
    /// L(theta + delta), nothing linearized: N steps of the inner rule count as one. What Gauss-Newton can hope for.
    Loss,
}

/// What a step takes over from the last one: the iterate, where that ended before its line search, and the inner
/// optimizer's state. Without them a step starts at the parameters, and with a fresh inner optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WarmStart {
    /// Iterate and state.
    #[default]
    Both,
    /// The iterate alone.
    Iterate,
    /// The state alone.
    State,
    /// Nothing.
    None,
}

/// Parts of the gradient that are clipped apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// {embedding, head} and {everything else}.
    PerOptimizerGroup,
    /// Each block of the structure.
    PerBlock,
    /// The whole gradient.
    Global,
}

/// Where the line search's data come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// A stream of its own, so that the data of the solve are those of every other optimizer.
    #[default]
    Own,
    /// The stream of the steps, after the data of the solve.
    Shared,
}

/// A solver by its name, with its defaults, or with settings.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Inner {
    /// A solver with its defaults.
    Named(Name),
    /// A solver with settings.
    Set(Solver),
}

/// Solvers that have defaults for everything, as in [`Solver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "names without descriptions are one choice in the schema, so that a mistake lists them all"
)]
pub enum Name {
    Muon,
    Soap,
    AdamW,
    Cg,
}

/// A solver with its settings.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Solver {
    /// Muon for hidden matrices, AdamW for the rest.
    Muon(by_role::Config),
    /// SOAP for all parameters. Its first inner step of all makes the bases and moves nothing.
    Soap(by_shape::Config),
    /// AdamW for all parameters.
    AdamW(AdamWConfig),
    /// Gradient descent with heavy-ball momentum.
    Sgd(SgdConfig),
    /// Conjugate gradients on the whole batch of the step. The run's schedule multiplies the solution.
    Cg(newton_cg::Config),
}

impl Default for Inner {
    fn default() -> Self {
        Self::Named(Name::Muon)
    }
}

impl Inner {
    /// The solver with its settings.
    pub fn solver(&self) -> Solver {
        match self {
            Self::Named(Name::Muon) => Solver::Muon(by_role::Config::default()),
            Self::Named(Name::Soap) => Solver::Soap(by_shape::Config::default()),
            Self::Named(Name::AdamW) => Solver::AdamW(AdamWConfig::default()),
            Self::Named(Name::Cg) => Solver::Cg(newton_cg::Config::default()),
            Self::Set(solver) => solver.clone(),
        }
    }
}

impl Solver {
    /// The solver as an update rule; conjugate gradients are none.
    pub fn rule(&self) -> Result<InnerConfig, &newton_cg::Config> {
        match self {
            Self::Muon(config) => Ok(InnerConfig::Muon(config.clone())),
            Self::Soap(config) => Ok(InnerConfig::Soap(config.clone())),
            Self::AdamW(config) => Ok(InnerConfig::AdamW(config.clone())),
            Self::Sgd(config) => Ok(InnerConfig::Sgd(config.clone())),
            Self::Cg(config) => Err(config),
        }
    }
}

impl Config {
    /// Inner steps of one step, N.
    ///
    /// # Errors
    ///
    /// `inner_batch_size` does not divide the batch.
    pub fn inner_steps(&self, batch_size: usize) -> Result<usize> {
        let size = self.inner_batch_size;
        match size > 0 && size <= batch_size && batch_size.is_multiple_of(size) {
            true => Ok(batch_size / size),
            false => {
                let message = format!("must divide `data.batch_size` = {batch_size}, got {size}");
                Err(Error::config("inner_batch_size", message))
            }
        }
    }

    /// Checks ranges and combinations.
    pub fn check(&self, setup: &Setup) -> Result<()> {
        let inner_steps = self.inner_steps(setup.batch_size()?)?;
        let solver = self.inner.solver();
        match solver.rule() {
            Ok(rule) => self.check_rule(&rule, inner_steps)?,
            Err(cg) => {
                cg.check("inner.cg.", setup)?;
                self.check_cg()?;
            }
        }
        check::not_negative("tikhonov", self.tikhonov)?;
        check::positive("clip_norm", self.clip_norm.unwrap_or(1.0))?;
        if self.clip.is_some() && self.clip_norm.is_none() {
            return Err(Error::config("clip", "has no effect without `clip_norm`"));
        }
        check::between("line_search_candidates", self.line_search_candidates, 1, 100)?;
        check::between("line_search_batches", self.line_search_batches.unwrap_or(1), 1, 1 << 20)
    }

    fn check_rule(&self, rule: &InnerConfig, inner_steps: usize) -> Result<()> {
        rule.check("inner.")?;
        if let InnerConfig::Muon(by_role::Config { clip_norm: Some(_), .. }) = rule {
            return Err(Error::config("inner.muon.clip_norm", "is set by `clip_norm` of the plugin"));
        }
        check::share("inner_final_fraction", self.inner_final_fraction)?;
        check::between("inner_warmup_steps", self.inner_warmup_steps, 0, inner_steps - 1)
    }

    /// Conjugate gradients take no steps of a rule: what belongs to those would be ignored.
    fn check_cg(&self) -> Result<()> {
        let ignored = [
            ("model", self.model != Model::Quadratic, "must be \"quadratic\" with conjugate gradients"),
            ("inner_schedule", self.inner_schedule != Course::Constant, "has no effect with conjugate gradients"),
            ("inner_warmup_steps", self.inner_warmup_steps > 0, "has no effect with conjugate gradients"),
            ("inner_final_fraction", self.inner_final_fraction != 0.0, "has no effect with conjugate gradients"),
            ("clip_norm", self.clip_norm.is_some(), "has no effect with conjugate gradients"),
            (
                "warm_start",
                !matches!(self.warm_start, WarmStart::Both | WarmStart::None),
                "must be \"both\" or \"none\" with conjugate gradients",
            ),
            ("tikhonov", self.tikhonov != 0.0, "is `inner.cg.damping` with conjugate gradients"),
        ];
        match ignored.into_iter().find(|(_, set, _)| *set) {
            Some((key, _, message)) => Err(Error::config(key, message)),
            None => Ok(()),
        }
    }

    /// The inner schedule.
    pub fn schedule(&self) -> InnerSchedule {
        InnerSchedule {
            course: self.inner_schedule,
            warmup_steps: self.inner_warmup_steps,
            final_fraction: self.inner_final_fraction,
            outer_at: self.outer_at,
        }
    }

    /// Bytes of the tensors that the solver of [`super::GaussNewton`] holds.
    pub fn state_bytes(&self, params: &Params) -> u64 {
        let solver = match self.inner.solver().rule() {
            Ok(rule) => rule.state_bytes(params),
            Err(cg) => cg.state_bytes(params),
        };
        params.bytes() + solver
    }
}

fn yes() -> bool {
    true
}

fn ten() -> usize {
    10
}
