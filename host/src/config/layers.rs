//! The layers of a configuration and their merge: files, then the environment, then `--set`.
//!
//! Every layer is read into one table. figment merges them, later over earlier and table by table, and remembers for
//! every value which layer it came from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use figment::value::{self, Dict, Tag};
use figment::{Figment, Metadata, Profile, Provider};
use serde_json::{Map, Value};

use crate::error::{Exit, Fault, Result};

/// Environment variables that begin with this name a key: `GAUNTLET_TRAIN__MAX_STEPS` is `train.max_steps`.
pub const ENV_PREFIX: &str = "GAUNTLET_";
/// Beginnings of variables that are not configuration: the folder of downloads, the test run's list of skipped tests, whether
/// tests write the files that are made from the code, and whether they do all of their rounds.
pub const RESERVED_ENV: [&str; 4] = ["GAUNTLET_BLESS", "GAUNTLET_CACHE", "GAUNTLET_SKIPPED_LOG", "GAUNTLET_SOAK"];
/// The largest configuration file, in bytes: 1 MiB.
pub const MAX_FILE_LEN: u64 = 1 << 20;
/// The most names in a key of the environment or of `--set`.
pub const MAX_KEY_NAMES: usize = 32;

/// The most characters of a `--set` that messages show.
const MAX_SHOWN_LEN: usize = 120;

/// For every key that some layer set, the layer that won.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, String>);

impl Origins {
    /// The layer of a key's value; of a list for its elements, of one of its keys for a table.
    pub fn get(&self, key: &str) -> Option<&str> {
        let list = key.split('[').next().unwrap_or(key);
        let inside = format!("{list}.");
        let first_inside = || self.0.range(inside.clone()..).next().filter(|(key, _)| key.starts_with(&inside));
        let origin = self.0.get(list).or_else(|| first_inside().map(|(_, origin)| origin));
        origin.map(String::as_str)
    }

    /// All keys with their layers, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, origin)| (key.as_str(), origin.as_str()))
    }

    /// Names the `origin` of all values in the table `at` that have none yet.
    pub fn fill(&mut self, value: &Value, at: &str, origin: &str) {
        match value {
            Value::Object(table) if !table.is_empty() => {
                table.iter().for_each(|(name, value)| self.fill(value, &super::schema::join(at, name), origin));
            }
            _ => {
                self.0.entry(at.to_owned()).or_insert_with(|| origin.to_owned());
            }
        }
    }
}

/// One layer: its name as messages show it, its table, and what was left out of it as wrong.
#[derive(Debug)]
pub struct Layer {
    name: String,
    table: Dict,
    faults: Vec<Fault>,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> std::result::Result<value::Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.table.clone()))
    }
}

impl Layer {
    /// A TOML file, of at most [`MAX_FILE_LEN`] bytes of UTF-8, with or without a byte order mark.
    ///
    /// # Errors
    /// [`Exit::Missing`] when it cannot be read; [`Exit::Usage`], with line and column, when it is not TOML.
    pub fn file(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes))
            .map_err(|error| Fault::reading(path, &error))?;
        if bytes.len() as u64 > MAX_FILE_LEN {
            return Err(Fault::new(Exit::Usage, format!("{name}: too large for a configuration"))
                .found(format_args!("more than {MAX_FILE_LEN} bytes"))
                .expected(format_args!("at most {MAX_FILE_LEN} bytes")));
        }
        let text = str::from_utf8(&bytes).map_err(|error| {
            let place = place(&String::from_utf8_lossy(&bytes[..error.valid_up_to()]), error.valid_up_to());
            Fault::new(Exit::Usage, format!("{name}:{place}: not UTF-8")).hint("save the file as UTF-8")
        })?;
        Self::toml(name, text.strip_prefix('\u{feff}').unwrap_or(text))
    }

    fn toml(name: String, text: &str) -> Result<Self> {
        let table = toml::from_str::<toml::Table>(text).map_err(|error| {
            let place = error.span().map_or_else(|| "1:1".to_owned(), |span| place(text, span.start));
            let message = error.message().trim().replace('\n', ", ");
            Fault::new(Exit::Usage, format!("{name}:{place}: not TOML: {message}"))
        })?;
        let mut layer = Self { name, table: Dict::new(), faults: Vec::new() };
        layer.table = layer.table_of(table, "");
        Ok(layer)
    }

    /// One variable of the environment; `None` when it is not configuration.
    ///
    /// # Errors
    /// [`Exit::Usage`] when its name is no key.
    pub fn variable(name: &str, text: &str) -> Result<Option<Self>> {
        let Some(key) = name.strip_prefix(ENV_PREFIX) else { return Ok(None) };
        if RESERVED_ENV.iter().any(|reserved| name.starts_with(reserved)) {
            return Ok(None);
        }
        let key = key.to_lowercase();
        Self::single(format!("environment `{name}`"), &key.split("__").collect::<Vec<_>>(), text).map(Some)
    }

    /// One `--set a.b.c=VALUE`.
    ///
    /// # Errors
    /// [`Exit::Usage`] when it has no `=` or its left side is no key.
    pub fn set(argument: &str) -> Result<Self> {
        let layer = match argument.char_indices().nth(MAX_SHOWN_LEN) {
            Some((end, _)) => format!("--set {}…", &argument[..end]),
            None => format!("--set {argument}"),
        };
        let Some((key, text)) = argument.split_once('=') else {
            return Err(Fault::new(Exit::Usage, format!("{layer}: no value")).expected("`--set section.key=VALUE`"));
        };
        Self::single(layer, &key.split('.').collect::<Vec<_>>(), text)
    }

    fn single(name: String, key: &[&str], text: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if key.len() > MAX_KEY_NAMES || key.iter().any(|name| name.is_empty() || !name.chars().all(plain)) {
            return Err(Fault::new(Exit::Usage, format!("{name}: not a key"))
                .expected("names of letters, digits, `_` and `-`, as in `train.max_steps`"));
        }
        let nested = key.iter().rev().fold(parsed(text), |value, name| {
            toml::Value::Table(toml::Table::from_iter([((*name).to_owned(), value)]))
        });
        let mut layer = Self { name, table: Dict::new(), faults: Vec::new() };
        if let toml::Value::Table(table) = nested {
            layer.table = layer.table_of(table, "");
        }
        Ok(layer)
    }

    fn table_of(&mut self, table: toml::Table, at: &str) -> Dict {
        let entry = |(name, inner): (String, toml::Value)| {
            let inner = self.value_of(inner, &super::schema::join(at, &name))?;
            Some((name, inner))
        };
        table.into_iter().filter_map(entry).collect()
    }

    /// A TOML value for figment; a date is its text, a number that is not finite is left out as a fault.
    fn value_of(&mut self, toml: toml::Value, key: &str) -> Option<value::Value> {
        Some(match toml {
            toml::Value::String(text) => text.into(),
            toml::Value::Integer(number) => number.into(),
            toml::Value::Float(number) if !number.is_finite() => {
                let what = format!("{}: `{key}`: not a finite number", self.name);
                self.faults.push(Fault::new(Exit::Usage, what).found(number).expected("a finite number"));
                return None;
            }
            toml::Value::Float(number) => number.into(),
            toml::Value::Boolean(truth) => truth.into(),
            toml::Value::Datetime(date) => date.to_string().into(),
            toml::Value::Array(items) => {
                let items = items.into_iter().enumerate();
                let items = items.filter_map(|(i, item)| self.value_of(item, &format!("{key}[{i}]"))).collect();
                value::Value::Array(Tag::Default, items)
            }
            toml::Value::Table(table) => self.table_of(table, key).into(),
        })
    }
}

/// A value as TOML writes it, else the text itself.
fn parsed(text: &str) -> toml::Value {
    let document = toml::from_str::<toml::Table>(&format!("value = {text}"));
    let single = document.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    single.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// `line:column` of a byte offset, both from 1.
fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("{line}:{column}")
}

/// All layers merged.
#[derive(Debug)]
pub struct Merged {
    /// The table of all values.
    pub value: Value,
    /// Where each came from.
    pub origins: Origins,
    /// Values that had to be left out.
    pub faults: Vec<Fault>,
}

/// Reads all layers and merges them: files in order, the environment, `--set` in order.
///
/// # Errors
/// Every layer that cannot be read.
pub fn merge(
    files: &[PathBuf],
    sets: &[String],
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Merged, Vec<Fault>> {
    let mut env: Vec<_> = env.into_iter().collect();
    env.sort();
    let files = files.iter().map(|path| Layer::file(path).map(Some));
    let env = env.iter().map(|(name, text)| Layer::variable(name, text));
    let sets = sets.iter().map(|argument| Layer::set(argument).map(Some));
    let (mut figment, mut left_out, mut unread) = (Figment::new(), Vec::new(), Vec::new());
    let mut misplaced = Misplaced::default();
    for layer in files.chain(env).chain(sets) {
        match layer {
            Ok(Some(mut layer)) => {
                left_out.append(&mut layer.faults);
                misplaced.take(&layer, &mut left_out);
                figment = figment.merge(layer);
            }
            Ok(None) => {}
            Err(fault) => unread.push(fault),
        }
    }
    if !unread.is_empty() {
        return Err(unread);
    }
    let merged = figment.find_value("").map_err(|error| vec![Fault::new(Exit::Internal, error.to_string())])?;
    let mut origins = Origins::default();
    let value = unwrapped(&merged, "", &figment, &mut origins);
    Ok(Merged { value, origins, faults: left_out })
}

/// The values that layers gave in the place of a section, with the layer. A section of a later layer would silently
/// replace them.
#[derive(Debug, Default)]
struct Misplaced(BTreeMap<String, String>);

impl Misplaced {
    /// Compares a layer with those before.
    fn take(&mut self, layer: &Layer, faults: &mut Vec<Fault>) {
        for (name, value) in &layer.table {
            self.compare(layer, name, value, faults);
            if let Some(config) = value.as_dict().and_then(|table| table.get("config")).filter(|_| name == "optimizer")
            {
                self.compare(layer, "optimizer.config", config, faults);
            }
        }
    }

    fn compare(&mut self, layer: &Layer, key: &str, value: &value::Value, faults: &mut Vec<Fault>) {
        if value.as_dict().is_none() {
            self.0.insert(key.to_owned(), layer.name.clone());
        } else if let Some(before) = self.0.remove(key) {
            let fault = Fault::new(Exit::Usage, format!("{before}: `{key}` is a section")).found("a value");
            faults.push(fault.expected(format!("keys of it, as in {}", layer.name)));
        }
    }
}

/// The plain value of a merged one, its origins noted.
fn unwrapped(merged: &value::Value, key: &str, figment: &Figment, origins: &mut Origins) -> Value {
    if let value::Value::Dict(_, table) = merged
        && (key.is_empty() || !table.is_empty())
    {
        let entry = |(name, inner): (&String, &value::Value)| {
            (name.clone(), unwrapped(inner, &super::schema::join(key, name), figment, origins))
        };
        return Value::Object(table.iter().map(entry).collect::<Map<_, _>>());
    }
    let layer = figment.get_metadata(merged.tag()).map_or("configuration", |metadata| &metadata.name);
    origins.0.insert(key.to_owned(), layer.to_owned());
    serde_json::to_value(merged).unwrap_or(Value::Null)
}
