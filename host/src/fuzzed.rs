//! Everything that reads bytes from outside, one target each: `fuzz/` feeds it with bytes of chance, the tests with those of
//! `tests/data/fuzz`.
//!
//! Whatever the bytes, a target must not panic, hang, or take memory by their word; what it refuses it refuses in one line
//! with the exit code of its kind of file ([`Target::broken`]).

use crate::config;
use crate::data::tokenizer::Encoder;
use crate::data::{self, Shard};
use crate::error::{Exit, Fault, Result};
use crate::plugin::elf;
use crate::sinks::checkpoint::Manifest;
use crate::sinks::metrics;
use crate::tensor_file;
use gauntlet_plugin_api::testing::Trace;
use std::path::Path;

/// Tokens of a shard that are read, at most.
const MOST_TOKENS: u64 = 4096;

/// A reader of bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, that of its program in `fuzz/` and of its folder in `tests/data/fuzz`.
    pub name: &'static str,
    /// Exit code of what it refuses.
    pub exit: Exit,
    /// Reads bytes; gives what is wrong with them.
    pub read: fn(&[u8]) -> Vec<Fault>,
}

/// All targets.
pub const TARGETS: [Target; 9] = [
    Target { name: "config", exit: Exit::Usage, read: config_file },
    Target { name: "elf", exit: Exit::Plugin, read: plugin_note },
    Target { name: "jsonl", exit: Exit::Data, read: jsonl },
    Target { name: "manifest", exit: Exit::Checkpoint, read: manifest },
    Target { name: "request", exit: Exit::Data, read: request },
    Target { name: "shard", exit: Exit::Data, read: shard },
    Target { name: "tokenizer", exit: Exit::Data, read: tokenizer },
    Target { name: "trace", exit: Exit::Data, read: trace },
    Target { name: "vector", exit: Exit::Data, read: vector },
];

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Reads bytes, and gives the refusal that breaks a rule, if one does: it is not one line, or has another exit code.
    pub fn broken(&self, bytes: &[u8]) -> Option<Fault> {
        let breaks = |fault: &Fault| {
            let line = fault.to_string();
            line.is_empty() || line.chars().any(char::is_control) || fault.exit != self.exit
        };
        (self.read)(bytes).into_iter().find(breaks)
    }
}

fn faults<T>(read: Result<T>) -> Vec<Fault> {
    read.err().into_iter().collect()
}

/// A configuration file, from its bytes to its checked values.
fn config_file(bytes: &[u8]) -> Vec<Fault> {
    in_a_file("run.toml", bytes, |path| config::load(&[path.to_owned()], &[], []).err().unwrap_or_default())
}

/// Lines of JSON with a text each.
fn jsonl(bytes: &[u8]) -> Vec<Fault> {
    in_a_file("texts.jsonl", bytes, |path| faults(data::count(path)))
}

/// A `tokenizer.json`, and a text that it makes tokens of and back.
fn tokenizer(bytes: &[u8]) -> Vec<Fault> {
    let read = |encoder: Encoder| {
        let ids: Vec<i64> = encoder.encode("Some text, of 2 lines.\n")?.into_iter().map(i64::from).collect();
        encoder.decode(&ids);
        Ok(())
    };
    faults(Encoder::of_json(Path::new("tokenizer.json"), bytes).and_then(read))
}

/// `MANIFEST.json` of a checkpoint.
fn manifest(bytes: &[u8]) -> Vec<Fault> {
    faults(Manifest::parse(Path::new("MANIFEST.json"), bytes))
}

/// A shard: its header, and its first tokens.
fn shard(bytes: &[u8]) -> Vec<Fault> {
    let read = |path: &Path| {
        let shard = Shard::open(path)?;
        let count = shard.tokens().min(MOST_TOKENS) as usize;
        shard.reader()?.read(0, count, &mut Vec::new())
    };
    in_a_file("shard.bin", bytes, |path| faults(read(path)))
}

/// The head of a request to the metrics endpoint, as far as it came, and the answer. No request is refused by a fault.
fn request(bytes: &[u8]) -> Vec<Fault> {
    if let Some(answer) = metrics::answer(bytes) {
        let response = metrics::response(answer, &mut String::new);
        if !response.starts_with(b"HTTP/1.1 ") {
            return vec![Fault::new(Exit::Internal, "a response without a status line")];
        }
    }
    vec![]
}

/// A recorded run for `plugins replay`.
fn trace(bytes: &[u8]) -> Vec<Fault> {
    let parsed = Trace::parse(bytes);
    faults(parsed.map_err(|error| Fault::new(Exit::Data, error.message)))
}

/// Named tensors: vectors and tokens of `curvature product`.
fn vector(bytes: &[u8]) -> Vec<Fault> {
    faults(tensor_file::parse(Path::new("vector.safetensors"), bytes))
}

/// A plugin's file before any of its code runs, up to the comparison of its note with this program.
fn plugin_note(bytes: &[u8]) -> Vec<Fault> {
    let path = Path::new("libplugin.so");
    faults(elf::read(path, bytes).and_then(|note| note.check(path, (1, 0, 0))))
}

/// Hands bytes over as a file, for what reads by path.
fn in_a_file(name: &str, bytes: &[u8], read: impl FnOnce(&Path) -> Vec<Fault>) -> Vec<Fault> {
    let written = tempfile::tempdir().and_then(|folder| {
        std::fs::write(folder.path().join(name), bytes)?;
        Ok(folder)
    });
    match written {
        Ok(folder) => read(&folder.path().join(name)),
        // The machine's fault and not that of the bytes, which breaks the rule of exit codes and so is noticed.
        Err(error) => vec![Fault::writing(&std::env::temp_dir(), &error)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    fn corpora() -> PathBuf {
        let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        PathBuf::from(root).join("../tests/data/fuzz")
    }

    /// The files of a target's corpus with their bytes.
    fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(corpora().join(name)).unwrap().flatten();
        let mut files: Vec<_> = entries.map(|entry| (entry.path(), fs::read(entry.path()).unwrap())).collect();
        files.sort();
        files
    }

    /// A file `good-...` is accepted, a file `bad-...` refused, and any other answered somehow.
    #[test]
    fn every_corpus_is_answered_as_its_names_say() {
        for target in &TARGETS {
            let (mut good, mut bad) = (0, 0);
            for (path, bytes) in corpus(target.name) {
                let (name, faults) = (path.file_name().unwrap().to_string_lossy(), (target.read)(&bytes));
                assert_eq!(target.broken(&bytes), None, "{}", path.display());
                match name.split('-').next() {
                    Some("good") => assert_eq!(faults, [], "{}", path.display()),
                    Some("bad") => assert!(!faults.is_empty(), "{} is accepted", path.display()),
                    _ => {}
                }
                (good, bad) = (good + u32::from(faults.is_empty()), bad + u32::from(!faults.is_empty()));
            }
            assert!(good >= 2 && (bad >= 3 || target.name == "request"), "{}: {good} good, {bad} bad", target.name);
        }
    }

    /// Each file cut at every length, and with each byte turned into others.
    #[test]
    fn what_lies_near_a_corpus_is_answered() {
        for target in &TARGETS {
            for (path, bytes) in corpus(target.name) {
                let step = bytes.len().div_ceil(256).max(1);
                for at in (0..bytes.len()).step_by(step) {
                    assert_eq!(target.broken(&bytes[..at]), None, "{} cut at {at}", path.display());
                    for change in [0x01, 0x80, 0xff] {
                        let mut changed = bytes.clone();
                        changed[at] ^= change;
                        assert_eq!(target.broken(&changed), None, "{} at {at} with {change:#x}", path.display());
                    }
                }
            }
        }
    }

    #[test]
    fn targets_corpora_and_programs_are_the_same() {
        let names = |folder: PathBuf, is_one: fn(&fs::DirEntry) -> bool| -> BTreeSet<String> {
            let entries = fs::read_dir(folder).unwrap().flatten().filter(is_one);
            entries.map(|entry| entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned()).collect()
        };
        let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
        assert_eq!(names(corpora(), |entry| entry.path().is_dir()), targets);
        assert_eq!(names(corpora().join("../../../fuzz/targets"), |entry| entry.path().is_file()), targets);
        assert!(TARGETS.iter().all(|target| Target::named(target.name).is_some_and(|found| found.exit == target.exit)));
    }

    #[test]
    fn a_refusal_of_another_kind_or_of_two_lines_breaks_the_rule() {
        let target = |read| Target { name: "t", exit: Exit::Data, read };
        assert_eq!(target(|_| vec![Fault::new(Exit::Data, "a\nb")]).broken(b""), None, "a fault escapes what it shows");
        assert!(target(|_| vec![Fault::new(Exit::Internal, "a")]).broken(b"").is_some());
        assert!(target(|_| vec![Fault::new(Exit::Data, "")]).broken(b"").is_some());
    }
}
