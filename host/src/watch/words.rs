//! An event as one line for a person.

use crate::error::printable;
use crate::events::{Event, Finished, Started};
use crate::report::duration;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something went wrong.
    Error,
    /// Something may be wrong.
    Warning,
    /// Anything else.
    Plain,
}

/// An event that is worth a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Seconds after its process began.
    pub elapsed: f64,
    /// How much it matters.
    pub level: Level,
    /// The line, without control characters.
    pub text: String,
}

/// The line of an event; `None` for those that a curve or the state shows.
pub fn words(event: &Event) -> Option<(Level, String)> {
    let (level, text) = match event {
        Event::Started(Started { version, plugin, seed, .. }) => {
            (Level::Plain, format!("started by gauntlet {version}: plugin {plugin}, seed {seed}"))
        }
        Event::Resumed { checkpoint, .. } if checkpoint.is_empty() => {
            (Level::Plain, "no checkpoint: begins at the start".into())
        }
        Event::Resumed { step, .. } => (Level::Plain, format!("resumed after step {step}")),
        Event::Initialized { checkpoint, .. } => (Level::Plain, format!("begins with the parameters of {checkpoint}")),
        Event::Step(step) => {
            let reason = step.rejected.as_ref()?;
            (Level::Warning, format!("step {}: update rejected: {reason}", step.step))
        }
        // What became of a step that failed is told by the event after it.
        Event::Evaluating { .. } | Event::Checkpointing { .. } => return None,
        Event::CheckpointStaged { .. } | Event::StepFailed { .. } => return None,
        Event::Evaluated(it) => (Level::Plain, format!("step {}: validation loss {:.4} ({})", it.step, it.loss, it.at)),
        Event::NonFinite { step, place } => (Level::Warning, format!("after step {step}: not finite: {place}")),
        Event::Skipped { step, reason, .. } => {
            (Level::Warning, format!("step {} skipped: {reason}", step.saturating_add(1)))
        }
        Event::Log { level, message } => (level_of(level), format!("{level}: {message}")),
        Event::CheckpointFailed { step, reason } => {
            (Level::Error, format!("checkpoint of step {step} failed: {reason}"))
        }
        Event::Checkpoint { step, bytes, seconds, .. } => {
            let size = *bytes as f64 / 1e6;
            (Level::Plain, format!("checkpoint of step {step}: {size:.1} MB in {}", duration(*seconds)))
        }
        Event::Finished(finished) => end(finished),
    };
    Some((level, printable(&text)))
}

fn level_of(name: &str) -> Level {
    match name {
        "error" => Level::Error,
        "warn" => Level::Warning,
        _ => Level::Plain,
    }
}

/// How a run ended, with the error if that ended it.
fn end(Finished { step, reason, exit_code, error, .. }: &Finished) -> (Level, String) {
    let text = format!("ended after step {step}: {reason}, exit code {exit_code}");
    match error {
        Some(error) => (Level::Error, format!("{text}: {error}")),
        None => (Level::Plain, text),
    }
}
