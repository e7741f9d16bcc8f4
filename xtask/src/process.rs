//! Running other programs: their output passes through, and a failure keeps its exit status.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};

/// A program that ended with an error, which it has reported by itself.
#[derive(Debug)]
pub struct Failed {
    what: String,
    code: u8,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with exit status {}", self.what, self.code)
    }
}

impl std::error::Error for Failed {}

/// Runs `command`, called `what` in messages, with its input and output passing through.
pub fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run `{what}`"))?;
    check(status, what)
}

/// An error of type [`Failed`] if the program did not end well.
pub fn check(status: ExitStatus, what: &str) -> Result<()> {
    if status.success() { Ok(()) } else { Err(Failed { what: what.to_owned(), code: code(status) }.into()) }
}

/// What this process exits with for `error`: the status of the program that failed, or 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Failed>().map_or(1, |failed| failed.code)
}

/// The status as a shell gives it: 128 + N for a program that signal N ended.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_exit_status() {
        for (wait_status, expected) in [(75 << 8, 75), (2, 130), (9, 137)] {
            let error = check(ExitStatus::from_raw(wait_status), "gauntlet train").unwrap_err();
            assert_eq!(exit_code(&error), expected);
            assert_eq!(error.to_string(), format!("`gauntlet train` ended with exit status {expected}"));
        }
        assert!(check(ExitStatus::from_raw(0), "true").is_ok());
        assert_eq!(exit_code(&anyhow::anyhow!("no compiler")), 1);
    }
}
