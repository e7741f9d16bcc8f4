//! The two splits, and the rule that assigns whole documents to them.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Exit, Fault, Result};

/// A part of a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// What the model learns from.
    Train,
    /// What it is measured on.
    Validation,
}

impl Split {
    /// The word that starts a shard's file name: `train` or `validation`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
        }
    }

    /// The split that a shard's file name claims: a word `train`, or `validation`, `valid` or `val`, between characters
    /// that are not letters (`train.bin`, `fineweb_val_000000.bin`).
    pub fn of_file_name(name: &str) -> Option<Self> {
        name.split(|c: char| !c.is_ascii_alphabetic()).find_map(|word| match word {
            "train" => Some(Split::Train),
            "validation" | "valid" | "val" => Some(Split::Validation),
            _ => None,
        })
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the split of a document depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The relative path of its file.
    name: &'a str,
    /// 64 bits of a hash.
    hash: u64,
}

impl<'a> Place<'a> {
    /// A file that is one document: the hash is that of its path.
    pub fn of_file(name: &'a str) -> Self {
        Self { name, hash: first_bits(&Sha256::digest(name.as_bytes())) }
    }

    /// A record of a file: the hash is that of its text.
    pub fn of_record(name: &'a str, text_hash: &[u8]) -> Self {
        Self { name, hash: first_bits(text_hash) }
    }
}

/// The first 64 bits, big-endian.
fn first_bits(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

/// The split of each document.
///
/// With `patterns`, the documents of files that match one are validation. Without, a document is validation when the
/// first 64 bits of a SHA-256, as a fraction of 2^64, are below `fraction`: that of the relative path of a file that is
/// one document, that of the text of a record. So a document's split depends on itself alone, and adding files to a
/// corpus moves none. Only where that leaves a split of several documents
/// empty, the document with the least hash (for validation) or the greatest (for train) is moved there. A fraction of
/// 0, or a single document, gives no validation split.
pub(super) fn assign(places: &[Place], fraction: f64, patterns: &[String]) -> Result<Vec<Split>> {
    if !patterns.is_empty() {
        return by_pattern(&places.iter().map(|place| place.name).collect::<Vec<_>>(), patterns);
    }
    if !(0.0..1.0).contains(&fraction) {
        return Err(Fault::new(Exit::Usage, "bad validation fraction").found(fraction).expected("0 or more, below 1"));
    }
    let threshold = (fraction * 2f64.powi(64)) as u64;
    let below = |place: &Place| if place.hash < threshold { Split::Validation } else { Split::Train };
    let mut splits: Vec<Split> = places.iter().map(below).collect();
    if fraction > 0.0 && places.len() > 1 {
        let order = |&i: &usize| (places[i].hash, places[i].name);
        if !splits.contains(&Split::Validation) {
            (0..places.len()).min_by_key(order).into_iter().for_each(|least| splits[least] = Split::Validation);
        } else if !splits.contains(&Split::Train) {
            (0..places.len()).max_by_key(order).into_iter().for_each(|greatest| splits[greatest] = Split::Train);
        }
    } else {
        splits.fill(Split::Train);
    }
    Ok(splits)
}

fn by_pattern(names: &[&str], patterns: &[String]) -> Result<Vec<Split>> {
    for pattern in patterns {
        if !names.iter().any(|name| matches(pattern, name)) {
            let examples = names.iter().take(3).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(Fault::new(Exit::Usage, format!("validation file `{pattern}` is none of the documents"))
                .found(format!("{} documents such as {examples}", names.len()))
                .hint(
                    "give a file name or a relative path; `*` stands for any characters; of equal documents the first is left",
                ));
        }
    }
    let split = |name: &&str| match patterns.iter().any(|pattern| matches(pattern, name)) {
        true => Split::Validation,
        false => Split::Train,
    };
    let splits: Vec<Split> = names.iter().map(split).collect();
    if !splits.contains(&Split::Train) {
        return Err(Fault::new(Exit::Usage, "the validation files are all documents")
            .found("no document left to train on")
            .expected("at least one")
            .hint("name fewer validation files"));
    }
    Ok(splits)
}

/// Whether the pattern is the path, or its last part where the pattern has no `/`; `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    wildcard(pattern.as_bytes(), name.as_bytes())
        || (!pattern.contains('/') && wildcard(pattern.as_bytes(), last.as_bytes()))
}

/// Matching in time |pattern| * |text|: at a mismatch only the last `*` takes one byte more.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            (p, t) = (star_p + 1, star_t + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn assign(names: &[&str], fraction: f64, patterns: &[String]) -> Result<Vec<Split>> {
        super::assign(&names.iter().map(|name| Place::of_file(name)).collect::<Vec<_>>(), fraction, patterns)
    }

    fn by_hash(names: &[&str], fraction: f64) -> Vec<Split> {
        assign(names, fraction, &[]).unwrap()
    }

    #[test]
    fn records_are_split_by_their_text_and_not_by_their_file() {
        let hashes: Vec<[u8; 8]> = (0..200u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
        let split = |name| {
            let places: Vec<Place> = hashes.iter().map(|hash| Place::of_record(name, hash)).collect();
            super::assign(&places, 0.25, &[]).unwrap()
        };
        assert_eq!(split("a.jsonl"), split("b/c.parquet"));
        let count = split("a.jsonl").iter().filter(|split| **split == Split::Validation).count();
        assert!((49..=51).contains(&count), "{count} of 200");
    }

    #[test]
    fn golden_split() {
        let names: Vec<String> = (0..40).map(|i| format!("plays/{i}.md")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let splits = by_hash(&names, 0.1);
        let held: Vec<usize> = (0..40).filter(|&i| splits[i] == Split::Validation).collect();
        assert_eq!(held, [4, 12, 16, 22, 24, 29]);
    }

    #[test]
    fn both_splits_have_a_document_where_there_are_two() {
        assert_eq!(by_hash(&["a.txt"], 0.5), [Split::Train]);
        assert_eq!(by_hash(&["a.txt", "b.txt"], 0.0), [Split::Train, Split::Train]);
        for fraction in [1e-9, 0.999_999] {
            let splits = by_hash(&["a.txt", "b.txt"], fraction);
            assert!(splits.contains(&Split::Train) && splits.contains(&Split::Validation), "{fraction}: {splits:?}");
        }
    }

    #[test]
    fn patterns_name_the_validation_documents() {
        let names = ["plays/hamlet.md", "plays/lear.md", "notes.txt"];
        let split = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| p.to_string()).collect();
            assign(&names, 0.05, &patterns).map(|s| s.iter().map(|s| *s == Split::Validation).collect::<Vec<_>>())
        };
        assert_eq!(split(&["hamlet.md"]).unwrap(), [true, false, false]);
        assert_eq!(split(&["plays/*"]).unwrap(), [true, true, false]);
        assert_eq!(split(&["*le*r.md", "notes.*"]).unwrap(), [false, true, true]);
        assert!(
            split(&["macbeth.md"]).unwrap_err().to_string().contains("`macbeth.md` is none of the documents: found 3")
        );
        assert_eq!(split(&["*"]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn fractions_outside_the_range_are_refused() {
        for fraction in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(assign(&["a", "b"], fraction, &[]).unwrap_err().exit, Exit::Usage);
        }
    }

    #[test]
    fn file_names_claim_their_split() {
        for (name, split) in [
            ("train-00000.bin", Some(Split::Train)),
            ("fineweb_train_000001.bin", Some(Split::Train)),
            ("fineweb_val_000000.bin", Some(Split::Validation)),
            ("val.bin", Some(Split::Validation)),
            ("validation-00000.bin", Some(Split::Validation)),
            ("training.bin", None),
            ("values.bin", None),
        ] {
            assert_eq!(Split::of_file_name(name), split, "{name}");
        }
    }

    proptest! {
        #[test]
        fn adding_documents_moves_none(
            names in prop::collection::btree_set("[a-z]{1,8}", 40..80), kept in 30usize..40,
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let all: BTreeMap<_, _> = names.iter().zip(by_hash(&names, 0.3)).collect();
            for (name, split) in names[..kept].iter().zip(by_hash(&names[..kept], 0.3)) {
                prop_assert_eq!(all[name], split);
            }
        }
    }
}
