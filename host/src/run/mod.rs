//! A training run from its configuration to its last checkpoint. The only module that knows all others.

mod exit_guard;
mod fit;
mod folder;
mod identity;
mod listeners;
mod memory;
mod plan;
mod prepare;
mod process;
mod resume;
mod saving;
mod signals;
mod store;
mod threads;
mod watch;

pub use identity::Allowed;
pub use plan::Plan;
pub use prepare::{device, kind, load_plugin, refuse_unused_schedule, set_up_libtorch};
pub use resume::{From, Resume};

use crate::config::{Config, Loaded};
use crate::error::{Fault, Result, printable};
use crate::events::{Event, Finished};
use crate::sinks::checkpoint::Checkpoint;
use crate::sinks::say;
use crate::trainer::{End, Progress};
use exit_guard::ExitGuard;
use folder::{write_running, write_status};
use listeners::Listeners;
use prepare::Prepared;
use resume::Restored;
use saving::Saving;
use signals::Stop;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use store::Store;
use watch::Limits;

/// After this time a long step should return, so that the run can be served.
const PART: Duration = Duration::from_secs(60);

/// A run that was asked to stop waits for its last scrape no longer than this, so that it ends before whoever asked kills it.
const LAST_SCRAPE: Duration = Duration::from_secs(5);

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
    let [grace, hang] = [config.run.grace_seconds, config.run.hang_seconds].map(Duration::from_secs);
    let stop = Stop::listen(Limits { grace, hang }).map_err(one)?;
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
    let died = folder::died(&config.run.dir);
    let folder = folder.create(config, &prepared.model).map_err(one)?;
    let mut listeners = Listeners::open(folder.path(), metrics).map_err(one)?;
    listeners.hear(&Event::Started(prepared.started.clone()));
    resume.announce(checkpoint.as_ref(), &restored, &mut |event| listeners.hear(&event));
    write_running(&folder.status(), &prepared.plugin.name, prepared.trainer.step()).map_err(one)?;
    let store = Store::open(folder.checkpoints(), stop.newest()).map_err(one)?;
    let space = store.check_space(checkpoint_bytes(config, &prepared), config.checkpoint.keep).map_err(one)?;
    for message in [died, store.clean().map_err(one)?, space].into_iter().flatten() {
        listeners.hear(&Event::Log { level: "warn".into(), message });
    }
    if let (Some(checkpoint), Ok(mut newest)) = (&checkpoint, stop.newest().lock()) {
        *newest = Some(checkpoint.path.clone());
    }
    let mut saving = Saving::new(&config.checkpoint, store, checkpoint.as_ref());
    let stop = (&stop, folder.status());
    let guard = ExitGuard::new();
    let outcome = run(&mut prepared, &mut saving, (stop.0, &stop.1), &mut listeners);
    drop(guard);
    let outcome = outcome.inspect_err(|_| {
        // What is being written is of before the error, which has the first word.
        let _ = saving.finish(&mut |event| listeners.hear(&event));
    });
    let ending = ending(&prepared, &saving, outcome, graceful_exit_code);
    listeners.hear(&finished(&ending, &prepared, started));
    let (closed, metrics) = listeners.close();
    let closed = closed.and_then(|()| write_status(&folder.status(), &ending));
    stop.0.ended();
    let (closing, stopped) = (Instant::now(), ending.reason == "stopped");
    let hurry = || stop.0.is_asked() || (stopped && closing.elapsed() >= LAST_SCRAPE);
    metrics.iter().flat_map(|metrics| metrics.close(&hurry)).for_each(|warning| say(&warning));
    Ok(match closed {
        Err(fault) if ending.fault.is_none() => {
            Ending { code: fault.exit as u8, reason: "error", fault: Some(fault), ..ending }
        }
        _ => ending,
    })
}

/// About how many bytes a checkpoint of the run will have.
fn checkpoint_bytes(config: &Config, prepared: &Prepared) -> u64 {
    let params = prepared.started.num_params * kind(config.run.dtype).elt_size_in_bytes() as u64;
    let lists = 1 + u64::from(config.ema.decay.is_some());
    lists * params + prepared.started.state_bytes
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
    prepared.session.lock().backend.pulse = stop.pulse();
    loop {
        prepared.session.lock().backend.return_by = Some(Instant::now() + PART);
        stop.pulse().fetch_add(1, Ordering::Relaxed);
        let progress = prepared.trainer.advance(&mut |event| listeners.hear(&event))?;
        saving.poll(&mut |event| listeners.hear(&event))?;
        listeners.check()?;
        let (ended, stopped) = (matches!(progress, Progress::End(_)), stop.is_asked());
        // Both are asked, since both take note.
        let due = saving.is_due(progress) | stop.take_save();
        if ended || stopped || due {
            saving.begin(prepared, &mut |event| listeners.hear(&event))?;
        }
        if ended || stopped {
            saving.finish(&mut |event| listeners.hear(&event))?;
        }
        listeners.check()?;
        stop.reached(prepared.trainer.step(), status);
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
