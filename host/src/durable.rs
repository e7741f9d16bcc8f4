//! Files and folders that appear whole or not at all, also after a power loss.
//!
//! A folder is made beside its final place under the name `.NAME.partial`, its files synced one by one, and renamed;
//! then the parent is synced. What a killed run leaves under that name, the next one removes. Like `error`, this module
//! may be used by all.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{Exit, Fault, Result};

/// Refuses a path where something is ([`Exit::Usage`]).
pub fn refuse_existing(output: &Path) -> Result<()> {
    match fs::symlink_metadata(output) {
        Ok(_) => Err(Fault::new(Exit::Usage, format!("`{}` exists", output.display()))
            .expected("a folder to be made")
            .hint("choose another folder, or remove this one")),
        Err(_) => Ok(()),
    }
}

/// Writes a new file and syncs it; it must not exist.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    write_new_parts(path, &[bytes])
}

/// Writes a new file of these parts, one behind the other, and syncs it; it must not exist.
pub fn write_new_parts(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let write = || {
        let flags = OFlags::NOFOLLOW.bits() as i32;
        let mut file = OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(path)?;
        // No buffered writer: it would write once more after an error.
        let mut gathered = vec![];
        for part in parts {
            let (small, large): (&[u8], &[u8]) = if part.len() < GATHERED { (part, &[]) } else { (&[], part) };
            gathered.extend_from_slice(small);
            if !large.is_empty() || gathered.len() >= GATHERED {
                file.write_all(&gathered)?;
                gathered.clear();
                file.write_all(large)?;
            }
        }
        file.write_all(&gathered)?;
        file.sync_all()
    };
    write().map_err(|error| Fault::writing(path, &error))
}

/// Parts smaller than this, in bytes, are gathered before they are written.
const GATHERED: usize = 1 << 16;

/// Replaces a small file by one that is written, synced and renamed over it.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    // What a killed run left; if it cannot go, writing says why.
    let _ = fs::remove_file(&partial);
    write_new(&partial, bytes)?;
    fs::rename(&partial, path).and_then(|()| sync_parent(path)).map_err(|error| Fault::writing(path, &error))
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    File::open(parent(path)).and_then(|parent| parent.sync_all())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// A folder under its temporary name: removed on drop, unless committed. The lock on it ends with the process.
#[derive(Debug)]
pub struct PartialFolder {
    path: PathBuf,
    output: PathBuf,
    folder: File,
    stays: bool,
}

impl PartialFolder {
    /// Makes the temporary folder for `output`, empty, and the folders that it lies in where they are missing.
    ///
    /// # Errors
    ///
    /// Those of [`PartialFolder::begin_in_place`].
    pub fn begin(output: &Path) -> Result<Self> {
        let folder = parent(output);
        fs::create_dir_all(folder).map_err(|error| Fault::writing(folder, &error))?;
        Self::begin_in_place(output)
    }

    /// Makes the temporary folder for `output`, empty, in a folder that has to exist.
    ///
    /// # Errors
    ///
    /// [`Exit::Unavailable`] when another process makes the same folder, [`Exit::Write`] when it cannot be made.
    pub fn begin_in_place(output: &Path) -> Result<Self> {
        Self::open(output, |_| false)
    }

    /// As [`PartialFolder::begin`], but what lies in the temporary folder stays where `keeps` says so of its path.
    ///
    /// # Errors
    ///
    /// Those of [`PartialFolder::begin_in_place`].
    pub fn begin_or_keep(output: &Path, keeps: impl FnOnce(&Path) -> bool) -> Result<Self> {
        let folder = parent(output);
        fs::create_dir_all(folder).map_err(|error| Fault::writing(folder, &error))?;
        Self::open(output, keeps)
    }

    fn open(output: &Path, keeps: impl FnOnce(&Path) -> bool) -> Result<Self> {
        let name = output.file_name().ok_or_else(|| {
            Fault::new(Exit::Usage, format!("`{}`: bad output folder", output.display())).expected("a path with a name")
        })?;
        let path = parent(output).join(format!(".{}.partial", name.to_string_lossy()));
        let failed = |error| Fault::writing(&path, &error);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        if !fs::symlink_metadata(&path).map_err(failed)?.is_dir() {
            return Err(Fault::new(Exit::Write, format!("`{}` is no folder", path.display())).hint("remove it"));
        }
        let folder = File::open(&path).map_err(failed)?;
        if let Err(fs::TryLockError::WouldBlock) = folder.try_lock() {
            let fault =
                Fault::new(Exit::Unavailable, format!("`{}`: another run is preparing this folder", output.display()));
            return Err(fault.hint("wait for it, or choose another folder"));
        }
        if !keeps(&path) {
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let is_folder = entry.file_type().map_err(failed)?.is_dir();
                let remove = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
                remove.map_err(failed)?;
            }
        }
        Ok(Self { path, output: output.to_owned(), folder, stays: false })
    }

    /// Leaves the folder under its temporary name, for [`PartialFolder::begin_or_keep`] to go on with.
    pub fn leave(mut self) {
        self.stays = true;
    }

    /// The temporary folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the folder, renames it, and syncs its parent.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] when `output` exists by now, [`Exit::Write`].
    pub fn commit(self) -> Result<()> {
        let failed = |error| Fault::writing(&self.output, &error);
        self.folder.sync_all().map_err(failed)?;
        match renameat_with(CWD, &self.path, CWD, &self.output, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => refuse_existing(&self.output)?,
            Err(Errno::INVAL | Errno::NOSYS) => {
                refuse_existing(&self.output)?;
                fs::rename(&self.path, &self.output).map_err(failed)?;
            }
            Err(error) => return Err(failed(error.into())),
        }
        sync_parent(&self.output).map_err(failed)
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        if !self.stays {
            // After a commit there is nothing under this name; after a failure the first error is the one to report.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_any_size_lie_one_behind_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let large = vec![7; GATHERED];
        let small: Vec<Vec<u8>> = (0..40).map(|i| vec![i; 3000]).collect();
        let mut parts: Vec<&[u8]> = small.iter().map(Vec::as_slice).collect();
        parts.splice(3..3, [large.as_slice(), &[], &large]);
        write_new_parts(&folder.path().join("a"), &parts).unwrap();
        assert!(fs::read(folder.path().join("a")).unwrap() == parts.concat());
        write_new_parts(&folder.path().join("b"), &[]).unwrap();
        assert_eq!(fs::read(folder.path().join("b")).unwrap(), b"");
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let output = parent.path().join("a");
        let partial = PartialFolder::begin(&output).unwrap();
        write_new(&partial.path().join("x"), b"1").unwrap();
        assert!(!output.exists());
        drop(partial);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "nothing is left of an abandoned one");
        let partial = PartialFolder::begin(&output).unwrap();
        write_new(&partial.path().join("x"), b"2").unwrap();
        assert_eq!(PartialFolder::begin(&output).unwrap_err().exit, Exit::Unavailable);
        partial.commit().unwrap();
        assert_eq!(fs::read(output.join("x")).unwrap(), b"2");
        assert_eq!(PartialFolder::begin(&output).unwrap().commit().unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_folder_that_was_left_is_gone_on_with_where_it_is_wanted() {
        let parent = tempfile::tempdir().unwrap();
        let output = parent.path().join("a");
        let partial = PartialFolder::begin(&output).unwrap();
        write_new(&partial.path().join("x"), b"1").unwrap();
        partial.leave();
        let partial = PartialFolder::begin_or_keep(&output, |path| path.join("x").exists()).unwrap();
        assert!(partial.path().join("x").exists());
        partial.leave();
        let partial = PartialFolder::begin_or_keep(&output, |_| false).unwrap();
        assert!(!partial.path().join("x").exists());
    }

    #[test]
    fn a_file_is_replaced_and_leaves_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        replace(&path, b"1").unwrap();
        replace(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
