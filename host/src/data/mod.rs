//! Data: text becomes token shards, and shards become windows of token ids by position, order and stream.
//!
//! The way: [`prepare()`] turns UTF-8 files into llm.c shards with JSON sidecars; [`verify()`] checks them whole;
//! [`Shard`] is one file; [`TokenSource`] an ordered list of them; [`Dataset`] adds windows and their order, so that a
//! batch is three plain numbers: stream, first sequence, number of sequences.
//!
//! Invariants: shards are read by position, never mapped, so a file that is cut short is an error and not a signal; no
//! allocation takes its size from a file's header; no file stays open between reads; nothing here holds a position.

pub mod bytes;
mod dataset;
mod hash;
mod order;
mod prepare;
mod shard;
mod sidecar;
mod source;
mod split;
mod texts;
mod verify;
mod writer;

pub use dataset::Dataset;
pub use order::{Order, Stream, WindowOrder};
pub use prepare::{Prepare, Prepared, SplitSize, prepare};
pub use shard::{Format, Shard, ShardReader};
pub use sidecar::{Sidecar, Tokenizer};
pub use source::{SourceReader, TokenSource};
pub use split::Split;
pub use verify::{Checked, Verification, verify};

#[cfg(test)]
mod tests;
