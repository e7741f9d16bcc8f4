//! Documents that are records of a file, and what is done with records that have none.

use crate::error::{Exit, Fault, Result};
use std::fmt;
use std::str::FromStr;

/// What a line or row without a document does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBad {
    /// Ends the preparation.
    #[default]
    Error,
    /// Is left out and counted; more than this many in all inputs end the preparation.
    Skip(u64),
}

impl OnBad {
    /// How many may be left out where no number is given.
    pub const MOST: u64 = 1000;
}

impl fmt::Display for OnBad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnBad::Error => f.write_str("error"),
            OnBad::Skip(most) => write!(f, "skip:{most}"),
        }
    }
}

impl FromStr for OnBad {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "error" => Ok(OnBad::Error),
            None if text == "skip" => Ok(OnBad::Skip(Self::MOST)),
            Some(("skip", most)) if most.parse::<u64>().is_ok() => Ok(OnBad::Skip(most.parse().unwrap_or_default())),
            _ => Err("expected `error`, `skip` or `skip:MAX`".to_owned()),
        }
    }
}

/// How documents are found in records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// The key of a line, or the column of a table, that holds the text.
    pub field: String,
    pub on_bad: OnBad,
}

/// What is wrong with a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub found: String,
    pub expected: String,
}

impl Bad {
    pub fn new(found: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { found: found.to_string(), expected: expected.into() }
    }
}

/// Bad records of one file so far.
pub(super) struct BadRecords<'a> {
    rules: &'a Rules,
    pub count: u64,
}

impl<'a> BadRecords<'a> {
    pub fn new(rules: &'a Rules) -> Self {
        Self { rules, count: 0 }
    }

    /// Counts a bad record, called `what`, unless it has to end the preparation (65).
    pub fn add(&mut self, what: String, bad: Bad) -> Result<()> {
        let fault = Fault::new(Exit::Data, what).found(bad.found).expected(bad.expected);
        let most = match self.rules.on_bad {
            OnBad::Error => return Err(fault.hint("mend it, or leave such out with `--on-bad-line skip`")),
            OnBad::Skip(most) => most,
        };
        self.count += 1;
        if self.count > most {
            return Err(
                fault.hint(format!("it is one more than the {most} that `--on-bad-line skip:{most}` leaves out"))
            );
        }
        Ok(())
    }
}
