//! `gauntlet config`.

use super::{Faults, print};
use crate::config::check::validate;
use crate::config::{self, Config, Loaded, Origins};
use crate::error::{Exit, Result};
use crate::model::{ModelConfig, ModelSection};
use crate::run;
use serde_json::{Map, Value};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print the configuration that a run would use, as TOML: all layers merged, defaults and the model's preset written
    /// out. The plugin's own defaults are not among it: see `gauntlet plugins inspect`.
    Show {
        #[command(flatten)]
        layers: Layers,
        /// One line a key, with the layer that its value comes from.
        #[arg(long)]
        origin: bool,
    },
    /// Check everything that needs neither data nor a device: all layers, the model, and the plugin's own keys.
    Check {
        #[command(flatten)]
        layers: Layers,
    },
    /// Print the JSON Schema of a configuration.
    Schema,
}

/// The layers that the command line names; the environment is one more.
#[derive(Debug, clap::Args)]
pub struct Layers {
    /// A configuration file (TOML); later ones win over earlier ones.
    #[arg(long, value_name = "FILE", required = true)]
    config: Vec<PathBuf>,
    /// One key, for example `optimizer.config.lr=0.01`; wins over files and environment.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Layers {
    /// The configuration with its model; everything that is wrong with it, the plugin's keys included, otherwise.
    pub fn load_all(&self) -> Result<Loaded, Faults> {
        let env = config::environment();
        let loaded = config::load(&self.config, &self.set, env.clone());
        let sound = |loaded: &Loaded| ModelConfig::resolve(&loaded.config.model, &loaded.origins).is_ok();
        match loaded {
            Ok(loaded) if sound(&loaded) => Ok(loaded),
            Err(faults) if faults.iter().any(|fault| fault.exit != Exit::Usage) => Err(faults),
            _ => Err(problems(self, &env)),
        }
    }
}

pub fn run(command: Command) -> Result<(), Faults> {
    let env = config::environment();
    let text = match command {
        Command::Show { layers, origin } => show(&config::load(&layers.config, &layers.set, env)?, origin)?,
        Command::Check { layers } => match problems(&layers, &env) {
            problems if problems.is_empty() => "ok\n".to_owned(),
            problems => return Err(problems),
        },
        Command::Schema => format!("{:#}\n", schema()),
    };
    print(&text)
}

/// The configuration with the model's keys written out, as a file or as lines.
fn show(loaded: &Loaded, origin: bool) -> Result<String, Faults> {
    let one = |fault| vec![fault];
    let (config, origins) = resolved(loaded)?;
    let text = config::to_resolved_toml(&config).map_err(one)?;
    match origin {
        false => Ok(text),
        true => Ok(config::lines(&serde_json::to_value(&config).unwrap_or_default(), &origins)),
    }
}

/// The model's preset stays among its keys: an option that it leaves out would come back from another one.
fn resolved(loaded: &Loaded) -> Result<(Config, Origins), Faults> {
    let (mut config, mut origins) = (loaded.config.clone(), loaded.origins.clone());
    let model = ModelConfig::resolve(&config.model, &origins)?;
    let preset = config.model.get("preset").and_then(Value::as_str).unwrap_or(ModelConfig::DEFAULT_PRESET).to_owned();
    if let Ok(Value::Object(keys)) = serde_json::to_value(&model) {
        origins.fill(&Value::Object(keys.clone()), "model", &format!("preset `{preset}`"));
        config.model = keys;
    }
    config.model.insert("preset".to_owned(), preset.into());
    Ok((config, origins))
}

/// Everything wrong with a configuration, as far as it is known without training.
fn problems(layers: &Layers, env: &[(String, String)]) -> Faults {
    let Layers { config: files, set } = layers;
    let (value, origins) = match config::merged(files, set, env.to_vec()) {
        Ok(merged) => merged,
        Err(faults) => return faults,
    };
    let loaded = config::load(files, set, env.to_vec());
    let mut faults = model_problems(&value, &origins);
    faults.extend(plugin_problems(&value, &origins, loaded.as_ref().ok()));
    faults.splice(0..0, loaded.err().unwrap_or_default());
    faults.iter_mut().for_each(|fault| fault.exit = Exit::Usage);
    faults
}

fn model_problems(value: &Value, origins: &Origins) -> Faults {
    let section = match value.get("model") {
        Some(Value::Object(section)) => section.clone(),
        None => Map::new(),
        Some(_) => return vec![], // a wrong type, which is known by then
    };
    ModelConfig::resolve(&section, origins).err().unwrap_or_default()
}

/// What is wrong with the plugin and its keys. Parts of the configuration that are wrong themselves are passed over.
fn plugin_problems(value: &Value, origins: &Origins, loaded: Option<&Loaded>) -> Faults {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let Some(name) = text("/optimizer/plugin").filter(|name| !name.is_empty()) else { return vec![] };
    let pin = text("/optimizer/sha256").filter(|pin| pin.len() == 64);
    let folders = value.pointer("/plugins/search_path").and_then(Value::as_array).into_iter().flatten();
    let folders: Vec<PathBuf> = folders.filter_map(Value::as_str).map(PathBuf::from).collect();
    let folders: Vec<PathBuf> = folders.into_iter().filter(|folder| folder.is_absolute()).collect();
    let switch = |pointer: &str, default: bool| value.pointer(pointer).and_then(Value::as_bool).unwrap_or(default);
    let (probe, require_pins) = (switch("/plugins/probe", true), switch("/plugins/require_pins", false));
    let plugins = config::Plugins { search_path: folders, probe, require_pins, ..config::Plugins::default() };
    let plugin = match run::load_plugin(name, pin, &plugins) {
        Ok(plugin) => plugin,
        Err(fault) => return vec![fault],
    };
    let keys = value.pointer("/optimizer/config").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let problems = match keys.is_object() {
        true => validate(&plugin.metadata.schema, &keys, "optimizer.config"),
        false => vec![],
    };
    let faults = problems.iter().map(|problem| problem.fault(origins));
    faults.chain(loaded.and_then(|loaded| run::refuse_unused_schedule(&loaded.config, &plugin).err())).collect()
}

/// The JSON Schema of a whole configuration, with the model's own keys; their defaults are the default preset's.
fn schema() -> Value {
    let mut section = schemars::schema_for!(ModelSection).to_value();
    let preset = ModelConfig::preset(ModelConfig::DEFAULT_PRESET).unwrap_or_default();
    let values = serde_json::to_value(preset).unwrap_or_default();
    for (key, value) in values.as_object().into_iter().flatten() {
        if let Some(Value::Object(key)) = section["properties"].get_mut(key) {
            key.insert("default".to_owned(), value.clone());
        }
    }
    config::with_section(config::schema(), "model", section)
}

#[cfg(test)]
mod tests;
