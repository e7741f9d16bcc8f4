//! Where a run begins: at its start, or at a checkpoint, with everything restored or not at all.

use super::fit;
use super::folder::{self, Place};
use super::identity::{self, Allowed};
use super::prepare::Prepared;
use crate::config::Config;
use crate::error::{Exit, Fault, Result};
use crate::events::Event;
use crate::sinks::checkpoint::{self, Change, Checkpoint};
use crate::sinks::say;
use crate::trainer::Resumed;
use std::path::{Path, PathBuf};

/// Where a run begins.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// What was asked for.
    pub from: From,
    /// What may differ from the checkpoint's run.
    pub allowed: Allowed,
    /// Whether values that are not finite are taken as well.
    pub nonfinite: bool,
}

/// A checkpoint to begin at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// None: a new run.
    #[default]
    Start,
    /// The latest of the run's folder, or the start where there is none.
    Auto,
    /// This one.
    Path(PathBuf),
}

impl std::str::FromStr for From {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "auto" { Self::Auto } else { Self::Path(text.into()) })
    }
}

/// What restoring a checkpoint changed in the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    /// Keys of the identity that the user let change.
    changes: Vec<Change>,
    /// Other keys that differ from the last start: the course of the run does not depend on them.
    harmless: Vec<Change>,
    /// What may make the run's bits differ from those of a run that was not stopped.
    inexact: Vec<String>,
}

impl Resume {
    /// The run's folder and the checkpoint to begin at.
    ///
    /// # Errors
    ///
    /// A folder in the way ([`Exit::Usage`]); a checkpoint that was named and is missing or damaged, or that is not the
    /// newest of the folder it lies in; a folder whose checkpoints are all damaged ([`Exit::Checkpoint`]).
    pub(super) fn open(&self, dir: &Path) -> Result<(Place, Option<Checkpoint>)> {
        match &self.from {
            From::Start => Ok((Place::new(dir)?, None)),
            From::Auto if !dir.exists() => Ok((Place::new(dir)?, None)),
            From::Auto => {
                let (latest, damaged) = checkpoint::latest(&dir.join("checkpoints"))?;
                damaged.iter().for_each(|(_, fault)| say(&format!("warning: passed over: {fault}")));
                if latest.is_none() && !damaged.is_empty() {
                    return Err(all_damaged(dir, damaged.len()));
                }
                Ok((Place::existing(dir, damaged.into_iter().map(|(path, _)| path).collect()), latest))
            }
            From::Path(path) => {
                let checkpoint = Checkpoint::open(path).map_err(|mut fault| {
                    fault.exit = Exit::Checkpoint;
                    fault
                })?;
                checkpoint.verify()?;
                Ok((place_for(&checkpoint, dir)?, Some(checkpoint)))
            }
        }
    }

    /// Puts the checkpoint's state into a run that was prepared at its start.
    ///
    /// # Errors
    ///
    /// What differs from the checkpoint's run ([`Exit::Checkpoint`]); a state that does not fit.
    pub(super) fn restore(
        &self,
        checkpoint: &Checkpoint,
        prepared: &mut Prepared,
        config: &Config,
    ) -> Result<Restored, Vec<Fault>> {
        let manifest = &checkpoint.manifest;
        let one = |fault: Fault| vec![fault];
        let other_tensors = fit::differences(checkpoint, prepared).map_err(one)?;
        let (saved, now) = (&manifest.identity, &prepared.manifest.identity);
        let compared = identity::compare(saved, now, &self.allowed, !other_tensors.is_empty());
        let mut changes = match (compared, other_tensors.is_empty()) {
            (compared, false) => return Err(fit::other_model(compared.err().unwrap_or_default(), other_tensors)),
            (compared, true) => compared?,
        };
        changes.iter_mut().for_each(|change| change.step = manifest.step);
        fit::check_changes(&changes, checkpoint, &self.allowed).map_err(one)?;
        fit::restore_tensors(checkpoint, prepared, self.nonfinite).map_err(one)?;
        if self.allowed.reset_optimizer {
            prepared.trainer.renew_optimizer().map_err(one)?;
        } else {
            let state = checkpoint.optimizer().map_err(one)?;
            prepared.trainer.load_optimizer(&state).map_err(|fault| vec![fit::unfit_state(fault, checkpoint)])?;
        }
        prepared.trainer.resume(Resumed {
            step: manifest.step,
            part: manifest.part,
            before: checkpoint.streams_before(),
            skipped: manifest.skipped.clone(),
            validation_loss: manifest.validation_loss,
        });
        prepared.manifest.changes = [manifest.changes.clone(), changes.clone()].concat();
        let harmless = self.harmless(checkpoint, prepared, config);
        Ok(Restored { inexact: fit::inexact(manifest, &prepared.manifest), changes, harmless })
    }

    /// What differs from the configuration of the run's last start, and is no part of a run's identity.
    fn harmless(&self, checkpoint: &Checkpoint, prepared: &Prepared, config: &Config) -> Vec<Change> {
        let Some(dir) = checkpoint.path.parent().and_then(Path::parent) else { return vec![] };
        let mut changes = folder::changes_since_last_start(dir, config, &prepared.model);
        changes.retain(|change| !identity::holds(&prepared.manifest.identity, &change.key));
        changes
    }

    /// Says where the run goes on, and what is not as it was.
    pub(super) fn announce(&self, checkpoint: Option<&Checkpoint>, restored: &Restored, emit: &mut dyn FnMut(Event)) {
        let Some(Checkpoint { manifest, path, .. }) = checkpoint else {
            if self.from == From::Auto {
                let (step, checkpoint) = (0, String::new());
                emit(Event::Resumed { step, checkpoint, tokens: 0, line_search_tokens: 0, flops: 0.0 });
            }
            return;
        };
        let tokens = |purpose: &str| manifest.sequences.get(purpose).copied().unwrap_or(0) * manifest.seq_len as u64;
        emit(Event::Resumed {
            step: manifest.step,
            checkpoint: path.display().to_string(),
            tokens: tokens("step"),
            line_search_tokens: tokens("line_search"),
            flops: manifest.flops,
        });
        let mut log = |level: &str, message| emit(Event::Log { level: level.into(), message });
        let line = |Change { key, saved, now, .. }: &Change| {
            format!("resumed with a change: `{key}`: {} to {}", identity::shown(saved), identity::shown(now))
        };
        restored.harmless.iter().for_each(|change| log("info", line(change)));
        restored.changes.iter().for_each(|change| log("warn", line(change)));
        let mut warn = |message| log("warn", message);
        if self.allowed.reset_optimizer {
            warn("resumed with the optimizer's state at its beginning".into());
        }
        if !restored.inexact.is_empty() {
            warn(format!("the run goes on, but not bit for bit as it would have: {}", restored.inexact.join("; ")));
        }
    }
}

fn all_damaged(dir: &Path, count: usize) -> Fault {
    Fault::new(Exit::Checkpoint, format!("`{}` holds no whole checkpoint", dir.join("checkpoints").display()))
        .found(format!("{count} damaged"))
        .hint("begin a run of its own with `--set run.dir=DIR`")
}

/// A checkpoint of the run's own folder goes on there, if it is the newest; one of another run begins a new folder.
fn place_for(checkpoint: &Checkpoint, dir: &Path) -> Result<Place> {
    let folder = dir.join("checkpoints");
    let own = checkpoint.path.canonicalize().ok().zip(folder.canonicalize().ok());
    if own.is_none_or(|(path, folder)| path.parent() != Some(folder.as_path())) {
        return Place::new(dir);
    }
    let at = (checkpoint.manifest.step, checkpoint.manifest.part);
    match checkpoint::list(&folder)?.into_iter().find(|found| found.at > at) {
        None => Ok(Place::existing(dir, vec![])),
        Some(newer) => {
            Err(Fault::new(Exit::Checkpoint, format!("`{}` is not the newest checkpoint", checkpoint.path.display()))
                .found(format!("`{}`", newer.path.display()))
                .hint("begin a run of its own with `--set run.dir=DIR`, or remove the newer ones"))
        }
    }
}
