//! The one error type of the host: a line that says what, found, expected and a hint, and the exit code it ends with.
//!
//! Like `events`, this module uses no other and may be used by all.

use std::fmt;

/// How a command ended. The codes are part of the interface (docs/reliability.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Bad command line or configuration.
    Usage = 2,
    /// A comparison that the user asked for did not hold.
    NotHeld = 3,
    /// Input data are bad: shard, text, vector, tokens or trace.
    Data = 65,
    /// A named file is missing or unreadable.
    Missing = 66,
    /// What the run needs is not to be had here now: a GPU, a folder that another process runs in.
    Unavailable = 69,
    /// A bug in this program.
    Internal = 70,
    /// Could not write: no space, quota, input/output error, read-only.
    Write = 74,
    /// Stopped on request, checkpoint committed.
    Stopped = 75,
    /// No usable checkpoint, or one that does not fit the configuration.
    Checkpoint = 76,
    /// Refused for safety: owner, mode, path or hash of a plugin.
    Refused = 77,
    /// Non-finite values beyond the policy.
    NonFinite = 79,
    /// A plugin's fault: not a plugin, wrong ABI, error, panic, wrong shape.
    Plugin = 80,
}

impl Exit {
    /// The one with this code.
    pub fn of(code: i32) -> Option<Self> {
        let all = [
            Self::Usage,
            Self::NotHeld,
            Self::Data,
            Self::Missing,
            Self::Unavailable,
            Self::Internal,
            Self::Write,
            Self::Stopped,
            Self::Checkpoint,
            Self::Refused,
            Self::NonFinite,
            Self::Plugin,
        ];
        all.into_iter().find(|exit| *exit as i32 == code)
    }
}

/// An error as its reader sees it: `what: found F, expected E; hint: H`, always one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The exit code that a command ends with when this error reaches `main`.
    pub exit: Exit,
    parts: Box<Parts>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parts {
    what: String,
    found: Option<String>,
    expected: Option<String>,
    hint: Option<String>,
    detail: Option<String>,
}

/// The host's result.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

impl Fault {
    /// An error with its exit code and subject, for example ``"`runs/a/shard.bin`: not a token shard"``.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, parts: Box::new(Parts { what: what.into(), ..Parts::default() }) }
    }

    /// What was there instead.
    pub fn found(mut self, found: impl fmt::Display) -> Self {
        self.parts.found = Some(found.to_string());
        self
    }

    /// What should have been there.
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.parts.expected = Some(expected.to_string());
        self
    }

    /// One command or edit that helps.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.parts.hint = Some(hint.to_string());
        self
    }

    /// Long diagnostics, shown only under `--verbose`.
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.parts.detail = Some(detail.to_string());
        self
    }

    /// The long diagnostics, if any.
    pub fn verbose(&self) -> Option<&str> {
        self.parts.detail.as_deref()
    }

    /// An input/output error on a path that is read: 66 when it is missing or unreadable.
    pub fn reading(path: &std::path::Path, error: &std::io::Error) -> Self {
        let what = format!("cannot read `{}`: {}", printable(&path.to_string_lossy()), reason(error));
        Self::new(Exit::Missing, what).with_limit(error)
    }

    /// An input/output error on a path that is written: 74.
    pub fn writing(path: &std::path::Path, error: &std::io::Error) -> Self {
        let what = format!("cannot write `{}`: {}", printable(&path.to_string_lossy()), reason(error));
        Self::new(Exit::Write, what).with_limit(error)
    }

    /// Names the limit of open files where that is what failed.
    pub fn with_limit(self, error: &std::io::Error) -> Self {
        let too_many = error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error());
        match rustix::process::getrlimit(rustix::process::Resource::Nofile).current.filter(|_| too_many) {
            Some(limit) => self.hint(format!("this process may open {limit} files at once; raise it with `ulimit -n`")),
            None => self,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { what, found, expected, hint, detail: _ } = &*self.parts;
        write!(f, "{}", printable(what))?;
        match (found, expected) {
            (Some(found), Some(expected)) => {
                write!(f, ": found {}, expected {}", printable(found), printable(expected))?
            }
            (Some(found), None) => write!(f, ": found {}", printable(found))?,
            (None, Some(expected)) => write!(f, ": expected {}", printable(expected))?,
            (None, None) => {}
        }
        hint.iter().try_for_each(|hint| write!(f, "; hint: {}", printable(hint)))
    }
}

impl std::error::Error for Fault {}

/// The system's words for an error, without Rust's `(os error N)`.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The text with control characters escaped, so that a name from outside cannot break or forge a line.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_line_with_found_expected_and_hint() {
        let fault =
            Fault::new(Exit::Data, "`a\nb`: not a shard").found("magic 7").expected("20240520").hint("run it again");
        assert_eq!(fault.to_string(), "`a\\nb`: not a shard: found magic 7, expected 20240520; hint: run it again");
    }
}
