//! What must hold between keys, and of texts that a JSON Schema cannot describe.

use serde_json::Value;
use std::net::SocketAddr;

use super::Config;
use super::check::Problem;
use super::sections::{Device, Metrics, Paths, ScheduleKind};

/// Problems of texts with a form of their own; the value need not have passed any check.
pub fn texts(config: &Value) -> Vec<Problem> {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str);
    let mut problems = Vec::new();
    if let Some(found) = text("/run/device").filter(|text| text.parse::<Device>().is_err()) {
        problems.push(
            Problem::new("run.device", "unknown device").found(format_args!("`{found}`")).expected(Device::FORMS),
        );
    }
    if let Some(found) = text("/metrics/listen").filter(|text| text.parse::<SocketAddr>().is_err()) {
        let problem = Problem::new("metrics.listen", "not an address").found(format_args!("`{found}`"));
        problems.push(problem.expected("an IP address with a port, as in `127.0.0.1:9464` or `[::1]:9464`"));
    }
    if let Some(found) = text("/metrics/push_gateway").filter(|text| Metrics::gateway(text).is_none()) {
        let problem = Problem::new("metrics.push_gateway", "not the address of a Pushgateway");
        let problem = problem.found(format_args!("`{found}`")).expected("`http://HOST:PORT`");
        problems.push(problem.hint("it is reached without TLS; for one beyond this machine use a proxy on it"));
    }
    let hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(found) = text("/optimizer/sha256").filter(|text| !hash(text)) {
        let problem = Problem::new("optimizer.sha256", "not a SHA-256 hash").found(format_args!("`{found}`"));
        problems.push(problem.expected("64 hexadecimal digits").hint("`sha256sum` prints it"));
    }
    problems.extend(paths(config));
    let folders = config.pointer("/plugins/search_path").and_then(Value::as_array).into_iter().flatten();
    for (i, folder) in folders.enumerate() {
        if let Some(folder) = folder.as_str().filter(|folder| !folder.starts_with('/')) {
            let problem = Problem::new(format!("plugins.search_path[{i}]"), "not an absolute path");
            problems.push(problem.found(format_args!("`{folder}`")).expected("a path that begins with `/`"));
        }
    }
    problems
}

/// Paths that no file can have, or that mean something else than they seem to.
fn paths(config: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for key in ["run.dir", "data.train", "data.validation", "metrics.textfile"] {
        let value = config.pointer(&format!("/{}", key.replace('.', "/"))).unwrap_or(&Value::Null);
        let listed = value.as_array().into_iter().flatten().enumerate();
        let listed = listed.map(|(i, value)| (format!("{key}[{i}]"), value));
        for (key, path) in listed.chain([(key.to_owned(), value)]) {
            let (key, path) = match path.get("path") {
                Some(inner) => (format!("{key}.path"), inner),
                None => (key, path),
            };
            problems.extend(path.as_str().and_then(|path| path_problem(key, path)));
        }
    }
    problems
}

/// The longest path that Linux takes, in bytes.
const MAX_PATH_LEN: usize = 4095;

fn path_problem(key: String, path: &str) -> Option<Problem> {
    if path.len() > MAX_PATH_LEN {
        let problem = Problem::new(key, "too long for a path").found(format_args!("{} bytes", path.len()));
        return Some(problem.expected(format_args!("at most {MAX_PATH_LEN} bytes")));
    }
    if path.contains(char::is_control) {
        let problem = Problem::new(key, "a path with control characters").found(format_args!("`{path}`"));
        return Some(problem.expected("printable characters"));
    }
    let home = path == "~" || path.starts_with("~/");
    let problem = || Problem::new(key, "`~` stands for no folder here").found(format_args!("`{path}`"));
    home.then(|| problem().hint("write the folder out"))
}

/// Keys whose values are right one by one and do not go together.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// All of these keys.
    pub keys: &'static [&'static str],
    /// What is wrong.
    pub problem: Problem,
}

fn conflict(keys: &'static [&'static str], problem: Problem) -> Conflict {
    Conflict { keys, problem }
}

/// Problems between the keys of a configuration.
pub fn between_keys(config: &Config) -> Vec<Conflict> {
    let mut conflicts = ends(config);
    conflicts.extend(schedule(config));
    conflicts.extend(mix(config));
    let (micro, batch) = (config.train.micro_batch_size, config.data.batch_size);
    if micro > batch {
        conflicts.push(larger(&["train.micro_batch_size", "data.batch_size"], micro as u64, batch as u64));
    }
    let (skips, window) = (config.train.max_skips, config.train.max_skips_window);
    if skips > window {
        conflicts.push(larger(&["train.max_skips", "train.max_skips_window"], skips, window));
    }
    if config.metrics.required && !config.metrics.enabled {
        let problem = Problem::new("metrics.required", "metrics are required, yet switched off");
        let problem = problem.found("`metrics.enabled` = false").hint("remove one of the two");
        conflicts.push(conflict(&["metrics.required", "metrics.enabled"], problem));
    }
    conflicts
}

/// Weights are of all parts of the training data, and of nothing else.
fn mix(config: &Config) -> Vec<Conflict> {
    let weighted = |paths: &Paths| paths.as_slice().iter().filter(|path| path.weight().is_some()).count();
    let (train, all) = (weighted(&config.data.train), config.data.train.as_slice().len());
    let mut conflicts = Vec::new();
    if train > 0 && train < all {
        let problem = Problem::new("data.train", "some paths have weights and some have none");
        let problem =
            problem.found(format_args!("{train} of {all}")).hint("write each as `{path = \"...\", weight = ...}`");
        conflicts.push(conflict(&["data.train"], problem));
    }
    if weighted(&config.data.validation) > 0 {
        let problem = Problem::new("data.validation", "weights are for training data").hint("write the paths alone");
        conflicts.push(conflict(&["data.validation"], problem));
    }
    conflicts
}

/// The first of these keys is larger than the last; those between are added to the first.
fn larger(keys: &'static [&'static str], value: u64, limit: u64) -> Conflict {
    let (last, added) = keys.split_last().map_or(("", keys), |(last, added)| (*last, added));
    let problem = Problem::new(added.join("` + `"), format!("larger than `{last}`"));
    conflict(keys, problem.found(value).expected(format_args!("at most {limit}")))
}

/// A run must know when to end, and be able to measure what it ends by.
fn ends(config: &Config) -> Vec<Conflict> {
    let train = &config.train;
    let mut conflicts = Vec::new();
    let limited = train.max_steps.is_some() || train.max_tokens.is_some() || train.max_gradient_equivalents.is_some();
    if !limited && train.target_loss.is_none() {
        let problem = Problem::new("train.max_steps", "the run would have no end");
        let problem = problem.expected("one of `train.max_steps`, `train.max_tokens`, `train.target_loss`");
        conflicts.push(conflict(&["train.max_steps", "train.max_tokens", "train.target_loss"], problem));
    }
    if train.target_loss.is_some() && config.data.validation.as_slice().is_empty() {
        let problem = Problem::new("train.target_loss", "needs validation data").found("no `data.validation`");
        let problem = problem.hint("set `data.validation`");
        conflicts.push(conflict(&["train.target_loss", "data.validation"], problem));
    }
    if train.target_loss.is_some() && config.eval.every_steps == 0 {
        let problem = Problem::new("train.target_loss", "needs evaluations during the run");
        let problem = problem.found("`eval.every_steps` = 0").expected("`eval.every_steps` >= 1");
        conflicts.push(conflict(&["train.target_loss", "eval.every_steps"], problem));
    }
    conflicts
}

const WARMUP: &str = "schedule.warmup_steps";
const DECAY: &str = "schedule.decay_steps";
const HORIZON: &str = "schedule.horizon_steps";

fn schedule(config: &Config) -> Vec<Conflict> {
    decay(config).into_iter().chain(horizon(config)).collect()
}

fn decay(config: &Config) -> Option<Conflict> {
    let keys = &["schedule.kind", DECAY];
    match (config.schedule.kind, config.schedule.decay_steps) {
        (ScheduleKind::Wsd, None) => {
            let problem = Problem::new(DECAY, "missing");
            Some(conflict(keys, problem.expected("an integer >= 1, since `schedule.kind` = `wsd`")))
        }
        (ScheduleKind::Wsd, Some(_)) | (_, None) => None,
        (_, Some(steps)) => {
            let problem = Problem::new(DECAY, "only `schedule.kind` = `wsd` has it").found(steps);
            let hint = "remove it, or set `schedule.kind` to `wsd`";
            Some(conflict(keys, problem.expected("no value").hint(hint)))
        }
    }
}

fn horizon(config: &Config) -> Option<Conflict> {
    let schedule = &config.schedule;
    let (keys, both, steps): (&[&str], &[&str], u64) = match (schedule.horizon_steps, config.train.max_steps) {
        (Some(steps), _) => (&[WARMUP, HORIZON], &[WARMUP, DECAY, HORIZON], steps),
        (None, Some(steps)) => (&[WARMUP, "train.max_steps"], &[WARMUP, DECAY, "train.max_steps"], steps),
        (None, None) if schedule.kind == ScheduleKind::Constant => return None,
        (None, None) => {
            let problem = Problem::new(HORIZON, "missing, since `train.max_steps` is not set");
            let problem = problem.expected("an integer >= 1").hint("set one of the two");
            return Some(conflict(&[HORIZON, "train.max_steps", "schedule.kind"], problem));
        }
    };
    let sum = schedule.warmup_steps.saturating_add(schedule.decay_steps.unwrap_or(0));
    if schedule.warmup_steps > steps {
        return Some(larger(keys, schedule.warmup_steps, steps));
    }
    (sum > steps).then(|| larger(both, sum, steps))
}
