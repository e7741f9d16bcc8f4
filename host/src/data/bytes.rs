//! The byte tokenizer: a token is a byte, a document starts with the byte 0.

use super::sidecar::Tokenizer;

/// The tokenizer's name in sidecars and configurations.
pub const NAME: &str = "bytes";
/// The number of token ids: one for each byte.
pub const VOCAB: usize = 256;
/// The token before each document. A text that holds this byte is refused, so the token is unambiguous.
pub const SEPARATOR: u16 = 0;

/// What sidecars say of it.
pub fn tokenizer() -> Tokenizer {
    Tokenizer { name: NAME.to_owned(), vocab_size: VOCAB, separator: u64::from(SEPARATOR), sha256: None }
}

/// The token ids of a text: its UTF-8 bytes, with no separator added.
pub fn encode(text: &str) -> Vec<u16> {
    text.bytes().map(u16::from).collect()
}

/// The text of token ids. Bytes that are not UTF-8, and ids that are not bytes, become U+FFFD.
pub fn decode(ids: &[i64]) -> String {
    let mut bytes = Vec::with_capacity(ids.len());
    for &id in ids {
        match u8::try_from(id) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend_from_slice("\u{fffd}".as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_comes_back(text in any::<String>()) {
            let ids: Vec<i64> = encode(&text).into_iter().map(i64::from).collect();
            prop_assert!(ids.iter().all(|&id| (0..VOCAB as i64).contains(&id)));
            prop_assert_eq!(decode(&ids), text);
        }

        #[test]
        fn decoding_takes_any_ids(ids in any::<Vec<i64>>()) {
            decode(&ids);
        }
    }

    #[test]
    fn what_is_not_text_becomes_the_replacement_character() {
        assert_eq!(encode("né"), [110, 0xc3, 0xa9]);
        assert_eq!(decode(&[104, 0xff, 105]), "h\u{fffd}i");
        assert_eq!(decode(&[104, 256, -1, 105]), "h\u{fffd}\u{fffd}i");
        assert_eq!(decode(&[0xc3]), "\u{fffd}");
    }
}
