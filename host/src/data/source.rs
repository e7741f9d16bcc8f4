//! An ordered list of shards of one split, seen as one stream of tokens of one vocabulary.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::hash;
use super::journal::refuse_unfinished;
use super::shard::{Shard, ShardReader, bad};
use super::sidecar::Tokenizer;
use super::split::Split;
use super::tokenizer;
use crate::error::{Exit, Fault, Result};

/// The shards of one split. At least one shard with at least one token.
#[derive(Debug)]
pub struct TokenSource {
    shards: Vec<Shard>,
    vocab: usize,
    fingerprint: String,
}

impl TokenSource {
    /// Opens the shards: files as given, and from each folder, in the order of their names, the `.bin` files whose
    /// names claim the split ([`Split::of_file_name`]). Every header and size is checked. Errors: no shard, an unfinished
    /// folder, a sidecar of another split, of another tokenizer than the first's or than the `tokenizer.json` beside it,
    /// or of a larger vocabulary than `vocab` (65); a missing path (66).
    pub fn open(paths: &[PathBuf], split: Split, vocab: usize) -> Result<Self> {
        let paths = shard_paths(paths, Some(split))?;
        let shards = paths.iter().map(|path| Shard::open(path)).collect::<Result<Vec<_>>>()?;
        check_sidecars(&shards, split, vocab)?;
        check_tokenizer_files(&shards)?;
        let fingerprint = fingerprint(&shards);
        Ok(Self { shards, vocab, fingerprint })
    }

    /// The shards in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The number of tokens of all shards.
    pub fn tokens(&self) -> u64 {
        self.shards.iter().map(Shard::tokens).sum()
    }

    /// The tokenizer that the sidecars name; none if no shard has one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.shards.iter().find_map(Shard::sidecar).map(|sidecar| &sidecar.tokenizer)
    }

    /// Bytes of text for a token of text: 1 for `bytes`, else by the sidecars; none where a shard's are not known.
    pub fn bytes_per_token(&self) -> Option<f64> {
        if self.tokenizer()?.is_bytes() {
            return Some(1.0);
        }
        let bytes: Option<u64> = self.shards.iter().map(|shard| shard.sidecar()?.text_bytes).sum();
        Some(bytes? as f64 / self.tokens() as f64).filter(|ratio| *ratio > 0.0)
    }

    /// SHA-256 over each shard's layout, token count and digest ([`Shard::digest`]): independent of names and folders.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// A reader that keeps the file of its last read open.
    pub fn reader(&self) -> SourceReader<'_> {
        SourceReader { source: self, open: None }
    }
}

/// Reads of a [`TokenSource`].
#[derive(Debug)]
pub struct SourceReader<'a> {
    source: &'a TokenSource,
    open: Option<(usize, ShardReader<'a>)>,
}

impl SourceReader<'_> {
    /// Appends `count` ids of shard `shard` from its token `first` on. An id outside the vocabulary is bad data (65),
    /// with shard, offset and id.
    pub fn read(&mut self, shard: usize, first: u64, count: usize, ids: &mut Vec<i64>) -> Result<()> {
        let source = self.source;
        let reader = match &mut self.open {
            Some((open, reader)) if *open == shard => reader,
            open => &mut open.insert((shard, source.shards[shard].reader()?)).1,
        };
        let start = ids.len();
        reader.read(first, count, ids)?;
        match ids[start..].iter().position(|&id| id >= source.vocab as i64) {
            None => Ok(()),
            Some(place) => {
                Err(beyond_vocab(&source.shards[shard], first + place as u64, ids[start + place], source.vocab))
            }
        }
    }
}

/// The fault of a token id that the vocabulary does not have.
pub(super) fn beyond_vocab(shard: &Shard, token: u64, id: i64, vocab: usize) -> Fault {
    bad(shard.path(), shard.offset(token), "a token id outside the vocabulary")
        .found(id)
        .expected(format!("below {vocab}"))
        .hint("the model's vocabulary must be that of the tokenizer that made the shards")
}

/// The shard files that the paths name, folders replaced by their `.bin` files in order: those of one split, or all.
pub(super) fn shard_paths(paths: &[PathBuf], split: Option<Split>) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).map_err(|error| Fault::reading(path, &error))?;
        refuse_unfinished(if metadata.is_dir() { path } else { path.parent().unwrap_or(path) })?;
        if metadata.is_dir() {
            found.extend(in_folder(path, split)?);
        } else {
            found.push(path.clone());
        }
    }
    if found.is_empty() {
        return Err(Fault::new(Exit::Data, "no token shards")
            .found("an empty list of files")
            .expected("at least one")
            .hint("make shards of text with `gauntlet data prepare`"));
    }
    Ok(found)
}

fn in_folder(folder: &Path, split: Option<Split>) -> Result<Vec<PathBuf>> {
    let failed = |error| Fault::reading(folder, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let is_shard = path.extension().is_some_and(|extension| extension == "bin") && !stem.starts_with('.');
        if is_shard && (split.is_none() || Split::of_file_name(&stem) == split) {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        let kind = split.map_or("token shards".to_owned(), |split| format!("{split} shards"));
        return Err(Fault::new(Exit::Data, format!("`{}`: no {kind}", folder.display()))
            .expected(format!("files such as `{}-00000.bin`", split.unwrap_or(Split::Train)))
            .hint("make shards of text with `gauntlet data prepare`, of two files or more for a validation split"));
    }
    Ok(found)
}

fn check_sidecars(shards: &[Shard], split: Split, vocab: usize) -> Result<()> {
    let mut first: Option<&Tokenizer> = None;
    for shard in shards {
        let Some(sidecar) = shard.sidecar() else { continue };
        let wrong = |what, found, expected| Err(bad(shard.path(), 0, what).found(found).expected(expected));
        if sidecar.split != split {
            return wrong("a shard of the other split", sidecar.split.to_string(), split.to_string());
        }
        let tokenizer = &sidecar.tokenizer;
        if tokenizer.vocab_size > vocab {
            let found = format!("{} ids of tokenizer `{}`", tokenizer.vocab_size, tokenizer.name);
            return wrong("the vocabulary is larger than the model's", found, format!("at most {vocab}"));
        }
        let expected = first.get_or_insert(tokenizer);
        if *expected != tokenizer {
            return wrong("shards of two tokenizers", tokenizer.name.clone(), expected.name.clone());
        }
    }
    Ok(())
}

/// Refuses a `tokenizer.json` beside shards of another one. That there is none is no fault: training needs none.
pub(super) fn check_tokenizer_files(shards: &[Shard]) -> Result<()> {
    let mut checked = HashSet::new();
    for shard in shards {
        let expected = shard.sidecar().and_then(|sidecar| sidecar.tokenizer.sha256.as_ref());
        let file = shard.path().with_file_name(tokenizer::FILE);
        let Some(expected) = expected.filter(|_| checked.insert(file.clone()) && file.is_file()) else { continue };
        let found = hash::hex_of_file(&file).map_err(|error| Fault::reading(&file, &error))?;
        if found != *expected {
            let fault = Fault::new(Exit::Data, format!("`{}`: not the tokenizer of these shards", file.display()));
            return Err(fault.found(format!("sha256 {found}")).expected(expected).hint("copy the whole folder again"));
        }
    }
    Ok(())
}

fn fingerprint(shards: &[Shard]) -> String {
    let mut hasher = Sha256::new();
    for shard in shards {
        hasher.update(format!("{}\n{}\n{}\n", shard.format().name(), shard.tokens(), shard.digest()));
    }
    hash::hex(hasher)
}
