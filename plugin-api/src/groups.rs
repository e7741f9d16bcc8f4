//! Settings for some of the parameters, chosen by role or name: `[[optimizer.config.groups]]`.

use crate::error::{Error, Result};
use crate::params::Params;
use crate::spec::{ParamSpec, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Parameters chosen by role or by exact name, and what they get instead of the general settings.
///
/// ```toml
/// [[optimizer.config.groups]]
/// roles = ["norm", "bias"]
/// set = { weight_decay = 0.0 }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group<T> {
    /// Roles of the parameters.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Exact names of the parameters.
    #[serde(default)]
    pub names: Vec<String>,
    /// Their settings.
    pub set: T,
}

impl<T> Group<T> {
    /// Whether a parameter belongs to the group.
    pub fn holds(&self, spec: &ParamSpec) -> bool {
        self.roles.contains(&spec.role) || self.names.contains(&spec.name)
    }
}

/// The group of a parameter: the first that holds it, or `None` for the general settings.
pub fn find<T>(groups: &[Group<T>], spec: &ParamSpec) -> Option<usize> {
    groups.iter().position(|group| group.holds(spec))
}

/// Checks groups against the parameters, and gives those that hold any, `None` first.
///
/// # Errors
///
/// A group that holds no parameter, or a name that the model does not have: most likely a mistake.
pub fn resolve<T>(groups: &[Group<T>], params: &Params) -> Result<Vec<Option<usize>>> {
    let specs = params.specs();
    for (i, group) in groups.iter().enumerate() {
        if let Some(name) = group.names.iter().find(|name| specs.iter().all(|spec| spec.name != **name)) {
            return Err(Error::config(format!("groups[{i}].names"), format!("no parameter is named `{name}`")));
        }
        if !specs.is_empty() && !specs.iter().any(|spec| group.holds(spec)) {
            return Err(Error::config(format!("groups[{i}]"), "holds no parameter"));
        }
    }
    let present: BTreeSet<_> = specs.iter().map(|spec| find(groups, spec)).collect();
    Ok(present.into_iter().collect())
}
