//! The first look at a corpus: every file is read once, in parallel, and what becomes of each document is decided.
//!
//! Exact duplicates are known by the SHA-256 of their bytes, of which 128 bits are kept.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use rayon::prelude::*;

use super::documents::{self, Content, Read, Sink};
use super::hash;
use super::inputs::{self, Input};
use super::records::{OnBad, Rules};
use super::split::{self, Place, Split};
use crate::error::{Exit, Fault, Result};

/// What is kept of a document's hash.
pub(super) type Key = [u8; 16];

pub(super) fn key(content: &Content) -> Key {
    std::array::from_fn(|i| content.sha256[i])
}

/// What becomes of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept(Split),
    Duplicate,
    Empty,
}

/// A file that was read once.
#[derive(Debug)]
pub(super) struct Scanned {
    pub input: Input,
    pub read: Read,
    /// SHA-256 of the document where the file is one, else of the file.
    pub sha256: String,
    /// Bytes of the texts in it.
    pub text_bytes: u64,
    /// Its documents in order.
    pub documents: Vec<(Key, Fate)>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Corpus {
    /// In the order of the inputs; within a folder in the order of names, byte by byte.
    pub files: Vec<Scanned>,
    /// Documents left out since their bytes are those of an earlier one.
    pub duplicates: u64,
    /// Documents left out since they have no bytes.
    pub empty: u64,
    /// Records left out since they hold no document.
    pub bad: u64,
}

/// How documents are found and split.
pub(super) struct Selection<'a> {
    pub inputs: &'a [PathBuf],
    pub rules: &'a Rules,
    pub validation_fraction: f64,
    pub validation_files: &'a [String],
}

/// Reads all files, in the threads of the current pool; `progress` gets the bytes of texts so far.
pub(super) fn scan(selection: &Selection, progress: &(dyn Fn(u64) + Sync)) -> Result<Corpus> {
    let files = inputs::find(selection.inputs)?;
    let (first_failed, done) = (AtomicUsize::new(usize::MAX), AtomicU64::new(0));
    let read = |(place, input): (usize, Input)| {
        // Of several bad files the first is reported, whichever is read first.
        if place > first_failed.load(Relaxed) {
            return None;
        }
        let scanned = scan_file(input, selection.rules, &|bytes| progress(done.fetch_add(bytes, Relaxed) + bytes));
        if scanned.is_err() {
            first_failed.fetch_min(place, Relaxed);
        }
        Some(scanned)
    };
    let files: Vec<Option<Result<Scanned>>> = files.into_par_iter().enumerate().map(read).collect();
    let files = files.into_iter().flatten().collect::<Result<Vec<_>>>()?;
    decide(files, selection)
}

fn scan_file(input: Input, rules: &Rules, progress: &dyn Fn(u64)) -> Result<Scanned> {
    struct Hashes<'a> {
        documents: Vec<(Key, Fate)>,
        last: Option<Content>,
        bytes: u64,
        progress: &'a dyn Fn(u64),
    }
    impl Sink for Hashes<'_> {
        fn piece(&mut self, text: &str) -> Result<()> {
            (self.progress)(text.len() as u64);
            Ok(())
        }

        fn end(&mut self, content: Content) -> Result<()> {
            let fate = if content.bytes == 0 { Fate::Empty } else { Fate::Kept(Split::Train) };
            self.documents.push((key(&content), fate));
            self.bytes += content.bytes;
            self.last = Some(content);
            Ok(())
        }
    }
    let mut hashes = Hashes { documents: Vec::new(), last: None, bytes: 0, progress };
    let read = documents::read(&input, rules, &mut hashes)?;
    let document = hashes.last.filter(|_| input.kind == inputs::Kind::Text);
    let sha256 = document.map_or_else(|| read.sha256.clone(), |content| hash::hex_of(&content.sha256));
    Ok(Scanned { input, read, sha256, text_bytes: hashes.bytes, documents: hashes.documents })
}

/// Finds duplicates and splits what is left.
fn decide(mut files: Vec<Scanned>, selection: &Selection) -> Result<Corpus> {
    let bad = files.iter().map(|file| file.read.bad).sum();
    if let OnBad::Skip(most) = selection.rules.on_bad
        && bad > most
    {
        let fault = Fault::new(Exit::Data, "too many bad lines").found(bad).expected(format!("at most {most}"));
        return Err(fault.hint(format!("allow more with `--on-bad-line skip:{bad}`")));
    }
    let (mut seen, mut duplicates, mut empty) = (HashSet::new(), 0, 0);
    for (key, fate) in files.iter_mut().flat_map(|file| &mut file.documents) {
        if *fate == Fate::Empty {
            empty += 1;
        } else if !seen.insert(*key) {
            *fate = Fate::Duplicate;
            duplicates += 1;
        }
    }
    if seen.is_empty() {
        return Err(Fault::new(Exit::Data, "no text to prepare")
            .found(format!("{} input paths with {empty} text files, all empty", selection.inputs.len()))
            .expected("at least one UTF-8 text")
            .hint("name files, or folders that hold `.txt`, `.md`, `.jsonl` or `.parquet` files"));
    }
    let mut places = Vec::with_capacity(seen.len());
    for file in &files {
        let kept = file.documents.iter().filter(|(_, fate)| matches!(fate, Fate::Kept(_)));
        places.extend(kept.map(|(key, _)| match file.input.kind {
            inputs::Kind::Text => Place::of_file(&file.input.name),
            _ => Place::of_record(&file.input.name, key),
        }));
    }
    let splits = split::assign(&places, selection.validation_fraction, selection.validation_files)?;
    let mut splits = splits.into_iter();
    for (_, fate) in files.iter_mut().flat_map(|file| &mut file.documents) {
        if let Fate::Kept(split) = fate {
            *split = splits.next().unwrap_or(Split::Train);
        }
    }
    Ok(Corpus { files, duplicates, empty, bad })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn gather(inputs: &[PathBuf]) -> Result<Corpus> {
        let rules = Rules { field: "text".into(), on_bad: OnBad::Error };
        let selection = Selection { inputs, rules: &rules, validation_fraction: 0.0, validation_files: &[] };
        scan(&selection, &|_| ())
    }

    #[test]
    fn duplicates_are_found_over_kinds_of_files_and_the_first_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("a.txt", "one");
        write("b.jsonl", "{\"text\": \"two\"}\n{\"text\": \"one\"}\n{\"text\": \"\"}\n{\"text\": \"two\"}");
        write("c.md", "two");
        let corpus = gather(&[folder.path().into()]).unwrap();
        assert_eq!((corpus.duplicates, corpus.empty, corpus.bad), (3, 1, 0));
        let kept = Fate::Kept(Split::Train);
        let fates: Vec<Fate> =
            corpus.files.iter().flat_map(|file| file.documents.iter().map(|(_, fate)| *fate)).collect();
        assert_eq!(fates, [kept, kept, Fate::Duplicate, Fate::Empty, Fate::Duplicate, Fate::Duplicate]);
    }

    #[test]
    fn nothing_to_prepare_is_refused_and_of_several_bad_files_the_first_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(gather(&[]).unwrap_err().exit, Exit::Data);
        assert_eq!(gather(&[folder.path().into()]).unwrap_err().exit, Exit::Data);
        assert_eq!(gather(&[folder.path().join("gone.txt")]).unwrap_err().exit, Exit::Missing);
        assert_eq!(gather(&["/dev/null".into()]).unwrap_err().exit, Exit::Data);
        for i in 0..40 {
            let bad = if i >= 7 { &b"\xff"[..] } else { b"good" };
            fs::write(folder.path().join(format!("{i:02}.txt")), bad).unwrap();
        }
        let line = gather(&[folder.path().into()]).unwrap_err().to_string();
        assert!(line.contains("/07.txt`: not a text"), "{line}");
    }
}
