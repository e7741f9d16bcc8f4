//! What an interrupted preparation has finished, so that the next one goes on behind it.
//!
//! The unfinished folder holds `unfinished.json`, which says of what it is, and for each finished shard a file `.done`
//! beside it. All of them are gone when the folder gets its name; a folder with `unfinished.json` is no data.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::hash;
use super::sidecar::Source;
use super::split::Split;
use crate::durable::{PartialFolder, write_new};
use crate::error::{Exit, Fault, Result};

/// The file that marks a folder of shards as unfinished.
pub(super) const UNFINISHED: &str = "unfinished.json";

/// A finished shard, and where its split goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    pub tokens: u64,
    pub documents: u64,
    pub text_bytes: u64,
    pub sha256: String,
    pub sources: Vec<Source>,
    pub next: Next,
}

/// A place in a split: the document that comes next, and how many of its tokens are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Next {
    pub document: u64,
    pub tokens: u64,
}

#[derive(Serialize, Deserialize)]
struct Unfinished {
    key: String,
}

/// The shard file of a split.
pub(super) fn shard_path(folder: &Path, split: Split, place: u64) -> PathBuf {
    folder.join(format!("{split}-{place:05}.bin"))
}

/// Begins the folder, or goes on with one that an interrupted preparation of the same `key` left. Everything else that
/// lies in it is removed.
pub(super) fn begin(output: &Path, key: &str) -> Result<PartialFolder> {
    let folder = PartialFolder::begin_or_keep(output, |path| {
        let text = fs::read(path.join(UNFINISHED)).unwrap_or_default();
        serde_json::from_slice::<Unfinished>(&text).is_ok_and(|found| found.key == key)
    })?;
    let marker = folder.path().join(UNFINISHED);
    if !marker.exists() {
        write_new(&marker, to_json(&Unfinished { key: key.to_owned() })?.as_bytes())?;
    }
    Ok(folder)
}

/// Notes a finished shard.
pub(super) fn note(shard: &Path, done: &Done) -> Result<()> {
    write_new(&shard.with_extension("done"), to_json(done)?.as_bytes())
}

/// Removes a shard that is not gone on with, its note first; what cannot go keeps the next from being written.
pub(super) fn forget(shard: &Path) {
    for path in [shard.with_extension("done"), shard.to_owned()] {
        let _ = fs::remove_file(path);
    }
}

/// The finished shards of a split, from its first on without a gap; each is what was noted.
pub(super) fn finished(folder: &Path, split: Split) -> Vec<Done> {
    let sound = |place: u64| {
        let shard = shard_path(folder, split, place);
        let done: Done = serde_json::from_slice(&fs::read(shard.with_extension("done")).ok()?).ok()?;
        (hash::hex_of_file(&shard).ok()? == done.sha256).then_some(done)
    };
    (0..).map_while(sound).collect()
}

/// Whether a split has a finished shard.
pub(super) fn has_any(folder: &Path, split: Split) -> bool {
    shard_path(folder, split, 0).with_extension("done").exists()
}

/// Removes the notes, and with them the mark of an unfinished folder.
pub(super) fn end(folder: &Path) -> Result<()> {
    let failed = |error| Fault::writing(folder, &error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "done") {
            fs::remove_file(&path).map_err(failed)?;
        }
    }
    fs::remove_file(folder.join(UNFINISHED)).map_err(failed)
}

/// Refuses a folder whose shards are not finished (65).
pub(super) fn refuse_unfinished(folder: &Path) -> Result<()> {
    match folder.join(UNFINISHED).exists() {
        false => Ok(()),
        true => Err(Fault::new(Exit::Data, format!("`{}`: an unfinished preparation", folder.display()))
            .expected("a finished folder of shards")
            .hint("run the same `gauntlet data prepare` again, which goes on where it ended")),
    }
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Fault::new(Exit::Internal, format!("a note as JSON: {error}")))
}
