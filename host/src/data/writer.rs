//! Writing the shards of one split, each synced to disk and noted when it is full.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::hash;
use super::journal::{self, Done, Next, shard_path};
use super::shard::{Format, HEADER_BYTES};
use super::sidecar::{self, Sidecar, Source, Tokenizer};
use super::split::Split;
use crate::durable::write_new;
use crate::error::{Exit, Fault, Result};

const MAX_SHARDS: usize = 100_000;

/// A split on its way to disk.
pub(super) struct ShardWriter<'a> {
    folder: &'a Path,
    split: Split,
    format: Format,
    shard_tokens: u64,
    /// Finished shards, those of an interrupted preparation first.
    done: Vec<Done>,
    current: Option<OpenShard>,
    /// The document being written, by its place in the split, and its tokens so far.
    at: Next,
    /// Tokens of the first document that an interrupted preparation wrote.
    written_before: u64,
    /// Text whose tokens are none, which counts with the next.
    carried_bytes: u64,
}

struct OpenShard {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Sha256,
    tokens: u64,
    documents: u64,
    text_bytes: u64,
    sources: Vec<Source>,
}

impl<'a> ShardWriter<'a> {
    /// A writer of shards of `shard_tokens` tokens, which goes on behind the finished ones in the folder.
    pub fn new(folder: &'a Path, split: Split, format: Format, shard_tokens: u64) -> Self {
        let done = journal::finished(folder, split);
        let at = done.last().map(|done| done.next).unwrap_or_default();
        Self {
            folder,
            split,
            format,
            shard_tokens,
            done,
            current: None,
            at: Next { document: at.document, tokens: 0 },
            written_before: at.tokens,
            carried_bytes: 0,
        }
    }

    /// The first document that is wanted: those before it are in finished shards.
    pub fn first(&self) -> u64 {
        self.at.document
    }

    /// The number of finished shards.
    pub fn shards(&self) -> usize {
        self.done.len()
    }

    /// Begins the document at a place of the split: its separator token.
    pub fn begin(&mut self, document: u64, source: &Source, separator: &[u8]) -> Result<()> {
        if document != self.at.document || self.at.tokens > 0 {
            self.written_before = 0;
        }
        self.at = Next { document, tokens: 0 };
        let is_new = self.written_before == 0;
        self.push(source, separator, 0, is_new)
    }

    /// Writes tokens of the document, as they are stored, over as many shards as they take. They stand for `text_bytes`
    /// bytes of text.
    pub fn tokens(&mut self, source: &Source, stored: &[u8], text_bytes: u64) -> Result<()> {
        self.push(source, stored, text_bytes, false)
    }

    fn push(&mut self, source: &Source, mut stored: &[u8], text_bytes: u64, is_new: bool) -> Result<()> {
        let size = self.format.token_bytes();
        self.carried_bytes += text_bytes;
        let before = self.written_before.saturating_sub(self.at.tokens).min(stored.len() as u64 / size);
        self.at.tokens += before;
        stored = &stored[(before * size) as usize..];
        if before > 0 && stored.is_empty() {
            self.carried_bytes = 0;
        }
        let mut is_new = is_new;
        while !stored.is_empty() {
            let mut shard = match self.current.take() {
                Some(shard) => shard,
                None => self.next()?,
            };
            let room = ((self.shard_tokens - shard.tokens) * size) as usize;
            let (head, tail) = stored.split_at(room.min(stored.len()));
            shard.push(source, head, size)?;
            shard.documents += u64::from(std::mem::take(&mut is_new));
            self.at.tokens += head.len() as u64 / size;
            stored = tail;
            if stored.is_empty() {
                shard.text_bytes += std::mem::take(&mut self.carried_bytes);
            }
            match shard.tokens == self.shard_tokens {
                true => self.close(shard)?,
                false => self.current = Some(shard),
            }
        }
        Ok(())
    }

    fn next(&self) -> Result<OpenShard> {
        if self.done.len() == MAX_SHARDS {
            return Err(Fault::new(Exit::Usage, format!("too many shards of the {} split", self.split))
                .found(format!("more than {MAX_SHARDS}"))
                .hint("put more tokens in a shard"));
        }
        let path = shard_path(self.folder, self.split, self.done.len() as u64);
        OpenShard::create(path, &header(self.format, self.shard_tokens)?)
    }

    fn close(&mut self, shard: OpenShard) -> Result<()> {
        let path = shard.path.clone();
        let done = shard.finish(self.format, self.shard_tokens, self.at)?;
        journal::note(&path, &done)?;
        self.done.push(done);
        Ok(())
    }

    /// Finishes the last shard, and writes a sidecar beside each; gives what they say.
    pub fn finish(mut self, tokenizer: &Tokenizer) -> Result<Vec<Sidecar>> {
        if let Some(shard) = self.current.take() {
            self.close(shard)?;
        }
        let mut sidecars = Vec::new();
        for (place, done) in (0u64..).zip(&self.done) {
            let sidecar = Sidecar {
                sidecar_version: sidecar::VERSION,
                gauntlet_version: env!("CARGO_PKG_VERSION").to_owned(),
                format: self.format.name().to_owned(),
                dtype: self.format.dtype().to_owned(),
                tokenizer: tokenizer.clone(),
                split: self.split,
                shard: place,
                shards: self.done.len() as u64,
                tokens: done.tokens,
                documents: done.documents,
                text_bytes: (!tokenizer.is_bytes()).then_some(done.text_bytes),
                sha256: done.sha256.clone(),
            };
            let path = Sidecar::path(&shard_path(self.folder, self.split, place));
            // An interrupted preparation may have come this far.
            let _ = fs::remove_file(&path);
            write_new(&path, sidecar.to_json(&done.sources)?.as_bytes())?;
            sidecars.push(sidecar);
        }
        Ok(sidecars)
    }
}

impl OpenShard {
    /// A new file, in place of what an interrupted preparation left of it.
    fn create(path: PathBuf, header: &[u8]) -> Result<Self> {
        journal::forget(&path);
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|error| Fault::writing(&path, &error))?;
        let mut shard = Self {
            path,
            file: BufWriter::with_capacity(1 << 20, file),
            hasher: Sha256::new(),
            tokens: 0,
            documents: 0,
            text_bytes: 0,
            sources: Vec::new(),
        };
        shard.write(header)?;
        Ok(shard)
    }

    fn push(&mut self, source: &Source, stored: &[u8], size: u64) -> Result<()> {
        self.write(stored)?;
        let tokens = stored.len() as u64 / size;
        self.tokens += tokens;
        match self.sources.last_mut().filter(|last| last.path == source.path && last.sha256 == source.sha256) {
            Some(last) => last.tokens += tokens,
            None => self.sources.push(Source { tokens, ..source.clone() }),
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|error| Fault::writing(&self.path, &error))
    }

    /// Syncs the file, with the right header where it is shorter than `most` tokens.
    fn finish(mut self, format: Format, most: u64, next: Next) -> Result<Done> {
        let failed = |error| Fault::writing(&self.path, &error);
        let header = header(format, self.tokens)?;
        let is_shorter = self.tokens < most;
        let flush = |file: &mut BufWriter<File>| {
            if is_shorter {
                file.rewind()?;
                file.write_all(&header)?;
            }
            file.flush()?;
            file.get_ref().sync_all()
        };
        flush(&mut self.file).map_err(failed)?;
        let sha256 = match is_shorter {
            true => hash::hex_of_file(&self.path).map_err(|error| Fault::reading(&self.path, &error))?,
            false => hash::hex(self.hasher),
        };
        let Self { tokens, documents, text_bytes, sources, .. } = self;
        Ok(Done { tokens, documents, text_bytes, sha256, sources, next })
    }
}

/// The 1024 bytes before the tokens.
fn header(format: Format, tokens: u64) -> Result<[u8; HEADER_BYTES as usize]> {
    let (Some((magic, version)), Ok(count)) = (format.magic_and_version(), i32::try_from(tokens)) else {
        return Err(Fault::new(Exit::Internal, "a shard too long for its header").found(format!("{tokens} tokens")));
    };
    let mut header = [0; HEADER_BYTES as usize];
    for (place, number) in [magic, version, count].into_iter().enumerate() {
        header[4 * place..4 * place + 4].copy_from_slice(&number.to_le_bytes());
    }
    Ok(header)
}
