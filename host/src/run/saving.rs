//! When a checkpoint is due, what goes into it, and its writing beside the run.
//!
//! The run stands still for a copy of its state; a thread writes and commits it. One checkpoint is written at a time: the
//! next one waits for it. Only what is committed is called so.

use super::fit::is_finite;
use super::prepare::Prepared;
use super::store::Store;
use crate::config::{self, OnSaveError};
use crate::error::{Exit, Fault, Result};
use crate::events::Event;
use crate::sinks::checkpoint::{self, Checkpoint, Manifest, Snapshot};
use crate::trainer::Progress;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tch::Tensor;

/// The checkpoints of a run.
#[derive(Debug)]
pub struct Saving {
    policy: config::Checkpoint,
    store: Store,
    newest: Option<PathBuf>,
    /// Step and part of the newest, or of the one being written.
    at: Option<(u64, u64)>,
    last: Instant,
    steps: u64,
    writing: Option<Writing>,
}

/// A checkpoint that a thread writes.
#[derive(Debug)]
struct Writing {
    step: u64,
    started: Instant,
    /// For how long the run has stood still for it so far.
    held: Duration,
    thread: JoinHandle<Result<(PathBuf, u64)>>,
}

impl Saving {
    /// `from` is the checkpoint that the run begins at, if any.
    pub fn new(policy: &config::Checkpoint, store: Store, from: Option<&Checkpoint>) -> Self {
        let at = from.map(|checkpoint| (checkpoint.manifest.step, checkpoint.manifest.part));
        let newest = from.map(|checkpoint| checkpoint.path.clone());
        Self { policy: policy.clone(), store, newest, at, last: Instant::now(), steps: 0, writing: None }
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

    /// Begins to write a checkpoint of this point, after the one before is done. Where the newest is of this very point,
    /// that is enough.
    ///
    /// # Errors
    ///
    /// Values that are not finite; what became of the one before, as [`Saving::finish`] says.
    pub fn begin(&mut self, prepared: &Prepared, emit: &mut dyn FnMut(Event)) -> Result<()> {
        let at = (prepared.trainer.step(), prepared.trainer.part());
        if self.at == Some(at) {
            return Ok(());
        }
        self.wait(emit, false)?;
        let (started, step) = (Instant::now(), at.0);
        emit(Event::Checkpointing { step });
        let staged = snapshot(prepared).and_then(|snapshot| {
            let bytes = snapshot.bytes();
            Ok((bytes, self.store.write(snapshot, self.policy.on_error)?))
        });
        let (bytes, thread) =
            staged.inspect_err(|fault| emit(Event::CheckpointFailed { step, reason: fault.to_string() }))?;
        let held = started.elapsed();
        emit(Event::CheckpointStaged { step, bytes, seconds: held.as_secs_f64() });
        self.writing = Some(Writing { step, started, held, thread });
        (self.at, self.last) = (Some(at), Instant::now());
        Ok(())
    }

    /// Takes note of a checkpoint that is done by now; waits for none.
    ///
    /// # Errors
    ///
    /// As [`Saving::finish`]; none where the policy is to go on.
    pub fn poll(&mut self, emit: &mut dyn FnMut(Event)) -> Result<()> {
        match self.writing.as_ref().is_some_and(|writing| writing.thread.is_finished()) {
            true => self.wait(emit, false),
            false => Ok(()),
        }
    }

    /// Waits until the checkpoint that is being written is committed.
    ///
    /// # Errors
    ///
    /// [`Exit::Write`]; earlier checkpoints are as they were.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Event)) -> Result<()> {
        self.wait(emit, true)
    }

    fn wait(&mut self, emit: &mut dyn FnMut(Event), last: bool) -> Result<()> {
        let Some(Writing { step, started, held, thread }) = self.writing.take() else { return Ok(()) };
        let since = Instant::now();
        let bug = |_| Err(Fault::new(Exit::Internal, "writing a checkpoint ended in a panic"));
        match thread.join().unwrap_or_else(bug) {
            Ok((path, bytes)) => {
                let (seconds, held) = (started.elapsed().as_secs_f64(), held + since.elapsed());
                let (shown, held_seconds) = (path.display().to_string(), held.as_secs_f64());
                emit(Event::Checkpoint { step, path: shown, bytes, seconds, held_seconds });
                self.newest = Some(path.clone());
                checkpoint::rotate(self.store.folder(), self.policy.keep, &path)
            }
            Err(fault) => {
                emit(Event::CheckpointFailed { step, reason: fault.to_string() });
                self.at = None;
                if self.policy.on_error != OnSaveError::Continue || last || fault.exit != Exit::Write {
                    return Err(fault);
                }
                emit(Event::Log { level: "error".into(), message: fault.to_string() });
                Ok(())
            }
        }
    }
}

/// What is not finite is never committed, also where no step has checked it: in the middle of a long one, or in the
/// parameters that a plugin wants to be evaluated at.
fn check_finite(list: &str, name: &str, tensor: &Tensor) -> Result<()> {
    match is_finite(tensor) {
        true => Ok(()),
        false => {
            let what = format!("no checkpoint is written: `{name}` of `{list}` holds values that are not finite");
            Err(Fault::new(Exit::NonFinite, what))
        }
    }
}

/// A copy of all that the run would need to go on from here.
fn snapshot(prepared: &Prepared) -> Result<Snapshot> {
    prepared.process.refuse_changes(&prepared.plugin.name)?;
    let (manifest, lists) = content(prepared)?;
    for (list, tensors) in &lists {
        tensors.iter().try_for_each(|(name, tensor)| check_finite(list, name, tensor))?;
    }
    let copies = |(list, tensors): (&'static str, Vec<(String, Tensor)>)| {
        let tensors = tensors.iter().map(|(name, tensor)| checkpoint::copied(name, tensor)).collect::<Result<_>>()?;
        Ok((list, tensors))
    };
    let lists = lists.into_iter().map(copies).collect::<Result<_>>()?;
    Ok(Snapshot { manifest, lists, optimizer: prepared.trainer.optimizer().save()? })
}

/// Named lists of tensors.
type TensorLists = Vec<(&'static str, Vec<(String, Tensor)>)>;

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn saving(folder: &Path) -> Saving {
        let store = Store::open(folder.join("checkpoints"), Arc::new(Mutex::new(None))).unwrap();
        Saving::new(
            &config::Checkpoint { on_error: OnSaveError::Continue, ..config::Checkpoint::default() },
            store,
            None,
        )
    }

    #[test]
    fn a_panic_of_the_thread_that_writes_ends_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut saving = saving(folder.path());
        let thread = std::thread::spawn(|| panic!("the disk is haunted"));
        saving.writing = Some(Writing { step: 7, started: Instant::now(), held: Duration::ZERO, thread });
        let mut events = vec![];
        let fault = saving.finish(&mut |event| events.push(event)).unwrap_err();
        assert_eq!((fault.exit, fault.to_string().as_str()), (Exit::Internal, "writing a checkpoint ended in a panic"));
        assert!(matches!(events.as_slice(), [Event::CheckpointFailed { step: 7, .. }]), "{events:?}");
        assert!(saving.newest().is_none() && saving.writing.is_none());
    }
}
