//! Windows over the tokens of one split, in the order of a stream.
//!
//! A window is T + 1 tokens: T inputs, and as targets the same shifted by one. Windows follow each other with stride T,
//! so the last token of one is the first of the next. A window lies within one shard: a shard of n tokens has
//! floor((n - 1) / T) windows, and what is left at its end is not read. Documents are packed: a window runs over their
//! ends, and the separator tokens tell where.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

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
    source: TokenSource,
    seq_len: usize,
    /// The number of windows before each shard.
    starts: Vec<u64>,
    windows: NonZeroU64,
    order: WindowOrder,
    /// Nanoseconds that reads took.
    read_nanos: AtomicU64,
}

impl Dataset {
    /// Opens the shards of a split ([`TokenSource::open`]) for sequences of `seq_len` = T tokens and a model of `vocab`
    /// ids. Data shorter than one sequence are bad data (65).
    pub fn open(paths: &[PathBuf], split: Split, seq_len: usize, vocab: usize, order: Order) -> Result<Self> {
        if seq_len == 0 {
            return Err(Fault::new(Exit::Usage, "bad sequence length").found(0).expected("at least 1"));
        }
        let source = TokenSource::open(paths, split, vocab)?;
        let mut starts = Vec::with_capacity(source.shards().len());
        let mut windows = 0;
        for shard in source.shards() {
            starts.push(windows);
            windows += (shard.tokens() - 1) / seq_len as u64;
        }
        let windows = NonZeroU64::new(windows).ok_or_else(|| too_short(&source, split, seq_len))?;
        Ok(Self {
            source,
            seq_len,
            starts,
            windows,
            order: WindowOrder::new(windows, order),
            read_nanos: AtomicU64::new(0),
        })
    }

    /// The number of windows, which is the number of sequences in an epoch; at least 1.
    pub fn windows(&self) -> u64 {
        self.windows.get()
    }

    /// The number of tokens in the shards.
    pub fn tokens(&self) -> u64 {
        self.source.tokens()
    }

    /// The sequence length T.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// The tokenizer that the sidecars name; none for shards of others.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.source.tokenizer()
    }

    /// A hash that says which tokens these are ([`TokenSource::fingerprint`]); T and the order are not in it.
    pub fn fingerprint(&self) -> String {
        self.source.fingerprint().to_owned()
    }

    /// SHA-256 of the shards that have a sidecar, as it says, by their paths.
    pub fn shard_hashes(&self) -> BTreeMap<String, String> {
        let hash = |shard: &Shard| Some((shard.path().display().to_string(), shard.sidecar()?.sha256.clone()));
        self.source.shards().iter().filter_map(hash).collect()
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
        let mut reader = self.source.reader();
        for index in first..end {
            let (shard, token) = self.place(self.order.window(stream, index)?);
            reader.read(shard, token, width, &mut ids)?;
        }
        Ok(ids)
    }

    /// The shard that a window lies in, and its first token there.
    fn place(&self, window: u64) -> (usize, u64) {
        let shard = self.starts.partition_point(|&start| start <= window) - 1;
        (shard, (window - self.starts[shard]) * self.seq_len as u64)
    }
}

fn too_short(source: &TokenSource, split: Split, seq_len: usize) -> Fault {
    let longest = source.shards().iter().map(Shard::tokens).max().unwrap_or(0);
    Fault::new(Exit::Data, format!("the {split} data are shorter than one sequence"))
        .found(format!("{longest} tokens in the longest of {} shards", source.shards().len()))
        .expected(format!("at least {} for a sequence of {seq_len}", seq_len.saturating_add(1)))
        .hint("prepare more text, or set a shorter sequence")
}
