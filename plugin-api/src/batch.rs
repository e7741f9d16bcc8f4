//! Batches of sequences: values that can be split, joined, written down and read again.

use crate::error::{Error, Result};
use crate::host::Link;
use gauntlet_plugin_abi::{ErrorCode, Purpose, RawBatch};
use serde::{Deserialize, Serialize};

/// A run of consecutive sequences of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number of the stream's [`Purpose`].
    pub purpose: u32,
    /// Index of the first sequence in the stream; it grows without end over epochs.
    pub first: u64,
    /// Number of sequences.
    pub count: u64,
}

/// Where a batch lies in the data. Plain data: put it into a state and read the same batch again later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The runs of sequences, in order.
    pub parts: Vec<Part>,
    /// Number of sequences.
    pub sequences: u64,
    /// Number of predicted tokens.
    pub tokens: u64,
}

impl Position {
    /// The position as text, for a state.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::new(ErrorCode::STATE, "position", error.to_string()))
    }

    /// The position of a text that [`Position::to_json`] made.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::new(ErrorCode::STATE, "position", error.to_string()))
    }
}

impl Position {
    /// Sequences `first .. first + count`.
    ///
    /// # Errors
    ///
    /// An empty slice, or one beyond the end.
    pub fn slice(&self, first: u64, count: u64) -> Result<Self> {
        if count == 0 || first.checked_add(count).is_none_or(|end| end > self.sequences) {
            let message = format!("{count} sequences from {first} of {}", self.sequences);
            return Err(Error::argument("slice", message));
        }
        let (mut skip, mut left, mut parts) = (first, count, vec![]);
        for part in &self.parts {
            let dropped = skip.min(part.count);
            let taken = (part.count - dropped).min(left);
            if taken > 0 {
                parts.push(Part { purpose: part.purpose, first: part.first + dropped, count: taken });
            }
            (skip, left) = (skip - dropped, left - taken);
        }
        Ok(Self { parts, sequences: count, tokens: self.tokens / self.sequences * count })
    }

    /// One position of several.
    ///
    /// # Errors
    ///
    /// None given.
    pub fn concat<'a>(positions: impl IntoIterator<Item = &'a Self>) -> Result<Self> {
        let mut whole = Self { parts: vec![], sequences: 0, tokens: 0 };
        for position in positions {
            whole.parts.extend(&position.parts);
            whole.sequences += position.sequences;
            whole.tokens += position.tokens;
        }
        match whole.sequences {
            0 => Err(Error::argument("concat", "no batch")),
            _ => Ok(whole),
        }
    }

    /// Whether its numbers agree with each other.
    pub(crate) fn check(&self) -> Result<()> {
        let counted = self.parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.count));
        let whole = self.sequences > 0 && counted == Some(self.sequences) && self.tokens.is_multiple_of(self.sequences);
        match whole && self.parts.iter().all(|part| part.count > 0 && part.first.checked_add(part.count).is_some()) {
            true => Ok(()),
            false => Err(Error::argument("position", "its parts do not add up to its sequences")),
        }
    }
}

/// A batch that the host holds. Global: with several ranks it is spread over them.
#[derive(Debug)]
pub struct Batch {
    link: Link,
    raw: RawBatch,
    position: Position,
}

impl Batch {
    pub(crate) fn next(link: Link, purpose: Purpose, count: usize) -> Result<Self> {
        Self::new(link, link.batch_next(purpose, count)?)
    }

    pub(crate) fn at(link: Link, position: &Position) -> Result<Self> {
        Self::new(link, link.batch_at(&position.to_json()?)?)
    }

    fn new(link: Link, raw: RawBatch) -> Result<Self> {
        let position = link.batch_position(raw).and_then(|text| Position::from_json(&text));
        position.map(|position| Self { link, raw, position }).inspect_err(|_| link.batch_free(raw))
    }

    pub(crate) fn raw(&self) -> RawBatch {
        self.raw
    }

    /// Where it lies in the data.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.position.sequences as usize
    }

    /// Number of predicted tokens.
    pub fn tokens(&self) -> u64 {
        self.position.tokens
    }

    /// Sequences `first .. first + count`.
    pub fn slice(&self, first: usize, count: usize) -> Result<Self> {
        Self::new(self.link, self.link.batch_slice(self.raw, first, count)?)
    }

    /// Batches of `size` sequences each; the last may be smaller.
    pub fn split(&self, size: usize) -> Result<Vec<Self>> {
        if size == 0 {
            return Err(Error::argument("split", "batches of 0 sequences"));
        }
        let total = self.sequences();
        (0..total).step_by(size).map(|first| self.slice(first, size.min(total - first))).collect()
    }

    /// One batch of several.
    pub fn concat(batches: &[Self]) -> Result<Self> {
        let first = batches.first().ok_or_else(|| Error::argument("concat", "no batch"))?;
        let raw: Vec<RawBatch> = batches.iter().map(|batch| batch.raw).collect();
        Self::new(first.link, first.link.batch_concat(&raw)?)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.link.batch_free(self.raw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_a_position_join_to_the_whole() {
        let part = |first, count| Part { purpose: 1, first, count };
        let whole = Position { parts: vec![part(10, 3), part(40, 4)], sequences: 7, tokens: 70 };
        let middle = whole.slice(2, 3).unwrap();
        assert_eq!(middle, Position { parts: vec![part(12, 1), part(40, 2)], sequences: 3, tokens: 30 });
        let (left, right) = (whole.slice(0, 3).unwrap(), whole.slice(3, 4).unwrap());
        assert_eq!(Position::concat([&left, &right]).unwrap(), whole);
        assert!(whole.slice(5, 3).is_err() && whole.slice(0, 0).is_err() && Position::concat([]).is_err());
        assert!(whole.check().is_ok());
        assert!(Position { sequences: 8, ..whole }.check().is_err());
    }
}
