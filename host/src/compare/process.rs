//! This program as a worker: in a process group of its own, ended with its parent, its output in a log.

use crate::error::{Fault, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// The running program, also where its file was replaced since it started.
const PROGRAM: &str = "/proc/self/exe";

/// Runs this program, its output appended to a log. When it `is_stopped` it is told so by a signal, and its end is waited for.
///
/// # Errors
///
/// [`Exit::Write`](crate::error::Exit::Write) or [`Exit::Missing`](crate::error::Exit::Missing): it cannot be started.
pub fn run(args: &[OsString], log: &Path, is_stopped: &dyn Fn() -> bool) -> Result<ExitStatus> {
    let file = File::options().create(true).append(true).open(log).map_err(|error| Fault::writing(log, &error))?;
    let other = file.try_clone().map_err(|error| Fault::writing(log, &error))?;
    let mut child = command(args).stdout(file).stderr(other).spawn().map_err(cannot_start)?;
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().map_err(cannot_start)? {
            return Ok(status);
        }
        if !told && is_stopped() {
            told = true;
            tell(&child);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs this program to its end; gives what it said.
///
/// # Errors
///
/// It cannot be started.
pub fn output(args: &[OsString]) -> Result<Output> {
    command(args).output().map_err(cannot_start)
}

/// This program in a process group of its own, so that a Ctrl-C reaches it through the comparison alone, and without the
/// configuration of the environment.
fn command(args: &[OsString]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg0("gauntlet").args(args).stdin(Stdio::null()).process_group(0);
    for (name, _) in crate::config::environment() {
        command.env_remove(name);
    }
    command
}

fn tell(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn cannot_start(error: std::io::Error) -> Fault {
    Fault::reading(Path::new(PROGRAM), &error)
}
