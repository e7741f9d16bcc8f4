//! What a resumed run must have in common with its checkpoint, and what differs.

use crate::config::{Config, ScheduleKind, check};
use crate::data::Dataset;
use crate::error::{Exit, Fault, Result};
use crate::model::ModelConfig;
use crate::plugin::Plugin;
use crate::sinks::checkpoint::Change;
use serde_json::{Value, json};

/// Everything that the course of a run depends on, by configuration key; written into every checkpoint.
/// `micro_batch_size` is the one that is used, also where it was chosen by memory.
pub fn identity(
    config: &Config,
    model: &ModelConfig,
    data: &Dataset,
    plugin: &Plugin,
    micro_batch_size: usize,
) -> Value {
    let schedule = &config.schedule;
    let mut run = json!({ "seed": config.run.seed, "dtype": config.run.dtype });
    if let (Some(path), Value::Object(run)) = (&config.run.init_from, &mut run) {
        run.insert("init_from".into(), json!(path));
    }
    let horizon = schedule.horizon_steps.or(config.train.max_steps).filter(|_| schedule.kind != ScheduleKind::Constant);
    json!({
        "model": model,
        "data": {
            "fingerprint": data.fingerprint(),
            "seq_len": config.data.seq_len,
            "batch_size": config.data.batch_size,
            "order": config.data.order,
        },
        "run": run,
        "schedule": {
            "kind": schedule.kind,
            "warmup_steps": schedule.warmup_steps,
            "final_fraction": schedule.final_fraction,
            "horizon_steps": horizon,
            "decay_steps": schedule.decay_steps,
        },
        "ema": { "decay": config.ema.decay },
        "train": { "micro_batch_size": micro_batch_size },
        "optimizer": {
            "plugin": plugin.metadata.name,
            "version": plugin.metadata.version,
            "sha256": plugin.image.sha256,
            "state_version": plugin.metadata.state_version,
            "config": config.optimizer.config,
        },
    })
}

/// What the user lets differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Configuration keys, or sections.
    pub keys: Vec<String>,
    /// Version, file and state layout of the same plugin.
    pub plugin_change: bool,
    /// Everything of the optimizer: its state begins anew.
    pub reset_optimizer: bool,
}

/// What says that the same plugin has changed.
const PLUGIN_KEYS: [&str; 3] = ["optimizer.version", "optimizer.sha256", "optimizer.state_version"];

impl Allowed {
    fn holds(&self, key: &str) -> bool {
        let named = |name: &String| key == name || is_inside(key, name);
        self.keys.iter().any(named)
            || (self.plugin_change && PLUGIN_KEYS.contains(&key))
            || (self.reset_optimizer && is_inside(key, "optimizer"))
    }

    /// A name that is neither a key nor a section allows nothing, so it is a mistake.
    fn unknown(&self, saved: &Value, now: &Value) -> Vec<Fault> {
        let mut known = vec![];
        paths(saved, "", &mut known);
        paths(now, "", &mut known);
        let unknown = self.keys.iter().filter(|name| !known.contains(name));
        let fault = |name: &String| {
            let fault = Fault::new(Exit::Usage, format!("`--allow-change {name}`: no such key of a run's identity"));
            match check::nearest(name, known.iter().map(String::as_str)) {
                Some(meant) => fault.hint(format!("did you mean `{meant}`?")),
                None => fault.hint("give a key as the refusal names it, for example `data.batch_size`"),
            }
        };
        unknown.map(fault).collect()
    }
}

fn is_inside(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// Compares the identity of a checkpoint with the run's own; gives the differences that are allowed. Where the models'
/// parameters are `other_tensors`, no flag allows another model.
///
/// # Errors
///
/// One fault a key that differs and is not allowed to ([`Exit::Checkpoint`]); a name among those allowed that is no key
/// ([`Exit::Usage`]).
pub fn compare(saved: &Value, now: &Value, allowed: &Allowed, other_tensors: bool) -> Result<Vec<Change>, Vec<Fault>> {
    let unknown = allowed.unknown(saved, now);
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let mut differences = vec![];
    collect(saved, now, "", &mut differences);
    // Another plugin has other keys, another version and another file; its name says it all.
    let other_plugin = differences.iter().any(|change| change.key == "optimizer.plugin");
    if other_plugin {
        differences.retain(|change| change.key == "optimizer.plugin" || !is_inside(&change.key, "optimizer"));
    }
    let fixed = |key: &str| other_tensors && is_inside(key, "model");
    let is_allowed = |change: &Change| allowed.holds(&change.key) && !fixed(&change.key);
    let (kept, refused): (Vec<_>, Vec<_>) = differences.into_iter().partition(is_allowed);
    match refused.is_empty() {
        true => Ok(kept),
        false => Err(refused.iter().map(|change| refusal(change, fixed(&change.key))).collect()),
    }
}

fn refusal(change: &Change, fixed: bool) -> Fault {
    let key = change.key.as_str();
    let way = match key {
        _ if fixed => "set it back: the checkpoint's parameters are of another shape".to_owned(),
        "optimizer.plugin" => "set it back, or begin the optimizer's state anew with `--reset-optimizer`".to_owned(),
        _ if PLUGIN_KEYS.contains(&key) => {
            "use the plugin that the checkpoint was made with, or resume with `--allow-plugin-change`".to_owned()
        }
        "data.fingerprint" => format!("name the data of the checkpoint, or resume with `--allow-change {key}`"),
        _ => format!("set it back, or resume with `--allow-change {key}`"),
    };
    Fault::new(Exit::Checkpoint, format!("the checkpoint is of another run: `{key}`"))
        .found(shown(&change.now))
        .expected(shown(&change.saved))
        .hint(way)
}

/// The keys under which two values differ, with both values.
pub fn collect(saved: &Value, now: &Value, at: &str, differences: &mut Vec<Change>) {
    if let (Value::Object(a), Value::Object(b)) = (saved, now) {
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let side = |table: &serde_json::Map<String, Value>| table.get(key).cloned().unwrap_or(Value::Null);
            collect(&side(a), &side(b), &join(at, key), differences);
        }
    } else if saved != now {
        differences.push(Change { step: 0, key: at.to_owned(), saved: saved.clone(), now: now.clone() });
    }
}

/// Whether a configuration key is a part of an identity.
pub fn holds(identity: &Value, key: &str) -> bool {
    // The data are compared by their content, the plugin by its file.
    let mut value = identity;
    key.split('.').all(|name| match value.get(name) {
        Some(inner) => {
            value = inner;
            true
        }
        None => !value.is_object(),
    })
}

/// All keys and sections of a value.
fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
    for (name, inner) in value.as_object().into_iter().flatten() {
        let path = join(at, name);
        paths(inner, &path, found);
        found.push(path);
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// A value as messages show it.
pub fn shown(value: &Value) -> String {
    if value.is_null() { "nothing".into() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(saved: &Value, now: &Value, allowed: &Allowed) -> Vec<String> {
        compare(saved, now, allowed, false).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    fn allowing(keys: &[&str]) -> Allowed {
        Allowed { keys: keys.iter().map(|key| key.to_string()).collect(), ..Allowed::default() }
    }

    #[test]
    fn every_difference_is_named_unless_allowed() {
        let saved = json!({ "data": { "seq_len": 8, "batch_size": 2 }, "optimizer": { "config": { "lr": 0.1 } } });
        let now = json!({ "data": { "seq_len": 16, "batch_size": 2 }, "optimizer": { "config": { "wd": 0.5 } } });
        assert_eq!(lines(&saved, &now, &allowing(&[])).len(), 3);
        assert_eq!(
            lines(&saved, &now, &allowing(&["optimizer"])),
            [
                "the checkpoint is of another run: `data.seq_len`: found 16, expected 8; hint: set it back, or resume with \
              `--allow-change data.seq_len`"
            ]
        );
        let changes = compare(&saved, &now, &allowing(&["optimizer.config", "data.seq_len"]), false).unwrap();
        let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["data.seq_len", "optimizer.config.lr", "optimizer.config.wd"]);
        assert_eq!(
            lines(&saved, &now, &allowing(&["data.seq"])),
            ["`--allow-change data.seq`: no such key of a run's identity; hint: did you mean `data.seq_len`?"]
        );
    }

    #[test]
    fn another_file_of_a_plugin_and_another_plugin_have_ways_of_their_own() {
        let of = |plugin: &str, sha256: &str| json!({ "optimizer": { "plugin": plugin, "sha256": sha256 } });
        let (saved, rebuilt, other) = (of("adam", "aa"), of("adam", "bb"), of("sgd", "cc"));
        let line = |now: &Value| lines(&saved, now, &Allowed::default()).join("\n");
        assert!(
            line(&rebuilt).contains("`optimizer.sha256`: found \"bb\", expected \"aa\"; hint: use the plugin that")
        );
        assert!(line(&rebuilt).ends_with("or resume with `--allow-plugin-change`"));
        assert_eq!(lines(&saved, &other, &Allowed::default()).len(), 1, "the name says it all");
        assert!(line(&other).ends_with("or begin the optimizer's state anew with `--reset-optimizer`"));
        let change = Allowed { plugin_change: true, ..Allowed::default() };
        assert_eq!((lines(&saved, &rebuilt, &change).len(), lines(&saved, &other, &change).len()), (0, 1));
        let reset = Allowed { reset_optimizer: true, ..Allowed::default() };
        assert_eq!(compare(&saved, &other, &reset, false).unwrap().len(), 1);
    }
}
