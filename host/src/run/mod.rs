//! A training run from its configuration to its last checkpoint. The only module that knows all others.

mod estimate;
mod exit_guard;
mod fit;
mod folder;
mod growth;
mod identity;
mod initial;
mod listeners;
mod memory;
mod plan;
mod prepare;
mod process;
mod resume;
mod running;
mod saving;
mod signals;
mod store;
mod threads;
mod watch;

pub use estimate::Estimate;
pub use identity::Allowed;
pub use plan::Plan;
pub use prepare::{device, kind, load_plugin, refuse_unused_schedule, set_up_libtorch};
pub use resume::{From, Resume};

use crate::config::Loaded;
use crate::error::{Fault, printable};
use crate::sinks::checkpoint::Checkpoint;
use crate::sinks::say;
use prepare::Prepared;
use resume::Restored;
use running::Running;
use signals::Stop;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use watch::Limits;

/// How a run that took place ended. A run that could not begin has no ending, only faults.
#[derive(Debug)]
pub struct Ending {
    /// Exit code of the process.
    pub code: u8,
    /// `max_steps`, `max_tokens`, `max_gradient_equivalents`, `target_loss`, `stopped`, `grace`, `hang` or `error`.
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
    let (place, checkpoint) = resume.open(&config.run.dir).map_err(one)?;
    let mut prepared = Prepared::new(loaded, checkpoint.as_ref().map(|checkpoint| &checkpoint.manifest))?;
    let mut restored = Restored::default();
    if let Some(checkpoint) = &checkpoint {
        restored = resume.restore(checkpoint, &mut prepared, config)?;
        if let Some(ending) = complete(&prepared, checkpoint) {
            return Ok(ending);
        }
    }
    let begun = match (&config.run.init_from, &checkpoint) {
        (Some(from), None) => Some(initial::begin_from(from, &mut prepared)?),
        _ => None,
    };
    let mut running = Running::begin(place, config, &prepared, &stop, checkpoint.as_ref())?;
    resume.announce(checkpoint.as_ref(), &restored, &mut |event| running.listeners.hear(&event));
    begun.into_iter().for_each(|event| running.listeners.hear(&event));
    let outcome = running.run(&mut prepared);
    Ok(running.end(&prepared, outcome, graceful_exit_code, started))
}

/// The ending of a run that was complete before: nothing is done and nothing is written.
fn complete(prepared: &Prepared, checkpoint: &Checkpoint) -> Option<Ending> {
    let end = prepared.trainer.end().filter(|_| prepared.trainer.part() == 0)?;
    let step = prepared.trainer.step();
    say(&format!("the run was already complete after {step} steps ({}): nothing to do", end.name()));
    Some(Ending { code: 0, reason: end.name(), checkpoint: Some(checkpoint.path.clone()), step, fault: None })
}
