//! `events.jsonl`: every event of a run, one JSON object a line, in the order they happened. It is the record of a run.

use crate::error::{Fault, Result};
use crate::events::Event;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
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
    /// The record of a run; a resumed run goes on in the same file, after a torn last line on a new one.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let mut file = file.map_err(|error| Fault::writing(path, &error))?;
        end_last_line(&mut file).map_err(|error| Fault::writing(path, &error))?;
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

fn end_last_line(file: &mut File) -> std::io::Result<()> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}
