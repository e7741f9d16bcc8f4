//! A plugin's file that is replaced while its run goes on. The run computes with the bytes that it loaded; a later start
//! would find others.

use super::image::{Image, hex_sha256};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The file that a plugin was read from.
#[derive(Clone, Debug)]
pub struct PluginFile {
    path: PathBuf,
    /// Of the bytes that were loaded.
    sha256: String,
    /// What the file looked like when its bytes were last read, if it was there.
    seen: Option<Option<Stamp>>,
}

/// Device, inode, length, and time of the last change in nanoseconds.
type Stamp = (u64, u64, u64, i128);

impl PluginFile {
    /// Of a plugin that is loaded.
    pub fn of(image: &Image) -> Self {
        Self { path: image.path.clone(), sha256: image.sha256.clone(), seen: None }
    }

    /// Looks whether the file still is the one that was loaded; gives a warning, once for each time it was replaced.
    pub fn look(&mut self) -> Option<String> {
        let stamp = fs::metadata(&self.path).ok().as_ref().map(stamp);
        if self.seen == Some(stamp) {
            return None;
        }
        self.seen = Some(stamp);
        let said = match fs::read(&self.path) {
            Ok(bytes) if hex_sha256(&bytes) == self.sha256 => return None,
            Ok(_) => "was replaced",
            Err(_) => "cannot be read any more",
        };
        Some(format!(
            "plugin `{}` {said}; the run goes on with what it loaded; hint: a resumed run needs the old file, or \
             `--allow-plugin-change`",
            self.path.display()
        ))
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    let changed = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    (metadata.dev(), metadata.ino(), metadata.len(), changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_is_said_once_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        let put = |bytes: &[u8]| {
            fs::write(folder.path().join("new"), bytes).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
        };
        put(b"one");
        let mut file = PluginFile { path: path.clone(), sha256: hex_sha256(b"one"), seen: None };
        assert_eq!([file.look(), file.look()], [None, None]);
        put(b"one");
        assert_eq!(file.look(), None, "another file with the same bytes");
        put(b"two");
        assert!(file.look().is_some_and(|said| said.contains("was replaced")));
        assert_eq!(file.look(), None);
        fs::remove_file(&path).unwrap();
        assert!(file.look().is_some_and(|said| said.contains("cannot be read any more")));
        assert_eq!(file.look(), None);
        put(b"three");
        assert!(file.look().is_some_and(|said| said.contains("was replaced")));
    }
}
