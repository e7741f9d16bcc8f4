//! Norms of a step's update by the parameters' roles, as metrics of every tenth step.

use gauntlet_plugin_api::prelude::*;

/// Steps from one measurement to the next: each copies the parameters and reads them twice.
pub const EVERY: u64 = 10;

const ROLES: [Role; 5] = [Role::Embedding, Role::Hidden, Role::Head, Role::Norm, Role::Bias];

/// The metrics, in the order of the roles.
pub const UPDATE_NORMS: [Metric; 5] = [
    Metric::new("update_norm_embedding", "", "Norm of the change of the token embedding, every tenth step"),
    Metric::new("update_norm_hidden", "", "Norm of the change of all hidden matrices, every tenth step"),
    Metric::new("update_norm_head", "", "Norm of the change of the output head, every tenth step"),
    Metric::new("update_norm_norm", "", "Norm of the change of all scales of normalisations, every tenth step"),
    Metric::new("update_norm_bias", "", "Norm of the change of all additive offsets, every tenth step"),
];

/// Whether diagnostics are due at a step, counted from 0.
pub fn is_due(step: u64) -> bool {
    step.is_multiple_of(EVERY)
}

/// The parameters before a step at which diagnostics are due.
#[derive(Debug)]
pub struct UpdateNorms(Option<Params>);

impl UpdateNorms {
    /// Keeps a copy of the run's parameters where the step is due.
    pub fn before(ctx: &StepContext) -> Result<Self> {
        Ok(Self(if is_due(ctx.step()) { Some(ctx.params().try_clone()?) } else { None }))
    }

    /// Adds the norm of the change, decay included, for every role that the model has.
    pub fn report(self, after: &Params, mut report: StepReport) -> Result<StepReport> {
        let Some(mut change) = self.0 else { return Ok(report) };
        change.axpy_(-1.0, after)?;
        for (role, metric) in ROLES.into_iter().zip(UPDATE_NORMS) {
            let of_role = change.role(role);
            if !of_role.is_empty() {
                report = report.metric(metric.name, of_role.norm()?);
            }
        }
        Ok(report)
    }
}
