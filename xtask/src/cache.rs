//! The per-user cache: where it lies, its lock, and room on its disk.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::size::Size;

/// The folder that keeps what was downloaded, for every checkout of one user.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$XDG_CACHE_HOME/gauntlet`, else `~/.cache/gauntlet`.
    pub fn locate() -> Result<Self> {
        let root = root(std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir());
        let root =
            root.context("no cache folder: found no home folder; hint: set HOME, or XDG_CACHE_HOME to a folder")?;
        Ok(Self { root })
    }

    /// The cache that lies at `root`.
    #[cfg(test)]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A place in the cache.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Waits until no other set-up works in this cache; the lock ends when the file is dropped, or with the process.
    pub fn lock(&self) -> Result<File> {
        let path = self.root.join("setup.lock");
        create_folder(&self.root)?;
        let file = File::create(&path).map_err(|error| writing(&path, &error))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => eprintln!("waiting for another set-up, which holds `{}`", path.display()),
            Err(TryLockError::Error(error)) => return Err(writing(&path, &error)),
        }
        file.lock().map_err(|error| writing(&path, &error))?;
        Ok(file)
    }

    /// An error if the cache's disk has less than `needed` bytes free.
    pub fn require_space(&self, needed: u64) -> Result<()> {
        let existing = self.root.ancestors().find(|folder| folder.exists()).unwrap_or(&self.root);
        let disk = rustix::fs::statvfs(existing).with_context(|| format!("cannot examine `{}`", existing.display()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < needed {
            bail!(
                "not enough disk space for `{}`: found {} free, expected {}; hint: {MORE_SPACE}",
                self.root.display(),
                Size(free),
                Size(needed)
            );
        }
        Ok(())
    }
}

/// What to do about a full disk.
pub const MORE_SPACE: &str = "free some space, or set XDG_CACHE_HOME to a folder on another disk, and run this again";

/// `create_dir_all` with an error that says what to do.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| writing(path, &error))
}

/// One line for an error while writing at `path`.
pub fn writing(path: &Path, error: &io::Error) -> anyhow::Error {
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("; hint: {MORE_SPACE}"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; hint: make the folder writable, or set XDG_CACHE_HOME to one that is".to_owned()
        }
        _ => String::new(),
    };
    anyhow::anyhow!("cannot write `{}`: {reason}{hint}", path.display())
}

/// Removes the folders of `parent` whose names start with `prefix`: what interrupted runs left behind.
///
/// Called under the lock, so that no running set-up still uses one.
pub fn sweep(parent: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(parent).with_context(|| format!("cannot read `{}`", parent.display()))? {
        let entry = entry.with_context(|| format!("cannot read `{}`", parent.display()))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

/// `remove_dir_all`, satisfied if there is nothing.
pub fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(writing(path, &error)),
        _ => Ok(()),
    }
}

/// The cache's root by the rules of the XDG base directories: a relative `XDG_CACHE_HOME` does not count.
fn root(xdg_cache_home: Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let xdg = xdg_cache_home.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || home.filter(|path| path.is_absolute()).map(|home| home.join(".cache"));
    xdg.or_else(home).map(|caches| caches.join("gauntlet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_follows_the_environment() {
        let home = || Some(PathBuf::from("/home/ada"));
        assert_eq!(root(Some("/fast/cache".into()), home()), Some(PathBuf::from("/fast/cache/gauntlet")));
        for ignored in [None, Some("".into()), Some("cache".into())] {
            assert_eq!(root(ignored, home()), Some(PathBuf::from("/home/ada/.cache/gauntlet")));
        }
        assert_eq!(root(None, None), None);
        assert_eq!(root(None, Some(PathBuf::new())), None);
    }

    #[test]
    fn sweeping_takes_leftovers_only() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["libtorch.partial-1", "libtorch.partial-22", "libtorch", "other.partial-1"] {
            fs::create_dir_all(parent.path().join(name).join("lib")).unwrap();
        }
        sweep(parent.path(), "libtorch.partial-").unwrap();
        let mut left: Vec<_> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["libtorch", "other.partial-1"]);
    }

    #[test]
    fn a_lock_excludes_until_it_is_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let cache = Cache { root: parent.path().join("gauntlet") };
        let held = cache.lock().unwrap();
        let other = File::open(cache.path("setup.lock")).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        assert!(other.try_lock().is_ok());
    }

    #[test]
    fn too_little_space_is_said_in_one_line() {
        let parent = tempfile::tempdir().unwrap();
        let cache = Cache { root: parent.path().join("not/yet/made") };
        assert!(cache.require_space(0).is_ok());
        let line = cache.require_space(u64::MAX).unwrap_err().to_string();
        assert!(line.contains("expected 18446744073.71 GB; hint: free some space"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_full_disk_gets_a_hint() {
        let line = writing(Path::new("/c/lib"), &io::Error::from_raw_os_error(28)).to_string();
        assert!(line.starts_with("cannot write `/c/lib`: no space left on device; hint: free some space"), "{line}");
    }
}
