//! Tokenizers: text to token ids and back.
//!
//! | name | ids | where its vocabulary is |
//! | --- | --- | --- |
//! | `bytes` | 256 | it needs none |
//! | `gpt2` | 50257 | in the program |
//! | `json-` and 16 digits | as many as the file has | a `tokenizer.json`, which is known by its hash and travels with the shards |

mod byte_level;
mod json;
mod train;
mod words;

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tiktoken_rs::CoreBPE;

use super::bytes;
use super::sidecar::Tokenizer;
use crate::error::{Exit, Fault, Result};
use json::Json;
pub use train::{TrainTokenizer, Trained, train_tokenizer};
use words::Words;

/// The name of the copy of a `tokenizer.json` beside shards.
pub const FILE: &str = "tokenizer.json";
/// The name of GPT-2's tokenizer.
const GPT2: &str = "gpt2";
const GPT2_VOCAB: usize = 50_257;
const GPT2_SEPARATOR: u32 = 50_256;
/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A tokenizer as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Each byte is a token.
    #[default]
    Bytes,
    /// GPT-2's byte-level BPE.
    Gpt2,
    /// A `tokenizer.json` of Hugging Face's form.
    File(PathBuf),
}

impl FromStr for Choice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            bytes::NAME => Choice::Bytes,
            GPT2 => Choice::Gpt2,
            path => Choice::File(path.into()),
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Bytes => f.write_str(bytes::NAME),
            Choice::Gpt2 => f.write_str(GPT2),
            Choice::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A tokenizer that is ready.
pub struct Encoder {
    rule: Rule,
    described: Tokenizer,
}

enum Rule {
    Bytes,
    Gpt2(Box<CoreBPE>, Words),
    Json(Box<Json>),
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoder({})", self.described.name)
    }
}

impl Encoder {
    /// The tokenizer that is asked for. A file that is none is bad data (65), one that is missing 66.
    pub fn open(choice: &Choice) -> Result<Self> {
        match choice {
            Choice::Bytes => Ok(Self { rule: Rule::Bytes, described: bytes::tokenizer() }),
            Choice::Gpt2 => {
                let bpe = tiktoken_rs::r50k_base()
                    .map_err(|error| Fault::new(Exit::Internal, format!("GPT-2's vocabulary: {error}")))?;
                let words = Words::of_gpt2().map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
                let described = Tokenizer {
                    name: GPT2.into(),
                    vocab_size: GPT2_VOCAB,
                    separator: GPT2_SEPARATOR.into(),
                    sha256: None,
                };
                Ok(Self { rule: Rule::Gpt2(Box::new(bpe), words), described })
            }
            Choice::File(path) => Self::of_json(path, &read(path)?),
        }
    }

    /// The tokenizer of a `tokenizer.json`, from its bytes.
    pub fn of_json(path: &Path, bytes: &[u8]) -> Result<Self> {
        let (json, described) = Json::parse(path, bytes)?;
        Ok(Self { rule: Rule::Json(Box::new(json)), described })
    }

    /// The tokenizer of this name, as sidecars and checkpoints hold it; one of a file is looked for in `folders`, and has
    /// to be the same file. Errors: an unknown name, no such file, or another (65).
    pub fn named(name: &str, folders: &[PathBuf]) -> Result<Self> {
        match name {
            bytes::NAME => return Self::open(&Choice::Bytes),
            GPT2 => return Self::open(&Choice::Gpt2),
            _ => {}
        }
        let unknown = |found: String| {
            Fault::new(Exit::Data, format!("no tokenizer `{name}` to read and write text with"))
                .found(found)
                .hint(format!("name its `{FILE}` with `--tokenizer`"))
        };
        let mut found = "no such file".to_owned();
        for path in folders.iter().map(|folder| folder.join(FILE)).filter(|path| path.is_file()) {
            let encoder = Self::open(&Choice::File(path.clone()))?;
            if encoder.described.name == name {
                return Ok(encoder);
            }
            found = format!("`{}` in `{}`", encoder.described.name, path.display());
        }
        Err(unknown(found))
    }

    /// What sidecars say of it.
    pub fn described(&self) -> &Tokenizer {
        &self.described
    }

    /// The file that its vocabulary comes from.
    pub fn file(&self) -> Option<&[u8]> {
        match &self.rule {
            Rule::Json(json) => Some(json.file()),
            Rule::Bytes | Rule::Gpt2(..) => None,
        }
    }

    /// The ids of a text, without separators: what looks like a special token is text like any other. A text that the
    /// tokenizer cannot take, which only some files have, is bad data (65).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let failed = |error: tokenizers::Error| {
            let fault = Fault::new(Exit::Data, format!("tokenizer `{}` fails on a text", self.described.name));
            fault.found(error.to_string()).hint("use another tokenizer, or leave the text out")
        };
        let encode = || match &self.rule {
            Rule::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Rule::Gpt2(bpe, words) => words.encode(text, |word| Ok(bpe.encode_ordinary(word))),
            Rule::Json(json) => json.encode(text),
        };
        let ids = catch_unwind(AssertUnwindSafe(encode)).unwrap_or_else(|_| Err("a panic in its code".into()));
        ids.map_err(failed)
    }

    /// The text of ids. What is no text, and ids that it does not know, become U+FFFD; separators of tokenizers with
    /// special tokens are left out.
    pub fn decode(&self, ids: &[i64]) -> String {
        let known =
            |vocab: usize| ids.iter().filter_map(move |&id| u32::try_from(id).ok().filter(|&id| (id as usize) < vocab));
        let decode = || match &self.rule {
            Rule::Bytes => bytes::decode(ids),
            Rule::Gpt2(bpe, _) => {
                let ids: Vec<u32> = known(GPT2_SEPARATOR as usize).collect();
                bpe.decode_bytes(&ids)
                    .map_or_else(|_| "\u{fffd}".into(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
            }
            Rule::Json(json) => json.decode(&known(self.described.vocab_size).collect::<Vec<_>>()),
        };
        catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| "\u{fffd}".into())
    }
}

/// Reads a file that may be a tokenizer, up to a size at which none is.
fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error| Fault::reading(path, &error);
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(json::bad(path, "more than 64 MiB").expected("a smaller file")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests;
