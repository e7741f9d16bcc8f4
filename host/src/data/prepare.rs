//! Files of text -> tokens -> a folder of llm.c shards, which appears whole or not at all.
//!
//! Each document is written as the separator token and then its tokens. All files are read twice: first to find duplicates
//! and to decide the split ([`super::scan`]), then to encode ([`super::pipeline`]). The folder is made beside its final
//! place under the name `.NAME.partial`, synced, and renamed. What a killed run leaves there the next one goes on with,
//! where inputs, options and tokenizer are the same, and else removes ([`super::journal`]). The same inputs and options
//! give the same bytes, whenever, wherever, by however many threads, and however often interrupted.

use std::path::PathBuf;

use super::hash;
use super::journal;
use super::manifest::{self, Manifest};
use super::pipeline::{self, Writers};
use super::pool;
use super::records::{OnBad, Rules};
use super::scan::{self, Corpus, Selection};
use super::shard::Format;
use super::sidecar::Sidecar;
use super::split::Split;
use super::tokenizer::{self, Choice, Encoder};
use super::writer::ShardWriter;
use crate::durable::{PartialFolder, refuse_existing, write_new};
use crate::error::{Exit, Fault, Result};

const MAX_SHARD_TOKENS: u64 = i32::MAX as u64;
/// Ids that 16 bits hold.
const IDS_OF_16_BITS: usize = 1 << 16;

/// What to prepare, and how.
#[derive(Clone, Debug)]
pub struct Prepare {
    /// Files, taken whatever their name; folders, searched at every depth for `*.txt`, `*.md`, `*.jsonl` and `*.parquet`,
    /// each also with `.gz` or `.zst` behind; patterns with `*`, `**`, `?` and `[...]`.
    pub inputs: Vec<PathBuf>,
    /// The folder to make. It must not exist.
    pub output: PathBuf,
    /// The expected share of the validation split, 0 or more and below 1; whole documents, chosen by a hash of their
    /// relative paths, or of their texts where they are records. It is not used where `validation_files` are named.
    pub validation_fraction: f64,
    /// File names or relative paths of the validation documents; `*` stands for any characters.
    pub validation_files: Vec<String>,
    /// The most tokens in a shard, 1 to 2^31 - 1.
    pub shard_tokens: u64,
    /// What makes tokens of text.
    pub tokenizer: Choice,
    /// The key of a line of JSON, or the column of a table, that holds the text.
    pub text_field: String,
    /// What a line or row without a text does.
    pub on_bad: OnBad,
    /// Threads; 0 for all cores.
    pub threads: usize,
}

impl Prepare {
    /// The default share of the validation split.
    pub const VALIDATION_FRACTION: f64 = 0.05;
    /// The default number of tokens in a shard.
    pub const SHARD_TOKENS: u64 = 100_000_000;
    /// The default key or column of a text.
    pub const TEXT_FIELD: &str = "text";

    /// Preparation as bytes, with the default split and shard size.
    pub fn new(inputs: Vec<PathBuf>, output: PathBuf) -> Self {
        Self {
            inputs,
            output,
            validation_fraction: Self::VALIDATION_FRACTION,
            validation_files: Vec::new(),
            shard_tokens: Self::SHARD_TOKENS,
            tokenizer: Choice::Bytes,
            text_field: Self::TEXT_FIELD.to_owned(),
            on_bad: OnBad::Error,
            threads: 0,
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
    /// Documents left out since their bytes are those of an earlier one.
    pub duplicates: u64,
    /// Documents left out since they are empty.
    pub empty: u64,
    /// Lines and rows left out since they hold no text.
    pub bad: u64,
    /// Shards that an interrupted preparation had finished.
    pub resumed: u64,
}

/// The size of one split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitSize {
    /// Documents in it.
    pub documents: u64,
    /// Tokens, with a separator for each document.
    pub tokens: u64,
    /// Shard files.
    pub shards: u64,
}

/// How far a preparation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of text that were read in the first look.
    Reading(u64),
    /// Bytes of text that became tokens, of all.
    Encoding(u64, u64),
}

/// Makes the shards and shows nobody how far it is.
///
/// # Errors
///
/// Those of [`prepare_with`].
pub fn prepare(options: &Prepare) -> Result<Prepared> {
    prepare_with(options, &|_| ())
}

/// Makes the shards.
///
/// # Errors
///
/// A bad option or an output that exists (2); bad or no text, or a bad tokenizer (65); a missing input (66); no space, or
/// anything else that keeps it from being written (74).
pub fn prepare_with(options: &Prepare, progress: &(dyn Fn(Progress) + Sync)) -> Result<Prepared> {
    if !(1..=MAX_SHARD_TOKENS).contains(&options.shard_tokens) {
        let fault = Fault::new(Exit::Usage, "bad number of tokens in a shard").found(options.shard_tokens);
        return Err(fault.expected(format!("1 to {MAX_SHARD_TOKENS}")));
    }
    refuse_existing(&options.output)?;
    let encoder = Encoder::open(&options.tokenizer)?;
    pool(options.threads)?.install(|| {
        let rules = Rules { field: options.text_field.clone(), on_bad: options.on_bad };
        let corpus = scan::scan(&selection(options, &rules), &|bytes| progress(Progress::Reading(bytes)))?;
        let key = hash::hex_digest(Manifest::new(options, encoder.described(), &corpus, &[]).to_json()?.as_bytes());
        let partial = journal::begin(&options.output, &key)?;
        match write(options, &rules, &encoder, &corpus, &partial, progress) {
            Ok(prepared) => {
                partial.commit()?;
                Ok(prepared)
            }
            Err(fault) => {
                // What is finished is worth keeping, and nothing else is there yet.
                if [Split::Train, Split::Validation].iter().any(|&split| journal::has_any(partial.path(), split)) {
                    partial.leave();
                }
                Err(fault)
            }
        }
    })
}

fn selection<'a>(options: &'a Prepare, rules: &'a Rules) -> Selection<'a> {
    Selection {
        inputs: &options.inputs,
        rules,
        validation_fraction: options.validation_fraction,
        validation_files: &options.validation_files,
    }
}

fn write(
    options: &Prepare,
    rules: &Rules,
    encoder: &Encoder,
    corpus: &Corpus,
    partial: &PartialFolder,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Prepared> {
    let (folder, tokenizer) = (partial.path(), encoder.described());
    let format = if tokenizer.vocab_size > IDS_OF_16_BITS { Format::LlmC32 } else { Format::LlmC16 };
    let writer = |split| ShardWriter::new(folder, split, format, options.shard_tokens);
    let mut writers = Writers { train: writer(Split::Train), validation: writer(Split::Validation) };
    let resumed = (writers.train.shards() + writers.validation.shards()) as u64;
    let total = corpus.files.iter().map(|file| file.text_bytes).sum();
    pipeline::run(corpus, rules, encoder, format, &mut writers, &|bytes| progress(Progress::Encoding(bytes, total)))?;
    let sidecars = [writers.train.finish(tokenizer)?, writers.validation.finish(tokenizer)?].concat();
    let replace = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        // An interrupted preparation may have come this far.
        let _ = std::fs::remove_file(&path);
        write_new(&path, bytes)
    };
    encoder.file().map_or(Ok(()), |file| replace(tokenizer::FILE, file))?;
    let manifest = Manifest::new(options, tokenizer, corpus, &sidecars);
    replace(manifest::NAME, manifest.to_json()?.as_bytes())?;
    journal::end(folder)?;
    let [train, validation] = [Split::Train, Split::Validation].map(|split| size(&sidecars, split));
    let Corpus { duplicates, empty, bad, .. } = *corpus;
    Ok(Prepared { train, validation, duplicates, empty, bad, resumed })
}

fn size(sidecars: &[Sidecar], split: Split) -> SplitSize {
    let shards = sidecars.iter().filter(|sidecar| sidecar.split == split);
    shards.fold(SplitSize::default(), |size, shard| SplitSize {
        documents: size.documents + shard.documents,
        tokens: size.tokens + shard.tokens,
        shards: size.shards + 1,
    })
}
