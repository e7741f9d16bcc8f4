//! `gauntlet fork`: a branch of a run with another optimizer or other settings, on the same data.

use super::Faults;
use crate::config::{self, Config};
use crate::error::{Exit, Fault, Result, printable};
use crate::report::{Branch, History};
use crate::run::{self, Allowed, From, Resume};
use crate::sinks::{checkpoint, say};
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

/// Trains the branch from the checkpoint on, or goes on with it, and says how it compares with the run that it left.
pub fn run(args: &Args) -> Result<u8, Faults> {
    let one = |fault: Fault| vec![fault];
    let (parent, step) = place(&args.from).map_err(one)?;
    refuse_dir(&args.set).map_err(one)?;
    let dir = args.dir.clone().unwrap_or_else(|| beside(&parent, step));
    let mut sets = args.set.clone();
    sets.push(format!("run.dir={}", config::inline(&dir.display().to_string().into())));
    let resolved = parent.join("config.resolved.toml");
    let base = base(&resolved, &args.set).map_err(one)?;
    let loaded = config::load(&[base.path().to_owned()], &sets, [])?;
    refuse_other_data(&config::load(&[resolved], &[], [])?.config, &loaded.config).map_err(one)?;
    let checkpoint = parent.join("checkpoints").join(format!("step-{step}"));
    let ending = run::train(&loaded, &resume(&dir, checkpoint).map_err(one)?, Exit::Stopped as u8)?;
    ending.fault.iter().for_each(|fault| say(&format!("error: {fault}")));
    say(&ending.line());
    let histories = History::read(&parent).and_then(|parent| Ok((parent, History::read(&dir)?)));
    match histories {
        Ok((parent, own)) => print!("{}", Branch::of(&parent, &own, step)),
        Err(fault) => say(&format!("warning: {fault}")),
    }
    Ok(ending.code)
}

/// The folder of a branch that was given none.
fn beside(parent: &Path, step: u64) -> PathBuf {
    let mut name = parent.file_name().unwrap_or(parent.as_os_str()).to_owned();
    name.push(format!("-fork-{step}"));
    parent.with_file_name(name)
}

/// A new branch begins at the checkpoint with an optimizer of its own; one that is there goes on as it was.
fn resume(dir: &Path, checkpoint: PathBuf) -> Result<Resume> {
    if !dir.exists() {
        let allowed =
            Allowed { keys: SECTIONS.map(str::to_owned).to_vec(), plugin_change: false, reset_optimizer: true };
        return Ok(Resume { from: From::Path(checkpoint), allowed, nonfinite: false });
    }
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let began_at = History::read(dir).ok().and_then(|history| history.began_at);
    let is_branch = began_at.is_some_and(|began_at| place(Path::new(&began_at)) == place(&checkpoint));
    let has_checkpoint = || checkpoint::list(&dir.join("checkpoints")).is_ok_and(|found| !found.is_empty());
    if !is_branch || !has_checkpoint() {
        let fault = Fault::new(Exit::Usage, format!("`{}` exists", dir.display()));
        let fault = fault.expected(format!("a folder to be made, or a branch of `{}`", checkpoint.display()));
        return Err(fault.hint("choose another with `--dir`, or remove this one"));
    }
    Ok(Resume { from: From::Auto, allowed: Allowed::default(), nonfinite: false })
}

fn refuse_dir(sets: &[String]) -> Result<()> {
    let key = |set: &String| set.split('=').next().unwrap_or_default().trim().to_owned();
    match sets.iter().map(key).any(|key| key == "run.dir") {
        true => Err(Fault::new(Exit::Usage, "`run.dir` is the branch's folder").hint("name it with `--dir`")),
        false => Ok(()),
    }
}

/// A branch sees the batches of its run and is judged by the same validation data: else its differences would be of these.
fn refuse_other_data(parent: &Config, own: &Config) -> Result<()> {
    let validation = |config: &Config| (config.eval.batches, config.eval.batch_size);
    let changed = [
        ("data", parent.data != own.data),
        ("run.seed", parent.run.seed != own.run.seed),
        ("eval", validation(parent) != validation(own)),
    ];
    changed.into_iter().find(|(_, is_other)| *is_other).map_or(Ok(()), |(key, _)| {
        let fault = Fault::new(Exit::Usage, format!("`{key}`: a branch has the data of its run"));
        Err(fault.hint("begin a run on other data at a checkpoint with `run.init_from`"))
    })
}

/// `RUN@STEP` taken apart.
fn place(from: &str) -> Result<(PathBuf, u64)> {
    let run = |run: &str| PathBuf::from(if run.len() > 1 { run.trim_end_matches('/') } else { run });
    let parts = from.rsplit_once('@').and_then(|(name, step)| Some((run(name), step.parse().ok()?)));
    parts.ok_or_else(|| {
        let fault = Fault::new(Exit::Usage, "not a place in a run").found(format!("`{}`", printable(from)));
        fault.expected("RUN@STEP, for example `runs/quickstart-1@400`")
    })
}

/// Sections of a run's identity in which a branch may differ; its model and its data may not.
const SECTIONS: [&str; 4] = ["run", "schedule", "ema", "train"];

/// The run's own configuration; without the keys of its plugin where the branch has another.
fn base(resolved: &Path, sets: &[String]) -> Result<NamedTempFile> {
    let text = std::fs::read_to_string(resolved).map_err(|error| Fault::reading(resolved, &error))?;
    let bad = |error: toml::de::Error| Fault::new(Exit::Data, format!("`{}`: {}", resolved.display(), error.message()));
    let mut table: toml::Table = toml::from_str(&text).map_err(bad)?;
    let named = sets.iter().filter_map(|set| set.split_once('=').filter(|(key, _)| key.trim() == "optimizer.plugin"));
    let named = named.map(|(_, name)| name.trim().trim_matches(['"', '\'']).to_owned()).next_back();
    if let (Some(named), Some(toml::Value::Table(optimizer))) = (named, table.get_mut("optimizer"))
        && optimizer.get("plugin").and_then(toml::Value::as_str) != Some(&named)
    {
        optimizer.retain(|key, _| key == "plugin");
    }
    let failed = |error: std::io::Error| Fault::writing(&std::env::temp_dir(), &error);
    let mut file = tempfile::Builder::new().prefix("fork-").suffix(".toml").tempfile().map_err(failed)?;
    file.write_all(table.to_string().as_bytes()).map_err(failed)?;
    Ok(file)
}
