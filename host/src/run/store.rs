//! Where a run's checkpoints go: that folder and no other, written by a thread.

use super::signals::Newest;
use crate::config::OnSaveError;
use crate::error::{Exit, Fault, Result};
use crate::sinks::checkpoint::{self, Snapshot};
use rustix::fs::{fstat, statvfs};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// The folder of a run's checkpoints, kept open.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    open: File,
    newest: Newest,
}

impl Store {
    /// Makes the folder where it is not there yet; `newest` is told of what is committed.
    ///
    /// # Errors
    ///
    /// [`Exit::Write`].
    pub fn open(folder: PathBuf, newest: Newest) -> Result<Self> {
        let made = std::fs::create_dir_all(&folder).and_then(|()| File::open(&folder));
        match made {
            Ok(open) => Ok(Self { folder, open, newest }),
            Err(error) => Err(Fault::writing(&folder, &error)),
        }
    }

    /// Removes what a killed process left; says what that was.
    ///
    /// # Errors
    ///
    /// [`Exit::Write`].
    pub fn clean(&self) -> Result<Option<String>> {
        let names = checkpoint::clean(&self.folder)?;
        Ok((!names.is_empty()).then(|| format!("removed what a killed process left: {}", names.join(", "))))
    }

    /// Its path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether checkpoints of so many bytes will have room; gives a warning where there is none for all that are kept and
    /// the next one.
    ///
    /// # Errors
    ///
    /// [`Exit::Write`]: not even one has.
    pub fn check_space(&self, bytes: u64, keep: usize) -> Result<Option<String>> {
        let Some(free) = free_bytes(&self.folder) else { return Ok(None) };
        let needed = bytes.saturating_mul(keep as u64 + 1);
        let folder = self.folder.display();
        if free < bytes {
            let fault = Fault::new(Exit::Write, format!("`{folder}`: no room for a checkpoint"));
            return Err(fault.found(format!("{free} bytes free")).expected(format!("at least {bytes} bytes")));
        }
        let warning = format!(
            "`{folder}` may run out of room: {free} bytes are free, {} checkpoints of {bytes} bytes need {needed}",
            keep + 1
        );
        Ok((free < needed).then_some(warning))
    }

    /// Starts a thread that writes and commits a checkpoint, once more after a failure where the policy says so.
    ///
    /// # Errors
    ///
    /// [`Exit::Write`]: another folder is under the path by now; no thread can be started.
    pub fn write(&self, snapshot: Snapshot, on_error: OnSaveError) -> Result<JoinHandle<Result<(PathBuf, u64)>>> {
        self.refuse_another()?;
        let (folder, newest) = (self.folder.clone(), self.newest.clone());
        let write = move || {
            let save = || checkpoint::save(&folder, &snapshot);
            let outcome = match (save(), on_error) {
                (Err(fault), OnSaveError::Retry) if fault.exit == Exit::Write => save(),
                (outcome, _) => outcome,
            };
            if let (Ok((path, _)), Ok(mut newest)) = (&outcome, newest.lock()) {
                *newest = Some(path.clone());
            }
            outcome.map_err(|fault| with_space(fault, &folder, snapshot.bytes()))
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(write);
        thread.map_err(|error| Fault::new(Exit::Write, format!("cannot start a thread that writes: {error}")))
    }

    /// A folder that was removed or replaced is not made again: the run's earlier checkpoints are not in it.
    fn refuse_another(&self) -> Result<()> {
        let own = fstat(&self.open).ok().map(|stat| (stat.st_dev, stat.st_ino));
        let there = std::fs::metadata(&self.folder).ok().map(|stat| (stat.dev(), stat.ino()));
        match own == there {
            true => Ok(()),
            false => {
                let found = if there.is_some() { "another folder" } else { "nothing" };
                let what = format!("`{}` is not the folder that this run began with", self.folder.display());
                Err(Fault::new(Exit::Write, what).found(found).hint("put it back, and resume"))
            }
        }
    }
}

fn free_bytes(folder: &Path) -> Option<u64> {
    statvfs(folder).ok().map(|stat| stat.f_bavail * stat.f_frsize)
}

/// Says how much room there is where a checkpoint could not be written.
fn with_space(fault: Fault, folder: &Path, bytes: u64) -> Fault {
    match free_bytes(folder) {
        Some(free) if fault.exit == Exit::Write && free < 2 * bytes => {
            fault.hint(format!("the checkpoint has {bytes} bytes, {free} are free"))
        }
        _ => fault,
    }
}
