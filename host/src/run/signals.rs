//! Signals: the first asks the run to stop at its next good point, the second ends the process at once.

use super::Ending;
use super::exit_guard;
use super::folder::write_status;
use super::watch::{Limits, watch};
use crate::error::{Exit, Fault, Result, reason};
use crate::sinks::say;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What was asked for by signals, and the run's signs of life.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    save: Arc<AtomicBool>,
    states: Arc<AtomicBool>,
    /// The last signal that asked for a stop.
    which: Arc<AtomicUsize>,
    pulse: Arc<AtomicU64>,
    reached: Arc<Mutex<Reached>>,
    newest: Newest,
}

/// How far the run has come, for the line of a process that has to end without reaching its stop.
#[derive(Debug, Default)]
struct Reached {
    step: u64,
    status: Option<PathBuf>,
}

/// The newest committed checkpoint, as the thread that commits it knows first.
pub type Newest = Arc<Mutex<Option<PathBuf>>>;

impl Stop {
    /// Listens for SIGINT, SIGTERM and SIGHUP, the last unless the process was started with it ignored, as by `nohup`;
    /// SIGUSR1 asks for a checkpoint, SIGUSR2 for the states of all threads. When the run has not ended `limits.grace`
    /// after the first, the process ends without a save, as it does on a second signal: 128 and the signal's number.
    ///
    /// # Errors
    ///
    /// The system refuses to register a handler.
    pub fn listen(limits: Limits) -> Result<Self> {
        let stop = Self {
            asked: Arc::default(),
            ended: Arc::default(),
            save: Arc::default(),
            states: Arc::default(),
            which: Arc::default(),
            pulse: Arc::default(),
            reached: Arc::default(),
            newest: Arc::default(),
        };
        let failed = |error: std::io::Error| {
            Fault::new(Exit::Internal, format!("cannot listen for signals: {}", reason(&error))).with_limit(&error)
        };
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| *signal != SIGHUP || !ignored(SIGHUP)) {
            let register = || {
                flag::register_conditional_shutdown(signal, 128 + signal, stop.asked.clone())?;
                flag::register_usize(signal, stop.which.clone(), signal as usize)?;
                flag::register(signal, stop.asked.clone())
            };
            register().map_err(failed)?;
        }
        flag::register(SIGUSR1, stop.save.clone()).map_err(failed)?;
        flag::register(SIGUSR2, stop.states.clone()).map_err(failed)?;
        let watched = stop.clone();
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || watch(&watched, limits));
        thread.map_err(failed)?;
        Ok(stop)
    }

    /// Whether a stop was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The run has ended and its files are complete: the process is no longer watched, and from now on the first signal
    /// ends what it waits for.
    pub fn ended(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Whether the run has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint was asked for since the last call.
    pub fn take_save(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }

    /// Whether the states of the threads were asked for since the last call.
    pub fn take_states(&self) -> bool {
        self.states.swap(false, Ordering::Relaxed)
    }

    /// Counts signs of life; 0 before the first step.
    pub fn pulse(&self) -> Arc<AtomicU64> {
        self.pulse.clone()
    }

    /// 128 and the number of the signal that asked for a stop.
    pub fn signal_code(&self) -> u8 {
        (128 + self.which.load(Ordering::Relaxed)) as u8
    }

    /// The flag itself, for long steps.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.asked.clone()
    }

    /// Notes how far the run has come, and where its `status.json` lies.
    pub fn reached(&self, step: u64, status: &Path) {
        if let Ok(mut reached) = self.reached.lock() {
            reached.step = step;
            reached.status.get_or_insert_with(|| status.to_owned());
        }
    }

    /// Notes the checkpoint that the run begins at.
    pub fn committed(&self, checkpoint: Option<&Path>) {
        if let Ok(mut newest) = self.newest.lock() {
            *newest = checkpoint.map(Path::to_owned);
        }
    }

    /// The newest committed checkpoint.
    pub fn newest(&self) -> Newest {
        self.newest.clone()
    }

    /// Ends the process here and now, with the last line and the status of a run that cannot end by itself.
    pub fn end_process(&self, code: u8, reason: &'static str, fault: Fault) -> ! {
        say(&format!("error: {fault}"));
        if let Ok(reached) = self.reached.lock() {
            let (step, checkpoint) = (reached.step, self.newest.lock().ok().and_then(|newest| newest.clone()));
            let ending = Ending { code, reason, checkpoint, step, fault: Some(fault) };
            say(&ending.line());
            if let Some(status) = &reached.status {
                // The process ends either way, and its exit code tells.
                let _ = write_status(status, &ending);
            }
        }
        exit_guard::leave(code)
    }
}

/// Whether this process was started with the signal ignored.
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
