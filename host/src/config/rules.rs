//! What must hold between keys, and of texts that a JSON Schema cannot describe.

use serde_json::Value;
use std::net::SocketAddr;

use super::Config;
use super::check::Problem;
use super::sections::{Device, ScheduleKind};

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
    for key in ["run.dir", "data.train", "data.validation"] {
        let value = config.pointer(&format!("/{}", key.replace('.', "/"))).unwrap_or(&Value::Null);
        let listed = value.as_array().into_iter().flatten().enumerate();
        let listed = listed.map(|(i, value)| (format!("{key}[{i}]"), value));
        for (key, path) in listed.chain([(key.to_owned(), value)]) {
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

/// Problems between the keys of a configuration whose values are right one by one.
pub fn between_keys(config: &Config) -> Vec<Problem> {
    let mut problems = ends(config);
    problems.extend(schedule(config));
    let (micro, batch) = (config.train.micro_batch_size, config.data.batch_size);
    if micro > batch {
        problems.push(larger("train.micro_batch_size", micro as u64, "data.batch_size", batch as u64));
    }
    let (skips, window) = (config.train.max_skips, config.train.max_skips_window);
    if skips > window {
        problems.push(larger("train.max_skips", skips, "train.max_skips_window", window));
    }
    if config.metrics.required && !config.metrics.enabled {
        let problem = Problem::new("metrics.required", "metrics are required, yet switched off");
        problems.push(problem.found("`metrics.enabled` = false").hint("remove one of the two"));
    }
    problems
}

fn larger(key: &str, value: u64, limit_key: &str, limit: u64) -> Problem {
    let problem = Problem::new(key, format!("larger than `{limit_key}`"));
    problem.found(value).expected(format_args!("at most {limit}"))
}

/// A run must know when to end, and be able to measure what it ends by.
fn ends(config: &Config) -> Vec<Problem> {
    let train = &config.train;
    let mut problems = Vec::new();
    if train.max_steps.is_none() && train.max_tokens.is_none() && train.target_loss.is_none() {
        let problem = Problem::new("train.max_steps", "the run would have no end");
        problems.push(problem.expected("one of `train.max_steps`, `train.max_tokens`, `train.target_loss`"));
    }
    if train.target_loss.is_some() && config.data.validation.as_slice().is_empty() {
        let problem = Problem::new("train.target_loss", "needs validation data").found("no `data.validation`");
        problems.push(problem.hint("set `data.validation`"));
    }
    if train.target_loss.is_some() && config.eval.every_steps == 0 {
        let problem = Problem::new("train.target_loss", "needs evaluations during the run");
        problems.push(problem.found("`eval.every_steps` = 0").expected("`eval.every_steps` >= 1"));
    }
    problems
}

fn schedule(config: &Config) -> Vec<Problem> {
    let (schedule, train) = (&config.schedule, &config.train);
    let horizon = match (schedule.horizon_steps, train.max_steps) {
        (Some(steps), _) => Some(("schedule.horizon_steps", steps)),
        (None, Some(steps)) => Some(("train.max_steps", steps)),
        (None, None) => None,
    };
    let mut problems = Vec::new();
    let decay = schedule.decay_steps.unwrap_or(0);
    match (schedule.kind, schedule.decay_steps) {
        (ScheduleKind::Wsd, None) => {
            let problem = Problem::new("schedule.decay_steps", "missing");
            problems.push(problem.expected("an integer >= 1, since `schedule.kind` = `wsd`"));
        }
        (ScheduleKind::Wsd, Some(_)) | (_, None) => {}
        (_, Some(_)) => {
            let problem = Problem::new("schedule.decay_steps", "only `schedule.kind` = `wsd` has it");
            problems.push(problem.found(decay).expected("no value").hint("remove it, or set `schedule.kind` to `wsd`"));
        }
    }
    match horizon {
        None if schedule.kind != ScheduleKind::Constant => {
            let problem = Problem::new("schedule.horizon_steps", "missing, since `train.max_steps` is not set");
            problems.push(problem.expected("an integer >= 1").hint("set one of the two"));
        }
        Some((key, steps)) if schedule.warmup_steps > steps => {
            problems.push(larger("schedule.warmup_steps", schedule.warmup_steps, key, steps));
        }
        Some((key, steps)) if schedule.warmup_steps.saturating_add(decay) > steps => {
            let sum = schedule.warmup_steps.saturating_add(decay);
            problems.push(larger("schedule.warmup_steps` + `schedule.decay_steps", sum, key, steps));
        }
        _ => {}
    }
    problems
}
