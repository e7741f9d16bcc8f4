//! Shampoo: D = L^(-1/4) M R^(-1/4), W <- (1 - lr wd) W - lr D, with moving averages L of G G^T, R of G^T G, M of G.

use gauntlet_plugin_api::prelude::*;
use update_rules::shampoo::{Grafting, Preconditioned, Shampoo as Rule};
use update_rules::update_norms::{self, Change};
use update_rules::{blocks, check};

/// `[optimizer.config]` of `shampoo`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Peak step size; the run's schedule multiplies it.
    pub lr: f64,
    /// Decay rates of the momentum and of the factors, each in [0, 1).
    pub betas: [f64; 2],
    /// Added to the eigenvalues of a bias-corrected factor.
    pub eps: f64,
    /// Decoupled weight decay; it multiplies the step size.
    pub weight_decay: f64,
    /// Steps from one computation of the inverse roots to the next.
    pub precondition_frequency: u64,
    /// Matrices with a longer side are cut into blocks.
    pub max_precond_dim: usize,
    /// Each side of a matrix is multiplied by its factor to the power of minus this.
    pub exponent: f64,
    /// Where the length of a matrix's update comes from.
    pub grafting: Grafting,
    /// Added to the root of Adam's second moment.
    pub grafting_eps: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: [0.9, 0.99],
            eps: 1e-10,
            weight_decay: 0.0,
            precondition_frequency: 1,
            max_precond_dim: 1024,
            exponent: 0.25,
            grafting: Grafting::None,
            grafting_eps: 1e-8,
        }
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        check::positive("lr", self.lr)?;
        check::decay_rate("betas[0]", self.betas[0])?;
        check::decay_rate("betas[1]", self.betas[1])?;
        check::positive("eps", self.eps)?;
        check::not_negative("weight_decay", self.weight_decay)?;
        check::at_least("precondition_frequency", self.precondition_frequency, 1)?;
        check::at_least("max_precond_dim", self.max_precond_dim as u64, 1)?;
        check::positive("exponent", self.exponent)?;
        check::not_negative("grafting_eps", self.grafting_eps)
    }

    /// The rule at step `t`, from 1. The first step has roots too.
    fn rule(&self, t: u64) -> Rule {
        let Self { betas, eps, exponent, grafting_eps, .. } = *self;
        let refresh = t == 1 || t.is_multiple_of(self.precondition_frequency);
        Rule { betas, eps, exponent, grafting_eps, refresh, t }
    }
}

const FAILURES: Metric =
    Metric::new("root_failures", "", "Inverse roots that a step could not compute and left as they were");

/// Momentum, factors and roots, and the number t of steps.
pub struct Shampoo {
    config: Config,
    preconditioned: Vec<Preconditioned>,
    t: u64,
}

impl Optimizer for Shampoo {
    const NAME: &'static str = "shampoo";
    const METRICS: &'static [Metric] = &update_norms::after::<8>(&[FAILURES]);
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        config.check()?;
        let preconditioned = Preconditioned::all(setup.params(), config.max_precond_dim, config.grafting)?;
        Ok(Self { config, preconditioned, t: 0 })
    }

    fn state_bytes(config: &Config, params: &Params) -> u64 {
        Preconditioned::state_bytes(params, config.max_precond_dim, config.grafting)
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let batch = ctx.next_batch()?;
        let (loss, gradient) = ctx.loss_and_gradient(ctx.params(), &batch)?;
        let report = StepReport::new(loss).gradient_norm(check::finite_norm(&gradient)?);
        let before = Change::before(ctx)?;
        self.t += 1;
        let (mut directions, mut failures) = (vec![], 0);
        for part in &mut self.preconditioned {
            let (blocks, failed) = part.step(&self.config.rule(self.t), &gradient)?;
            directions.extend(blocks);
            failures += failed;
        }
        let lr = self.config.lr * ctx.schedule();
        let keep = 1.0 - lr * self.config.weight_decay;
        blocks::for_each(ctx.params_mut(), directions, |w, d| fused([w], [d], |[w], [d]| [keep * w - lr * d]))?;
        before.report(ctx.params(), report.metric(FAILURES.name, failures as f64))
    }

    fn rule_of(&self, spec: &ParamSpec) -> String {
        Preconditioned::rule_of(spec, self.config.max_precond_dim)
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        self.preconditioned.iter().try_for_each(|part| part.save(state))?;
        state.u64("t", self.t)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.preconditioned.iter_mut().try_for_each(|part| part.load(state))?;
        self.t = state.u64("t")?;
        Ok(())
    }
}

export_optimizer!(Shampoo);

#[cfg(test)]
mod tests;
