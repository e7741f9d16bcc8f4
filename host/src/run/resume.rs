//! Where a run begins: at its start, or at a checkpoint, with everything restored or not at all.

use super::folder::Place;
use super::identity;
use super::prepare::Prepared;
use crate::error::{Exit, Fault, Result};
use crate::events::Event;
use crate::sinks::checkpoint::{self, Checkpoint};
use crate::trainer::Resumed;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Where a run begins.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// What was asked for.
    pub from: From,
    /// Configuration keys, or sections, that may differ from the checkpoint's.
    pub allow_change: Vec<String>,
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

impl Resume {
    /// The run's folder and the checkpoint to begin at.
    ///
    /// # Errors
    ///
    /// A folder in the way ([`Exit::Usage`]); a checkpoint that was named and is missing or damaged, or that is not
    /// the newest of the folder it lies in ([`Exit::Checkpoint`]).
    pub(super) fn open(&self, dir: &Path) -> Result<(Place, Option<Checkpoint>)> {
        match &self.from {
            From::Start => Ok((Place::new(dir)?, None)),
            From::Auto if !dir.exists() => Ok((Place::new(dir)?, None)),
            From::Auto => {
                let (latest, damaged) = checkpoint::latest(&dir.join("checkpoints"))?;
                damaged.iter().for_each(|fault| eprintln!("warning: passed over: {fault}"));
                Ok((Place::existing(dir), latest))
            }
            From::Path(path) => {
                let checkpoint = Checkpoint::open(path)?;
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
    pub(super) fn restore(&self, checkpoint: &Checkpoint, prepared: &mut Prepared) -> Result<(), Vec<Fault>> {
        let manifest = &checkpoint.manifest;
        identity::compare(&manifest.identity, &prepared.manifest.identity, &self.allow_change)?;
        let one = |fault: Fault| vec![fault];
        restore_tensors(checkpoint, prepared).map_err(one)?;
        prepared.trainer.load_optimizer(&checkpoint.optimizer().map_err(one)?).map_err(one)?;
        prepared.trainer.resume(Resumed {
            step: manifest.step,
            part: manifest.part,
            before: checkpoint.streams_before(),
            skipped: manifest.skipped.clone(),
            validation_loss: manifest.validation_loss,
        });
        Ok(())
    }

    /// Says where the run goes on.
    pub(super) fn announce(&self, checkpoint: Option<&Checkpoint>, emit: &mut dyn FnMut(Event)) {
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
    }
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
        None => Ok(Place::existing(dir)),
        Some(newer) => {
            Err(Fault::new(Exit::Checkpoint, format!("`{}` is not the newest checkpoint", checkpoint.path.display()))
                .found(format!("`{}`", newer.path.display()))
                .hint("begin a run of its own with `--set run.dir=DIR`, or remove the newer ones"))
        }
    }
}

fn restore_tensors(checkpoint: &Checkpoint, prepared: &Prepared) -> Result<()> {
    let mut session = prepared.session.lock();
    let names: Vec<String> = session.specs().iter().map(|spec| spec.name.clone()).collect();
    let device = session.backend.facts().device;
    let params = checkpoint.tensors("params", &names, device)?;
    let ema = if checkpoint.has("ema") { Some(checkpoint.tensors("ema", &names, device)?) } else { None };
    for (tensor, spec) in params.iter().chain(ema.iter().flatten()).zip(session.specs().iter().cycle()) {
        check_tensor(checkpoint, tensor, spec)?;
    }
    tch::no_grad(|| session.replace_params(|index, param| param.copy_(&params[index])));
    let backend = &mut session.backend;
    backend.streams = checkpoint.streams();
    backend.earlier_flops = checkpoint.manifest.flops;
    if let (Some(average), Some(saved)) = (backend.ema.as_mut(), &ema) {
        average.resume(saved, checkpoint.manifest.ema_updated);
    }
    Ok(())
}

/// A tensor of the checkpoint has the model's shape and only finite values.
fn check_tensor(checkpoint: &Checkpoint, tensor: &Tensor, spec: &gauntlet_plugin_api::ParamSpec) -> Result<()> {
    let shape: Vec<usize> = tensor.size().iter().map(|size| *size as usize).collect();
    let what = format!("`{}`: `{}`", checkpoint.path.display(), spec.name);
    if shape != spec.shape {
        let fault = Fault::new(Exit::Checkpoint, format!("{what} has another shape"));
        return Err(fault.found(format!("{shape:?}")).expected(format!("{:?}", spec.shape)));
    }
    match bool::try_from(tensor.isfinite().all()) {
        Ok(true) => Ok(()),
        _ => Err(Fault::new(Exit::Checkpoint, format!("{what} holds values that are not finite"))),
    }
}
