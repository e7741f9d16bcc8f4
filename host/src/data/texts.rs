//! The documents of a corpus: files found, checked as UTF-8 text, hashed, and freed of exact duplicates.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::hash;
use crate::error::{Exit, Fault, Result};

const CHUNK_BYTES: usize = 1 << 20;

/// A text file that is not empty.
#[derive(Debug)]
pub(super) struct Document {
    /// Where to read it.
    pub path: PathBuf,
    /// Its path relative to the folder given, with `/` between the parts; its file name if it was given itself.
    pub name: String,
    /// The hash and size of its bytes.
    pub content: Content,
}

/// What a text was when it was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub sha256: String,
    pub bytes: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Corpus {
    /// In the order of the inputs; within a folder in the order of names, byte by byte.
    pub documents: Vec<Document>,
    /// Files left out since their bytes are those of an earlier one.
    pub duplicates: u64,
    /// Files left out since they have no bytes.
    pub empty: u64,
}

/// Finds and reads every text once. Files given are taken whatever their name; in folders, at every depth, the regular
/// files named `*.txt` or `*.md`. Hidden files and folders, and symbolic links inside folders, are passed over.
pub(super) fn gather(inputs: &[PathBuf]) -> Result<Corpus> {
    let mut files = Vec::new();
    for input in inputs {
        let metadata = fs::metadata(input).map_err(|error| Fault::reading(input, &error))?;
        if metadata.is_dir() {
            walk(input, "", &mut files)?;
        } else if metadata.is_file() {
            let name = input.file_name().unwrap_or(input.as_os_str()).to_string_lossy().into_owned();
            files.push((input.clone(), name));
        } else {
            return Err(not_text(input, "no regular file", "a file or a folder"));
        }
    }
    let mut corpus = Corpus { documents: Vec::new(), duplicates: 0, empty: 0 };
    let mut seen = HashSet::new();
    for (path, name) in files {
        let content = read_text(&path, |_| Ok(()))?;
        if content.bytes == 0 {
            corpus.empty += 1;
        } else if !seen.insert(content.sha256.clone()) {
            corpus.duplicates += 1;
        } else {
            corpus.documents.push(Document { path, name, content });
        }
    }
    if corpus.documents.is_empty() {
        return Err(Fault::new(Exit::Data, "no text to prepare")
            .found(format!("{} input paths with {} text files, all empty", inputs.len(), corpus.empty))
            .expected("at least one UTF-8 text")
            .hint("name files, or folders that hold `.txt` or `.md` files"));
    }
    Ok(corpus)
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let failed = |error| Fault::reading(folder, &error);
    let mut entries = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
        let file_name = entry.file_name();
        let name = format!("{prefix}{}", file_name.to_string_lossy());
        if file_name.as_encoded_bytes().starts_with(b".") {
            continue;
        } else if kind.is_dir() {
            walk(&path, &format!("{name}/"), files)?;
        } else if kind.is_file() && has_text_extension(&path) {
            files.push((path, name));
        }
    }
    Ok(())
}

fn has_text_extension(path: &Path) -> bool {
    path.extension().is_some_and(|found| ["txt", "md"].iter().any(|known| found.eq_ignore_ascii_case(known)))
}

/// Reads a text once, in pieces of at most 1 MiB that end between characters. Bytes that are not UTF-8, and the byte 0,
/// are bad data (65), with the offset. The bytes are taken as they are: no normalisation, no change of line ends.
pub(super) fn read_text(path: &Path, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<Content> {
    let failed = |error| Fault::reading(path, &error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0u64);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut held = 0;
    loop {
        let read = match file.read(&mut buffer[held..]) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        let filled = held + read;
        let complete = complete_text(path, &buffer[..filled], bytes, read == 0)?;
        hasher.update(&buffer[..complete]);
        take(&buffer[..complete])?;
        bytes += complete as u64;
        buffer.copy_within(complete..filled, 0);
        held = filled - complete;
        if read == 0 {
            return Ok(Content { sha256: hash::hex(hasher), bytes });
        }
    }
}

/// The length of the bytes without a character cut off at their end, which only the end of the file makes an error.
fn complete_text(path: &Path, bytes: &[u8], offset: u64, at_end: bool) -> Result<usize> {
    let complete = match std::str::from_utf8(bytes) {
        Ok(text) => text.len(),
        Err(error) if error.error_len().is_none() && !at_end => error.valid_up_to(),
        Err(error) => {
            let place = error.valid_up_to();
            let found = format!("byte 0x{:02x} at offset {}", bytes[place], offset + place as u64);
            let hint = "convert the file, for example with `iconv -t utf-8`, or leave it out";
            return Err(not_text(path, &found, "UTF-8").hint(hint));
        }
    };
    match bytes[..complete].iter().position(|&byte| byte == 0) {
        None => Ok(complete),
        Some(place) => {
            let found = format!("byte 0x00 at offset {}", offset + place as u64);
            Err(not_text(path, &found, "text without it, since it separates documents").hint("leave the file out"))
        }
    }
}

fn not_text(path: &Path, found: &str, expected: &str) -> Fault {
    Fault::new(Exit::Data, format!("`{}`: not a text", path.display())).found(found).expected(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    fn pieces(content: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut pieces = Vec::new();
        let file = text_file(content);
        read_text(file.path(), |piece| {
            pieces.push(piece.to_vec());
            Ok(())
        })?;
        Ok(pieces)
    }

    #[test]
    fn characters_are_never_cut_between_pieces() {
        for shift in 0..3 {
            let content = ["x".repeat(shift), "€".repeat(CHUNK_BYTES)].concat();
            let pieces = pieces(content.as_bytes()).unwrap();
            assert!(pieces.len() > 3 && pieces.iter().all(|piece| std::str::from_utf8(piece).is_ok()));
            assert_eq!(pieces.concat(), content.as_bytes());
        }
    }

    #[test]
    fn what_is_not_utf8_is_named_with_its_offset() {
        let far = [vec![b'x'; CHUNK_BYTES + 5], vec![0xff, b'y']].concat();
        for (content, offset, byte) in [
            (&b"ab\xffcd"[..], 2, "0xff"),
            (&far[..], CHUNK_BYTES + 5, "0xff"),
            (&b"cut \xe2\x82"[..], 4, "0xe2"),
            (&b"nul\0"[..], 3, "0x00"),
            (&b"\xff\xfea\0"[..], 0, "0xff"),
        ] {
            let fault = pieces(content).unwrap_err();
            assert_eq!(fault.exit, Exit::Data);
            let text = fault.to_string();
            assert!(text.contains(&format!(": not a text: found byte {byte} at offset {offset}, expected")), "{text}");
        }
    }

    #[test]
    fn folders_are_walked_in_order_and_only_visible_text_files_count() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("b/deep")).unwrap();
        fs::create_dir_all(root.join(".hidden")).unwrap();
        for (name, text) in [
            ("b/two.md", "2"),
            ("b/deep/three.TXT", "3"),
            ("a.txt", "1"),
            ("c.txt", "1"),
            ("d.txt", ""),
            ("e.rs", "5"),
            (".f.txt", "6"),
            (".hidden/g.txt", "7"),
        ] {
            fs::write(root.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("b/loop")).unwrap();
        std::os::unix::fs::symlink(root.join("e.rs"), root.join("z.txt")).unwrap();
        let corpus = gather(&[root.to_owned(), root.join("e.rs")]).unwrap();
        let names: Vec<&str> = corpus.documents.iter().map(|document| document.name.as_str()).collect();
        assert_eq!(names, ["a.txt", "b/deep/three.TXT", "b/two.md", "e.rs"]);
        assert_eq!((corpus.duplicates, corpus.empty), (1, 1));
    }

    #[test]
    fn nothing_to_prepare_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(gather(&[]).unwrap_err().exit, Exit::Data);
        assert_eq!(gather(&[folder.path().into()]).unwrap_err().exit, Exit::Data);
        assert_eq!(gather(&[folder.path().join("gone.txt")]).unwrap_err().exit, Exit::Missing);
        assert_eq!(gather(&["/dev/null".into()]).unwrap_err().exit, Exit::Data);
    }

    proptest! {
        #[test]
        fn any_bytes_are_text_or_refused(content in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = std::str::from_utf8(&content).is_ok_and(|text| !text.contains('\0'));
            match pieces(&content) {
                Ok(pieces) => prop_assert!(text && pieces.concat() == content),
                Err(_) => prop_assert!(!text),
            }
        }
    }
}
