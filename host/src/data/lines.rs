//! `.jsonl`: a document in each line, as a text of a JSON object.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::records::{Bad, BadRecords};
use super::unpack::Unpacked;
use crate::error::Result;

/// The longest line that is read.
pub(super) const MAX_LINE: usize = 64 << 20;
const CHUNK_BYTES: usize = 256 << 10;

/// Hands over the text of the key `field` in each line. Lines without are bad records.
pub(super) fn read_lines(
    file: &mut Unpacked,
    field: &str,
    bad: &mut BadRecords,
    mut take: impl FnMut(String) -> Result<()>,
) -> Result<()> {
    let path = file.path().to_owned();
    let mut number = 0u64;
    each_line(file, MAX_LINE, |line| {
        number += 1;
        let text = match line {
            Some(line) => text_of(line, field),
            None => Err(Bad::new(format_args!("a line of more than {} MiB", MAX_LINE >> 20), "a shorter one")),
        };
        match text {
            Ok(text) => take(text),
            Err(found) => bad.add(format!("`{}:{number}`: a bad line", path.display()), found),
        }
    })
}

/// Hands over every line without its end; nothing for one longer than `most`, of which no more than that is kept.
fn each_line(file: &mut Unpacked, most: usize, mut take: impl FnMut(Option<&[u8]>) -> Result<()>) -> Result<()> {
    let (mut buffer, mut line, mut is_long) = (vec![0; CHUNK_BYTES], Vec::new(), false);
    loop {
        let filled = file.read(&mut buffer)?;
        let mut rest = &buffer[..filled];
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (head, tail) = (&rest[..end], &rest[end + 1..]);
            is_long |= line.len() + head.len() > most;
            match (is_long, line.is_empty()) {
                (true, _) => take(None)?,
                (false, true) => take(Some(head))?,
                (false, false) => {
                    line.extend_from_slice(head);
                    take(Some(&line))?;
                }
            }
            line.clear();
            (rest, is_long) = (tail, false);
        }
        is_long |= line.len() + rest.len() > most;
        match is_long {
            true => line = Vec::new(),
            false => line.extend_from_slice(rest),
        }
        if filled == 0 {
            return match is_long {
                true => take(None),
                false if line.is_empty() => Ok(()),
                false => take(Some(&line)),
            };
        }
    }
}

/// The text of one line.
pub(super) fn text_of(line: &[u8], field: &str) -> Result<String, Bad> {
    let expected = || format!("a JSON object with a text `{field}`");
    if line.starts_with(b"\xef\xbb\xbf") {
        return Err(Bad::new("a byte order mark", "the line to begin with `{`"));
    }
    let line = std::str::from_utf8(line).map_err(|error| {
        Bad::new(
            format_args!("byte 0x{:02x} in column {}", line[error.valid_up_to()], error.valid_up_to() + 1),
            "UTF-8",
        )
    })?;
    if line.trim_ascii().is_empty() {
        return Err(Bad::new("a blank line", expected()));
    }
    let mut json = serde_json::Deserializer::from_str(line);
    let parsed = TextOf(field).deserialize(&mut json).and_then(|text| json.end().map(|()| text));
    let text =
        parsed.map_err(|error| Bad::new(error.to_string().replace(" at line 1 column ", " in column "), expected()))?;
    match text {
        None => Err(Bad::new(format_args!("no key `{field}`"), expected())),
        Some(text) if text.contains('\0') => Err(Bad::new("a text with the character U+0000", "text without it")),
        Some(text) => Ok(text),
    }
}

/// Reads the text of one key of an object and passes over everything else.
struct TextOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for TextOf<'_> {
    type Value = Option<String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TextOf<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<str>>()? {
            if key != self.0 {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value::<String>()?).is_some() {
                return Err(serde::de::Error::custom(format_args!("two keys `{}`", self.0)));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::inputs::{Input, Kind, Packing};
    use super::super::records::{OnBad, Rules};
    use super::super::unpack::Caps;
    use super::*;
    use crate::error::Exit;

    fn file(content: &[u8]) -> (tempfile::NamedTempFile, Unpacked) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let (path, name) = (file.path().to_owned(), "t".to_owned());
        let input = Input { path, name, kind: Kind::Lines, packing: Packing::Plain };
        let unpacked = Unpacked::open(&input, Caps::DEFAULT).unwrap();
        (file, unpacked)
    }

    fn read(content: &[u8], on_bad: OnBad) -> Result<(Vec<String>, u64)> {
        let (_file, mut unpacked) = file(content);
        let rules = Rules { field: "text".into(), on_bad };
        let (mut bad, mut texts) = (BadRecords::new(&rules), Vec::new());
        read_lines(&mut unpacked, "text", &mut bad, |text| {
            texts.push(text);
            Ok(())
        })?;
        Ok((texts, bad.count))
    }

    #[test]
    fn the_text_of_each_line_is_taken() {
        let content =
            "{\"text\": \"a\\n\u{e9}\\u20ac\"}\r\n{\"id\": [1, {\"text\": 2}], \"text\": \"\"}\n {\"text\":\"last\"} ";
        assert_eq!(read(content.as_bytes(), OnBad::Error).unwrap().0, ["a\né€", "", "last"]);
        assert_eq!(read(b"", OnBad::Error).unwrap().0, [""; 0]);
        let long = format!("{{\"text\": \"{}\"}}\n", "x".repeat(3 * CHUNK_BYTES)).repeat(2);
        let found = read(long.as_bytes(), OnBad::Error).unwrap().0;
        assert!(found.len() == 2 && found.iter().all(|text| text.len() == 3 * CHUNK_BYTES));
    }

    #[test]
    fn every_bad_line_is_named_by_file_and_line_or_skipped_and_counted() {
        let good = b"{\"text\": \"a\"}\n";
        let table: [(&[u8], &str); 14] = [
            (b"{\"text\": \"\xff\"}", "found byte 0xff in column 11, expected UTF-8"),
            (b"{\"other\": 1}", "found no key `text`, expected a JSON object with a text `text`"),
            (b"{\"text\": 5}", "found invalid type: integer `5`, expected a string in column 10"),
            (b"{\"text\": null}", "found invalid type: null, expected a string in column 13"),
            (b"[\"text\"]", "found invalid type: sequence, expected an object in column 0"),
            (b"{\"text\": \"a\\u0000b\"}", "found a text with the character U+0000, expected text without it"),
            (b"{\"text\": \"a\0b\"}", "found control character"),
            (b"\xef\xbb\xbf{\"text\": \"a\"}", "found a byte order mark"),
            (b"", "found a blank line"),
            (b" \t\r", "found a blank line"),
            (b"{\"text\": \"cut", "found EOF while parsing a string in column 13"),
            (b"{\"text\": \"a\"} {", "found trailing characters in column 15"),
            (b"{\"text\": \"\\ud800\"}", "found unexpected end of hex escape"),
            (b"{\"text\": \"a\", \"text\": \"b\"}", "found two keys `text`"),
        ];
        for (line, expected) in table {
            let content = [&good[..], line, b"\n", good].concat();
            let fault = read(&content, OnBad::Error).unwrap_err();
            assert_eq!(fault.exit, Exit::Data);
            let text = fault.to_string();
            assert!(text.contains(":2`: a bad line: found") && text.contains(expected), "{text}");
            assert!(text.ends_with("or leave such out with `--on-bad-line skip`"), "{text}");
            assert_eq!(read(&content, OnBad::Skip(1)).unwrap(), (vec!["a".to_owned(); 2], 1), "{line:?}");
            let fault = read(&content, OnBad::Skip(0)).unwrap_err().to_string();
            assert!(fault.ends_with("it is one more than the 0 that `--on-bad-line skip:0` leaves out"), "{fault}");
        }
        assert!(read(b"{\"text\": \"cut", OnBad::Error).is_err(), "a last line that was cut");
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_not_kept() {
        let content = [b"short\n".to_vec(), vec![b'x'; 3 * CHUNK_BYTES], b"\n".to_vec(), b"end".to_vec()].concat();
        let (_file, mut unpacked) = file(&content);
        let mut found = Vec::new();
        each_line(&mut unpacked, 100, |line| {
            found.push(line.map(<[u8]>::to_vec));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [Some(b"short".to_vec()), None, Some(b"end".to_vec())]);
    }
}
