//! What a resumed run must have in common with its checkpoint, and what differs.

use crate::config::{Config, ScheduleKind};
use crate::data::Dataset;
use crate::error::{Exit, Fault, Result};
use crate::model::ModelConfig;
use crate::plugin::Plugin;
use serde_json::{Value, json};

/// Everything that the course of a run depends on, by configuration key; written into every checkpoint.
pub fn identity(config: &Config, model: &ModelConfig, data: &Dataset, plugin: &Plugin) -> Value {
    let schedule = &config.schedule;
    let horizon = schedule.horizon_steps.or(config.train.max_steps).filter(|_| schedule.kind != ScheduleKind::Constant);
    json!({
        "model": model,
        "data": {
            "fingerprint": data.fingerprint(),
            "seq_len": config.data.seq_len,
            "batch_size": config.data.batch_size,
            "order": config.data.order,
        },
        "run": { "seed": config.run.seed, "dtype": config.run.dtype },
        "schedule": {
            "kind": schedule.kind,
            "warmup_steps": schedule.warmup_steps,
            "final_fraction": schedule.final_fraction,
            "horizon_steps": horizon,
            "decay_steps": schedule.decay_steps,
        },
        "ema": { "decay": config.ema.decay },
        "train": { "micro_batch_size": config.train.micro_batch_size },
        "optimizer": {
            "plugin": plugin.metadata.name,
            "version": plugin.metadata.version,
            "sha256": plugin.image.sha256,
            "state_version": plugin.metadata.state_version,
            "config": config.optimizer.config,
        },
    })
}

/// Compares the identity of a checkpoint with the run's own.
///
/// # Errors
///
/// One fault a key that differs and is not allowed to ([`Exit::Checkpoint`]); `allowed` holds keys or sections.
pub fn compare(saved: &Value, now: &Value, allowed: &[String]) -> Result<(), Vec<Fault>> {
    let mut differences = vec![];
    collect(saved, now, "", &mut differences);
    let is_allowed = |key: &str| {
        allowed
            .iter()
            .any(|name| key == name || key.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.')))
    };
    let refused = differences.into_iter().filter(|(key, ..)| !is_allowed(key));
    let faults: Vec<Fault> = refused
        .map(|(key, saved, now)| {
            Fault::new(Exit::Checkpoint, format!("the checkpoint is of another run: `{key}`"))
                .found(now)
                .expected(saved)
                .hint(format!("set it back, or resume with `--allow-change {key}`"))
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// The keys under which two values differ, with both values.
fn collect(saved: &Value, now: &Value, at: &str, differences: &mut Vec<(String, String, String)>) {
    if let (Value::Object(a), Value::Object(b)) = (saved, now) {
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            let side = |table: &serde_json::Map<String, Value>| table.get(key).cloned().unwrap_or(Value::Null);
            collect(&side(a), &side(b), &path, differences);
        }
    } else if saved != now {
        differences.push((at.to_owned(), shown(saved), shown(now)));
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "nothing".into() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named_unless_allowed() {
        let saved = json!({ "data": { "seq_len": 8, "batch_size": 2 }, "optimizer": { "config": { "lr": 0.1 } } });
        let now = json!({ "data": { "seq_len": 16, "batch_size": 2 }, "optimizer": { "config": { "wd": 0.5 } } });
        let lines = |allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|key| key.to_string()).collect();
            compare(&saved, &now, &allowed)
                .err()
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&[]).len(), 3);
        assert_eq!(
            lines(&["optimizer"]),
            [
                "the checkpoint is of another run: `data.seq_len`: found 16, expected 8; hint: set it back, or resume with \
              `--allow-change data.seq_len`"
            ]
        );
        assert!(lines(&["optimizer.config", "data.seq_len"]).is_empty());
        assert_eq!(lines(&["data.seq"]).len(), 3, "a key is allowed by its whole name");
    }
}
