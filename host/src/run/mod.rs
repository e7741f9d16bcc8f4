//! A training run from its configuration to its last checkpoint. The only module that knows all others.

mod fit;
mod folder;
mod identity;
mod listeners;
mod memory;
mod plan;
mod prepare;
mod resume;
mod saving;
mod signals;

pub use identity::Allowed;
pub use plan::Plan;
pub use prepare::{device, kind, load_plugin, refuse_unused_schedule, set_up_libtorch};
pub use resume::{From, Resume};

use crate::config::Loaded;
use crate::error::{Fault, Result, printable};
use crate::events::{Event, Finished};
use crate::sinks::checkpoint::Checkpoint;
use crate::sinks::say;
use crate::trainer::{End, Progress};
use folder::write_status;
use listeners::Listeners;
use prepare::Prepared;
use resume::Restored;
use saving::Saving;
use signals::Stop;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// After this time a long step should return, so that the run can be served.
const PART: Duration = Duration::from_secs(60);

/// How a run that took place ended. A run that could not begin has no ending, only faults.
#[derive(Debug)]
pub struct Ending {
    /// Exit code of the process.
    pub code: u8,
    /// `max_steps`, `max_tokens`, `target_loss`, `stopped`, `grace` or `error`.
    pub reason: &'static str,
    /// The newest committed checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Finished steps.
    pub step: u64,
    /// What ended it, if that was an error.
    pub fault: Option<Fault>,
}

impl Ending {
    /// The last line that a run says.
    pub fn line(&self) -> String {
        let Self { code, reason, checkpoint, step, .. } = self;
        let checkpoint = checkpoint.as_ref().map_or("none".into(), |path| path.display().to_string());
        format!("exit code={code} reason={reason} last_checkpoint={} step={step}", printable(&checkpoint))
    }
}

/// Trains as configured, from the start or from a checkpoint. A run that is complete is left as it is. One that was
/// stopped by a signal and saved ends with `graceful_exit_code`.
///
/// # Errors
///
/// Everything that is found wrong before the first step, at once where possible.
pub fn train(loaded: &Loaded, resume: &Resume, graceful_exit_code: u8) -> Result<Ending, Vec<Fault>> {
    let (started, config) = (Instant::now(), &loaded.config);
    let one = |fault: Fault| vec![fault];
    let stop = Stop::listen(Duration::from_secs(config.run.grace_seconds)).map_err(one)?;
    let (folder, checkpoint) = resume.open(&config.run.dir).map_err(one)?;
    let mut prepared = Prepared::new(loaded, checkpoint.as_ref().map(|checkpoint| &checkpoint.manifest))?;
    let mut restored = Restored::default();
    if let Some(checkpoint) = &checkpoint {
        restored = resume.restore(checkpoint, &mut prepared, config)?;
        if let Some(ending) = complete(&prepared, checkpoint) {
            return Ok(ending);
        }
    }
    let metrics = listeners::metrics(config, &prepared.plugin).map_err(one)?;
    let folder = folder.create(config, &prepared.model).map_err(one)?;
    let mut listeners = Listeners::open(folder.path(), metrics).map_err(one)?;
    listeners.hear(&Event::Started(prepared.started.clone()));
    resume.announce(checkpoint.as_ref(), &restored, &mut |event| listeners.hear(&event));
    let mut saving = Saving::new(&config.checkpoint, folder.checkpoints(), checkpoint.as_ref());
    let stop = (&stop, folder.status());
    let outcome = run(&mut prepared, &mut saving, (stop.0, &stop.1), &mut listeners);
    let ending = ending(&prepared, &saving, outcome, graceful_exit_code);
    listeners.hear(&finished(&ending, &prepared, started));
    let closed = listeners.close().and_then(|()| write_status(&folder.status(), &ending));
    Ok(match closed {
        Err(fault) if ending.fault.is_none() => {
            Ending { code: fault.exit as u8, reason: "error", fault: Some(fault), ..ending }
        }
        _ => ending,
    })
}

/// The ending of a run that was complete before: nothing is done and nothing is written.
fn complete(prepared: &Prepared, checkpoint: &Checkpoint) -> Option<Ending> {
    let end = prepared.trainer.end().filter(|_| prepared.trainer.part() == 0)?;
    let step = prepared.trainer.step();
    say(&format!("the run was already complete after {step} steps ({}): nothing to do", end.name()));
    Some(Ending { code: 0, reason: end.name(), checkpoint: Some(checkpoint.path.clone()), step, fault: None })
}

/// Steps until the end, or until a stop is asked for (`None`); saves on the way, when asked for, and at the end.
fn run(
    prepared: &mut Prepared,
    saving: &mut Saving,
    (stop, status): (&Stop, &Path),
    listeners: &mut Listeners,
) -> Result<Option<End>> {
    prepared.session.lock().backend.stop = stop.flag();
    loop {
        prepared.session.lock().backend.return_by = Some(Instant::now() + PART);
        let progress = prepared.trainer.advance(&mut |event| listeners.hear(&event))?;
        listeners.check()?;
        let (ended, stopped) = (matches!(progress, Progress::End(_)), stop.is_asked());
        // Both are asked, since both take note.
        let due = saving.is_due(progress) | stop.take_save();
        if ended || stopped || due {
            saving.save(prepared, &mut |event| listeners.hear(&event))?;
            listeners.check()?;
        }
        stop.reached(prepared.trainer.step(), saving.newest(), status);
        match progress {
            Progress::End(end) => return Ok(Some(end)),
            _ if stopped => return Ok(None),
            _ => {}
        }
    }
}

fn ending(prepared: &Prepared, saving: &Saving, outcome: Result<Option<End>>, graceful: u8) -> Ending {
    let (code, reason, fault) = match outcome {
        Ok(Some(end)) => (0, end.name(), None),
        Ok(None) => (graceful, "stopped", None),
        Err(fault) => (fault.exit as u8, "error", Some(fault)),
    };
    Ending { code, reason, checkpoint: saving.newest().map(PathBuf::from), step: prepared.trainer.step(), fault }
}

fn finished(ending: &Ending, prepared: &Prepared, started: Instant) -> Event {
    Event::Finished(Finished {
        step: ending.step,
        reason: ending.reason.into(),
        exit_code: ending.code,
        error: ending.fault.as_ref().map(ToString::to_string),
        validation_loss: prepared.trainer.validation_loss(),
        seconds: started.elapsed().as_secs_f64(),
    })
}
