//! One file of token ids, read by position.
//!
//! Three layouts, all little-endian:
//!
//! | layout | header | token |
//! | --- | --- | --- |
//! | llm.c v1 | 256 x int32: magic 20240520, version 1, token count, zeros | uint16 |
//! | llm.c v7 (Llama 3) | the same with magic 20240801, version 7 | uint32 |
//! | headerless (nanoGPT) | none | uint16 |
//!
//! With a header the file has exactly 1024 + tokens x token size bytes. A file is headerless when it is named `*.bin`,
//! has no sidecar, an even number of bytes, neither magic at its start, and no header's zeros at bytes 12 to 1024: so a
//! damaged llm.c shard is refused and not read as tokens. (A headerless file could start with llm.c's magic only by the
//! ids 55432 and 308, and GPT-2's end at 50256.)

use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::hash;
use super::sidecar::Sidecar;
use crate::error::{Exit, Fault, Result};

pub(super) const HEADER_BYTES: u64 = 1024;
const CHUNK_BYTES: u64 = 1 << 20;
const SAMPLE_BYTES: u64 = 64 << 10;
const REMAKE: &str = "copy the file again, or prepare the data again";

/// The layout of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// llm.c, magic 20240520, version 1: uint16 ids.
    LlmC16,
    /// llm.c for Llama 3, magic 20240801, version 7: uint32 ids.
    LlmC32,
    /// nanoGPT: uint16 ids from byte 0.
    Headerless,
}

impl Format {
    const WITH_HEADER: [Self; 2] = [Format::LlmC16, Format::LlmC32];

    /// The layout's name in sidecars and messages.
    pub fn name(self) -> &'static str {
        match self {
            Format::LlmC16 => "llm.c v1",
            Format::LlmC32 => "llm.c v7",
            Format::Headerless => "headerless",
        }
    }

    /// The type of a stored id: `uint16` or `uint32`.
    pub fn dtype(self) -> &'static str {
        if self == Format::LlmC32 { "uint32" } else { "uint16" }
    }

    /// The first two numbers of the header.
    pub(super) fn magic_and_version(self) -> Option<(i32, i32)> {
        match self {
            Format::LlmC16 => Some((20_240_520, 1)),
            Format::LlmC32 => Some((20_240_801, 7)),
            Format::Headerless => None,
        }
    }

    /// The size of a token in bytes.
    pub(super) fn token_bytes(self) -> u64 {
        if self == Format::LlmC32 { 4 } else { 2 }
    }

    /// The position of a token in its file, in bytes.
    fn offset(self, token: u64) -> u64 {
        let start = if self == Format::Headerless { 0 } else { HEADER_BYTES };
        start.saturating_add(token.saturating_mul(self.token_bytes()))
    }

    /// Appends the ids that the bytes hold.
    pub(super) fn decode(self, bytes: &[u8], ids: &mut Vec<i64>) {
        match self {
            Format::LlmC32 => ids.extend(bytes.as_chunks().0.iter().map(|&id| i64::from(u32::from_le_bytes(id)))),
            Format::LlmC16 | Format::Headerless => {
                ids.extend(bytes.as_chunks().0.iter().map(|&id| i64::from(u16::from_le_bytes(id))));
            }
        }
    }
}

/// A shard whose header and size have been checked. No file stays open.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    format: Format,
    tokens: u64,
    sidecar: Option<Sidecar>,
    digest: String,
    at_open: Stamp,
    verified: Mutex<Option<Stamp>>,
}

/// What tells, without reading it, that a file is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: (i64, i64),
    inode: (u64, u64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}

impl Shard {
    /// Opens a shard, and its sidecar if it has one: header, size and their agreement are checked, the tokens are not
    /// read. A missing file is 66, anything wrong in it 65.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|error| Fault::reading(path, &error))?;
        if !metadata.is_file() {
            return Err(bad(path, 0, "not a token shard").found("no regular file"));
        }
        let file = File::open(path).map_err(|error| Fault::reading(path, &error))?;
        let sidecar = Sidecar::beside(path)?;
        let (format, tokens) = layout(path, &file, metadata.len(), sidecar.is_some())?;
        if tokens == 0 {
            return Err(bad(path, 0, "an empty shard").found("0 tokens").expected("at least 1").hint(REMAKE));
        }
        if let Some(sidecar) = &sidecar {
            check_sidecar(path, format, tokens, sidecar)?;
        }
        let digest = match &sidecar {
            Some(sidecar) => sidecar.sha256.clone(),
            None => sample(path, &file, metadata.len())?,
        };
        let at_open = Stamp::of(&metadata);
        Ok(Self { path: path.to_owned(), format, tokens, sidecar, digest, at_open, verified: Mutex::new(None) })
    }

    /// Where the shard lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its layout.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The number of its tokens, at least 1.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Its sidecar, if it has one.
    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.sidecar.as_ref()
    }

    /// SHA-256 of the file by its sidecar; without one, of the file's first and last 64 KiB.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Opens the file for reads. A file that is not what it was at [`Shard::open`] is bad data (65): with a sidecar it
    /// is hashed whole before its first read and after every change of its time stamp; without one any change is
    /// refused.
    pub fn reader(&self) -> Result<ShardReader<'_>> {
        let file = File::open(&self.path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => bad(&self.path, 0, "the shard is gone since it was opened").hint(REMAKE),
            _ => Fault::reading(&self.path, &error),
        })?;
        let reader = ShardReader { shard: self, file, buffer: Vec::new() };
        reader.check_unchanged()?;
        Ok(reader)
    }

    /// The byte position of a token, for messages.
    pub fn offset(&self, token: u64) -> u64 {
        self.format.offset(token)
    }
}

/// A shard's open file.
#[derive(Debug)]
pub struct ShardReader<'a> {
    shard: &'a Shard,
    file: File,
    buffer: Vec<u8>,
}

impl ShardReader<'_> {
    /// Appends `count` token ids from `first` on. A file that ends before is bad data (65), with the offset.
    pub fn read(&mut self, first: u64, count: usize, ids: &mut Vec<i64>) -> Result<()> {
        let (shard, path) = (self.shard, &self.shard.path);
        if first.checked_add(count as u64).is_none_or(|end| end > shard.tokens) {
            return Err(Fault::new(Exit::Internal, format!("`{}`: read past the shard's tokens", path.display()))
                .found(format!("{count} from {first}"))
                .expected(format!("within {}", shard.tokens)));
        }
        self.buffer.resize(count * shard.format.token_bytes() as usize, 0);
        read_exact(path, &self.file, &mut self.buffer, shard.offset(first))?;
        shard.format.decode(&self.buffer, ids);
        Ok(())
    }

    fn check_unchanged(&self) -> Result<()> {
        let (shard, path) = (self.shard, &self.shard.path);
        let metadata = self.file.metadata().map_err(|error| Fault::reading(path, &error))?;
        let stamp = Stamp::of(&metadata);
        if stamp.bytes != shard.at_open.bytes {
            let end = stamp.bytes.min(shard.at_open.bytes);
            return Err(bad(path, end, "the shard changed since it was opened")
                .found(format!("{} bytes", stamp.bytes))
                .expected(format!("{} bytes", shard.at_open.bytes))
                .hint(REMAKE));
        }
        let mut verified = shard.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if *verified != Some(stamp) {
            match &shard.sidecar {
                Some(sidecar) => check_hash(path, &self.hash()?, &sidecar.sha256)?,
                None if stamp != shard.at_open => {
                    return Err(bad(path, 0, "the shard changed since it was opened")
                        .found("another file or modification time")
                        .hint(REMAKE));
                }
                None => {}
            }
            *verified = Some(stamp);
        }
        Ok(())
    }

    /// SHA-256 of the whole file, as it is now.
    fn hash(&self) -> Result<String> {
        let mut hasher = Sha256::new();
        each_chunk(&self.shard.path, &self.file, self.shard.at_open.bytes, |chunk| hasher.update(chunk))?;
        Ok(hash::hex(hasher))
    }
}

/// The fault of a shard whose hash is not its sidecar's.
pub(super) fn check_hash(path: &Path, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let fault = bad(path, 0, "the shard is not what its sidecar says");
    Err(fault.found(format!("sha256 {found}")).expected(expected).hint(REMAKE))
}

/// Hands the first `bytes` bytes of a file to `take`, at most 1 MiB at a time.
pub(super) fn each_chunk(path: &Path, file: &File, bytes: u64, mut take: impl FnMut(&[u8])) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES.min(bytes) as usize];
    let mut offset = 0;
    while offset < bytes {
        let chunk = &mut buffer[..CHUNK_BYTES.min(bytes - offset) as usize];
        read_exact(path, file, chunk, offset)?;
        take(chunk);
        offset += chunk.len() as u64;
    }
    Ok(())
}

fn read_exact(path: &Path, file: &File, buffer: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => bad(path, offset, "the shard ends early")
            .found("the end of the file")
            .expected(format!("{} bytes from here", buffer.len()))
            .hint(REMAKE),
        _ => Fault::reading(path, &error),
    })
}

/// Layout and token count of a file of `bytes` bytes.
fn layout(path: &Path, file: &File, bytes: u64, has_sidecar: bool) -> Result<(Format, u64)> {
    let mut header = [0; HEADER_BYTES as usize];
    let present = HEADER_BYTES.min(bytes) as usize;
    read_exact(path, file, &mut header[..present], 0)?;
    let number = |place: usize| i32::from_le_bytes([0, 1, 2, 3].map(|i| header[4 * place + i]));
    for format in Format::WITH_HEADER {
        if let Some((magic, version)) = format.magic_and_version()
            && number(0) == magic
        {
            return count(path, bytes, format, version, number(1), number(2)).map(|tokens| (format, tokens));
        }
    }
    let like_header = present == header.len() && header[12..].iter().all(|&byte| byte == 0);
    let headerless = path.extension().is_some_and(|extension| extension == "bin") && bytes.is_multiple_of(2);
    if has_sidecar || like_header || !headerless {
        return Err(no_magic(path, number(0)));
    }
    Ok((Format::Headerless, bytes / Format::Headerless.token_bytes()))
}

fn count(path: &Path, bytes: u64, format: Format, version: i32, found: i32, tokens: i32) -> Result<u64> {
    if found != version {
        let fault = bad(path, 4, "a version of llm.c shards that is not known");
        return Err(fault.found(found).expected(version));
    }
    let tokens =
        u64::try_from(tokens).map_err(|_| bad(path, 8, "bad token count").found(tokens).expected("0 or more"))?;
    let size = format.offset(tokens);
    if bytes != size {
        return Err(bad(path, 8, "the header does not fit the file's size")
            .found(format!("{bytes} bytes"))
            .expected(format!("{size} for {tokens} {} tokens", format.dtype()))
            .hint(REMAKE));
    }
    Ok(tokens)
}

fn no_magic(path: &Path, found: i32) -> Fault {
    let fault = bad(path, 0, "not a token shard");
    let hint = match found {
        20_240_522 => "this is an llm.c evaluation file, which holds no token stream",
        _ if Format::WITH_HEADER
            .iter()
            .any(|f| f.magic_and_version().is_some_and(|(m, _)| m == found.swap_bytes())) =>
        {
            "the file is big-endian; write it on a little-endian machine"
        }
        _ => "make shards of text with `gauntlet data prepare`",
    };
    fault.found(format!("magic {found}")).expected("20240520 (llm.c v1) or 20240801 (llm.c v7)").hint(hint)
}

fn check_sidecar(path: &Path, format: Format, tokens: u64, sidecar: &Sidecar) -> Result<()> {
    let check = |key: &str, found: String, expected: String| {
        if found == expected {
            return Ok(());
        }
        let fault = bad(path, 0, "the shard is not what its sidecar says");
        Err(fault.found(format!("{key} {found}")).expected(expected).hint(REMAKE))
    };
    check("format", format.name().into(), sidecar.format.clone())?;
    check("dtype", format.dtype().into(), sidecar.dtype.clone())?;
    check("tokens", tokens.to_string(), sidecar.tokens.to_string())
}

/// SHA-256 of the first and last 64 KiB, which may overlap.
fn sample(path: &Path, file: &File, bytes: u64) -> Result<String> {
    let mut buffer = vec![0; SAMPLE_BYTES.min(bytes) as usize];
    let mut hasher = Sha256::new();
    for offset in [0, bytes - buffer.len() as u64] {
        read_exact(path, file, &mut buffer, offset)?;
        hasher.update(&buffer);
    }
    Ok(hash::hex(hasher))
}

/// A fault of the data at a byte of a shard.
pub(super) fn bad(path: &Path, offset: u64, what: &str) -> Fault {
    Fault::new(Exit::Data, format!("`{}`, offset {offset}: {what}", path.display()))
}
