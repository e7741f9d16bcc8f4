//! Full Gauss-Newton (arXiv 2510.09378): N inner steps on a model of the loss linearized at theta, then a line search,
//! theta <- theta + alpha (phi - theta).

use gauntlet_plugin_api::prelude::*;
use update_rules::gauss_newton::{Config, GaussNewton, METRICS};

/// One block: the whole model.
pub struct FullGn(GaussNewton);

impl Optimizer for FullGn {
    const NAME: &'static str = "full-gn";
    const NEEDS: &'static [Capability] = GaussNewton::NEEDS;
    const METRICS: &'static [Metric] = METRICS;
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        GaussNewton::new(config, Structure::Full, setup).map(Self)
    }

    fn state_bytes(config: &Config, params: &Params) -> u64 {
        config.state_bytes(params)
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        self.0.step(ctx)
    }

    fn rule_of(&self, spec: &ParamSpec) -> String {
        self.0.rule_of(spec)
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        self.0.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.0.load(state)
    }
}

export_optimizer!(FullGn);

#[cfg(test)]
mod tests;
