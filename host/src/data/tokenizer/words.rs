//! The words of a text, and the ids of words that were seen before: texts repeat their words, so that only new ones go through
//! the tokenizer.
//!
//! Words are split by expressions, one behind the other. GPT-2's, which is the most usual,
//!
//! ```text
//! 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
//!
//! asks what follows in one place only: white space in front of a word leaves its last character to the next match. So it needs
//! no look-ahead.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use regex::Regex;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::tokenizer::pattern::Pattern as _;

/// Words that are remembered, for each thread at work.
const MOST_WORDS: usize = 1 << 17;
/// Bytes of a word that is remembered.
const MOST_BYTES: usize = 64;

type Known = HashMap<Box<str>, Box<[u32]>>;
type Take<'t> = &'t mut dyn FnMut(&str) -> tokenizers::Result<()>;

/// A rule, and what is remembered.
pub(super) struct Words {
    rule: Rule,
    /// One for each call at work, taken by it and put back.
    known: Mutex<Vec<Known>>,
}

enum Rule {
    Gpt2(Regex),
    /// Each splits the words of the one before: its matches, and what is between them.
    Splits(Vec<Split>),
}

impl Words {
    pub fn of_gpt2() -> Result<Self, regex::Error> {
        let expression = Regex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")?;
        Ok(Self { rule: Rule::Gpt2(expression), known: Mutex::default() })
    }

    pub fn of_splits(splits: Vec<Split>) -> Self {
        Self { rule: Rule::Splits(splits), known: Mutex::default() }
    }

    /// The ids of a text, of which `of_word` gives those of a word.
    pub fn encode(
        &self,
        text: &str,
        of_word: impl Fn(&str) -> tokenizers::Result<Vec<u32>>,
    ) -> tokenizers::Result<Vec<u32>> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at_hand = known().pop().unwrap_or_default();
        let mut ids = Vec::with_capacity(text.len() / 3);
        self.each(text, &mut |word| {
            if let Some(found) = at_hand.get(word) {
                ids.extend_from_slice(found);
                return Ok(());
            }
            let new = of_word(word)?;
            ids.extend_from_slice(&new);
            if word.len() <= MOST_BYTES && at_hand.len() < MOST_WORDS {
                at_hand.insert(word.into(), new.into());
            }
            Ok(())
        })?;
        known().push(at_hand);
        Ok(ids)
    }

    /// Takes the words one after the other; every character belongs to one.
    fn each(&self, text: &str, take: Take<'_>) -> tokenizers::Result<()> {
        match &self.rule {
            Rule::Gpt2(expression) => {
                let mut at = 0;
                while let Some(word) = gpt2_word(expression, text, at) {
                    at += word.len();
                    take(word)?;
                }
                Ok(())
            }
            Rule::Splits(splits) => split(splits, text, take),
        }
    }
}

/// The word that begins at a byte.
fn gpt2_word<'a>(expression: &Regex, text: &'a str, at: usize) -> Option<&'a str> {
    let word = expression.find_at(text, at)?.as_str();
    let last = word.chars().next_back()?;
    let is_space = last.is_whitespace() && word.chars().all(char::is_whitespace);
    let leaves_one = is_space && word.len() > last.len_utf8() && at + word.len() < text.len();
    Some(if leaves_one { &word[..word.len() - last.len_utf8()] } else { word })
}

/// The words that splits make of a text.
fn split(splits: &[Split], text: &str, take: Take<'_>) -> tokenizers::Result<()> {
    let Some((first, rest)) = splits.split_first() else { return take(text) };
    for ((from, to), _) in (&first.regex).find_matches(text)? {
        if from < to {
            split(rest, &text[from..to], take)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_rule() {
        let mut words = vec![];
        let text = "I'll  go,\n\n\nthen 42 d\u{e9}j\u{e0}\u{a0}\u{2003}vu!?  ";
        let mut take = |word: &str| {
            words.push(word.to_owned());
            Ok(())
        };
        Words::of_gpt2().unwrap().each(text, &mut take).unwrap();
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
