//! A training run from its configuration to its last checkpoint. The only module that knows all others.

mod folder;
mod identity;
mod listeners;
mod plan;
mod prepare;
mod resume;
mod saving;
mod signals;

pub use plan::Plan;
pub use prepare::{device, kind, load_plugin, refuse_unused_schedule, set_threads};
pub use resume::{From, Resume};

use crate::config::Loaded;
use crate::error::{Exit, Fault, Result};
use crate::events::{Event, Finished};
use crate::trainer::{End, Progress};
use listeners::Listeners;
use prepare::Prepared;
use saving::Saving;
use signals::Stop;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// After this time a long step should return, so that the run can be served.
const PART: Duration = Duration::from_secs(60);

/// How a run that took place ended. A run that could not begin has no ending, only faults.
#[derive(Debug)]
pub struct Ending {
    /// Exit code of the process.
    pub code: u8,
    /// `max_steps`, `max_tokens`, `target_loss`, `stopped` or `error`.
    pub reason: &'static str,
    /// The newest committed checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Finished steps.
    pub step: u64,
    /// What ended it, if that was an error.
    pub fault: Option<Fault>,
}

/// Trains as configured, from the start or from a checkpoint.
///
/// # Errors
///
/// Everything that is found wrong before the first step, at once where possible.
pub fn train(loaded: &Loaded, resume: &Resume) -> Result<Ending, Vec<Fault>> {
    let (started, config) = (Instant::now(), &loaded.config);
    let one = |fault: Fault| vec![fault];
    let stop = Stop::listen(Duration::from_secs(config.run.grace_seconds)).map_err(one)?;
    let (folder, checkpoint) = resume.open(&config.run.dir).map_err(one)?;
    let mut prepared = Prepared::new(loaded)?;
    if let Some(checkpoint) = &checkpoint {
        resume.restore(checkpoint, &mut prepared)?;
    }
    let metrics = listeners::metrics(config, &prepared.plugin).map_err(one)?;
    let folder = folder.create(config, &prepared.model).map_err(one)?;
    let mut listeners = Listeners::open(folder.path(), metrics).map_err(one)?;
    listeners.hear(&Event::Started(prepared.started.clone()));
    resume.announce(checkpoint.as_ref(), &mut |event| listeners.hear(&event));
    let mut saving = Saving::new(&config.checkpoint, folder.checkpoints(), checkpoint.as_ref());
    let outcome = run(&mut prepared, &mut saving, &stop, &mut listeners);
    let ending = ending(&prepared, &saving, outcome);
    listeners.hear(&finished(&ending, &prepared, started));
    let closed = listeners.close().and_then(|()| folder.write_status(&ending));
    Ok(match closed {
        Err(fault) if ending.fault.is_none() => {
            Ending { code: fault.exit as u8, reason: "error", fault: Some(fault), ..ending }
        }
        _ => ending,
    })
}

/// Steps until the end, or until a stop is asked for (`None`); saves on the way and at the end.
fn run(prepared: &mut Prepared, saving: &mut Saving, stop: &Stop, listeners: &mut Listeners) -> Result<Option<End>> {
    prepared.session.lock().backend.stop = stop.flag();
    loop {
        prepared.session.lock().backend.return_by = Some(Instant::now() + PART);
        let progress = prepared.trainer.advance(&mut |event| listeners.hear(&event))?;
        listeners.check()?;
        let (ended, stopped) = (matches!(progress, Progress::End(_)), stop.is_asked());
        if ended || stopped || saving.is_due(progress) {
            saving.save(prepared, &mut |event| listeners.hear(&event))?;
            listeners.check()?;
        }
        match progress {
            Progress::End(end) => return Ok(Some(end)),
            _ if stopped => return Ok(None),
            _ => {}
        }
    }
}

fn ending(prepared: &Prepared, saving: &Saving, outcome: Result<Option<End>>) -> Ending {
    let (code, reason, fault) = match outcome {
        Ok(Some(end)) => (0, end.name(), None),
        Ok(None) => (Exit::Stopped as u8, "stopped", None),
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
