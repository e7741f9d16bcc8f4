//! `MANIFEST.json`: what a folder of shards was made from, with what, and what it holds. It is written last, and has no
//! time, host or absolute path.

use serde::{Deserialize, Serialize};

use super::prepare::Prepare;
use super::scan::Corpus;
use super::sidecar::{Sidecar, Tokenizer};
use crate::error::{Exit, Fault, Result};

/// The file's name.
pub const NAME: &str = "MANIFEST.json";

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub manifest_version: u32,
    pub gauntlet_version: String,
    pub tokenizer: Tokenizer,
    pub options: Options,
    pub inputs: Vec<InputFile>,
    pub left_out: LeftOut,
    pub shards: Vec<ShardFile>,
}

/// What decides the shards beside inputs and tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Options {
    pub validation_fraction: f64,
    pub validation_files: Vec<String>,
    pub shard_tokens: u64,
    pub text_field: String,
    pub on_bad_line: String,
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct InputFile {
    pub path: String,
    /// SHA-256 of the file as it lies, compressed or not.
    pub sha256: String,
    pub bytes: u64,
    /// Documents in it, kept or not, and the bytes of their texts.
    pub documents: u64,
    pub text_bytes: u64,
    pub bad_lines: u64,
}

/// Documents and lines that are in no shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LeftOut {
    pub duplicates: u64,
    pub empty: u64,
    pub bad_lines: u64,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ShardFile {
    pub file: String,
    pub sha256: String,
    pub tokens: u64,
    pub documents: u64,
}

impl Manifest {
    pub fn new(options: &Prepare, tokenizer: &Tokenizer, corpus: &Corpus, shards: &[Sidecar]) -> Self {
        let inputs = corpus.files.iter().map(|file| InputFile {
            path: file.input.name.clone(),
            sha256: file.read.sha256.clone(),
            bytes: file.read.bytes,
            documents: file.documents.len() as u64,
            text_bytes: file.text_bytes,
            bad_lines: file.read.bad,
        });
        let shards = shards.iter().map(|shard| ShardFile {
            file: format!("{}-{:05}.bin", shard.split, shard.shard),
            sha256: shard.sha256.clone(),
            tokens: shard.tokens,
            documents: shard.documents,
        });
        Self {
            manifest_version: 1,
            gauntlet_version: env!("CARGO_PKG_VERSION").to_owned(),
            tokenizer: tokenizer.clone(),
            options: Options {
                validation_fraction: options.validation_fraction,
                validation_files: options.validation_files.clone(),
                shard_tokens: options.shard_tokens,
                text_field: options.text_field.clone(),
                on_bad_line: options.on_bad.to_string(),
            },
            inputs: inputs.collect(),
            left_out: LeftOut { duplicates: corpus.duplicates, empty: corpus.empty, bad_lines: corpus.bad },
            shards: shards.collect(),
        }
    }

    /// The file's text.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|error| Fault::new(Exit::Internal, format!("manifest as JSON: {error}")))
    }
}
