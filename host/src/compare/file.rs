//! A comparison file: what all runs share, the contenders, how they are tuned and judged.

use super::result::Measure;
use crate::config::check::{self, Problem};
use crate::config::{self, Origins};
use crate::error::{Exit, Fault, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A comparison of optimizers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Run configurations that all runs share, beside this file; later ones win.
    #[schemars(length(min = 1))]
    pub base: Vec<PathBuf>,
    /// Folder of the runs and of what is made of them.
    #[schemars(length(min = 1))]
    pub dir: PathBuf,
    /// Folder of one small file a finished run; the runs that are there are not made again. Default `results` in `dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<PathBuf>,
    /// Seeds of the runs that count.
    #[schemars(length(min = 1))]
    pub seeds: Vec<u64>,
    /// The validation loss to reach, in nats a token.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub target_loss: f64,
    /// Other losses that are reported beside it.
    #[serde(default)]
    pub other_targets: Vec<f64>,
    /// Validation batches, of 16 sequences, on which the checkpoints around a target are evaluated again; losses are judged
    /// by these, and a run goes on until one of them is down to the target. Default: they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub fine_batches: Option<usize>,
    /// Batch sizes, in sequences, at which all contenders run. Default: that of the base.
    #[serde(default)]
    pub batch_sizes: Vec<u64>,
    /// Horizontal axes of the losses on the page. Default: all.
    #[serde(default = "axes")]
    pub axes: Vec<Measure>,
    /// Runs at a time. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 256))]
    pub workers: usize,
    /// Threads of each run. Default: all cores shared among the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub threads: Option<usize>,
    /// Sequences whose activations are held at a time, whatever the base says. It changes a run by rounding alone and is
    /// no part of what a run is known by: a GPU takes many, a core few. Default: that of the base.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub micro_batch_size: Option<u64>,
    /// What a run may spend, in gradients of its batch, before it counts as one that missed.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_gradient_equivalents: f64,
    /// Configuration of the run whose end all others of its seed begin at. Default: they begin with random parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<Map<String, Value>>,
    /// How settings are chosen. Default: by nobody, and no contender may have `tune`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
    /// What is compared.
    #[schemars(length(min = 1))]
    pub contender: Vec<Contender>,
}

/// How settings are chosen, with the same budget for every contender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Seed of all trials, not among those that count.
    pub seed: u64,
    /// What all trials of a contender may spend, in gradients of the main batch size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub budget: f64,
    /// Trials of a contender whose search space has a range; a space of lists alone is a grid. Default 8.
    #[serde(default = "trials")]
    #[schemars(range(min = 1, max = 1000))]
    pub trials: usize,
    /// Whether the worse half of the trials ends at each half of the budget (successive halving). Default true.
    #[serde(default = "yes")]
    pub halving: bool,
    /// Times that a grid grows when its best value lies at its edge; what that costs comes on top of the budget and is
    /// reported. Default 2.
    #[serde(default = "two")]
    pub extensions: usize,
    /// Parts into which the trials are dealt, in turn, each halved by itself; the tuning's score is the median over them of
    /// the fastest trial of each. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub studies: usize,
}

/// One contender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contender {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// What it is, in a sentence.
    #[serde(default)]
    pub about: String,
    /// Whether others are measured against it. Default false.
    #[serde(default)]
    pub baseline: bool,
    /// A contender before it, whose configuration and chosen settings it takes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// Its seeds. Default: those of the comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<Vec<u64>>,
    /// Its batch sizes. Default: those of the comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_sizes: Option<Vec<u64>>,
    /// Its limit. Default: that of the comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_gradient_equivalents: Option<f64>,
    /// Its part of the configuration.
    #[serde(default)]
    pub set: Map<String, Value>,
    /// Keys whose values are chosen: a list of values, or a range.
    #[serde(default)]
    pub tune: BTreeMap<String, Space>,
}

/// The values among which one is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Space {
    /// These, in rising order where they are numbers.
    Values(Vec<Value>),
    /// All between two numbers.
    Range(Range),
}

/// All numbers between two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The largest.
    pub high: f64,
    /// Whether their logarithm is spread evenly. Default false.
    #[serde(default)]
    pub log: bool,
    /// Whether only whole numbers are meant. Default false.
    #[serde(default)]
    pub whole: bool,
}

impl Space {
    /// One of its values.
    pub fn first(&self) -> Option<Value> {
        match self {
            Self::Values(values) => values.first().cloned(),
            Self::Range(range) => Some(range.number(range.low)),
        }
    }

    /// The values of a list of numbers.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        let Self::Values(values) = self else { return None };
        values.iter().map(Value::as_f64).collect()
    }

    fn problem(&self) -> Option<&'static str> {
        let falls = |numbers: Vec<f64>| numbers.windows(2).any(|two| two[0] >= two[1]);
        match self {
            Self::Values(values) if values.is_empty() => Some("no values to choose from"),
            Self::Values(_) if self.numbers().is_some_and(falls) => {
                Some("numbers that do not rise: none would be at an edge")
            }
            Self::Range(Range { low, high, log, .. }) if !(low < high && high.is_finite()) || (*log && *low <= 0.0) => {
                Some("not a range: `low` has to be below `high`, and above 0 with `log`")
            }
            _ => None,
        }
    }
}

impl Range {
    /// A number of it, as a person would write it.
    pub fn number(&self, value: f64) -> Value {
        if self.whole { (value.round() as i64).into() } else { value.into() }
    }
}

const fn one() -> usize {
    1
}

const fn two() -> usize {
    2
}

const fn trials() -> usize {
    8
}

fn axes() -> Vec<Measure> {
    Measure::ALL.to_vec()
}

const fn yes() -> bool {
    true
}

/// Keys that a comparison sets itself.
pub const OWN_KEYS: [&str; 9] = [
    "run.dir",
    "run.seed",
    "run.threads",
    "run.init_from",
    "train.target_loss",
    "train.max_gradient_equivalents",
    "checkpoint",
    "metrics",
    "eval.every_steps",
];

/// Sections and keys that are the same for all contenders: their losses would be of other problems.
const SHARED: [&str; 4] = ["model", "data", "eval", "run.dtype"];

impl Comparison {
    /// Reads a comparison file.
    ///
    /// # Errors
    ///
    /// [`Exit::Missing`] where it cannot be read, [`Exit::Usage`] with everything that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, Vec<Fault>> {
        let (value, origins) = config::merged(&[path.to_owned()], &[], [])?;
        let comparison: Self = check::strict(&value, "", &origins)?;
        let problems = comparison.problems();
        match problems.is_empty() {
            true => Ok(comparison),
            false => Err(problems.iter().map(|problem| problem.fault(&origins)).collect()),
        }
    }

    /// All targets, the largest loss first.
    pub fn targets(&self) -> Vec<f64> {
        let mut targets = [&[self.target_loss], self.other_targets.as_slice()].concat();
        targets.sort_by(|a, b| b.total_cmp(a));
        targets.dedup();
        targets
    }

    /// The contender of this name.
    pub fn contender(&self, name: &str) -> Option<&Contender> {
        self.contender.iter().find(|contender| contender.name == name)
    }

    /// Where the small files of finished runs are.
    pub fn results(&self) -> PathBuf {
        self.results.clone().unwrap_or_else(|| self.dir.join("results"))
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = vec![];
        let mut names = BTreeSet::new();
        for (index, contender) in self.contender.iter().enumerate() {
            let at = |key: &str| format!("contender[{index}].{key}");
            if !is_name(&contender.name) {
                let problem = Problem::new(at("name"), "not a name").found(format!("`{}`", contender.name));
                problems.push(problem.expected("1 to 40 letters, digits, `-` and `_`"));
            }
            if let Some(like) = contender.like.as_ref().filter(|like| !names.contains(like.as_str())) {
                let problem = Problem::new(at("like"), "no contender before it has this name");
                problems.push(problem.found(format!("`{like}`")));
            }
            if !names.insert(contender.name.as_str()) {
                problems
                    .push(Problem::new(at("name"), "is another contender's").found(format!("`{}`", contender.name)));
            }
            problems.extend(contender.problems(&at, self.tuning.is_some()));
        }
        problems.extend(twice("seeds", &self.seeds).into_iter().chain(twice("batch_sizes", &self.batch_sizes)));
        let layers = self.warm_up.iter().flat_map(|layer| own_keys(layer, "warm_up"));
        problems.extend(layers.filter(|problem| problem.key != "warm_up.train.target_loss"));
        let shared = self.warm_up.iter().flat_map(|layer| shared_keys(layer, "warm_up"));
        problems.extend(shared.filter(|problem| problem.key != "warm_up.data.batch_size"));
        let counts = self.tuning.as_ref().filter(|tuning| self.all_seeds().contains(&tuning.seed));
        if let Some(tuning) = counts {
            let problem = Problem::new("tuning.seed", "is a seed of the runs that count").found(tuning.seed);
            problems.push(problem.hint("choose another: settings fit the seed that they were chosen with"));
        }
        let few = |contender: &&Contender| {
            self.tuning.as_ref().is_some_and(|tuning| contender.points(tuning) < tuning.studies)
                && !contender.tune.is_empty()
        };
        if let Some(few) = self.contender.iter().find(few) {
            let problem = Problem::new("tuning.studies", format!("more than the trials of `{}`", few.name));
            problems.push(problem.found(self.tuning.as_ref().map_or(0, |tuning| tuning.studies)));
        }
        if self.other_targets.iter().any(|target| !target.is_finite() || *target <= 0.0) {
            problems.push(Problem::new("other_targets", "not all losses").expected("numbers above 0"));
        }
        problems
    }

    fn all_seeds(&self) -> BTreeSet<u64> {
        let own = self.contender.iter().flat_map(|contender| contender.seeds.iter().flatten());
        self.seeds.iter().chain(own).copied().collect()
    }
}

impl Contender {
    /// Trials that its tuning begins with.
    fn points(&self, tuning: &Tuning) -> usize {
        let length = |space: &Space| match space {
            Space::Values(values) => Some(values.len()),
            Space::Range(_) => None,
        };
        self.tune.values().map(length).product::<Option<usize>>().unwrap_or(tuning.trials)
    }

    fn problems(&self, at: &dyn Fn(&str) -> String, tuned: bool) -> Vec<Problem> {
        let mut problems = own_keys(&self.set, &at("set"));
        problems.extend(shared_keys(&self.set, &at("set")));
        problems.extend(self.seeds.iter().filter_map(|seeds| twice(&at("seeds"), seeds)));
        problems.extend(self.batch_sizes.iter().filter_map(|sizes| twice(&at("batch_sizes"), sizes)));
        if !tuned && !self.tune.is_empty() {
            problems.push(Problem::new(at("tune"), "nothing says how to choose").expected("a section `[tuning]`"));
        }
        for (key, space) in &self.tune {
            let key_at = format!("{}.\"{key}\"", at("tune"));
            let mut problem = |what: &str| problems.push(Problem::new(key_at.clone(), what));
            if let Some(what) = space.problem() {
                problem(what);
            }
            let is_among = |keys: &[&str]| keys.iter().any(|one| key == one || key.starts_with(&format!("{one}.")));
            if is_among(&OWN_KEYS) {
                problem("is set by the comparison itself");
            }
            if is_among(&SHARED) {
                problem(IS_SHARED);
            }
        }
        problems
    }
}

/// A number that a list has twice: one run would count as two.
fn twice(key: &str, list: &[u64]) -> Option<Problem> {
    let mut seen = BTreeSet::new();
    let twice = list.iter().find(|number| !seen.insert(**number))?;
    Some(Problem::new(key, "has a number twice").found(twice))
}

fn is_name(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// Keys of a layer that the comparison sets itself.
fn own_keys(layer: &Map<String, Value>, at: &str) -> Vec<Problem> {
    let value = Value::Object(layer.clone());
    let held = |key: &&str| value.pointer(&format!("/{}", key.replace('.', "/"))).is_some();
    let problem = |key: &str| Problem::new(format!("{at}.{key}"), "is set by the comparison itself");
    OWN_KEYS.into_iter().filter(held).map(problem).collect()
}

const IS_SHARED: &str = "has to be the same for all contenders";

/// Keys of a layer that all contenders have in common.
fn shared_keys(layer: &Map<String, Value>, at: &str) -> Vec<Problem> {
    let mut keys = vec![];
    for (section, value) in layer {
        match value {
            Value::Object(inner) => keys.extend(inner.keys().map(|key| format!("{section}.{key}"))),
            _ => keys.push(section.clone()),
        }
    }
    let is_shared = |key: &&String| {
        let shared = SHARED.iter().any(|one| *key == one || key.starts_with(&format!("{one}.")));
        shared && !OWN_KEYS.contains(&key.as_str())
    };
    let problem = |key: &String| {
        let problem = Problem::new(format!("{at}.{key}"), IS_SHARED);
        problem.hint("set it in a file of `base`; a batch size in `batch_sizes`")
    };
    keys.iter().filter(is_shared).map(problem).collect()
}

/// One value put into a table at a dotted key; tables on the way are made.
pub fn put(table: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// A layer over a table, key by key.
pub fn overlay(table: &mut Map<String, Value>, layer: &Map<String, Value>) {
    for (key, value) in layer {
        match (table.get_mut(key), value) {
            (Some(Value::Object(inner)), Value::Object(layer)) => overlay(inner, layer),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The base configuration: its files beside the comparison file, merged; without environment or command line, so that a
/// comparison is what its files say.
///
/// # Errors
///
/// [`Exit::Missing`] or [`Exit::Usage`]: a file that cannot be read.
pub fn base(comparison: &Comparison, path: &Path) -> Result<(Map<String, Value>, Origins), Vec<Fault>> {
    let beside = path.parent().unwrap_or(Path::new(""));
    let files: Vec<PathBuf> = comparison.base.iter().map(|file| beside.join(file)).collect();
    let (value, origins) = config::merged(&files, &[], [])?;
    match value {
        Value::Object(table) => Ok((table, origins)),
        _ => Err(vec![Fault::new(Exit::Usage, "`base`: not a configuration")]),
    }
}
