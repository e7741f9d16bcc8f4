//! What a plugin says about itself, as text that crosses the boundary.

use crate::optimizer::Optimizer;
use gauntlet_plugin_abi::Capability;
use serde::{Deserialize, Serialize};

/// A plugin's description of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Kebab-case name.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// Version of the interface it was built against.
    pub abi: String,
    /// Oldest minor version of a host that it can do with.
    #[serde(default)]
    pub min_host_minor: u32,
    /// Capabilities that it cannot do without.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// JSON Schema of its configuration.
    #[serde(default)]
    pub schema: serde_json::Value,
    /// Metrics it reports.
    #[serde(default)]
    pub metrics: Vec<MetricInfo>,
    /// Version of the layout of its saved state.
    #[serde(default)]
    pub state_version: u32,
    /// Whether it follows the run's schedule.
    #[serde(default)]
    pub uses_schedule: bool,
    /// Questions that it answers beside its steps: [`RULES`].
    #[serde(default)]
    pub answers: Vec<String>,
}

/// The question which rule each parameter follows. The host asks in the `extra` of a call of `step`, `{"ask": "rules"}`,
/// which is then no step; the answer is the report's `extra`, `{"rules": [...]}`, one text a parameter in their order.
pub const RULES: &str = "rules";

/// What a host asks in the `extra` of a call of `step`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub ask: String,
}

/// What a plugin answers in the `extra` of a report.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rules {
    pub rules: Vec<String>,
}

/// A capability by number, and by the name that the plugin knows it under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The number.
    pub code: u32,
    /// The name.
    pub name: String,
}

/// A declared metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricInfo {
    /// Snake-case name.
    pub name: String,
    /// Unit; empty for a plain number.
    pub unit: String,
    /// One sentence.
    pub help: String,
}

impl Metadata {
    /// The description of an optimizer in a crate of a given version.
    pub fn of<O: Optimizer>(version: &str) -> Self {
        let need = |what: &Capability| Need { code: what.0, name: what.name() };
        let metric = |metric: &crate::Metric| MetricInfo {
            name: metric.name.into(),
            unit: metric.unit.into(),
            help: metric.help.into(),
        };
        Self {
            name: O::NAME.into(),
            version: version.into(),
            abi: gauntlet_plugin_abi::VERSION.into(),
            min_host_minor: 0,
            needs: O::NEEDS.iter().map(need).collect(),
            schema: schemars::schema_for!(O::Config).to_value(),
            metrics: O::METRICS.iter().map(metric).collect(),
            state_version: O::STATE_VERSION,
            uses_schedule: O::USES_SCHEDULE,
            answers: vec![RULES.into()],
        }
    }
}
