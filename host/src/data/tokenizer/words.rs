//! The words of GPT-2's rule, and the ids of words that were seen before.
//!
//! Byte-level tokenizers of GPT-2's kind never join two words, and texts repeat their words. So a text is split by one
//! expression without look-ahead, and only new words go through the tokenizer. The rule
//!
//! ```text
//! 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
//!
//! asks what follows in one place only: white space in front of a word leaves its last character to the next match.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use regex::Regex;

/// Words that are remembered, for each thread at work.
const MOST_WORDS: usize = 1 << 17;
/// Bytes of a word that is remembered.
const MOST_BYTES: usize = 64;

type Known = HashMap<Box<str>, Box<[u32]>>;

/// The rule, and what is remembered.
pub(super) struct Words {
    expression: Regex,
    /// One for each call at work, taken by it and put back.
    known: Mutex<Vec<Known>>,
}

impl Words {
    pub fn new() -> Result<Self, regex::Error> {
        let expression = Regex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")?;
        Ok(Self { expression, known: Mutex::default() })
    }

    /// The ids of a text, of which `of_word` gives those of a word.
    pub fn encode<E>(&self, text: &str, of_word: impl Fn(&str) -> Result<Vec<u32>, E>) -> Result<Vec<u32>, E> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at_hand = known().pop().unwrap_or_default();
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut at = 0;
        while let Some(word) = self.word(text, at) {
            at += word.len();
            if let Some(found) = at_hand.get(word) {
                ids.extend_from_slice(found);
                continue;
            }
            let new = of_word(word)?;
            ids.extend_from_slice(&new);
            if word.len() <= MOST_BYTES && at_hand.len() < MOST_WORDS {
                at_hand.insert(word.into(), new.into());
            }
        }
        known().push(at_hand);
        Ok(ids)
    }

    /// The word that begins at a byte; every character belongs to one.
    fn word<'a>(&self, text: &'a str, at: usize) -> Option<&'a str> {
        let word = self.expression.find_at(text, at)?.as_str();
        let last = word.chars().next_back()?;
        let is_space = last.is_whitespace() && word.chars().all(char::is_whitespace);
        let leaves_one = is_space && word.len() > last.len_utf8() && at + word.len() < text.len();
        Some(if leaves_one { &word[..word.len() - last.len_utf8()] } else { word })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_rule() {
        let words = Words::new().unwrap();
        let split = |text: &'static str| {
            let mut at = 0;
            std::iter::from_fn(move || {
                let word = words.word(text, at)?;
                at += word.len();
                Some(word)
            })
            .collect::<Vec<_>>()
        };
        let words = split("I'll  go,\n\n\nthen 42 d\u{e9}j\u{e0}\u{a0}\u{2003}vu!?  ");
        let expected = [
            "I",
            "'ll",
            " ",
            " go",
            ",",
            "\n\n",
            "\n",
            "then",
            " 42",
            " d\u{e9}j\u{e0}",
            "\u{a0}",
            "\u{2003}",
            "vu",
            "!?",
            "  ",
        ];
        assert_eq!(words, expected);
    }
}
