//! Windows over the tokens of one split, in the order of a stream.
//!
//! A window is T + 1 tokens: T inputs, and as targets the same shifted by one. Windows follow each other with stride T,
//! so the last token of one is the first of the next. A window lies within one shard: a shard of n tokens has
//! floor((n - 1) / T) windows, and what is left at its end is not read. Documents are packed: a window runs over their
//! ends, and the separator tokens tell where.
//!
//! Paths with weights are parts of a mix ([`super::mix`]): each is a sequence of windows with an order and epochs of its own.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::slice;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::hash;
use super::mix::{DataPath, Mix};
use super::order::{Order, Stream, WindowOrder};
use super::shard::Shard;
use super::sidecar::Tokenizer;
use super::source::TokenSource;
use super::split::Split;
use crate::error::{Exit, Fault, Result};

/// One split as sequences of T + 1 tokens. It holds no position and no open file: every read says what it
/// wants.
#[derive(Debug)]
pub struct Dataset {
    parts: Vec<Part>,
    /// How sequences are drawn from several parts.
    mix: Option<Mix>,
    seq_len: usize,
    fingerprint: String,
    /// Nanoseconds that reads took.
    read_nanos: AtomicU64,
}

/// Shards that are one sequence of windows.
#[derive(Debug)]
struct Part {
    source: TokenSource,
    /// The number of windows before each shard.
    starts: Vec<u64>,
    windows: NonZeroU64,
    order: WindowOrder,
}

impl Part {
    fn open(paths: &[PathBuf], split: Split, seq_len: usize, vocab: usize, order: Order) -> Result<Self> {
        let source = TokenSource::open(paths, split, vocab)?;
        let mut starts = Vec::with_capacity(source.shards().len());
        let mut windows = 0;
        for shard in source.shards() {
            starts.push(windows);
            windows += (shard.tokens() - 1) / seq_len as u64;
        }
        let windows = NonZeroU64::new(windows).ok_or_else(|| too_short(&source, split, seq_len))?;
        Ok(Self { source, starts, windows, order: WindowOrder::new(windows, order) })
    }

    /// The shard that a window lies in, and its first token there.
    fn place(&self, window: u64, seq_len: usize) -> (usize, u64) {
        let shard = self.starts.partition_point(|&start| start <= window) - 1;
        (shard, (window - self.starts[shard]) * seq_len as u64)
    }
}

impl Dataset {
    /// Opens the shards of a split ([`TokenSource::open`]) for sequences of `seq_len` = T tokens and a model of `vocab`
    /// ids. Paths without weights follow each other; those with weights are mixed. Data shorter than one sequence, and
    /// parts of several tokenizers, are bad data (65).
    pub fn open<P: DataPath>(paths: &[P], split: Split, seq_len: usize, vocab: usize, order: Order) -> Result<Self> {
        if seq_len == 0 {
            return Err(Fault::new(Exit::Usage, "bad sequence length").found(0).expected("at least 1"));
        }
        let weights: Vec<f64> = paths.iter().filter_map(DataPath::weight).collect();
        let owned: Vec<PathBuf> = paths.iter().map(|path| path.path().to_owned()).collect();
        let open = |paths: &[PathBuf]| Part::open(paths, split, seq_len, vocab, order);
        let (parts, mix) = if weights.is_empty() {
            (vec![open(&owned)?], None)
        } else if weights.len() == paths.len() {
            let parts = owned.iter().map(|path| open(slice::from_ref(path))).collect::<Result<_>>()?;
            (parts, Some(Mix::new(&weights)?))
        } else {
            return Err(Fault::new(Exit::Usage, "some parts of a mix have no weight"));
        };
        one_tokenizer(&parts)?;
        let fingerprint = fingerprint(&parts, mix.as_ref());
        Ok(Self { parts, mix, seq_len, fingerprint, read_nanos: AtomicU64::new(0) })
    }

    /// The number of windows, which is the number of sequences in an epoch; at least 1.
    pub fn windows(&self) -> u64 {
        self.parts.iter().map(|part| part.windows.get()).sum()
    }

    /// The number of tokens in the shards.
    pub fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.source.tokens()).sum()
    }

    /// The sequence length T.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// The tokenizer that the sidecars name; none for shards of others.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.parts.iter().find_map(|part| part.source.tokenizer())
    }

    /// Bytes of text for a token ([`TokenSource::bytes_per_token`]); none for a mix of several parts.
    pub fn bytes_per_token(&self) -> Option<f64> {
        match self.parts.as_slice() {
            [only] => only.source.bytes_per_token(),
            _ => None,
        }
    }

    /// A hash that says which tokens these are ([`TokenSource::fingerprint`]), and how they are mixed; T and the order are
    /// not in it.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// SHA-256 of the shards that have a sidecar, as it says, by their paths.
    pub fn shard_hashes(&self) -> BTreeMap<String, String> {
        let hash = |shard: &Shard| Some((shard.path().display().to_string(), shard.sidecar()?.sha256.clone()));
        self.parts.iter().flat_map(|part| part.source.shards()).filter_map(hash).collect()
    }

    /// Reads sequences `first` to `first + count - 1` of a stream: count x (T + 1) token ids, row-major. The same call
    /// gives the same ids at any time. Errors are of the data (65): a shard that changed, is damaged or gone, an id
    /// outside the vocabulary, an evaluation past the last window.
    pub fn read(&self, stream: Stream, first: u64, count: usize) -> Result<Vec<i64>> {
        let started = Instant::now();
        let ids = self.read_ids(stream, first, count);
        self.read_nanos.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
        ids
    }

    /// Wall time of all reads so far.
    pub fn read_time(&self) -> Duration {
        Duration::from_nanos(self.read_nanos.load(Relaxed))
    }

    fn read_ids(&self, stream: Stream, first: u64, count: usize) -> Result<Vec<i64>> {
        let mut ids = Vec::new();
        let width = self.seq_len + 1;
        let size = count.checked_mul(width).filter(|&size| ids.try_reserve_exact(size).is_ok());
        let last = first.checked_add(count as u64);
        let (Some(_), Some(end)) = (size, last) else {
            return Err(Fault::new(Exit::Usage, "a batch too large to read")
                .found(format!("{count} sequences of {width} tokens from sequence {first}"))
                .hint("make the batch smaller"));
        };
        let mut readers: Vec<_> = self.parts.iter().map(|part| part.source.reader()).collect();
        for index in first..end {
            let (part, window) = self.window(stream, index)?;
            let (shard, token) = self.parts[part].place(window, self.seq_len);
            readers[part].read(shard, token, width, &mut ids)?;
        }
        Ok(ids)
    }

    /// The part and window that is sequence `index` of a stream. Evaluations go through one part after the other.
    fn window(&self, stream: Stream, mut index: u64) -> Result<(usize, u64)> {
        let mut part = 0;
        match &self.mix {
            Some(mix) if stream != Stream::Evaluation => (part, index) = mix.place(index),
            _ => {
                while part + 1 < self.parts.len() && index >= self.parts[part].windows.get() {
                    index -= self.parts[part].windows.get();
                    part += 1;
                }
            }
        }
        Ok((part, self.parts[part].order.window(stream, index)?))
    }
}

/// Ids mean the same in every part.
fn one_tokenizer(parts: &[Part]) -> Result<()> {
    let mut tokenizers = parts.iter().filter_map(|part| part.source.tokenizer());
    let Some(first) = tokenizers.next() else { return Ok(()) };
    match tokenizers.find(|other| *other != first) {
        None => Ok(()),
        Some(other) => {
            let fault = Fault::new(Exit::Data, "parts of a mix with two tokenizers");
            Err(fault.found(format!("`{}`", other.name)).expected(format!("`{}`", first.name)))
        }
    }
}

/// That of the source; for a mix, a hash of those of the parts and their slots.
fn fingerprint(parts: &[Part], mix: Option<&Mix>) -> String {
    match (parts, mix) {
        ([only], None) => only.source.fingerprint().to_owned(),
        _ => {
            let mut hasher = Sha256::new();
            let counts = mix.map(Mix::counts).unwrap_or_default();
            for (part, count) in parts.iter().zip(counts) {
                hasher.update(format!("{}\n{count}\n", part.source.fingerprint()));
            }
            hash::hex(hasher)
        }
    }
}

fn too_short(source: &TokenSource, split: Split, seq_len: usize) -> Fault {
    let longest = source.shards().iter().map(Shard::tokens).max().unwrap_or(0);
    Fault::new(Exit::Data, format!("the {split} data are shorter than one sequence"))
        .found(format!("{longest} tokens in the longest of {} shards", source.shards().len()))
        .expected(format!("at least {} for a sequence of {seq_len}", seq_len.saturating_add(1)))
        .hint("prepare more text, or set a shorter sequence")
}
