//! A run's folder: one process at a time, the configuration as it was resolved, the status.

use super::{Ending, identity};
use crate::config::{self, Config};
use crate::durable;
use crate::error::{Exit, Fault, Result};
use crate::model::ModelConfig;
use crate::sinks::checkpoint::{self, Change};
use crate::sinks::say;
use serde_json::{Value, json};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration of a run's last start, in its folder.
const RESOLVED: &str = "config.resolved.toml";

/// A run's folder before anything of this run is written.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    exists: bool,
    /// Checkpoints that are newer than the one the run goes on from, and damaged.
    damaged: Vec<PathBuf>,
}

/// A run's folder, locked until the process ends.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl Place {
    /// A folder for a new run: it must not exist.
    pub fn new(path: &Path) -> Result<Self> {
        let refused = |_| {
            Fault::new(Exit::Usage, format!("`run.dir`: `{}` exists", path.display()))
                .expected("a folder to be made")
                .hint("go on with it by `--resume auto`, or choose another with `--set run.dir=DIR`")
        };
        durable::refuse_existing(path).map_err(refused)?;
        Ok(Self { path: path.to_owned(), exists: false, damaged: vec![] })
    }

    /// The folder of a run that goes on; `damaged` are the checkpoints that it passed over.
    pub fn existing(path: &Path, damaged: Vec<PathBuf>) -> Self {
        Self { path: path.to_owned(), exists: true, damaged }
    }

    /// Makes the folder where it does not exist, locks it, sets damaged checkpoints aside, and writes the resolved
    /// configuration.
    ///
    /// # Errors
    ///
    /// [`Exit::Unavailable`] when another process runs there, [`Exit::Write`].
    pub fn create(self, config: &Config, model: &ModelConfig) -> Result<RunFolder> {
        let failed = |error: std::io::Error| Fault::writing(&self.path, &error);
        std::fs::create_dir_all(&self.path).map_err(failed)?;
        let lock = File::open(&self.path).map_err(failed)?;
        if is_taken(&lock) {
            let what = format!("`run.dir`: another process runs in `{}`", self.path.display());
            return Err(
                Fault::new(Exit::Unavailable, what).hint("wait for it, or choose another with `--set run.dir=DIR`")
            );
        }
        for damaged in &self.damaged {
            let aside = checkpoint::set_aside(damaged)?;
            say(&format!("warning: `{}` is now `{}`", damaged.display(), aside.display()));
        }
        let (file, text) = (self.path.join(RESOLVED), config::to_resolved_toml(&resolved(config, model))?);
        match self.exists {
            true => durable::replace(&file, text.as_bytes())?,
            false => durable::write_new(&file, text.as_bytes())?,
        }
        Ok(RunFolder { path: self.path, _lock: lock })
    }
}

/// Whether another process holds the folder. Who only looks, as `gauntlet watch` does, holds it for an instant, so a few
/// more tries follow the first.
fn is_taken(lock: &File) -> bool {
    const TRIES: u32 = 5;
    let fails = |try_number: u32| {
        if try_number > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
    };
    (0..TRIES).all(fails)
}

impl RunFolder {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    pub fn status(&self) -> PathBuf {
        self.path.join(STATUS)
    }
}

/// The configuration with the model as the preset resolves it.
fn resolved(config: &Config, model: &ModelConfig) -> Config {
    let mut resolved = config.clone();
    if let Ok(Value::Object(mut model)) = serde_json::to_value(model) {
        // Values that are absent come from the preset, so it has to stay.
        model.extend(config.model.get("preset").map(|preset| ("preset".to_owned(), preset.clone())));
        resolved.model = model;
    }
    resolved
}

/// The keys whose values differ from those of the last start in the folder `path`. None where it left no configuration
/// that can be read: a difference that matters is one of the checkpoint's own.
pub fn changes_since_last_start(path: &Path, config: &Config, model: &ModelConfig) -> Vec<Change> {
    let before = std::fs::read_to_string(path.join(RESOLVED)).ok().and_then(|text| toml::from_str::<Value>(&text).ok());
    let mut changes = vec![];
    if let Some((before, now)) = before.zip(serde_json::to_value(resolved(config, model)).ok()) {
        identity::collect(&before, &now, "", &mut changes);
    }
    changes
}

/// `status.json` of a run that goes on: what is left of it if its process dies.
pub fn write_running(path: &Path, plugin: &str, step: u64) -> Result<()> {
    let status = json!({
        "exit_code": null, "reason": RUNNING, "step": step, "last_checkpoint": null, "error": null,
        "plugin": plugin, "pid": std::process::id(),
    });
    durable::replace(path, format!("{status:#}\n").as_bytes())
}

/// What `status.json` gives as the reason until a run has ended.
const RUNNING: &str = "running";

/// What to say of the last process of the run in this folder, if it died without a last line.
pub fn died(dir: &Path) -> Option<String> {
    let status: Value = serde_json::from_slice(&std::fs::read(dir.join(STATUS)).ok()?).ok()?;
    let (plugin, step) = (status["plugin"].as_str()?, status["step"].as_u64()?);
    (status["reason"] == RUNNING).then(|| {
        format!("the last process of this run, from step {step}, was killed or ended by its plugin `{plugin}`")
    })
}

/// Name of the file that says how a run ended.
const STATUS: &str = "status.json";

/// `status.json`: how the run ended, for other programs.
pub fn write_status(path: &Path, ending: &Ending) -> Result<()> {
    let status = json!({
        "exit_code": ending.code,
        "reason": ending.reason,
        "step": ending.step,
        "last_checkpoint": ending.checkpoint,
        "error": ending.fault.as_ref().map(ToString::to_string),
    });
    durable::replace(path, format!("{status:#}\n").as_bytes())
}
