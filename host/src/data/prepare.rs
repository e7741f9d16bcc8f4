//! Text files -> byte tokens -> a folder of llm.c v1 shards, which appears whole or not at all.
//!
//! Each document is written as the separator token and then its bytes, as they are. The folder is made beside its final
//! place under the name `.NAME.partial`, synced, and renamed; what a killed run leaves there the next one removes. The
//! same inputs and options give the same bytes, whenever and wherever.

use std::path::{Path, PathBuf};

use super::split::{self, Split};
use super::texts::{self, Document};
use super::writer::ShardWriter;
use crate::durable::{PartialFolder, refuse_existing};
use crate::error::{Exit, Fault, Result};

const MAX_SHARD_TOKENS: u64 = i32::MAX as u64;
const MAX_SHARDS: u64 = 100_000;

/// What to prepare, and how.
#[derive(Clone, Debug)]
pub struct Prepare {
    /// Files, taken whatever their name, and folders, searched at every depth for `*.txt` and `*.md`.
    pub inputs: Vec<PathBuf>,
    /// The folder to make. It must not exist.
    pub output: PathBuf,
    /// The expected share of the validation split, 0 or more and below 1; whole documents, chosen by a hash of their
    /// relative paths. It is not used where `validation_files` are named.
    pub validation_fraction: f64,
    /// File names or relative paths of the validation documents; `*` stands for any characters.
    pub validation_files: Vec<String>,
    /// The most tokens in a shard, 1 to 2^31 - 1.
    pub shard_tokens: u64,
}

impl Prepare {
    /// The default share of the validation split.
    pub const VALIDATION_FRACTION: f64 = 0.05;
    /// The default number of tokens in a shard.
    pub const SHARD_TOKENS: u64 = 100_000_000;

    /// Preparation with the default split and shard size.
    pub fn new(inputs: Vec<PathBuf>, output: PathBuf) -> Self {
        Self {
            inputs,
            output,
            validation_fraction: Self::VALIDATION_FRACTION,
            validation_files: Vec::new(),
            shard_tokens: Self::SHARD_TOKENS,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The size of the train split.
    pub train: SplitSize,
    /// The size of the validation split: all 0 for a single document.
    pub validation: SplitSize,
    /// Files left out since their bytes are those of an earlier file.
    pub duplicates: u64,
    /// Files left out since they are empty.
    pub empty: u64,
}

/// The size of one split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitSize {
    /// Documents in it.
    pub documents: u64,
    /// Tokens: the bytes of the documents, and a separator for each.
    pub tokens: u64,
    /// Shard files.
    pub shards: u64,
}

/// Makes the shards. Errors: a bad option or an output that exists (2); bad or no text (65); a missing input (66); no
/// space, or anything else that keeps it from being written (74).
pub fn prepare(options: &Prepare) -> Result<Prepared> {
    if !(1..=MAX_SHARD_TOKENS).contains(&options.shard_tokens) {
        let fault = Fault::new(Exit::Usage, "bad number of tokens in a shard").found(options.shard_tokens);
        return Err(fault.expected(format!("1 to {MAX_SHARD_TOKENS}")));
    }
    refuse_existing(&options.output)?;
    let corpus = texts::gather(&options.inputs)?;
    let names: Vec<&str> = corpus.documents.iter().map(|document| document.name.as_str()).collect();
    let splits = split::assign(&names, options.validation_fraction, &options.validation_files)?;
    let partial = PartialFolder::begin(&options.output)?;
    let write = |split| {
        let chosen = corpus.documents.iter().zip(&splits).filter(|(_, found)| **found == split);
        write_split(
            partial.path(),
            split,
            &chosen.map(|(document, _)| document).collect::<Vec<_>>(),
            options.shard_tokens,
        )
    };
    let (train, validation) = (write(Split::Train)?, write(Split::Validation)?);
    partial.commit()?;
    Ok(Prepared { train, validation, duplicates: corpus.duplicates, empty: corpus.empty })
}

fn write_split(folder: &Path, split: Split, documents: &[&Document], shard_tokens: u64) -> Result<SplitSize> {
    let tokens = documents.iter().map(|document| document.content.bytes + 1).sum();
    let mut writer = ShardWriter::new(folder, split, tokens, shard_tokens);
    let shards = writer.shards();
    if shards > MAX_SHARDS {
        return Err(Fault::new(Exit::Usage, format!("too many shards of the {split} split"))
            .found(shards)
            .expected(format!("at most {MAX_SHARDS}"))
            .hint("put more tokens in a shard"));
    }
    for document in documents {
        write_document(&mut writer, document)?;
    }
    writer.finish()?;
    Ok(SplitSize { documents: documents.len() as u64, tokens, shards })
}

/// Reads the document a second time; it must be what it was.
fn write_document(writer: &mut ShardWriter, document: &Document) -> Result<()> {
    let changed = || {
        let fault =
            Fault::new(Exit::Data, format!("`{}`: the file changed while it was read", document.path.display()));
        fault.hint("prepare again when nothing writes to it")
    };
    writer.begin(document)?;
    let mut left = document.content.bytes;
    let content = texts::read_text(&document.path, |piece| {
        left = left.checked_sub(piece.len() as u64).ok_or_else(changed)?;
        writer.push(document, piece)
    })?;
    if content == document.content { Ok(()) } else { Err(changed()) }
}
