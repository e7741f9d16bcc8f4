//! A `tokenizer.json` of Hugging Face's form. Nothing in it is trusted: it is checked first, and read where a panic of the
//! reader is caught.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::PostProcessorWrapper;

use super::super::hash;
use super::super::sidecar::Tokenizer;
use super::byte_level::ByWords;
use crate::error::{Exit, Fault, Result};

/// Tokens that end a document in vocabularies that others made, in the order in which they are looked for.
const SEPARATORS: [&str; 7] =
    ["<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>", "</s>", "<eos>", "[EOS]", "[SEP]"];

/// A tokenizer and the file that it comes from.
pub(super) struct Json {
    tokenizer: tokenizers::Tokenizer,
    /// The way by words, which is the faster one.
    by_words: Option<ByWords>,
    file: Vec<u8>,
}

/// The part of the file that is checked before it is read by the crate.
#[derive(Deserialize)]
struct Parts {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    merges: Vec<Value>,
}

impl Json {
    /// Reads a file (65 where it is no tokenizer).
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<(Self, Tokenizer)> {
        let parts: Parts = serde_json::from_slice(bytes).map_err(|error| bad(path, error))?;
        let mut seen = HashSet::new();
        if let Some(twice) = parts.model.merges.iter().find(|merge| !seen.insert(merge.to_string())) {
            return Err(bad(path, format!("the merge {twice} twice")));
        }
        let read = catch_unwind(AssertUnwindSafe(|| {
            let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)?;
            // A document is encoded whole, and as it is.
            tokenizer.with_truncation(None)?.with_padding(None);
            tokenizer.set_encode_special_tokens(true);
            // What a template would add to a text, or leave out of it, is no part of a document.
            tokenizer.with_post_processor(None::<PostProcessorWrapper>);
            let vocab = tokenizer.get_vocab(true);
            // Whatever the file holds shows itself in a short text, too.
            tokenizer.encode_fast("A text.\n", false)?;
            Ok::<_, tokenizers::Error>((tokenizer, vocab))
        }));
        let read = read.map_err(|_| bad(path, "what the reader of such files panics on"))?;
        let (tokenizer, vocab) = read.map_err(|error| bad(path, error))?;
        let mut tokens = BTreeMap::new();
        for (token, &id) in &vocab {
            if let Some(other) = tokens.insert(id, token) {
                return Err(bad(path, format!("`{}` and `{token}` of one id {id}", other.min(token))));
            }
        }
        let vocab_size = tokens.len();
        if let Some((place, _)) = (0..).zip(tokens.keys()).find(|(place, id)| place != *id) {
            return Err(bad(path, format!("no token of id {place}")).expected("ids from 0 without a gap"));
        }
        let Some(&separator) = SEPARATORS.iter().find_map(|token| vocab.get(*token)) else {
            let known = SEPARATORS.map(|token| format!("`{token}`")).join(", ");
            return Err(bad(path, "no token to separate documents with").expected(format!("one of {known}")));
        };
        let sha256 = hash::hex_digest(bytes);
        let described = Tokenizer {
            name: format!("json-{}", &sha256[..16]),
            vocab_size,
            separator: separator.into(),
            sha256: Some(sha256),
        };
        let by_words = ByWords::of(&tokenizer);
        Ok((Self { tokenizer, by_words, file: bytes.to_owned() }, described))
    }

    /// The file's bytes.
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    pub fn encode(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        match self.by_words.as_ref().and_then(|by_words| by_words.encode(text)) {
            Some(ids) => ids,
            None => Ok(self.tokenizer.encode_fast(text, false)?.get_ids().to_vec()),
        }
    }

    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true).unwrap_or_else(|_| "\u{fffd}".into())
    }
}

/// The fault of a file that is no tokenizer.
pub(super) fn bad(path: &Path, found: impl std::fmt::Display) -> Fault {
    let found = found.to_string();
    Fault::new(Exit::Data, format!("`{}`: not a tokenizer.json", path.display()))
        .found(found.lines().next().unwrap_or_default())
        .hint("make one with `gauntlet data train-tokenizer`")
}
