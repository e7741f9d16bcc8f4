//! A plugin tried in a process of its own before this one loads it: what ends or hangs a process there ends no run.
//!
//! The child loads the very bytes that were checked here, by their hash, and runs a few checks of the conformance suite on
//! plain Rust. A pass is remembered by hash and host in the per-user cache.

use super::child::{self, Output};
use super::image::Image;
use super::load::Plugin;
use crate::error::{Exit, Fault, Result};
use gauntlet_plugin_api::testing::{Subject, Verdict, check_some};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The checks that a run depends on.
const CHECKS: [&str; 4] = ["creation", "determinism", "state round trip", "stop and resume"];
/// What the mark holds when all of them hold.
const PASSED: &str = "passed";
/// What the mark begins with when one does not.
const FAILED: &str = "failed ";
/// What the mark begins with when the plugin cannot be tried without a configuration.
const UNTRIED: &str = "untried ";

/// What a probe found, where it found nothing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The checks hold, now or when they were last run on these bytes.
    Passed,
    /// The plugin was loaded, and not tried: it has keys without a default that no value can be chosen for.
    Untried(String),
}

/// Tries a plugin in a child process, which may take as long as `limit`.
///
/// # Errors
///
/// [`Exit::Plugin`]: it ended the process, did not end in time, or fails a check.
pub fn probe(image: &Image, limit: Duration) -> Result<Probed> {
    let remembered = remembered(image);
    if remembered.as_deref().is_some_and(Path::exists) {
        return Ok(Probed::Passed);
    }
    let args: [OsString; 5] =
        ["plugins".into(), "probe".into(), image.path.clone().into(), "--sha256".into(), image.sha256.clone().into()];
    let child::Outcome { status, note } = child::run(args, limit, Output::Dropped)?;
    let failed = |what: String| {
        let what = format!("plugin `{}` fails its self-test: {what}", image.path.display());
        let hint = "`gauntlet plugins check` shows more; `plugins.probe = false` loads it untried";
        Fault::new(Exit::Plugin, what).hint(hint)
    };
    match status {
        None => Err(failed(format!("{note} did not end within {} s", limit.as_secs()))),
        Some(status) if status.success() && note == PASSED => {
            // Only costs the next run a second.
            let _ = remembered.map(|path| path.parent().map(std::fs::create_dir_all).map(|_| std::fs::write(path, [])));
            Ok(Probed::Passed)
        }
        Some(status) if status.success() => match (note.strip_prefix(FAILED), note.strip_prefix(UNTRIED)) {
            (Some(why), _) => Err(failed(why.to_owned())),
            (_, Some(keys)) => Ok(Probed::Untried(keys.to_owned())),
            _ => Err(failed(format!("it ended the process in {note}")).found("exit code 0")),
        },
        Some(status) => Err(failed(format!("it ended the process in {note}")).found(child::ending(status))),
    }
}

/// Where a pass of these bytes by this host is remembered; `None` without a home.
fn remembered(image: &Image) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = variable("GAUNTLET_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("gauntlet")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/gauntlet")))?;
    let host = format!("{}-{}", env!("CARGO_PKG_VERSION"), env!("GAUNTLET_COMMIT"));
    Some(cache.join("probed").join(format!("{}-{host}", image.sha256)))
}

/// The child's part: loads the plugin with this hash, runs the checks, and notes what it found.
///
/// # Errors
///
/// Those of [`Plugin::load`]; they are noted too.
pub fn here(path: &Path, sha256: &str, mark: &Path) -> Result<()> {
    child::begin();
    child::note(mark, "loading");
    let plugin = match Plugin::load(path, Some(sha256)) {
        Ok(plugin) => plugin,
        Err(fault) => {
            child::note(mark, &format!("{FAILED}{fault}"));
            return Ok(());
        }
    };
    let mut config = json!({});
    let Chosen { missing, .. } = fill_required(&plugin.metadata.schema, &mut config);
    if !missing.is_empty() {
        child::note(mark, &format!("{UNTRIED}{missing}"));
        return Ok(());
    }
    let subject = Subject::of_module(plugin.module(), plugin.metadata.clone());
    let report = check_some(&CHECKS, &subject, &config, |name, verdict| {
        if verdict.is_none() {
            child::note(mark, &format!("the check `{name}`"));
        }
    });
    let wrong = report.checks.iter().find_map(|(name, verdict)| match verdict {
        Verdict::Failed(message) => Some(format!("{FAILED}{name}: {message}")),
        _ => None,
    });
    child::note(mark, wrong.as_deref().unwrap_or(PASSED));
    Ok(())
}

/// Required keys of a plugin's schema.
#[derive(Debug, Default)]
pub struct Chosen {
    /// Those that were given a value here, for a message.
    pub chosen: String,
    /// Those that no value can be chosen for.
    pub missing: String,
}

/// Gives required keys that are numbers and have no value a small one, so that a plugin can be checked without any.
pub fn fill_required(schema: &Value, config: &mut Value) -> Chosen {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let Some(table) = config.as_object_mut() else { return Chosen::default() };
    let (mut chosen, mut missing) = (vec![], vec![]);
    for key in required.filter(|key| !table.contains_key(*key)).collect::<Vec<_>>() {
        let value = match schema["properties"][key]["type"].as_str() {
            Some("number") => json!(0.01),
            Some("integer") => json!(1),
            _ => {
                missing.push(format!("`{key}`"));
                continue;
            }
        };
        table.insert(key.to_owned(), value);
        chosen.push(format!("`{key}`"));
    }
    Chosen { chosen: chosen.join(", "), missing: missing.join(", ") }
}
