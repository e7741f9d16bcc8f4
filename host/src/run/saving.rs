//! When a checkpoint is due, and what goes into it.

use super::fit::is_finite;
use super::prepare::Prepared;
use crate::config;
use crate::error::{Exit, Fault, Result};
use crate::events::Event;
use crate::sinks::checkpoint::{self, Checkpoint, Manifest, TensorLists};
use crate::trainer::Progress;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tch::Tensor;

/// The checkpoints of a run.
#[derive(Debug)]
pub struct Saving {
    policy: config::Checkpoint,
    folder: PathBuf,
    newest: Option<PathBuf>,
    /// Step and part of the newest.
    at: Option<(u64, u64)>,
    last: Instant,
    steps: u64,
}

impl Saving {
    /// `from` is the checkpoint that the run begins at, if any.
    pub fn new(policy: &config::Checkpoint, folder: PathBuf, from: Option<&Checkpoint>) -> Self {
        let at = from.map(|checkpoint| (checkpoint.manifest.step, checkpoint.manifest.part));
        let newest = from.map(|checkpoint| checkpoint.path.clone());
        Self { policy: policy.clone(), folder, newest, at, last: Instant::now(), steps: 0 }
    }

    /// The newest committed checkpoint.
    pub fn newest(&self) -> Option<&Path> {
        self.newest.as_deref()
    }

    /// Whether a checkpoint is due: by steps at their ends, by time also within a long step.
    pub fn is_due(&mut self, progress: Progress) -> bool {
        self.steps += u64::from(progress == Progress::Step);
        let by_steps = progress == Progress::Step && self.policy.every_steps > 0;
        let by_time = self.policy.every_minutes > 0.0
            && self.last.elapsed() >= Duration::from_secs_f64(60.0 * self.policy.every_minutes);
        by_time || (by_steps && self.steps.is_multiple_of(self.policy.every_steps))
    }

    /// Writes and commits a checkpoint, then removes old ones. Where the newest is of this very point, that is enough.
    pub fn save(&mut self, prepared: &Prepared, emit: &mut dyn FnMut(Event)) -> Result<()> {
        let at = (prepared.trainer.step(), prepared.trainer.part());
        if self.at == Some(at) {
            return Ok(());
        }
        let (started, step) = (Instant::now(), at.0);
        emit(Event::Checkpointing { step });
        let written = self.write(prepared).inspect_err(|fault| {
            emit(Event::CheckpointFailed { step, reason: fault.to_string() });
        });
        let (path, bytes) = written?;
        let seconds = started.elapsed().as_secs_f64();
        emit(Event::Checkpoint { step, path: path.display().to_string(), bytes, seconds });
        (self.newest, self.at, self.last) = (Some(path.clone()), Some(at), Instant::now());
        checkpoint::rotate(&self.folder, self.policy.keep, &path)
    }

    fn write(&self, prepared: &Prepared) -> Result<(PathBuf, u64)> {
        let (manifest, lists) = content(prepared)?;
        check_finite(&lists)?;
        let state = prepared.trainer.optimizer().save()?;
        checkpoint::save(&self.folder, manifest, &lists, &state)
    }
}

/// What is not finite is never committed, also where no step has checked it: in the middle of a long one, or in the
/// parameters that a plugin wants to be evaluated at.
fn check_finite(lists: &TensorLists) -> Result<()> {
    for (list, tensors) in lists {
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !is_finite(tensor)) {
            let what = format!("no checkpoint is written: `{name}` of `{list}` holds values that are not finite");
            return Err(Fault::new(Exit::NonFinite, what));
        }
    }
    Ok(())
}

/// The manifest and the lists of tensors at this point of the run. The tensors alias the run's own.
fn content(prepared: &Prepared) -> Result<(Manifest, TensorLists)> {
    let trainer = &prepared.trainer;
    let (evaluate_at, evaluation_params) = trainer.evaluation_params()?;
    let mut session = prepared.session.lock();
    let names: Vec<String> = session.specs().iter().map(|spec| spec.name.clone()).collect();
    let (backend, params) = session.backend_and_params();
    let named = |tensors: Vec<Tensor>| names.iter().cloned().zip(tensors).collect::<Vec<_>>();
    let mut lists: TensorLists = vec![("params", named(params.into_iter().map(Tensor::shallow_clone).collect()))];
    if let Some(ema) = &backend.ema {
        lists.push(("ema", named(ema.params().iter().map(Tensor::shallow_clone).collect())));
    }
    if evaluate_at == "plugin" {
        lists.push(("plugin", named(evaluation_params)));
    }
    let manifest = Manifest {
        step: trainer.step(),
        part: trainer.part(),
        sequences: checkpoint::sequences(&backend.streams),
        sequences_before: trainer.streams_before().map(checkpoint::sequences).unwrap_or_default(),
        flops: backend.flops(),
        skipped: trainer.skipped(),
        ema_updated: backend.ema.as_ref().is_some_and(crate::curvature::Ema::is_updated),
        evaluate_at: evaluate_at.into(),
        validation_loss: trainer.validation_loss(),
        ..prepared.manifest.clone()
    };
    Ok((manifest, lists))
}
