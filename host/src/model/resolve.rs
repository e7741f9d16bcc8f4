//! The section `[model]` as a file writes it: a preset, and the keys that differ from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::spec::{ModelConfig, Violation};
use crate::config::Origins;
use crate::config::check::{self, Problem};
use crate::error::Fault;

/// The keys of `[model]`: all of [`ModelConfig`], whose defaults come from the preset.
#[derive(Debug, JsonSchema)]
#[allow(dead_code, reason = "only its schema is used: serde does not refuse unknown keys through `flatten`")]
pub struct ModelSection {
    /// Where the values come from that the section does not set.
    #[serde(default)]
    preset: Preset,
    #[serde(flatten)]
    changes: ModelConfig,
}

/// Names of [`ModelConfig::preset`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
enum Preset {
    /// Bytes, about a million parameters.
    #[default]
    #[serde(rename = "tiny")]
    Tiny,
    /// The study's smaller model.
    #[serde(rename = "paper-45m")]
    Paper45m,
    /// The study's larger model.
    #[serde(rename = "paper-150m")]
    Paper150m,
}

impl ModelConfig {
    /// The preset of a section that names none.
    pub const DEFAULT_PRESET: &str = "tiny";

    /// Reads the section `[model]`: its preset (`tiny` when absent) overlaid with its keys.
    ///
    /// # Errors
    /// Every problem found, each [`Exit::Usage`](crate::error::Exit::Usage) with layer, key, found, expected and hint.
    pub fn resolve(section: &Map<String, Value>, origins: &Origins) -> Result<Self, Vec<Fault>> {
        let faults = |problems: Vec<Problem>| problems.iter().map(|problem| problem.fault(origins)).collect();
        let value = Value::Object(section.clone());
        let problems = check::validate(schemars::schema_for!(ModelSection).as_value(), &value, "model");
        if !problems.is_empty() {
            return Err(faults(problems));
        }
        let config = overlay(section).map_err(|text| faults(vec![Problem::new("model", text)]))?;
        let problems: Vec<Problem> = config.validate().into_iter().map(problem).collect();
        if problems.is_empty() { Ok(config) } else { Err(faults(problems)) }
    }
}

fn overlay(section: &Map<String, Value>) -> Result<ModelConfig, String> {
    let name = section.get("preset").and_then(Value::as_str).unwrap_or(ModelConfig::DEFAULT_PRESET);
    let preset = ModelConfig::preset(name).ok_or_else(|| format!("no preset `{name}`"))?;
    let mut value = serde_json::to_value(preset).map_err(|error| error.to_string())?;
    for (key, change) in section.iter().filter(|(key, _)| *key != "preset") {
        value[key] = change.clone();
    }
    ModelConfig::deserialize(&value).map_err(|error| error.to_string())
}

fn problem(violation: Violation) -> Problem {
    let Violation { key, found, expected } = violation;
    Problem::new(format!("model.{key}"), "cannot be").found(found).expected(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mlp;

    fn resolve(text: &str) -> Result<ModelConfig, Vec<String>> {
        let section: Map<String, Value> = toml::from_str(text).unwrap();
        let lines = |faults: Vec<Fault>| faults.iter().map(Fault::to_string).collect();
        ModelConfig::resolve(&section, &Origins::default()).map_err(lines)
    }

    #[test]
    fn keys_win_over_the_preset_and_the_preset_over_defaults() {
        assert_eq!(resolve("").unwrap(), ModelConfig::preset("tiny").unwrap());
        let config = resolve("preset = 'paper-45m'\nnum_kv_heads = 2\nmlp = 'swiglu'").unwrap();
        let study = ModelConfig::preset("paper-45m").unwrap();
        assert_eq!(config, ModelConfig { num_kv_heads: Some(2), mlp: Mlp::Swiglu, ..study });
    }

    #[test]
    fn every_preset_of_the_schema_exists() {
        for name in super::super::PRESETS {
            assert_eq!(resolve(&format!("preset = '{name}'")).unwrap(), ModelConfig::preset(name).unwrap());
        }
    }

    #[test]
    fn problems_name_key_found_and_expected() {
        let lines = resolve("widht = 3").unwrap_err();
        assert!(lines[0].contains("`model.widht`: unknown key") && lines[0].contains("width"), "{lines:?}");
        assert!(resolve("preset = 'huge'").unwrap_err()[0].contains("paper-45m"));
        assert!(resolve("mlp = 'relu'").unwrap_err()[0].contains("swiglu"));
        let line = "configuration: `model.num_heads`: cannot be: found 3, \
                    expected a divisor of width 160 into heads of even width";
        assert_eq!(resolve("num_heads = 3").unwrap_err(), [line]);
    }
}
