//! A record that is followed as it grows, and whether its run's process lives. Nothing is written.

use super::run::{Run, State};
use crate::error::{Exit, Fault, Result};
use crate::report::{History, Lines, RECORD};
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A run's folder under observation.
#[derive(Debug)]
pub struct Follower {
    folder: PathBuf,
    path: PathBuf,
    open: Option<Open>,
    lines: Lines,
    run: Run,
    /// Whether a process was seen in the folder the last time that it mattered; `None` where the system cannot tell.
    held: Option<bool>,
    modified: Option<SystemTime>,
}

/// The record's file.
#[derive(Debug)]
struct Open {
    file: File,
    inode: (u64, u64),
    /// Bytes read.
    read: u64,
}

impl Follower {
    /// Of a run's folder; nothing is read yet.
    ///
    /// # Errors
    ///
    /// [`Exit::Missing`] where there is no such folder.
    pub fn new(folder: &Path) -> Result<Self> {
        let metadata = fs::metadata(folder).map_err(|error| Fault::reading(folder, &error))?;
        if !metadata.is_dir() {
            let fault = Fault::new(Exit::Missing, format!("`{}` is no folder of a run", folder.display()));
            return Err(fault.found("a file").hint(format_args!("name the folder that holds `{RECORD}`")));
        }
        Ok(Self {
            folder: folder.to_owned(),
            path: folder.join(RECORD),
            open: None,
            lines: Lines::default(),
            run: Run { history: History::of(folder), ..Run::default() },
            held: None,
            modified: None,
        })
    }

    /// Reads what is new. A record that was replaced or cut is read from its start; one that is missing may come.
    /// Gives whether anything changed.
    ///
    /// # Errors
    ///
    /// [`Exit::Missing`] where the record cannot be read, [`Exit::Data`] where it is none.
    pub fn poll(&mut self) -> Result<bool> {
        let (before, held_before) = (self.state(), is_held(&self.folder));
        let grown = self.read()?;
        self.lines.check(&self.path)?;
        self.run.history.unreadable = self.lines.unreadable;
        // The process may have written its last line and ended between the look at the lock and the reading, or begun.
        self.held = if held_before == Some(false) { is_held(&self.folder) } else { held_before };
        Ok(grown || self.state() != before)
    }

    fn read(&mut self) -> Result<bool> {
        let failed = |error: std::io::Error| Fault::reading(&self.path, &error);
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(self.start_over()),
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_file() {
            return Err(Fault::new(Exit::Data, format!("`{}`: not the record of a run", self.path.display()))
                .found("not a plain file"));
        }
        let inode = (metadata.dev(), metadata.ino());
        if self.open.as_ref().is_none_or(|open| open.inode != inode || metadata.len() < open.read) {
            let file = File::open(&self.path).map_err(failed)?;
            self.start_over();
            self.open = Some(Open { file, inode, read: 0 });
        }
        self.modified = metadata.modified().ok();
        let (Some(open), lines, run) = (&mut self.open, &mut self.lines, &mut self.run) else { return Ok(false) };
        let count = lines.read(&mut open.file, &mut |elapsed, event| run.hear(elapsed, event));
        let count = count.map_err(|error| Fault::reading(&self.path, &error))?;
        open.read = open.read.saturating_add(count);
        Ok(count > 0)
    }

    /// Forgets the record; whether there was one.
    fn start_over(&mut self) -> bool {
        self.lines = Lines::default();
        self.run = Run { history: History::of(&self.folder), ..Run::default() };
        self.open.take().is_some()
    }

    /// The run as far as it was read.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// What the run does: by its record, and by its process where the record has no end.
    pub fn state(&self) -> State {
        match self.run.state {
            state if state.is_alive() && self.open.is_some() && self.held == Some(false) => State::Lost,
            state => state,
        }
    }

    /// Whether the record is there, or a process that will write it.
    ///
    /// # Errors
    ///
    /// [`Exit::Missing`].
    pub fn expect_record(&self) -> Result<()> {
        match self.open.is_some() || self.held == Some(true) {
            true => Ok(()),
            false => fs::metadata(&self.path).map(drop).map_err(|error| Fault::reading(&self.path, &error)),
        }
    }

    /// Time since the record's last change.
    pub fn age(&self) -> Option<Duration> {
        SystemTime::now().duration_since(self.modified?).ok()
    }
}

/// Whether a process holds the folder's lock, as a run's process does as long as it lives; `None` where the system does
/// not tell. The look takes a shared lock for an instant; a process that begins to run tries again.
fn is_held(folder: &Path) -> Option<bool> {
    match File::open(folder).ok()?.try_lock_shared() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}
