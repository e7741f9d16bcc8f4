//! A file read as a stream, unpacked where it is compressed, within bounds that no file can talk its way out of.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::hash;
use super::inputs::{Input, Packing};
use crate::error::{Exit, Fault, Result};

const BUFFER_BYTES: usize = 64 << 10;

/// Bounds on what comes out of a compressed file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    /// Unpacked bytes for a packed one, once there are more than `free_bytes`.
    pub ratio: u64,
    /// Bytes to which the ratio does not apply.
    pub free_bytes: u64,
    /// Unpacked bytes in all.
    pub bytes: u64,
    /// Base-2 logarithm of zstd's window, which it keeps in memory.
    pub window_log: u32,
}

impl Caps {
    /// 200 to 1 beyond 16 MiB, 256 GiB, a window of 128 MiB.
    pub const DEFAULT: Self = Self { ratio: 200, free_bytes: 16 << 20, bytes: 256 << 30, window_log: 27 };

    /// Whether so many bytes may come out of the first `packed` of a file.
    ///
    /// # Errors
    ///
    /// [`Exit::Data`]: there are too many.
    pub fn check(&self, path: &Path, bytes: u64, packed: u64) -> Result<()> {
        let limit = self.ratio.saturating_mul(packed).max(self.free_bytes);
        let much = |found: String, expected: String| {
            let fault = Fault::new(Exit::Data, format!("`{}`: too much to unpack", path.display())).found(found);
            Err(fault.expected(expected).hint("unpack the file yourself if it is what you think it is"))
        };
        match bytes {
            _ if bytes > self.bytes => {
                much(format!("more than {} bytes", self.bytes), "at most that many from one file".into())
            }
            _ if bytes > limit => much(
                format!("{bytes} bytes from the first {packed}"),
                format!("at most {} bytes from each", self.ratio),
            ),
            _ => Ok(()),
        }
    }
}

/// What was read of the file itself.
struct Raw {
    hasher: Sha256,
    bytes: u64,
}

/// The file, counted and hashed as it is read.
struct RawFile {
    file: File,
    raw: Rc<RefCell<Raw>>,
}

impl Read for RawFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let mut raw = self.raw.borrow_mut();
        raw.hasher.update(&buffer[..read]);
        raw.bytes += read as u64;
        Ok(read)
    }
}

/// A file's bytes, unpacked.
pub(super) struct Unpacked {
    path: PathBuf,
    packing: Packing,
    caps: Caps,
    stream: Box<dyn Read>,
    raw: Rc<RefCell<Raw>>,
    bytes: u64,
}

impl Unpacked {
    /// Opens a file; 66 if that fails.
    pub fn open(input: &Input, caps: Caps) -> Result<Self> {
        let failed = |error| Fault::reading(&input.path, &error);
        let file = File::open(&input.path).map_err(failed)?;
        let raw = Rc::new(RefCell::new(Raw { hasher: Sha256::new(), bytes: 0 }));
        let file = io::BufReader::with_capacity(BUFFER_BYTES, RawFile { file, raw: raw.clone() });
        let stream: Box<dyn Read> = match input.packing {
            Packing::Plain => Box::new(file),
            Packing::Gzip => Box::new(MultiGzDecoder::new(file)),
            Packing::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(file).map_err(failed)?;
                decoder.window_log_max(caps.window_log).map_err(failed)?;
                Box::new(decoder)
            }
        };
        Ok(Self { path: input.path.clone(), packing: input.packing, caps, stream, raw, bytes: 0 })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads on; 0 bytes only at the end. What cannot be unpacked, or is more than the bounds allow, is bad data (65).
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = loop {
            match self.stream.read(buffer) {
                Ok(read) => break read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error().is_some() => return Err(Fault::reading(&self.path, &error)),
                Err(error) => return Err(self.damaged(&error)),
            }
        };
        self.bytes += read as u64;
        if self.packing != Packing::Plain {
            self.check()?;
        }
        Ok(read)
    }

    /// Reads until the buffer is full or the file ends.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    /// SHA-256 and size of the file itself, as far as it was read.
    pub fn raw(self) -> (String, u64) {
        let raw = self.raw.borrow();
        (hash::hex(raw.hasher.clone()), raw.bytes)
    }

    fn check(&self) -> Result<()> {
        self.caps.check(&self.path, self.bytes, self.raw.borrow().bytes)
    }

    fn damaged(&self, error: &io::Error) -> Fault {
        let text = error.to_string();
        let what = format!("`{}`: not sound {} data", self.path.display(), self.packing.name());
        let fault = Fault::new(Exit::Data, what);
        if text.contains("too much memory") {
            let window = format!("a window of at most {} MiB", (1u64 << self.caps.window_log) >> 20);
            return fault.found(text).expected(window).hint("compress the file again without a long window");
        }
        let after = format!("{} after {} unpacked bytes", text.trim_end_matches('.'), self.bytes);
        fault.found(after).hint("the file may be cut short, or have something else behind its end; copy it again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    fn zst(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 3).unwrap()
    }

    fn unpack(packing: Packing, bytes: &[u8], caps: Caps) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, bytes).unwrap();
        let input = Input { path, name: "file".into(), kind: super::super::inputs::Kind::Text, packing };
        let mut file = Unpacked::open(&input, caps)?;
        let (mut found, mut buffer) = (Vec::new(), vec![0; 1000]);
        loop {
            match file.fill(&mut buffer)? {
                0 => break,
                read => found.extend_from_slice(&buffer[..read]),
            }
        }
        assert_eq!(file.raw().1, bytes.len() as u64);
        Ok(found)
    }

    #[test]
    fn members_and_frames_behind_each_other_are_one_text() {
        let text = "one and another ".repeat(300).into_bytes();
        for (packing, pack) in [(Packing::Gzip, gzip as fn(&[u8]) -> Vec<u8>), (Packing::Zstd, zst)] {
            let packed = [pack(&text), pack(b""), pack(b"end")].concat();
            assert_eq!(unpack(packing, &packed, Caps::DEFAULT).unwrap(), [&text[..], b"end"].concat());
        }
        assert_eq!(unpack(Packing::Plain, &text, Caps::DEFAULT).unwrap(), text);
    }

    #[test]
    fn what_is_cut_or_has_something_behind_it_is_refused_at_every_length() {
        let text: Vec<u8> = (0..5000u32).flat_map(|i| (i * i).to_le_bytes()).collect();
        for (packing, packed) in [(Packing::Gzip, gzip(&text)), (Packing::Zstd, zst(&text))] {
            for cut in (1..packed.len()).step_by(97) {
                let fault = unpack(packing, &packed[..cut], Caps::DEFAULT).unwrap_err();
                assert_eq!(fault.exit, Exit::Data);
                assert!(fault.to_string().contains(&format!("not sound {} data", packing.name())), "{fault}");
            }
            for junk in [&b"junk behind the end"[..], b"\0\0\0\0\0\0\0\0\0\0"] {
                let with_junk = [&packed[..], junk].concat();
                assert_eq!(unpack(packing, &with_junk, Caps::DEFAULT).unwrap_err().exit, Exit::Data, "{junk:?}");
            }
        }
    }

    #[test]
    fn bombs_are_refused_before_they_are_unpacked() {
        let zeros = vec![0; 64 << 20];
        for (packing, bomb) in [(Packing::Gzip, gzip(&zeros)), (Packing::Zstd, zst(&zeros))] {
            assert!(bomb.len() < 70_000);
            let fault = unpack(packing, &bomb, Caps::DEFAULT).unwrap_err();
            assert!(fault.to_string().contains("too much to unpack: found 1"), "{fault}");
            let small = Caps { bytes: 1 << 20, ..Caps::DEFAULT };
            let fault = unpack(packing, &bomb, small).unwrap_err().to_string();
            assert!(fault.contains("found more than 1048576 bytes, expected at most that many"), "{fault}");
        }
    }

    #[test]
    fn a_window_that_needs_gigabytes_is_refused() {
        let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        writer.window_log(31).unwrap();
        writer.long_distance_matching(true).unwrap();
        writer.write_all(&[7; 1000]).unwrap();
        let fault = unpack(Packing::Zstd, &writer.finish().unwrap(), Caps::DEFAULT).unwrap_err();
        assert!(fault.to_string().contains("expected a window of at most 128 MiB; hint: compress"), "{fault}");
    }
}
