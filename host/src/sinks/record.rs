//! `events.jsonl`: every event of a run, one JSON object a line, in the order they happened. It is the record of a run.

use crate::error::{Fault, Result};
use crate::events::Event;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The open record.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    file: File,
    started: Instant,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since the start of the process's part of the run.
    elapsed: f64,
    #[serde(flatten)]
    event: &'a Event,
}

impl Record {
    /// A new record; the file must not exist.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|error| Fault::writing(path, &error))?;
        Ok(Self { path: path.to_owned(), file, started: Instant::now() })
    }

    /// Appends one event. A line is written in one piece, so a killed run leaves at most a torn last line.
    pub fn write(&mut self, event: &Event) -> Result<()> {
        let line = Line { elapsed: self.started.elapsed().as_secs_f64(), event };
        let mut text = serde_json::to_vec(&line)
            .map_err(|error| Fault::new(crate::error::Exit::Internal, format!("an event is not JSON: {error}")))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(|error| Fault::writing(&self.path, &error))
    }

    /// Syncs the record to the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Fault::writing(&self.path, &error))
    }
}
