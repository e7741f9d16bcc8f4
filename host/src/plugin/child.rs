//! This program once more as a child with a time limit, for what may end or hang a process.
//!
//! The child notes in a file, the mark, what it is about to do, so that its parent can say how far it came.

use crate::error::{Fault, Result};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// The running program, also where its file was replaced since it started.
const PROGRAM: &str = "/proc/self/exe";

/// How a child ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its status; `None` where it had to be killed at the limit.
    pub status: Option<ExitStatus>,
    /// What it noted last.
    pub note: String,
}

/// Whether the child's output is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// On this process's own.
    Shown,
    /// Nowhere.
    Dropped,
}

/// Runs this program with `args`, `--mark` and the path of the mark.
///
/// # Errors
///
/// [`Exit::Write`](crate::error::Exit::Write) or [`Exit::Missing`](crate::error::Exit::Missing): the child cannot be
/// started. It is never replaced by work in this process.
pub fn run(args: impl IntoIterator<Item = OsString>, limit: Duration, output: Output) -> Result<Outcome> {
    let mark = NamedTempFile::new().map_err(|error| Fault::writing(&std::env::temp_dir(), &error))?;
    let failed = |error: std::io::Error| Fault::reading(Path::new(PROGRAM), &error);
    let mut command = Command::new(PROGRAM);
    command.arg0("gauntlet").args(args).arg("--mark").arg(mark.path()).stdin(Stdio::null());
    if output == Output::Dropped {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let mut child = command.spawn().map_err(failed)?;
    let status = wait(&mut child, limit).map_err(failed)?;
    Ok(Outcome { status, note: fs::read_to_string(mark.path()).unwrap_or_default() })
}

/// The child's status, or `None` where it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait().map(|_| None)
}

/// How a process ended that should not have.
pub fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(6), _) => "signal 6 (abort)".into(),
        (Some(11), _) => "signal 11 (invalid memory access)".into(),
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("exit code {}", code.unwrap_or_default()),
    }
}

/// Makes this process a well-behaved child: it ends with its parent and by its parent's word alone, and writes no core.
pub fn begin() {
    // Where the system refuses one of these, the parent's time limit still holds.
    end_with_parent();
    let ignored = std::sync::Arc::default();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let _ = signal_hook::flag::register(signal, std::sync::Arc::clone(&ignored));
    }
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
}

/// Lets the system end this process when its parent ends.
pub fn end_with_parent() {
    // Where it refuses, the process ends by itself.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Notes what the child is about to do.
pub fn note(mark: &Path, what: &str) {
    // Without the note the parent can only say less.
    let _ = fs::write(mark, what);
}
