//! Writing the shards of one split, each with its sidecar, synced to disk.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::bytes;
use super::hash;
use super::shard::{Format, HEADER_BYTES};
use super::sidecar::{self, Sidecar, Source, Tokenizer};
use super::split::Split;
use super::texts::Document;
use crate::durable::write_new;
use crate::error::{Exit, Fault, Result};

/// A split on its way to disk. The number of its tokens is known before the first is written, so every header is right
/// from the start.
pub(super) struct ShardWriter<'a> {
    folder: &'a Path,
    split: Split,
    shard_tokens: u64,
    /// Tokens of the split that are not yet in a shard that was begun.
    unplaced: u64,
    shards: u64,
    begun: u64,
    current: Option<OpenShard>,
}

struct OpenShard {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Sha256,
    tokens: u64,
    room: u64,
    documents: u64,
    sources: Vec<Source>,
    /// Whether the last of `sources` is the document being written.
    in_document: bool,
}

impl<'a> ShardWriter<'a> {
    /// A writer of `tokens` tokens, `shard_tokens` to a shard.
    pub fn new(folder: &'a Path, split: Split, tokens: u64, shard_tokens: u64) -> Self {
        let shards = tokens.div_ceil(shard_tokens);
        Self { folder, split, shard_tokens, unplaced: tokens, shards, begun: 0, current: None }
    }

    /// The number of shards.
    pub fn shards(&self) -> u64 {
        self.shards
    }

    /// Begins a document: its separator token.
    pub fn begin(&mut self, document: &Document) -> Result<()> {
        if let Some(shard) = &mut self.current {
            shard.in_document = false;
        }
        self.push(document, &[bytes::SEPARATOR as u8])?;
        self.current.iter_mut().for_each(|shard| shard.documents += 1);
        Ok(())
    }

    /// Writes bytes of the document as tokens, over as many shards as they take.
    pub fn push(&mut self, document: &Document, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let mut shard = match self.current.take() {
                Some(shard) if shard.room > 0 => shard,
                full => self.next(full)?,
            };
            let taken = shard.push(document, bytes)?;
            bytes = &bytes[taken..];
            self.current = Some(shard);
        }
        Ok(())
    }

    /// Finishes the last shard.
    pub fn finish(mut self) -> Result<()> {
        let last = self.current.take();
        last.map_or(Ok(()), |shard| self.close(shard))
    }

    fn next(&mut self, full: Option<OpenShard>) -> Result<OpenShard> {
        full.map_or(Ok(()), |shard| self.close(shard))?;
        let tokens = self.shard_tokens.min(self.unplaced);
        if tokens == 0 {
            return Err(Fault::new(Exit::Internal, format!("more {} tokens than were counted", self.split)));
        }
        let shard = OpenShard::create(self.folder.join(format!("{}-{:05}.bin", self.split, self.begun)), tokens)?;
        self.unplaced -= tokens;
        self.begun += 1;
        Ok(shard)
    }

    fn close(&self, shard: OpenShard) -> Result<()> {
        let OpenShard { path, mut file, hasher, tokens, documents, sources, .. } = shard;
        let flushed = file.flush().and_then(|()| file.get_ref().sync_all());
        flushed.map_err(|error| Fault::writing(&path, &error))?;
        let sidecar = Sidecar {
            sidecar_version: sidecar::VERSION,
            gauntlet_version: env!("CARGO_PKG_VERSION").to_owned(),
            format: Format::LlmC16.name().to_owned(),
            dtype: Format::LlmC16.dtype().to_owned(),
            tokenizer: Tokenizer {
                name: bytes::NAME.to_owned(),
                vocab_size: bytes::VOCAB,
                separator: u64::from(bytes::SEPARATOR),
            },
            split: self.split,
            shard: self.begun - 1,
            shards: self.shards,
            tokens,
            documents,
            sha256: hash::hex(hasher),
        };
        write_new(&Sidecar::path(&path), sidecar.to_json(&sources)?.as_bytes())
    }
}

impl OpenShard {
    fn create(path: PathBuf, tokens: u64) -> Result<Self> {
        let file = File::create_new(&path).map_err(|error| Fault::writing(&path, &error))?;
        let mut shard = Self {
            path,
            file: BufWriter::with_capacity(1 << 20, file),
            hasher: Sha256::new(),
            tokens,
            room: tokens,
            documents: 0,
            sources: Vec::new(),
            in_document: false,
        };
        shard.write(&header(tokens)?)?;
        Ok(shard)
    }

    /// Takes as many bytes as there is room for.
    fn push(&mut self, document: &Document, bytes: &[u8]) -> Result<usize> {
        let taken = self.room.min(bytes.len() as u64) as usize;
        let tokens: Vec<u8> = bytes[..taken].iter().flat_map(|&byte| u16::from(byte).to_le_bytes()).collect();
        self.write(&tokens)?;
        self.room -= taken as u64;
        if !self.in_document {
            let (path, content) = (document.name.clone(), document.content.clone());
            self.sources.push(Source { path, sha256: content.sha256, bytes: content.bytes, tokens: 0 });
            self.in_document = true;
        }
        self.sources.last_mut().into_iter().for_each(|source| source.tokens += taken as u64);
        Ok(taken)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|error| Fault::writing(&self.path, &error))
    }
}

/// The 1024 bytes before the tokens.
fn header(tokens: u64) -> Result<[u8; HEADER_BYTES as usize]> {
    let (Some((magic, version)), Ok(count)) = (Format::LlmC16.magic_and_version(), i32::try_from(tokens)) else {
        return Err(Fault::new(Exit::Internal, "a shard too long for its header").found(format!("{tokens} tokens")));
    };
    let mut header = [0; HEADER_BYTES as usize];
    for (place, number) in [magic, version, count].into_iter().enumerate() {
        header[4 * place..4 * place + 4].copy_from_slice(&number.to_le_bytes());
    }
    Ok(header)
}
