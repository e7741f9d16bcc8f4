//! Errors as values: a code, a message and a place. They cross the boundary in both directions.

use gauntlet_plugin_abi::{ErrorCode, RawError};
use std::fmt;

/// The result of every call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the host or of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of error.
    pub code: ErrorCode,
    /// Where: an operation, a parameter, a key, a source line; may be empty.
    pub at: String,
    /// One line.
    pub message: String,
    /// Longer diagnostics; may be empty.
    pub detail: String,
}

impl Error {
    /// An error of a given kind at a place.
    pub fn new(code: ErrorCode, at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, at: at.into(), message: message.into(), detail: String::new() }
    }

    /// A plugin's own error.
    pub fn plugin(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::PLUGIN, "", message)
    }

    /// A value of the configuration that is not valid, for example `Error::config("lr", "must be > 0, got -1")`.
    pub fn config(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::CONFIG, key, message)
    }

    /// A bad argument of an operation.
    pub fn argument(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ARGUMENT, at, message)
    }

    /// Shapes that do not fit.
    pub fn shape(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::SHAPE, at, message)
    }

    /// Something that the other side does not offer, by name.
    pub fn unsupported(name: impl Into<String>) -> Self {
        Self::new(ErrorCode::UNSUPPORTED, name, "not supported by this host")
    }

    /// State that does not fit.
    pub fn state(entry: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::STATE, entry, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.as_str() {
            "" => f.write_str(&self.message),
            at => write!(f, "{at}: {}", self.message),
        }
    }
}

impl std::error::Error for Error {}

impl From<RawError> for Error {
    fn from(raw: RawError) -> Self {
        Self { code: raw.code, at: raw.at.into(), message: raw.message.into(), detail: raw.detail.into() }
    }
}

impl From<Error> for RawError {
    fn from(error: Error) -> Self {
        Self { code: error.code, at: error.at.into(), message: error.message.into(), detail: error.detail.into() }
    }
}

/// Ends the current entry point with this error. Operators and `clone` use it, since they cannot return a result; the
/// guard around every entry point turns it back into a value.
pub(crate) fn raise(error: Error) -> ! {
    std::panic::resume_unwind(Box::new(error))
}
