//! Norms of an update, as metrics: of the whole and of the parameters of each role.

use gauntlet_plugin_api::{Metric, Params, Result, Role};

/// Norm of the whole update, and of the parameters.
pub const UPDATE_NORM: Metric = Metric::new("update_norm", "", "Norm of the update");
/// Norm of the parameters before the update.
pub const PARAM_NORM: Metric = Metric::new("param_norm", "", "Norm of the parameters before the update");
/// Norm of the update of token embeddings.
pub const EMBEDDING: Metric = Metric::new("update_norm_embedding", "", "Norm of the update of the token embedding");
/// Norm of the update of hidden matrices.
pub const HIDDEN: Metric = Metric::new("update_norm_hidden", "", "Norm of the update of the matrices inside blocks");
/// Norm of the update of the head.
pub const HEAD: Metric = Metric::new("update_norm_head", "", "Norm of the update of the output head");
/// Norm of the update of scales of norms.
pub const NORM: Metric = Metric::new("update_norm_norm", "", "Norm of the update of the scales of norms");
/// Norm of the update of biases.
pub const BIAS: Metric = Metric::new("update_norm_bias", "", "Norm of the update of the biases");

const ROLES: [(Metric, Role); 5] =
    [(EMBEDDING, Role::Embedding), (HIDDEN, Role::Hidden), (HEAD, Role::Head), (NORM, Role::Norm), (BIAS, Role::Bias)];

/// The metrics of an update of `size` times a direction; roles without a parameter are left out.
pub fn metrics(params: &Params, direction: &Params, size: f64) -> Result<Vec<(&'static str, f64)>> {
    let each = direction.norms()?;
    let sum = |role: Option<Role>| -> f64 {
        let chosen = direction.specs().iter().zip(&each).filter(|(spec, _)| role.is_none_or(|role| spec.role == role));
        size * chosen.map(|(_, norm)| norm * norm).sum::<f64>().sqrt()
    };
    let mut metrics = vec![(PARAM_NORM.name, params.norm()?), (UPDATE_NORM.name, sum(None))];
    let present = |role: &Role| direction.specs().iter().any(|spec| spec.role == *role);
    let roles = ROLES.iter().filter(|(_, role)| present(role));
    metrics.extend(roles.map(|(metric, role)| (metric.name, sum(Some(*role)))));
    Ok(metrics)
}
