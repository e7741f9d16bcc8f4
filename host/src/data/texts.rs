//! Text in pieces: read as UTF-8 that holds no byte 0, and cut at ends of lines.
//!
//! Where a piece ends depends on the text alone and not on how it was read, since tokens do not reach over the end of a
//! piece.

use super::unpack::Unpacked;
use crate::error::{Exit, Fault, Result};
use std::path::Path;

/// Bytes from which on a text is cut: it is the most that a piece has.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// Hands a text over in pieces. Bytes that are not UTF-8, and the byte 0, are bad data (65), with the offset. The bytes
/// are taken as they are: no normalisation, no change of line ends.
pub(super) fn read_text(file: &mut Unpacked, mut take: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let (mut held, mut offset) = (0, 0);
    loop {
        let filled = held + file.fill(&mut buffer[held..])?;
        let is_last = filled < buffer.len();
        let text = valid(file.path(), &buffer[..filled], offset, is_last)?;
        let piece = if is_last { text } else { &text[..cut(text)] };
        if !piece.is_empty() {
            take(piece)?;
        }
        let taken = piece.len();
        if is_last {
            return Ok(());
        }
        offset += taken as u64;
        buffer.copy_within(taken..filled, 0);
        held = filled - taken;
    }
}

/// The pieces of a text in memory: where [`read_text`] cuts it.
pub(super) fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let piece = match text.len() {
            0 => return None,
            length if length < PIECE_BYTES => text,
            _ => {
                let window = &text[..text.floor_char_boundary(PIECE_BYTES)];
                &window[..cut(window)]
            }
        };
        text = &text[piece.len()..];
        Some(piece)
    })
}

/// The end of the last line in a full piece; where no line ends in it, its own end.
fn cut(text: &str) -> usize {
    text.rfind('\n').map_or(text.len(), |place| place + 1)
}

/// The bytes as text, without a character cut off at their end, which only the end of the file makes an error.
fn valid<'a>(path: &Path, bytes: &'a [u8], offset: u64, at_end: bool) -> Result<&'a str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && !at_end => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => {
            let place = error.valid_up_to();
            let found = format!("byte 0x{:02x} at offset {}", bytes[place], offset + place as u64);
            let hint = "convert the file, for example with `iconv -t utf-8`, or leave it out";
            return Err(not_text(path, &found, "UTF-8").hint(hint));
        }
    };
    match text.find('\0') {
        None => Ok(text),
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
    use super::super::inputs::{Input, Kind, Packing};
    use super::super::unpack::Caps;
    use super::*;
    use proptest::prelude::*;

    fn read(content: &[u8]) -> Result<Vec<String>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let (path, name) = (file.path().to_owned(), "t".to_owned());
        let input = Input { path, name, kind: Kind::Text, packing: Packing::Plain };
        let mut found = Vec::new();
        read_text(&mut Unpacked::open(&input, Caps::DEFAULT)?, |piece| {
            found.push(piece.to_owned());
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn characters_are_never_cut_between_pieces() {
        for shift in 0..3 {
            let content = ["x".repeat(shift), "€".repeat(PIECE_BYTES)].concat();
            let found = read(content.as_bytes()).unwrap();
            assert!(found.len() > 3 && found.concat() == content);
            assert_eq!(found, pieces(&content).collect::<Vec<_>>());
        }
    }

    #[test]
    fn pieces_end_where_lines_end_also_for_a_text_in_memory() {
        for tail in [0, 1, 2, 30] {
            let line = "x".repeat(999) + "\n";
            let content = line.repeat(PIECE_BYTES / 1000 + 5) + &"y".repeat(tail);
            for content in [content.clone(), content[..PIECE_BYTES].to_owned(), content[..PIECE_BYTES - 1].to_owned()] {
                let found = read(content.as_bytes()).unwrap();
                assert_eq!(found.concat(), content);
                assert_eq!(found, pieces(&content).collect::<Vec<_>>());
                let (_, before) = found.split_last().unwrap();
                assert!(before.iter().all(|piece| piece.ends_with('\n')));
            }
        }
    }

    #[test]
    fn what_is_not_utf8_is_named_with_its_offset() {
        let far = [vec![b'x'; PIECE_BYTES + 5], vec![0xff, b'y']].concat();
        for (content, offset, byte) in [
            (&b"ab\xffcd"[..], 2, "0xff"),
            (&far[..], PIECE_BYTES + 5, "0xff"),
            (&b"cut \xe2\x82"[..], 4, "0xe2"),
            (&b"nul\0"[..], 3, "0x00"),
            (&b"\xff\xfea\0"[..], 0, "0xff"),
        ] {
            let fault = read(content).unwrap_err();
            assert_eq!(fault.exit, Exit::Data);
            let text = fault.to_string();
            assert!(text.contains(&format!(": not a text: found byte {byte} at offset {offset}, expected")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_text_or_refused(content in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = std::str::from_utf8(&content).is_ok_and(|text| !text.contains('\0'));
            match read(&content) {
                Ok(pieces) => prop_assert!(text && pieces.concat().as_bytes() == content),
                Err(_) => prop_assert!(!text),
            }
        }
    }
}
