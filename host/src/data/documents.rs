//! The documents of one file, whatever its kind: each in pieces, then its hash and size.

use sha2::{Digest, Sha256};

use super::inputs::{Input, Kind};
use super::lines::read_lines;
use super::records::{BadRecords, OnBad, Rules};
use super::rows::read_rows;
use super::texts::{pieces, read_text};
use super::unpack::{Caps, Unpacked};
use crate::error::Result;

/// What a document was when it was read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub sha256: [u8; 32],
    pub bytes: u64,
}

/// Takes documents.
pub(super) trait Sink {
    /// A piece of a document, not empty.
    fn piece(&mut self, text: &str) -> Result<()>;
    /// The end of a document; one of no bytes has no piece.
    fn end(&mut self, content: Content) -> Result<()>;
}

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// SHA-256 of the file as it lies.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Records that were left out since they hold no document.
    pub bad: u64,
}

/// Reads a file once, and hands over its documents.
pub(super) fn read(input: &Input, rules: &Rules, sink: &mut dyn Sink) -> Result<Read> {
    let caps = Caps::DEFAULT;
    let mut bad = BadRecords::new(rules);
    let mut record = |text: String| {
        pieces(&text).try_for_each(|piece| sink.piece(piece))?;
        sink.end(Content { sha256: Sha256::digest(&text).into(), bytes: text.len() as u64 })
    };
    let (sha256, bytes) = match input.kind {
        Kind::Text => read_document(input, caps, sink)?,
        Kind::Lines => {
            let mut file = Unpacked::open(input, caps)?;
            read_lines(&mut file, &rules.field, &mut bad, record)?;
            file.raw()
        }
        Kind::Table => read_rows(input, caps, &rules.field, &mut bad, &mut record)?,
    };
    Ok(Read { sha256, bytes, bad: bad.count })
}

fn read_document(input: &Input, caps: Caps, sink: &mut dyn Sink) -> Result<(String, u64)> {
    let mut file = Unpacked::open(input, caps)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    read_text(&mut file, |piece| {
        hasher.update(piece);
        bytes += piece.len() as u64;
        sink.piece(piece)
    })?;
    sink.end(Content { sha256: hasher.finalize().into(), bytes })?;
    Ok(file.raw())
}

/// The number of documents in one file, read as [`super::prepare()`] reads it by its name, with `text` as the key of texts.
///
/// # Errors
///
/// What a preparation would say of the file.
pub fn count(path: &std::path::Path) -> Result<u64> {
    struct Counter(u64);
    impl Sink for Counter {
        fn piece(&mut self, _: &str) -> Result<()> {
            Ok(())
        }

        fn end(&mut self, _: Content) -> Result<()> {
            self.0 += 1;
            Ok(())
        }
    }
    let rules = Rules { field: "text".to_owned(), on_bad: OnBad::Error };
    let mut counter = Counter(0);
    for input in super::inputs::find(&[path.to_owned()])? {
        read(&input, &rules, &mut counter)?;
    }
    Ok(counter.0)
}
