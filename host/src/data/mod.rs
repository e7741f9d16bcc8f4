//! Data: text becomes token shards, and shards become windows of token ids by position, order and stream.
//!
//! The way: [`prepare()`] turns files of texts into llm.c shards with JSON sidecars: `inputs` finds the files, `unpack`,
//! `texts`, `lines` and `rows` read documents from them, `scan` decides what becomes of each, `pipeline` encodes them by a
//! `tokenizer`, `writer` and `journal` write shards that an interruption leaves whole; [`verify()`] checks them whole;
//! [`Shard`] is one file; [`TokenSource`] an ordered list of them; [`Dataset`] adds windows and their order, so that a
//! batch is three plain numbers: stream, first sequence, number of sequences.
//!
//! Invariants: shards are read by position, never mapped, so a file that is cut short is an error and not a signal; no
//! allocation takes its size from a file's header; no file stays open between reads; nothing here holds a position.

pub mod bytes;
mod dataset;
mod documents;
mod hash;
mod inputs;
mod journal;
mod lines;
mod manifest;
mod mix;
mod order;
mod pipeline;
mod prepare;
mod records;
mod rows;
mod scan;
mod shard;
mod sidecar;
mod source;
mod split;
mod texts;
pub mod tokenizer;
mod unpack;
mod verify;
mod writer;

pub use dataset::Dataset;
pub use documents::count;
pub use mix::DataPath;
pub use order::{Order, Stream, WindowOrder};
pub use prepare::{Prepare, Prepared, Progress, SplitSize, prepare, prepare_with};
pub use records::OnBad;
pub use shard::{Format, Shard, ShardReader};
pub use sidecar::{Sidecar, Tokenizer};
pub use source::{SourceReader, TokenSource};
pub use split::Split;
pub use verify::{Checked, Verification, verify};

use crate::error::{Exit, Fault, Result};

/// Threads for a preparation; 0 for all cores.
fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| Fault::new(Exit::Internal, format!("cannot start threads: {error}")))
}

#[cfg(test)]
mod tests;
