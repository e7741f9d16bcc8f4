//! Signals: the first asks the run to stop at its next good point, the second ends the process at once.

use super::Ending;
use super::folder::write_status;
use crate::error::{Exit, Fault, Result};
use crate::sinks::say;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Whether a stop or a save was asked for.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    save: Arc<AtomicBool>,
    reached: Arc<Mutex<Reached>>,
}

/// How far the run has come, for the line of a process that has to end without reaching its stop.
#[derive(Debug, Default)]
struct Reached {
    step: u64,
    checkpoint: Option<PathBuf>,
    status: Option<PathBuf>,
}

impl Stop {
    /// Listens for SIGINT, SIGTERM and SIGHUP, the last unless the process was started with it ignored, as by `nohup`;
    /// SIGUSR1 asks for a checkpoint. When the run has not ended `grace` after the first, the process ends without a
    /// save, as it does on a second signal: 128 and the signal's number.
    ///
    /// # Errors
    ///
    /// The system refuses to register a handler.
    pub fn listen(grace: Duration) -> Result<Self> {
        let stop = Self { asked: Arc::default(), save: Arc::default(), reached: Arc::default() };
        let which = Arc::new(AtomicUsize::new(0));
        let failed = |error| Fault::new(Exit::Internal, format!("cannot listen for signals: {error}"));
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| *signal != SIGHUP || !ignored(SIGHUP)) {
            let register = || {
                flag::register_conditional_shutdown(signal, 128 + signal, stop.asked.clone())?;
                flag::register_usize(signal, which.clone(), signal as usize)?;
                flag::register(signal, stop.asked.clone())
            };
            register().map_err(failed)?;
        }
        flag::register(SIGUSR1, stop.save.clone()).map_err(failed)?;
        let watched = stop.clone();
        std::thread::spawn(move || watch(&watched, &which, grace));
        Ok(stop)
    }

    /// Whether a stop was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint was asked for since the last call.
    pub fn take_save(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }

    /// The flag itself, for long steps.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.asked.clone()
    }

    /// Notes how far the run has come, and where its `status.json` lies.
    pub fn reached(&self, step: u64, checkpoint: Option<&Path>, status: &Path) {
        if let Ok(mut reached) = self.reached.lock() {
            reached.step = step;
            if reached.checkpoint.as_deref() != checkpoint {
                reached.checkpoint = checkpoint.map(Path::to_owned);
            }
            reached.status.get_or_insert_with(|| status.to_owned());
        }
    }
}

/// Whether this process was started with the signal ignored.
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// Ends the process when the grace is over.
fn watch(stop: &Stop, which: &AtomicUsize, grace: Duration) {
    const POLL: Duration = Duration::from_millis(50);
    while !stop.is_asked() {
        std::thread::sleep(POLL);
    }
    let first = Instant::now();
    while first.elapsed() < grace {
        std::thread::sleep(POLL.min(grace));
    }
    let code = (128 + which.load(Ordering::Relaxed)) as u8;
    let what = format!("the run did not reach a point to stop within {} s", grace.as_secs());
    let fault = Fault::new(Exit::Stopped, what).hint("raise `run.grace_seconds`");
    say(&format!("error: {fault}"));
    if let Ok(reached) = stop.reached.lock() {
        let (step, checkpoint) = (reached.step, reached.checkpoint.clone());
        let ending = Ending { code, reason: "grace", checkpoint, step, fault: Some(fault) };
        say(&ending.line());
        if let Some(status) = &reached.status {
            // The process ends either way, and its exit code tells.
            let _ = write_status(status, &ending);
        }
    }
    std::process::exit(i32::from(code));
}
