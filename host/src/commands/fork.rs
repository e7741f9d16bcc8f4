//! `gauntlet fork`: a branch of a run with another optimizer or other settings, on the same data.

use super::Faults;
use crate::config;
use crate::error::{Exit, Fault, Result, printable};
use crate::report::{Branch, History};
use crate::run::{self, Allowed, From, Resume};
use crate::sinks::say;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run's folder and a step of which it has a checkpoint: `runs/a@400`.
    #[arg(value_name = "RUN@STEP")]
    from: String,
    /// One key of the branch, for example `optimizer.plugin=muon`. Of another plugin, keys of `optimizer.config` are set anew.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The branch's folder; `RUN-fork-STEP` when absent.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Trains the branch from the checkpoint on, and says how it compares with the run that it left.
pub fn run(args: &Args) -> Result<u8, Faults> {
    let (parent, step) = place(&args.from).map_err(|fault| vec![fault])?;
    let checkpoint = parent.join("checkpoints").join(format!("step-{step}"));
    let resolved = parent.join("config.resolved.toml");
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}-fork-{step}", parent.display())));
    let mut sets = args.set.clone();
    sets.push(format!("run.dir={}", config::inline(&dir.display().to_string().into())));
    let base = base(&resolved, &args.set).map_err(|fault| vec![fault])?;
    let loaded = config::load(&[base.path().to_owned()], &sets, [])?;
    let allowed = Allowed { keys: SECTIONS.map(str::to_owned).to_vec(), plugin_change: false, reset_optimizer: true };
    let resume = Resume { from: From::Path(checkpoint), allowed, nonfinite: false };
    let ending = run::train(&loaded, &resume, Exit::Stopped as u8)?;
    ending.fault.iter().for_each(|fault| say(&format!("error: {fault}")));
    say(&ending.line());
    let histories = History::read(&parent).and_then(|parent| Ok((parent, History::read(&dir)?)));
    match histories {
        Ok((parent, own)) => print!("{}", Branch::of(&parent, &own, step)),
        Err(fault) => say(&format!("warning: {fault}")),
    }
    Ok(ending.code)
}

/// `RUN@STEP` taken apart.
fn place(from: &str) -> Result<(PathBuf, u64)> {
    let parts = from.rsplit_once('@').and_then(|(run, step)| Some((PathBuf::from(run), step.parse().ok()?)));
    parts.ok_or_else(|| {
        let fault = Fault::new(Exit::Usage, "not a place in a run").found(format!("`{}`", printable(from)));
        fault.expected("RUN@STEP, for example `runs/quickstart-1@400`")
    })
}

/// Sections of a run's identity in which a branch may differ; its model may not.
const SECTIONS: [&str; 5] = ["data", "run", "schedule", "ema", "train"];

/// The run's own configuration; without the keys of its plugin where the branch has another.
fn base(resolved: &Path, sets: &[String]) -> Result<NamedTempFile> {
    let text = std::fs::read_to_string(resolved).map_err(|error| Fault::reading(resolved, &error))?;
    let bad = |error: toml::de::Error| Fault::new(Exit::Data, format!("`{}`: {}", resolved.display(), error.message()));
    let mut table: toml::Table = toml::from_str(&text).map_err(bad)?;
    if sets.iter().any(|set| set.trim_start().starts_with("optimizer.plugin"))
        && let Some(toml::Value::Table(optimizer)) = table.get_mut("optimizer")
    {
        optimizer.retain(|key, _| key == "plugin");
    }
    let failed = |error: std::io::Error| Fault::writing(&std::env::temp_dir(), &error);
    let mut file = tempfile::Builder::new().prefix("fork-").suffix(".toml").tempfile().map_err(failed)?;
    file.write_all(table.to_string().as_bytes()).map_err(failed)?;
    Ok(file)
}
