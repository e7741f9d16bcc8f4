//! From a comparison file to single runs: the configuration of each, and the hash that it is known by.

use super::file::{Comparison, Contender, overlay, put};
use crate::config::{self, Config, Paths};
use crate::data::{Dataset, Order, Split};
use crate::error::{Exit, Fault, Result};
use crate::model::ModelConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Chosen values, by dotted key.
pub type Settings = BTreeMap<String, Value>;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Others begin at its end.
    WarmUp,
    /// It chooses settings.
    Trial,
    /// It counts.
    Final,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::WarmUp => "warm-up",
            Self::Trial => "trial",
            Self::Final => "final",
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What it is for.
    pub stage: Stage,
    /// Whose it is; empty for a warm-up.
    pub contender: String,
    /// Its seed.
    pub seed: u64,
    /// Sequences of its batch.
    pub batch_size: u64,
    /// What was chosen for it.
    pub settings: Settings,
    /// Its configuration, without the keys that say where and how far it runs.
    pub config: Map<String, Value>,
    /// SHA-256 of what its course depends on, hexadecimal.
    pub hash: String,
    /// Fingerprint of the data that its losses are of.
    pub validation: String,
}

impl Spec {
    /// Name of its folder and of its result's file: what a person looks for, and the beginning of the hash.
    pub fn name(&self) -> String {
        let of = if self.contender.is_empty() { String::new() } else { format!("{}-", self.contender) };
        let (stage, seed, batch, hash) = (self.stage.name(), self.seed, self.batch_size, &self.hash[..10]);
        format!("{of}{stage}-s{seed}-b{batch}-{hash}")
    }
}

/// What all runs of a comparison have in common.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The comparison.
    pub comparison: Comparison,
    base: Map<String, Value>,
    batch_size: u64,
    /// Fingerprint of the training data.
    pub data: String,
    /// That of the validation data.
    pub validation: String,
    /// SHA-256 of the shards whose sidecars have it, by path.
    pub shards: BTreeMap<String, String>,
}

impl Plan {
    /// Of a comparison file: its base configuration, with a contender's plugin, has to be one that loads.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file, the base, a contender's part or the data.
    pub fn new(comparison: Comparison, path: &Path) -> Result<Self, Vec<Fault>> {
        let (base, _) = super::file::base(&comparison, path)?;
        let mut plan = Self { base, ..Self::without_data(comparison, 0) };
        let Some(first) = plan.comparison.contender.first().cloned() else { return Ok(plan) };
        let config = loaded(&plan.config_of(&first, &Settings::new()))?;
        plan.batch_size = config.data.batch_size as u64;
        (plan.data, plan.shards) = data_of(&config, &config.data.train, Split::Train)?;
        let (validation, shards) = data_of(&config, &config.data.validation, Split::Validation)?;
        plan.validation = validation;
        plan.shards.extend(shards);
        Ok(plan)
    }

    /// Of a comparison alone, on an empty base with this batch size.
    pub fn without_data(comparison: Comparison, batch_size: u64) -> Self {
        let (data, validation) = (String::new(), String::new());
        Self { comparison, base: Map::new(), batch_size, data, validation, shards: BTreeMap::new() }
    }

    /// The batch sizes of a contender; the first is the one that its settings are chosen at.
    pub fn batch_sizes(&self, contender: &Contender) -> Vec<u64> {
        let sizes = contender.batch_sizes.as_ref().unwrap_or(&self.comparison.batch_sizes);
        if sizes.is_empty() { vec![self.batch_size] } else { sizes.clone() }
    }

    /// The batch size that is compared first of all.
    pub fn main_batch_size(&self) -> u64 {
        self.comparison.batch_sizes.first().copied().unwrap_or(self.batch_size)
    }

    /// Gradients of this batch size that cost as much as one of the main batch size.
    pub fn gradients_in_one(&self, batch_size: u64) -> f64 {
        self.main_batch_size() as f64 / batch_size as f64
    }

    /// The seeds of a contender's runs that count.
    pub fn seeds(&self, contender: &Contender) -> Vec<u64> {
        contender.seeds.clone().unwrap_or_else(|| self.comparison.seeds.clone())
    }

    /// What a contender's run may spend, in gradients of its batch: at a smaller batch than the main one as many tokens, at a
    /// larger one as many steps.
    pub fn limit(&self, contender: &Contender, batch_size: u64) -> f64 {
        let limit = contender.max_gradient_equivalents.unwrap_or(self.comparison.max_gradient_equivalents);
        limit * self.gradients_in_one(batch_size).max(1.0)
    }

    /// The warm-up of a seed, if there is one.
    pub fn warm_up(&self, seed: u64) -> Option<Spec> {
        let layer = self.comparison.warm_up.as_ref()?;
        let mut config = self.base.clone();
        overlay(&mut config, layer);
        let batch_size =
            config.get("data").and_then(|data| data.get("batch_size")).and_then(Value::as_u64).unwrap_or(0);
        let hash = self.hash(&config, seed, None);
        let (contender, settings, validation) = (String::new(), Settings::new(), self.validation.clone());
        Some(Spec { stage: Stage::WarmUp, contender, seed, batch_size, settings, config, hash, validation })
    }

    /// A contender's run.
    pub fn run(&self, contender: &Contender, stage: Stage, seed: u64, batch_size: u64, settings: &Settings) -> Spec {
        let mut config = self.config_of(contender, settings);
        put(&mut config, "data.batch_size", batch_size.into());
        let warm_up = self.warm_up(seed).map(|warm_up| warm_up.hash);
        let hash = self.hash(&config, seed, warm_up.as_deref());
        let (contender, settings) = (contender.name.clone(), settings.clone());
        Spec { stage, contender, seed, batch_size, settings, config, hash, validation: self.validation.clone() }
    }

    /// Base, the contenders that it is like, its own part, what was chosen.
    fn config_of(&self, contender: &Contender, settings: &Settings) -> Map<String, Value> {
        let mut config = self.base.clone();
        self.lineage(contender).iter().for_each(|ancestor| overlay(&mut config, &ancestor.set));
        settings.iter().for_each(|(key, value)| put(&mut config, key, value.clone()));
        // What a contender sets itself stands over what was chosen for the one that it is like.
        if contender.like.is_some() {
            let own = |key: &String| contender.tune.contains_key(key);
            overlay(&mut config, &contender.set);
            settings.iter().filter(|(key, _)| own(key)).for_each(|(key, value)| put(&mut config, key, value.clone()));
        }
        config
    }

    /// A contender and those that it is like, the first of them first.
    pub fn lineage<'a>(&'a self, contender: &'a Contender) -> Vec<&'a Contender> {
        let like = contender.like.as_ref().and_then(|like| self.comparison.contender(like));
        let mut lineage = like.map(|like| self.lineage(like)).unwrap_or_default();
        lineage.push(contender);
        lineage
    }

    fn hash(&self, config: &Map<String, Value>, seed: u64, warm_up: Option<&str>) -> String {
        let all = json!({ "config": sorted(&Value::Object(config.clone())), "seed": seed, "data": self.data, "warm_up": warm_up,
            "fine_batches": self.comparison.fine_batches });
        Sha256::digest(sorted(&all).to_string().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Tables in alphabetical order of their keys, whatever order they were written in.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(table) => {
            let ordered: BTreeMap<&String, Value> = table.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// A run's configuration with the keys that the comparison sets itself.
pub fn for_worker(spec: &Spec, own: &[(&str, Value)]) -> Result<String> {
    let mut config = spec.config.clone();
    put(&mut config, "run.seed", spec.seed.into());
    own.iter().for_each(|(key, value)| put(&mut config, key, value.clone()));
    toml::to_string(&Value::Object(config)).map_err(|error| {
        Fault::new(Exit::Internal, format!("cannot write the configuration as TOML: {}", error.to_string().trim()))
    })
}

fn loaded(config: &Map<String, Value>) -> Result<Config, Vec<Fault>> {
    let mut whole = config.clone();
    put(&mut whole, "train.max_gradient_equivalents", 1.0.into());
    let one = |fault: Fault| vec![fault];
    let text = toml::to_string(&Value::Object(whole))
        .map_err(|error| one(Fault::new(Exit::Internal, error.to_string().trim().to_owned())))?;
    let file = tempfile::Builder::new().prefix("base-").suffix(".toml").tempfile();
    let file = file.map_err(|error| one(Fault::writing(&std::env::temp_dir(), &error)))?;
    std::fs::write(file.path(), text).map_err(|error| one(Fault::writing(file.path(), &error)))?;
    config::load(&[file.path().to_owned()], &[], []).map(|loaded| loaded.config)
}

/// What identifies training or validation data, and the hashes of the shards.
fn data_of(config: &Config, paths: &Paths, split: Split) -> Result<(String, BTreeMap<String, String>), Vec<Fault>> {
    let (one, paths) = (|fault: Fault| vec![fault], paths.as_slice());
    if paths.is_empty() {
        return Ok(Default::default());
    }
    let model = ModelConfig::resolve(&config.model, &Default::default())?;
    let data = Dataset::open(paths, split, config.data.seq_len, model.vocab_size, Order::Sequential);
    let data = data.map_err(one)?;
    Ok((data.fingerprint(), data.shard_hashes()))
}
