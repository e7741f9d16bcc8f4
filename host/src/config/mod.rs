//! The one strict configuration of a run: defaults < files < environment < `--set`, every key checked at every depth.
//!
//! A layer wins over those before it key by key; what counts is the merged result. [`load`] reports everything that is
//! wrong with it at once, a line each: layer, key, found, expected, hint. The tables `[model]` and `[optimizer.config]`
//! belong to the model and to the plugin; they pass through here as they are, and their owners check them with
//! [`check::strict`] or [`check::validate`], which give messages of the same form.

pub mod check;
pub mod describe;
mod expected;
pub mod layers;
mod lines;
pub mod reference;
mod rules;
mod schema;
mod sections;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use layers::{ENV_PREFIX, MAX_FILE_LEN, Origins, RESERVED_ENV};
pub use lines::{inline, lines};
pub use schema::{known_keys, with_section};
pub use sections::{
    Checkpoint, Curvature, Data, Device, Dtype, Ema, Eval, Metrics, OnError, OnSaveError, Optimizer, Order, Paths,
    Plugins, Run, Schedule, ScheduleKind, ShardPath, Train, Weighted,
};

use crate::error::{Exit, Fault, Result};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the run lives and what it runs on.
    #[serde(default)]
    pub run: Run,
    /// The model's own keys, which the model checks.
    #[serde(default)]
    pub model: Map<String, Value>,
    /// The token shards and how batches are drawn from them.
    pub data: Data,
    /// The plugin.
    pub optimizer: Optimizer,
    /// The multiplier of the learning rate.
    #[serde(default)]
    pub schedule: Schedule,
    /// How a step is computed, when the run ends, and what happens on errors.
    #[serde(default)]
    pub train: Train,
    /// The moving average of the parameters.
    #[serde(default)]
    pub ema: Ema,
    /// The validation loss during the run.
    #[serde(default)]
    pub eval: Eval,
    /// What of a run survives its process.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// Memory of curvature calls.
    #[serde(default)]
    pub curvature: Curvature,
    /// Where plugins are found.
    #[serde(default)]
    pub plugins: Plugins,
    /// The run's metrics for Prometheus.
    #[serde(default)]
    pub metrics: Metrics,
}

/// A configuration, and for each of its values the layer that it came from (`default` where none set it).
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Their layers.
    pub origins: Origins,
}

/// Merges and checks all layers. `env` may hold any variables; [`environment`] gives the process's.
///
/// # Errors
/// Every problem found, never an empty list: [`Exit::Usage`], or [`Exit::Missing`] for a file that cannot be read.
pub fn load(
    files: &[PathBuf],
    sets: &[String],
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Vec<Fault>> {
    let layers::Merged { mut value, mut origins, faults } = layers::merge(files, sets, env)?;
    let schema = schema();
    if let (Value::Object(table), Value::Object(schema)) = (&mut value, &schema) {
        for (section, _) in schema::properties(schema) {
            table.entry(section.clone()).or_insert_with(|| Value::Object(Map::new()));
        }
    }
    let mut problems = check::validate(&schema, &value, "");
    problems.extend(rules::texts(&value));
    problems.extend(conflicts(&value, &problems));
    let problems = problems.iter().map(|problem| problem.fault(&origins));
    let faults: Vec<Fault> = faults.into_iter().chain(problems).collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let config: Config = check::strict(&value, "", &origins)?;
    origins.fill(&serde_json::to_value(&config).unwrap_or_default(), "", "default");
    Ok(Loaded { config, origins })
}

/// What does not go together among the keys that have no problem of their own, and are not what a mistyped one was meant
/// to be; the others count as not set.
fn conflicts(value: &Value, problems: &[check::Problem]) -> Vec<check::Problem> {
    let mut sound = value.clone();
    for problem in problems {
        remove(&mut sound, problem.key.split('[').next().unwrap_or_default());
    }
    // The two keys without a default, which no rule is about.
    for (section, key) in [("data", "train"), ("optimizer", "plugin")] {
        if let Some(table) = sound.as_object_mut() {
            let table = table.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Some(table) = table.as_object_mut() {
                table.entry(key).or_insert_with(|| "any".into());
            }
        }
    }
    let Ok(config) = Config::deserialize(&sound) else { return Vec::new() };
    let about = |problem: &check::Problem, key: &str| {
        let inside =
            |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with(['.', '[']));
        let meant = problem.hint.as_ref().is_some_and(|hint| hint.contains(&format!("`{key}`")));
        problem.key == key || inside(&problem.key, key) || inside(key, &problem.key) || meant
    };
    let is_sound = |key: &&str| !problems.iter().any(|problem| about(problem, key));
    let conflicts = rules::between_keys(&config).into_iter();
    conflicts.filter(|conflict| conflict.keys.iter().all(is_sound)).map(|conflict| conflict.problem).collect()
}

/// Removes the value of a dotted key.
fn remove(value: &mut Value, key: &str) {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let table = table.split('.').filter(|name| !name.is_empty()).try_fold(value, |value, name| value.get_mut(name));
    if let Some(Value::Object(table)) = table {
        table.remove(name);
    }
}

/// The table of all layers merged and unchecked, and where its values came from.
///
/// # Errors
/// Every layer that cannot be read, as in [`load`].
pub fn merged(
    files: &[PathBuf],
    sets: &[String],
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<(Value, Origins), Vec<Fault>> {
    layers::merge(files, sets, env).map(|merged| (merged.value, merged.origins))
}

/// The process's environment variables that begin with [`ENV_PREFIX`]; none in a program that runs with another user's
/// rights than its caller's.
pub fn environment() -> Vec<(String, String)> {
    if rustix::process::geteuid() != rustix::process::getuid() {
        return Vec::new();
    }
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.to_str()?.to_owned(), value.to_string_lossy().into_owned()))
    };
    std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect()
}

/// The JSON Schema of a configuration.
pub fn schema() -> Value {
    schemars::schema_for!(Config).to_value()
}

/// The configuration as a TOML file that loads to the same values, defaults written out; options that are off are absent.
///
/// # Errors
/// [`Exit::Internal`] when a table of the model or the plugin holds a `null`, which TOML cannot express.
pub fn to_resolved_toml(config: &Config) -> Result<String> {
    toml::to_string(config).map_err(|error| {
        Fault::new(Exit::Internal, format!("cannot write the configuration as TOML: {}", error.to_string().trim()))
    })
}
