//! Hand-built libraries, real ones, and garbage.

use proptest::prelude::*;

use super::fixture::{Elf, descriptor, plugin, real_library};
use super::*;

const HOST: (u32, u32, u32) = (1, 0, 0);

fn line(bytes: &[u8]) -> String {
    let checked = read(Path::new("/p/libx.so"), bytes).and_then(|note| note.check(Path::new("/p/libx.so"), HOST));
    match checked {
        Ok(()) => "ok".to_owned(),
        Err(fault) => {
            assert_eq!(fault.exit, Exit::Plugin);
            fault.to_string()
        }
    }
}

fn patched(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut all = plugin();
    all[offset..offset + bytes.len()].copy_from_slice(bytes);
    all
}

fn with_note(note: Vec<u8>) -> Vec<u8> {
    Elf { note: Some(note), ..Elf::default() }.build()
}

#[test]
fn the_note_is_found_in_a_segment_and_in_a_section() {
    let note = Note { abi: (1, 2, 3), panic_unwind: true, rustc: "rustc 1.95.0".to_owned() };
    let bytes = descriptor((1, 2, 3), 1, "rustc 1.95.0");
    for note_in_section in [false, true] {
        let file = Elf { note: Some(bytes.clone()), note_in_section, ..Elf::default() }.build();
        assert_eq!(read(Path::new("x"), &file), Ok(note.clone()));
    }
    let longer = [bytes, vec![7; 40]].concat();
    assert_eq!(read(Path::new("x"), &with_note(longer)), Ok(note.clone()));
    let mut stripped = plugin();
    stripped[40..48].fill(0); // no section table
    stripped[60..64].fill(0);
    assert_eq!(read(Path::new("x"), &stripped), Ok(note));
    let full = with_note(descriptor((1, 0, 0), 1, &"é".repeat(32)));
    assert_eq!(read(Path::new("x"), &full).unwrap().rustc, "é".repeat(32));
}

#[test]
fn refusals() {
    let made = "; hint: a plugin is a crate with `crate-type = [\"cdylib\"]` that calls `export_optimizer!`";
    let cpu = ", expected 64-bit little-endian x86_64 (62); hint: build the plugin for `x86_64-unknown-linux-gnu`";
    let again = "; hint: build the plugin again";
    let aborts = "remove `panic = \"abort\"` from the plugin's Cargo profile and build it again";
    let table = [
        (b"".to_vec(), format!("not an ELF file (0 bytes): found no bytes, expected a shared library{made}")),
        (
            b"hello\n".to_vec(),
            format!("not an ELF file (6 bytes): found first bytes 68 65 6c 6c, expected a shared library{made}"),
        ),
        (patched(18, &[183, 0]), format!("built for another CPU: found 64-bit little-endian aarch64 (183){cpu}")),
        (patched(4, &[1, 1]), format!("built for another CPU: found 32-bit little-endian x86_64 (62){cpu}")),
        (patched(5, &[2]), format!("built for another CPU: found 64-bit big-endian e_machine (15872){cpu}")),
        (patched(16, &[2]), format!("not a shared library: found an executable, expected a shared library{made}")),
        (patched(16, &[1]), format!("not a shared library: found an object file, expected a shared library{made}")),
        (
            Elf { interpreter: true, ..Elf::default() }.build(),
            format!("not a shared library: found a position-independent executable, expected a shared library{made}"),
        ),
        (
            Elf { flags: 0x0800_0001, ..Elf::default() }.build(),
            format!("not a shared library: found a position-independent executable, expected a shared library{made}"),
        ),
        (patched(64, &[6]), format!("malformed ELF file: found no loadable segment{again}")),
        (patched(54, &[57]), format!("malformed ELF file: found Invalid ELF program header entry size{again}")),
        (
            Elf::default().build(),
            format!("not an optimizer plugin: found no plugin note, expected the ELF note `Gauntlet`{made}"),
        ),
        (
            with_note(descriptor((1, 0, 0), 1, "")[..80].to_vec()),
            format!(
                "damaged plugin note: found 80 bytes, expected at least 88 bytes that begin with `GAUNTLET`{again}"
            ),
        ),
        (
            with_note(vec![0; 88]),
            format!(
                "damaged plugin note: found 88 bytes, expected at least 88 bytes that begin with `GAUNTLET`{again}"
            ),
        ),
        (
            with_note(descriptor((2, 0, 0), 1, "")),
            "the major versions of the plugin ABI differ: found plugin ABI 2.0.0, expected 1.x (host ABI 1.0.0); \
             hint: rebuild the plugin against this host's gauntlet-plugin-api"
                .to_owned(),
        ),
        (
            with_note(descriptor((1, 0, 0), 0, "")),
            format!(
                "optimizer plugins must be built with panic = \"unwind\": found panic = \"abort\", expected panic = \
                 \"unwind\"; hint: {aborts}"
            ),
        ),
    ];
    for (bytes, expected) in table {
        assert_eq!(line(&bytes), format!("`/p/libx.so`: {expected}"));
    }
    assert_eq!(line(&with_note(descriptor((1, 7, 0), 1, ""))), "ok");
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let bytes = plugin();
    let end = bytes.len();
    for len in 20..end {
        let headers_end = if len < 64 { 64 } else { end };
        let expected = format!("`/p/libx.so`: truncated: {len} bytes, headers end at {headers_end}: found {len} bytes");
        assert!(line(&bytes[..len]).starts_with(&expected), "{}", line(&bytes[..len]));
    }
    assert!(line(&bytes[..10]).starts_with("`/p/libx.so`: truncated: 10 bytes, headers end at 64"));
    let long = patched(64 + 32, &u64::MAX.to_le_bytes());
    assert!(line(&long).contains("headers end at 18446744073709551615"), "{}", line(&long));
}

#[test]
fn a_real_library_is_whole_and_no_plugin_and_refused_when_cut() {
    let bytes = std::fs::read(real_library()).unwrap();
    assert!(line(&bytes).contains("not an optimizer plugin"), "{}", line(&bytes));
    for i in 1..16 {
        let cut = bytes.len() * i / 16;
        for len in [cut - 1, cut, cut + 1] {
            let expected = format!("`/p/libx.so`: truncated: {len} bytes, headers end at {}", bytes.len());
            assert!(line(&bytes[..len]).starts_with(&expected), "{}", line(&bytes[..len]));
        }
    }
}

#[test]
fn this_test_program_is_an_executable() {
    let bytes = std::fs::read("/proc/self/exe").unwrap();
    assert!(line(&bytes).contains("not a shared library"), "{}", line(&bytes));
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400), elf in any::<bool>()) {
        let head: &[u8] = if elf { b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0" } else { b"" };
        line(&[head, &bytes].concat());
    }

    #[test]
    fn damaged_plugins_give_an_answer(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(0), Just(255), any::<u8>()]), 1..12),
        cut in any::<prop::sample::Index>(),
        in_section in any::<bool>(),
    ) {
        let note = Some(descriptor((1, 0, 0), 1, "rustc"));
        let mut bytes = Elf { note, note_in_section: in_section, ..Elf::default() }.build();
        for (place, byte) in edits {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        line(&bytes);
        line(&bytes[..cut.index(bytes.len())]);
    }
}
