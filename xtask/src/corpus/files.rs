//! The texts of a corpus as they are copied, and the note of where they come from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cache;
use crate::unpack;

/// The note's name.
pub const NOTE: &str = "PROVENANCE.json";

/// A package that texts come from.
pub struct Origin {
    pub source: String,
    pub version: String,
    pub licence: String,
    /// Of the package's file.
    pub sha256: String,
}

/// A folder that texts are copied into.
pub struct Files {
    folder: PathBuf,
    hasher: Sha256,
    /// Files and bytes of the package at hand, and of all before it.
    at_hand: (u64, u64),
    before: (u64, u64),
    origins: Vec<Value>,
}

impl Files {
    /// An empty one.
    pub fn new(folder: PathBuf) -> Result<Self> {
        cache::create_folder(&folder)?;
        Ok(Self { folder, hasher: Sha256::new(), at_hand: (0, 0), before: (0, 0), origins: Vec::new() })
    }

    /// Copies the files below a folder whose relative paths are wanted, under `prefix`, in the order of their names. Links
    /// are passed over.
    pub fn add_folder(&mut self, from: &Path, prefix: &str, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
        for (name, path) in below(from, "")? {
            if wanted(&name) {
                let text = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
                self.add(&format!("{prefix}{name}"), &text)?;
            }
        }
        Ok(())
    }

    /// Writes one text. What is empty, not UTF-8 or holds a byte 0 is no text and left out.
    pub fn add(&mut self, name: &str, text: &[u8]) -> Result<()> {
        if text.is_empty() || text.contains(&0) {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(text) else { return Ok(()) };
        unpack::write_file(&self.folder.join(name), text)?;
        self.hasher.update(format!("{}  {name}\n", hex(&Sha256::digest(text))));
        self.at_hand = (self.at_hand.0 + 1, self.at_hand.1 + text.len() as u64);
        Ok(())
    }

    /// Ends a package: what was added since the last one is of it.
    pub fn finish(&mut self, origin: Origin) {
        let (files, bytes) = std::mem::take(&mut self.at_hand);
        self.before = (self.before.0 + files, self.before.1 + bytes);
        let Origin { source, version, licence, sha256 } = origin;
        if files > 0 {
            self.origins.push(json!({
                "source": source, "version": version, "licence": licence, "sha256": sha256, "files": files, "bytes": bytes,
            }));
        }
    }

    /// Writes the note, last; gives files and bytes.
    pub fn note(self, name: &str, folder: &Path) -> Result<(u64, u64)> {
        let (files, bytes) = self.before;
        if files == 0 {
            bail!("corpus `{name}`: found no text");
        }
        let note = json!({
            "name": name,
            "files": files,
            "bytes": bytes,
            "sha256_of_list": hex(&self.hasher.finalize()),
            "list": "a line `SHA-256  PATH` a file below `texts/`, in the order of writing",
            "origins": self.origins,
        });
        unpack::write_file(&folder.join(NOTE), &format!("{note:#}\n"))?;
        Ok((files, bytes))
    }
}

/// Regular files below a folder with their relative paths, sorted by these.
fn below(folder: &Path, prefix: &str) -> Result<Vec<(String, PathBuf)>> {
    let failed = || format!("cannot read `{}`", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let (kind, name) = (entry.file_type().with_context(failed)?, entry.file_name());
        let name = format!("{prefix}{}", name.to_string_lossy());
        if kind.is_dir() {
            found.extend(below(&entry.path(), &format!("{name}/"))?);
        } else if kind.is_file() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// A digest as text.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_copied_counted_by_origin_and_noted() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        for (name, text) in [
            ("b/x.rs", &b"two"[..]),
            ("a.rs", b"one"),
            ("c.py", b"no"),
            ("d.rs", b"\xff"),
            ("e.rs", b"a\0"),
            ("f.rs", b""),
        ] {
            fs::create_dir_all(from.join(name).parent().unwrap()).unwrap();
            fs::write(from.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(&from, from.join("b/loop")).unwrap();
        let out = folder.path().join("out");
        let mut files = Files::new(out.join("texts")).unwrap();
        files.add_folder(&from, "p/", &|name| name.ends_with(".rs")).unwrap();
        let origin = |source: &str| Origin {
            source: source.into(),
            version: "1".into(),
            licence: "MIT".into(),
            sha256: "0".into(),
        };
        files.finish(origin("package p"));
        files.finish(origin("package of nothing"));
        assert_eq!(files.note("n", &out).unwrap(), (2, 6));
        assert_eq!(fs::read_to_string(out.join("texts/p/b/x.rs")).unwrap(), "two");
        let note: Value = serde_json::from_str(&fs::read_to_string(out.join(NOTE)).unwrap()).unwrap();
        assert_eq!((&note["files"], &note["bytes"]), (&json!(2), &json!(6)));
        assert_eq!(note["origins"].as_array().unwrap().len(), 1);
        let list = format!("{}  p/a.rs\n{}  p/b/x.rs\n", hex(&Sha256::digest("one")), hex(&Sha256::digest("two")));
        assert_eq!(note["sha256_of_list"], hex(&Sha256::digest(list)));
        assert!(Files::new(out.join("more")).unwrap().note("n", &out).is_err(), "a corpus of nothing");
    }
}
