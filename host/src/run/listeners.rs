//! Everything that hears a run's events.

use crate::error::{Fault, Result};
use crate::events::Event;
use crate::sinks::{Progress, Record};
use std::path::Path;

/// The record and the terminal.
pub struct Listeners {
    record: Record,
    progress: Progress,
    failed: Option<Fault>,
}

impl Listeners {
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self { record: Record::open(&dir.join("events.jsonl"))?, progress: Progress::new(), failed: None })
    }

    pub fn hear(&mut self, event: &Event) {
        self.progress.show(event);
        if let Err(fault) = self.record.write(event) {
            self.failed.get_or_insert(fault);
        }
    }

    /// The record is part of the run: when it cannot be written, the run ends.
    pub fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    pub fn close(mut self) -> Result<()> {
        self.check()?;
        self.record.sync()
    }
}
