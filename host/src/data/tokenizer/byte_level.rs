//! Byte-level BPE, encoded word by word.
//!
//! A vocabulary of this kind never joins two words, so the ids of a text are those of its words, one after the other. Words
//! are those of GPT-2's rule, or of a file's own expressions (as Llama 3, Qwen 2 and their like have).

use regex::Regex;
use tokenizers::pre_tokenizers::PreTokenizerWrapper as Rule;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::{ModelWrapper, NormalizerWrapper, SplitDelimiterBehavior, Tokenizer};
use unicode_normalization::{IsNormalized, is_nfc_quick};

use super::words::Words;

/// A tokenizer whose texts are encoded by words.
pub(super) struct ByWords {
    words: Words,
    /// The vocabulary alone, for one word.
    of_word: Tokenizer,
    /// Whether texts are brought to NFC first.
    is_nfc: bool,
    /// Tokens beside the vocabulary that a text may hold.
    added: Option<Regex>,
}

impl ByWords {
    /// The way by words of a tokenizer, where it has one.
    pub fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
        if model.dropout.is_some() {
            return None;
        }
        let is_nfc = match tokenizer.get_normalizer() {
            None => false,
            Some(NormalizerWrapper::NFC(_)) => true,
            Some(_) => return None,
        };
        let words = words(tokenizer.get_pre_tokenizer()?)?;
        let added = tokenizer.get_added_tokens_decoder();
        let added: Vec<&str> =
            added.values().filter(|token| !token.special).map(|token| token.content.as_str()).collect();
        if is_nfc && !added.iter().all(|content| is_nfc_already(content)) {
            return None;
        }
        let added = match added.is_empty() {
            true => None,
            false => {
                let contents: Vec<String> = added.into_iter().map(regex::escape).collect();
                Some(Regex::new(&contents.join("|")).ok()?)
            }
        };
        let mut of_word = Tokenizer::new(model.clone());
        of_word.with_pre_tokenizer(Some(ByteLevel::new(false, true, false)));
        Some(Self { words, of_word, is_nfc, added })
    }

    /// The ids of a text, or `None` for one that is changed, or holds a token beside the vocabulary, before it is split.
    pub fn encode(&self, text: &str) -> Option<Result<Vec<u32>, tokenizers::Error>> {
        let is_changed = self.is_nfc && !is_nfc_already(text);
        let has_added = self.added.as_ref().is_some_and(|added| added.is_match(text));
        let of_word = |word: &str| Ok(self.of_word.encode_fast(word, false)?.get_ids().to_vec());
        (!is_changed && !has_added).then(|| self.words.encode(text, of_word))
    }
}

/// Whether a text is surely as it would be after NFC.
fn is_nfc_already(text: &str) -> bool {
    is_nfc_quick(text.chars()) == IsNormalized::Yes
}

/// The words of a rule, where it parts a text and changes nothing but the spelling of its bytes.
fn words(rule: &Rule) -> Option<Words> {
    let is_spelling = |bytes: &ByteLevel, splits| !bytes.add_prefix_space && bytes.use_regex == splits;
    match rule {
        Rule::ByteLevel(bytes) if is_spelling(bytes, true) => Words::of_gpt2().ok(),
        Rule::Sequence(rules) => match rules.as_ref().split_last()? {
            (Rule::ByteLevel(bytes), splits) if is_spelling(bytes, false) => {
                let splits: Option<Vec<Split>> = splits.iter().map(isolating).collect();
                splits.map(Words::of_splits)
            }
            _ => None,
        },
        _ => None,
    }
}

/// A rule that makes each match of an expression a word.
fn isolating(rule: &Rule) -> Option<Split> {
    match rule {
        Rule::Split(split) if split.behavior == SplitDelimiterBehavior::Isolated => Some(split.clone()),
        _ => None,
    }
}
