//! Muon: orthogonalised momentum for hidden matrices, AdamW for every other parameter.

use gauntlet_plugin_api::prelude::*;
use update_rules::by_role::{Config, MuonByRole};
use update_rules::update_norms::{self, Change};

/// Both rules with their state.
pub struct Muon(MuonByRole);

impl Optimizer for Muon {
    const NAME: &'static str = "muon";
    const METRICS: &'static [Metric] = &update_norms::METRICS;
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        config.check("")?;
        Ok(Self(MuonByRole::new(config, setup.params())?))
    }

    fn state_bytes(_: &Config, params: &Params) -> u64 {
        MuonByRole::state_bytes(params)
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let batch = ctx.next_batch()?;
        let (loss, mut gradient) = ctx.loss_and_gradient(ctx.params(), &batch)?;
        let report = StepReport::new(loss).gradient_norm(gradient.norm()?);
        let (before, schedule) = (Change::before(ctx)?, ctx.schedule());
        self.0.step(ctx.params_mut(), &mut gradient, schedule)?;
        before.report(ctx.params(), report)
    }

    fn rule_of(&self, spec: &ParamSpec) -> String {
        self.0.rule_of(spec).into()
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        self.0.save(state, "")
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.0.load(state, "")
    }
}

export_optimizer!(Muon);

#[cfg(test)]
mod tests;
