//! The unsafe corner: a process that ends by `exit` inside a plugin does not end as if all were well.

use crate::error::Exit;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a run goes on, which only this program may end.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// While there is one, a process that ends by `exit` has exit code 80.
#[derive(Debug)]
pub struct ExitGuard(());

impl ExitGuard {
    /// Begins to guard.
    pub fn new() -> Self {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            // SAFETY: the function is a static one, takes and gives nothing, and does not unwind. Where the system has no
            // room for it, an exit is what it was.
            let _ = unsafe { libc::atexit(guard) };
        });
        RUNNING.store(true, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        RUNNING.store(false, Ordering::SeqCst);
    }
}

/// Ends the process from any thread, by this program's own will.
pub fn leave(code: u8) -> ! {
    RUNNING.store(false, Ordering::SeqCst);
    std::process::exit(i32::from(code))
}

/// Runs when the process ends by `exit`.
extern "C" fn guard() {
    const LINE: &[u8] = b"error: the plugin ended the process in a step; checkpoints that were committed are whole\n";
    if RUNNING.load(Ordering::SeqCst) {
        // SAFETY: plain bytes to standard error, then the end; nothing else of the process is touched.
        unsafe {
            libc::write(2, LINE.as_ptr().cast(), LINE.len());
            libc::_exit(Exit::Plugin as i32)
        }
    }
}
