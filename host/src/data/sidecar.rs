//! The JSON sidecar beside a shard: what it holds, made from what. It has no time, host or absolute path.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::hash;
use super::split::Split;
use crate::error::{Exit, Fault, Result};

/// The version of the sidecar's form that is written and read.
pub(super) const VERSION: u32 = 1;
const MAX_BYTES: u64 = 256 << 20;

/// What a sidecar says of its shard. The file has one key more, `sources`: the documents with tokens in the shard, each
/// with `path` (relative), `sha256`, `bytes` (of the whole document) and `tokens` (those in this shard); documents that
/// are records of one file are one source, with the hash of the file and the bytes of all its texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// The version of this form: 1.
    pub sidecar_version: u32,
    /// The version of the program that made the shard.
    pub gauntlet_version: String,
    /// The layout, `llm.c v1` or `llm.c v7`.
    pub format: String,
    /// The type of a stored token id, `uint16` or `uint32`.
    pub dtype: String,
    /// What made ids of text.
    pub tokenizer: Tokenizer,
    /// The split that the shard belongs to.
    pub split: Split,
    /// The shard's place among those of its split, from 0.
    pub shard: u64,
    /// The number of shards of its split.
    pub shards: u64,
    /// The number of tokens in the shard.
    pub tokens: u64,
    /// The number of documents that begin in the shard.
    pub documents: u64,
    /// Bytes of text that the tokens stand for; a piece of text counts where its last token lies. Absent for `bytes`,
    /// where it is the number of tokens without separators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_bytes: Option<u64>,
    /// SHA-256 of the shard file.
    pub sha256: String,
}

/// The tokenizer that made a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokenizer {
    /// Its name: `bytes`, `gpt2`, or `json-` and the first 16 digits of its file's SHA-256.
    pub name: String,
    /// The number of its token ids.
    pub vocab_size: usize,
    /// The id that begins each document.
    pub separator: u64,
    /// SHA-256 of its `tokenizer.json`, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Tokenizer {
    /// Whether each token is a byte of text.
    pub fn is_bytes(&self) -> bool {
        self.name == super::bytes::NAME
    }
}

/// A document's part in a shard; for files of records, the part of all documents of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    pub path: String,
    pub sha256: String,
    pub bytes: u64,
    pub tokens: u64,
}

/// The whole file, as written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    sidecar: &'a Sidecar,
    sources: &'a [Source],
}

impl Sidecar {
    /// Where the sidecar of a shard lies: `train-00000.json` beside `train-00000.bin`.
    pub fn path(shard: &Path) -> PathBuf {
        shard.with_extension("json")
    }

    /// The sidecar of a shard, if it has one. One that cannot be understood is bad data (65).
    pub fn beside(shard: &Path) -> Result<Option<Self>> {
        let path = Self::path(shard);
        match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Fault::reading(&path, &error)),
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                return Err(bad(&path, format!("{} bytes", metadata.len())).expected(format!("at most {MAX_BYTES}")));
            }
            Ok(_) => {}
        }
        let text = fs::read(&path).map_err(|error| Fault::reading(&path, &error))?;
        Self::parse(&path, &text).map(Some)
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self> {
        let sidecar: Self = serde_json::from_slice(text).map_err(|error| bad(path, error))?;
        if sidecar.sidecar_version != VERSION {
            return Err(bad(path, format!("sidecar_version {}", sidecar.sidecar_version)).expected(VERSION));
        }
        if !hash::is_hex(&sidecar.sha256) {
            return Err(bad(path, format!("sha256 `{}`", sidecar.sha256)).expected("64 hexadecimal digits"));
        }
        Ok(sidecar)
    }

    /// The file's text.
    pub(super) fn to_json(&self, sources: &[Source]) -> Result<String> {
        let text = serde_json::to_string_pretty(&Written { sidecar: self, sources });
        text.map(|text| text + "\n").map_err(|error| Fault::new(Exit::Internal, format!("sidecar as JSON: {error}")))
    }
}

fn bad(path: &Path, found: impl std::fmt::Display) -> Fault {
    Fault::new(Exit::Data, format!("`{}`: not a shard's sidecar", path.display()))
        .found(found)
        .hint("prepare the data again, or move the file away to read the shard without it")
}
