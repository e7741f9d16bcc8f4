//! SOAP: Adam in the eigenbases of Shampoo's factors L and R.
//!
//! G' = Q_L^T G Q_R, M and V are Adam's moments of G', W <- W - lr Q_L (M / (sqrt(V) + eps)) Q_R^T.

use gauntlet_plugin_api::prelude::*;
use update_rules::by_shape::{Config, SoapByShape};
use update_rules::check;
use update_rules::update_norms::{self, Change, is_due};

const ORTHOGONALITY: Metric =
    Metric::new("basis_deviation", "", "Largest element of |Q^T Q - I| over the eigenbases, every tenth step");
const FAILURES: Metric =
    Metric::new("basis_failures", "", "Eigenbases that a step could not refresh and left as they were");

/// The rule with its state.
pub struct Soap(SoapByShape);

impl Optimizer for Soap {
    const NAME: &'static str = "soap";
    const METRICS: &'static [Metric] = &update_norms::after::<9>(&[ORTHOGONALITY, FAILURES]);
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        config.check("")?;
        Ok(Self(SoapByShape::new(config, setup.params())?))
    }

    fn state_bytes(config: &Config, params: &Params) -> u64 {
        config.state_bytes(params)
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let batch = ctx.next_batch()?;
        let (loss, gradient) = ctx.loss_and_gradient(ctx.params(), &batch)?;
        let report = StepReport::new(loss).gradient_norm(check::finite_norm(&gradient)?);
        let (before, schedule) = (Change::before(ctx)?, ctx.schedule());
        let Some(failures) = self.0.step(ctx.params_mut(), &gradient, schedule)? else { return Ok(report) };
        let report = before.report(ctx.params(), report.metric(FAILURES.name, failures as f64))?;
        match is_due(ctx.step()) {
            true => Ok(report.metric(ORTHOGONALITY.name, self.0.deviation()?)),
            false => Ok(report),
        }
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

export_optimizer!(Soap);

#[cfg(test)]
mod tests;
