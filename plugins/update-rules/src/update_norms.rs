//! Norms of an update, as metrics: of the whole and of the parameters of each role.

use gauntlet_plugin_api::{Metric, Params, Result, Role, StepContext, StepReport};

const UPDATE_NORM: Metric = Metric::new("update_norm", "", "Norm of the update");
const PARAM_NORM: Metric = Metric::new("param_norm", "", "Norm of the parameters before the update");
const EMBEDDING: Metric = Metric::new("update_norm_embedding", "", "Norm of the update of the token embedding");
const HIDDEN: Metric = Metric::new("update_norm_hidden", "", "Norm of the update of the matrices inside blocks");
const HEAD: Metric = Metric::new("update_norm_head", "", "Norm of the update of the output head");
const NORM: Metric = Metric::new("update_norm_norm", "", "Norm of the update of the scales of norms");
const BIAS: Metric = Metric::new("update_norm_bias", "", "Norm of the update of the biases");

const ROLES: [(Metric, Role); 5] =
    [(EMBEDDING, Role::Embedding), (HIDDEN, Role::Hidden), (HEAD, Role::Head), (NORM, Role::Norm), (BIAS, Role::Bias)];

/// Norms of the parameters, of the update, and of the update of each role's parameters.
pub const METRICS: [Metric; 7] = [UPDATE_NORM, PARAM_NORM, EMBEDDING, HIDDEN, HEAD, NORM, BIAS];

/// [`METRICS`] after a plugin's own; `N` is the number of all.
pub const fn after<const N: usize>(own: &[Metric]) -> [Metric; N] {
    assert!(N == own.len() + METRICS.len());
    let mut all = [UPDATE_NORM; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < own.len() { own[i] } else { METRICS[i - own.len()] };
        i += 1;
    }
    all
}

/// The metrics of an update of `size` times a direction; roles without a parameter are left out.
pub fn metrics(params: &Params, direction: &Params, size: f64) -> Result<Vec<(&'static str, f64)>> {
    let mut metrics = vec![(PARAM_NORM.name, params.norm()?)];
    metrics.extend(of_direction(direction, size)?);
    Ok(metrics)
}

fn of_direction(direction: &Params, size: f64) -> Result<Vec<(&'static str, f64)>> {
    let each = direction.norms()?;
    let sum = |role: Option<Role>| -> f64 {
        let chosen = direction.specs().iter().zip(&each).filter(|(spec, _)| role.is_none_or(|role| spec.role == role));
        size * chosen.map(|(_, norm)| norm * norm).sum::<f64>().sqrt()
    };
    let present = |role: &Role| direction.specs().iter().any(|spec| spec.role == *role);
    let roles = ROLES.iter().filter(|(_, role)| present(role));
    let whole = std::iter::once((UPDATE_NORM.name, sum(None)));
    Ok(whole.chain(roles.map(|(metric, role)| (metric.name, sum(Some(*role))))).collect())
}

/// Steps from one measurement of a [`Change`] to the next: each copies the parameters and reads them twice.
const EVERY: u64 = 10;

/// Whether a measurement is due at a step, counted from 0.
pub fn is_due(step: u64) -> bool {
    step.is_multiple_of(EVERY)
}

/// The metrics of rules whose update is never a list of tensors: from the parameters before and after every tenth step.
#[derive(Debug)]
pub struct Change(Option<Params>);

impl Change {
    /// Keeps a copy of the run's parameters where the step is due.
    pub fn before(ctx: &StepContext) -> Result<Self> {
        Ok(Self(if is_due(ctx.step()) { Some(ctx.params().try_clone()?) } else { None }))
    }

    /// Adds the metrics of the change, weight decay included, to a report.
    pub fn report(self, after: &Params, mut report: StepReport) -> Result<StepReport> {
        let Some(mut change) = self.0 else { return Ok(report) };
        report = report.metric(PARAM_NORM.name, change.norm()?);
        change.axpy_(-1.0, after)?;
        let metrics = of_direction(&change, 1.0)?.into_iter();
        Ok(metrics.fold(report, |report, (name, value)| report.metric(name, value)))
    }
}
