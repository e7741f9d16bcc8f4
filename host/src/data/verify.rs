//! Checking shards whole: headers, sizes, hashes, token ids, and that no shard of a split is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::hash;
use super::shard::{Format, Shard, check_hash, each_chunk};
use super::sidecar::Sidecar;
use super::source::{beyond_vocab, check_tokenizer_files, shard_paths};
use super::split::Split;
use crate::error::{Exit, Fault, Result};

/// What a verification found.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The shards that could be read, in order, with or without a problem.
    pub shards: Vec<Checked>,
    /// Every problem, each an error of the data (65) or a file that cannot be read (66).
    pub problems: Vec<Fault>,
}

/// A shard that was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Where it lies.
    pub path: PathBuf,
    /// Its layout.
    pub format: Format,
    /// The number of its tokens.
    pub tokens: u64,
    /// Its greatest token id. Without a sidecar, no vocabulary is known to compare it with.
    pub max_id: i64,
    /// Whether it has a sidecar, and so a hash to be held against.
    pub has_sidecar: bool,
}

impl Verification {
    /// An error (65) with the number of problems, if there are any.
    pub fn outcome(&self) -> Result<()> {
        match self.problems.len() {
            0 => Ok(()),
            problems => Err(Fault::new(Exit::Data, "the shards did not verify")
                .found(format!("{problems} problems"))
                .expected("none")
                .hint("copy the files again, or prepare the data again")),
        }
    }
}

/// Checks shard files, and all `.bin` files of folders. A path that is missing (66), or paths without any shard (65),
/// end it; every other problem is collected.
pub fn verify(paths: &[PathBuf]) -> Result<Verification> {
    let mut verification = Verification { shards: Vec::new(), problems: Vec::new() };
    let mut opened = Vec::new();
    for path in shard_paths(paths, None)? {
        let shard = Shard::open(&path);
        match shard.and_then(|shard| Ok((check(&shard, &mut verification.problems)?, shard))) {
            Ok((checked, shard)) => {
                verification.shards.push(checked);
                opened.push(shard);
            }
            Err(problem) => verification.problems.push(problem),
        }
    }
    verification.problems.extend(check_tokenizer_files(&opened).err());
    for folder in paths.iter().filter(|path| path.is_dir()) {
        missing(folder, &mut verification.problems)?;
    }
    Ok(verification)
}

/// Reads a whole shard once. Problems of its hash and ids go to the list.
fn check(shard: &Shard, problems: &mut Vec<Fault>) -> Result<Checked> {
    let (path, format) = (shard.path(), shard.format());
    let file = File::open(path).map_err(|error| Fault::reading(path, &error))?;
    let mut hasher = Sha256::new();
    let mut ids = Vec::new();
    let (mut token, mut greatest) = (0, (0, 0));
    let mut header = shard.offset(0) as usize;
    each_chunk(path, &file, shard.offset(shard.tokens()), |chunk| {
        hasher.update(chunk);
        ids.clear();
        format.decode(&chunk[header..], &mut ids);
        header = 0;
        for &id in &ids {
            greatest = if id > greatest.0 { (id, token) } else { greatest };
            token += 1;
        }
    })?;
    let (max_id, place) = greatest;
    if let Some(sidecar) = shard.sidecar() {
        problems.extend(check_hash(path, &hash::hex(hasher), &sidecar.sha256).err());
        if max_id >= sidecar.tokenizer.vocab_size as i64 {
            problems.push(beyond_vocab(shard, place, max_id, sidecar.tokenizer.vocab_size));
        }
    }
    let has_sidecar = shard.sidecar().is_some();
    Ok(Checked { path: path.to_owned(), format, tokens: shard.tokens(), max_id, has_sidecar })
}

/// Adds a problem for each split of which the folder's sidecars promise more shards than there are. Sidecars that
/// cannot be read are passed over here: their own shards report them.
fn missing(folder: &Path, problems: &mut Vec<Fault>) -> Result<()> {
    let failed = |error| Fault::reading(folder, &error);
    let mut promised: BTreeMap<Split, (u64, BTreeSet<u64>)> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let shard = path.with_extension("bin");
        if path.extension().is_some_and(|extension| extension == "json")
            && let Ok(Some(sidecar)) = Sidecar::beside(&shard)
        {
            let (shards, present) = promised.entry(sidecar.split).or_default();
            *shards = sidecar.shards.max(*shards);
            present.extend(shard.is_file().then_some(sidecar.shard));
        }
    }
    for (split, (shards, present)) in promised {
        if let Some(first) = (0..shards).find(|place| !present.contains(place)) {
            let fault =
                Fault::new(Exit::Data, format!("`{}`: shards of the {split} split are missing", folder.display()));
            let found = format!("{} with sidecars, none for `{split}-{first:05}.bin`", present.len());
            problems.push(fault.found(found).expected(shards).hint("copy the whole folder again"));
        }
    }
    Ok(())
}
