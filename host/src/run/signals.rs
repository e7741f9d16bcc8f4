//! Signals: the first asks the run to stop at its next good point, the second ends the process at once.

use crate::error::{Exit, Fault, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Whether a stop was asked for.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: Arc<AtomicBool>,
}

impl Stop {
    /// Listens for SIGINT and SIGTERM. When the run has not ended `grace` after the first, the process ends without a
    /// save, as it does on a second signal: 130 or 143.
    ///
    /// # Errors
    ///
    /// The system refuses to register a handler.
    pub fn listen(grace: Duration) -> Result<Self> {
        let (asked, which) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for signal in [SIGINT, SIGTERM] {
            let register = || {
                flag::register_conditional_shutdown(signal, 128 + signal, asked.clone())?;
                flag::register_usize(signal, which.clone(), signal as usize)?;
                flag::register(signal, asked.clone())
            };
            register().map_err(|error| Fault::new(Exit::Internal, format!("cannot listen for signals: {error}")))?;
        }
        let watched = asked.clone();
        std::thread::spawn(move || watch(&watched, &which, grace));
        Ok(Self { asked })
    }

    /// Whether a stop was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The flag itself, for long steps.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.asked.clone()
    }
}

/// Ends the process when the grace is over.
fn watch(asked: &AtomicBool, which: &AtomicUsize, grace: Duration) {
    const POLL: Duration = Duration::from_millis(50);
    while !asked.load(Ordering::Relaxed) {
        std::thread::sleep(POLL);
    }
    let first = Instant::now();
    while first.elapsed() < grace {
        std::thread::sleep(POLL.min(grace));
    }
    let code = 128 + which.load(Ordering::Relaxed) as i32;
    eprintln!(
        "error: the run did not reach a point to stop within {} s; hint: raise `run.grace_seconds`",
        grace.as_secs()
    );
    eprintln!("exit code={code} reason=grace");
    std::process::exit(code);
}
