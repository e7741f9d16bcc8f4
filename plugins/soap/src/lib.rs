//! SOAP: Adam in the eigenbases of Shampoo's factors L and R.
//!
//! G' = Q_L^T G Q_R, M and V are Adam's moments of G', W <- W - lr Q_L (M / (sqrt(V) + eps)) Q_R^T.

use gauntlet_plugin_api::prelude::*;
use update_rules::check;
use update_rules::soap::{Rotated, Sides, Soap as Rule};
use update_rules::update_norms::{self, Change, is_due};

/// `[optimizer.config]` of `soap`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Peak step size; the run's schedule multiplies it.
    pub lr: f64,
    /// Decay rates of the first and the second moment, each in [0, 1).
    pub betas: [f64; 2],
    /// Decay rate of the factors, in [0, 1); -1 takes the second of `betas`.
    pub shampoo_beta: f64,
    /// Added to the root of the second moment, which is not bias-corrected.
    pub eps: f64,
    /// Decoupled weight decay; it multiplies the step size and acts after the update.
    pub weight_decay: f64,
    /// Steps from one refresh of the eigenbases to the next.
    pub precondition_frequency: u64,
    /// A side of a matrix that is longer than this has no factor.
    pub max_precond_dim: usize,
    /// Whether vectors have a factor; Adam's rule otherwise.
    pub precondition_1d: bool,
    /// Whether each update is divided by its root mean square.
    pub normalize_grads: bool,
    /// Whether the step size is bias-corrected.
    pub correct_bias: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lr: 3e-3,
            betas: [0.95, 0.95],
            shampoo_beta: -1.0,
            eps: 1e-8,
            weight_decay: 0.01,
            precondition_frequency: 10,
            max_precond_dim: 10_000,
            precondition_1d: false,
            normalize_grads: false,
            correct_bias: true,
        }
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        check::positive("lr", self.lr)?;
        check::decay_rate("betas[0]", self.betas[0])?;
        check::decay_rate("betas[1]", self.betas[1])?;
        if self.shampoo_beta != -1.0 {
            check::decay_rate("shampoo_beta", self.shampoo_beta)?;
        }
        check::not_negative("eps", self.eps)?;
        check::not_negative("weight_decay", self.weight_decay)?;
        check::at_least("precondition_frequency", self.precondition_frequency, 1)
    }

    fn shampoo_beta(&self) -> f64 {
        if self.shampoo_beta == -1.0 { self.betas[1] } else { self.shampoo_beta }
    }

    fn sides(&self) -> Sides {
        Sides { max_precond_dim: self.max_precond_dim, precondition_1d: self.precondition_1d }
    }

    /// The rule at step `t`, from 1.
    fn rule(&self, t: u64, schedule: f64) -> Rule {
        let Self { lr, betas, eps, weight_decay, normalize_grads, correct_bias, .. } = *self;
        let (shampoo_beta, refresh) = (self.shampoo_beta(), t.is_multiple_of(self.precondition_frequency));
        let lr = lr * schedule;
        Rule { lr, betas, shampoo_beta, eps, weight_decay, normalize_grads, correct_bias, refresh, t }
    }
}

const ORTHOGONALITY: Metric =
    Metric::new("basis_deviation", "", "Largest element of |Q^T Q - I| over the eigenbases, every tenth step");
const FAILURES: Metric =
    Metric::new("basis_failures", "", "Eigenbases that a step could not refresh and left as they were");

/// Factors, bases and moments, and the number t of updates; `None` before the first step, which only makes the bases.
pub struct Soap {
    config: Config,
    rotated: Vec<Rotated>,
    t: Option<u64>,
}

impl Optimizer for Soap {
    const NAME: &'static str = "soap";
    const METRICS: &'static [Metric] = &update_norms::after::<9>(&[ORTHOGONALITY, FAILURES]);
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        config.check()?;
        Ok(Self { rotated: Rotated::all(setup.params(), config.sides())?, config, t: None })
    }

    fn state_bytes(config: &Config, params: &Params) -> u64 {
        Rotated::state_bytes(params, config.sides())
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let batch = ctx.next_batch()?;
        let (loss, gradient) = ctx.loss_and_gradient(ctx.params(), &batch)?;
        let report = StepReport::new(loss).gradient_norm(check::finite_norm(&gradient)?);
        let Some(t) = self.t else {
            self.rotated.iter_mut().try_for_each(|part| part.begin(&gradient, self.config.shampoo_beta()))?;
            self.t = Some(0);
            return Ok(report);
        };
        let (rule, before) = (self.config.rule(t + 1, ctx.schedule()), Change::before(ctx)?);
        let mut failures = 0;
        for part in &mut self.rotated {
            failures += rule.step(ctx.params_mut(), part, &gradient)?;
        }
        self.t = Some(rule.t);
        let report = before.report(ctx.params(), report.metric(FAILURES.name, failures as f64))?;
        match is_due(ctx.step()) {
            true => Ok(report.metric(ORTHOGONALITY.name, self.deviation()?)),
            false => Ok(report),
        }
    }

    fn rule_of(&self, spec: &ParamSpec) -> String {
        self.config.sides().rule_of(spec).into()
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        self.rotated.iter().try_for_each(|part| part.save(state))?;
        self.t.map_or(Ok(()), |t| state.u64("t", t))
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.rotated.iter_mut().try_for_each(|part| part.load(state))?;
        self.t = if state.has("t") { Some(state.u64("t")?) } else { None };
        Ok(())
    }
}

impl Soap {
    fn deviation(&self) -> Result<f64> {
        self.rotated.iter().try_fold(0.0, |most: f64, part| Ok(most.max(part.deviation()?)))
    }
}

export_optimizer!(Soap);

#[cfg(test)]
mod tests;
