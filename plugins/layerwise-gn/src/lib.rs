//! Layerwise Gauss-Newton (arXiv 2510.09378): an independent subproblem for each block l, its model linearized at theta
//! with all other blocks held there; all solutions together go into one line search, theta <- theta + alpha (phi - theta).

use gauntlet_plugin_api::prelude::*;
use update_rules::gauss_newton::{self, GaussNewton, METRICS};

/// `[optimizer.config]` of `layerwise-gn`: that of `full-gn`, and the blocks.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(flatten)]
    shared: gauss_newton::Config,
    /// Names of the parameters of each block; when absent the blocks are the embedding, each transformer block (the last
    /// one with the final norm), and the head.
    #[serde(default)]
    partition: Option<Vec<Vec<String>>>,
}

/// A block for each layer.
pub struct LayerwiseGn(GaussNewton);

impl Optimizer for LayerwiseGn {
    const NAME: &'static str = "layerwise-gn";
    const NEEDS: &'static [Capability] = GaussNewton::NEEDS;
    const METRICS: &'static [Metric] = METRICS;
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        let structure = config.partition.map_or(Structure::Layerwise, Structure::Partition);
        GaussNewton::new(config.shared, structure, setup).map(Self)
    }

    fn state_bytes(config: &Config, params: &Params) -> u64 {
        config.shared.state_bytes(params)
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

export_optimizer!(LayerwiseGn);

#[cfg(test)]
mod tests;
