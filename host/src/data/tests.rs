//! The data's way as a whole: text -> shards -> windows, and every refusal on it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::error::{Exit, Fault, Result};

mod preparing;

const VOCAB: usize = 65_536;

/// A folder with one corpus of `(name, text)`, and a place for output.
fn corpus(texts: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in texts {
        let path = folder.path().join("texts").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn options(folder: &TempDir) -> Prepare {
    Prepare::new(vec![folder.path().join("texts")], folder.path().join("out"))
}

/// Two documents, the second for validation, in shards of 8 tokens.
fn prepared() -> (TempDir, PathBuf) {
    let folder = corpus(&[("a.txt", "abcdefghijklmnopqrstuv"), ("b.md", "Ünïcode")]);
    let options = Prepare { validation_files: vec!["b.md".into()], shard_tokens: 8, ..options(&folder) };
    prepare(&options).unwrap();
    let out = options.output;
    (folder, out)
}

fn shard_bytes(magic: i32, version: i32, count: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[..12].copy_from_slice(&[magic, version, count].map(i32::to_le_bytes).concat());
    bytes.extend_from_slice(body);
    bytes
}

fn ids16(ids: &[u16]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn open(path: &Path, seq_len: usize, vocab: usize) -> Result<Dataset> {
    Dataset::open(&[path.to_owned()], Split::Train, seq_len, vocab, Order::Sequential)
}

fn all_ids(shard: &Shard) -> Vec<i64> {
    let mut ids = Vec::new();
    shard.reader().unwrap().read(0, shard.tokens() as usize, &mut ids).unwrap();
    ids
}

/// Asserts exit 65 and that the line, without the folder, is the one expected.
fn refused<T: std::fmt::Debug>(result: Result<T>, folder: &Path, expected: &str) {
    let fault: Fault = result.unwrap_err();
    assert_eq!(fault.exit, Exit::Data, "{fault}");
    assert_eq!(fault.to_string().replace(&format!("{}/", folder.display()), ""), expected);
}

#[test]
fn a_shard_has_exactly_the_bytes_of_the_format() {
    let folder = corpus(&[("a.txt", "hé")]);
    let options = options(&folder);
    let summary = prepare(&options).unwrap();
    assert_eq!(summary.train, SplitSize { documents: 1, tokens: 4, shards: 1 });
    assert_eq!(summary.validation, SplitSize::default());
    let bytes = fs::read(options.output.join("train-00000.bin")).unwrap();
    let start = [0x88, 0xd8, 0x34, 0x01, 1, 0, 0, 0, 4, 0, 0, 0];
    assert_eq!(bytes[..12], start);
    assert!(bytes[12..1024].iter().all(|&byte| byte == 0));
    assert_eq!(bytes[1024..], [0, 0, b'h', 0, 0xc3, 0, 0xa9, 0]);
    let sidecar = fs::read_to_string(options.output.join("train-00000.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&sidecar).unwrap();
    let text_sha256 = "7dfbe0eab96510b11c9a2671d83019cd52953211294db5f917ffa0b7cc84f534";
    let expected = serde_json::json!({
        "sidecar_version": 1, "gauntlet_version": env!("CARGO_PKG_VERSION"), "format": "llm.c v1", "dtype": "uint16",
        "tokenizer": {"name": "bytes", "vocab_size": 256, "separator": 0},
        "split": "train", "shard": 0, "shards": 1, "tokens": 4, "documents": 1,
        "sha256": "4bcf10379057277dafab541f5189352f894ec43e24438e38c54e71878682d4d8",
        "sources": [{"path": "a.txt", "sha256": text_sha256, "bytes": 3, "tokens": 4}],
    });
    assert_eq!(json, expected);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left in the parent folder");
}

#[test]
fn shards_of_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let gpt2 = [50256, 0, 1, 65535];
    assert_eq!(ids16(&gpt2), [0x50, 0xc4, 0, 0, 1, 0, 0xff, 0xff]);
    let headerless = Shard::open(&file(&folder, "val.bin", &ids16(&gpt2))).unwrap();
    assert_eq!((headerless.format(), all_ids(&headerless)), (Format::Headerless, vec![50256, 0, 1, 65535]));
    let llm_c = Shard::open(&file(&folder, "a_train_000001.bin", &shard_bytes(20240520, 1, 4, &ids16(&gpt2)))).unwrap();
    assert_eq!((llm_c.format(), all_ids(&llm_c)), (Format::LlmC16, vec![50256, 0, 1, 65535]));
    let wide = [128_000u32, 7, u32::MAX].map(u32::to_le_bytes).concat();
    let llama = Shard::open(&file(&folder, "b_train_000001.bin", &shard_bytes(20240801, 7, 3, &wide))).unwrap();
    assert_eq!((llama.format(), all_ids(&llama)), (Format::LlmC32, vec![128_000, 7, 4_294_967_295]));
    let both = Dataset::open(&[folder.path().to_owned()], Split::Train, 2, 1 << 33, Order::Sequential).unwrap();
    assert_eq!((both.windows(), both.tokens()), (2, 7));
}

#[test]
fn every_refusal_of_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let (magics, body) = ("expected 20240520 (llm.c v1) or 20240801 (llm.c v7)", ids16(&[1, 2]));
    let text = "; hint: make shards of text with `gauntlet data prepare`";
    let copy = "; hint: copy the file again, or prepare the data again";
    let evaluation = "; hint: this is an llm.c evaluation file, which holds no token stream";
    let endian = "; hint: the file is big-endian; write it on a little-endian machine";
    let not = "0: not a token shard: found magic";
    let (size, empty) = ("8: the header does not fit the file's size: found", "0: an empty shard: found 0 tokens");
    let version = "4: a version of llm.c shards that is not known: found";
    let swapped = shard_bytes(20240520i32.swap_bytes(), 1 << 24, 2 << 24, &body);
    let cut = shard_bytes(20240520, 1, 2, &body)[..900].to_vec();
    let table = [
        ("x.bin", shard_bytes(7, 1, 2, &body), format!("{not} 7, {magics}{text}")),
        ("x.txt", b"some text!".into(), format!("{not} 1701670771, {magics}{text}")),
        ("x.bin", b"odd".into(), format!("{not} 6579311, {magics}{text}")),
        ("x.bin", shard_bytes(20240522, 1, 2, &body), format!("{not} 20240522, {magics}{evaluation}")),
        ("x.bin", swapped, format!("{not} -1999096831, {magics}{endian}")),
        ("x.bin", shard_bytes(20240520, 2, 2, &body), format!("{version} 2, expected 1")),
        ("x.bin", shard_bytes(20240801, 1, 1, &body), format!("{version} 1, expected 7")),
        ("x.bin", shard_bytes(20240520, 1, -1, &body), "8: bad token count: found -1, expected 0 or more".into()),
        (
            "x.bin",
            shard_bytes(20240520, 1, i32::MAX, &body),
            format!("{size} 1028 bytes, expected 4294968318 for 2147483647 uint16 tokens{copy}"),
        ),
        (
            "x.bin",
            shard_bytes(20240520, 1, 1, &body),
            format!("{size} 1028 bytes, expected 1026 for 1 uint16 tokens{copy}"),
        ),
        ("x.bin", cut, format!("{size} 900 bytes, expected 1028 for 2 uint16 tokens{copy}")),
        ("x.bin", shard_bytes(20240520, 1, 0, &[]), format!("{empty}, expected at least 1{copy}")),
        ("x.bin", vec![], format!("{empty}, expected at least 1{copy}")),
    ];
    for (name, bytes, expected) in table {
        let path = file(&folder, name, &bytes);
        refused(Shard::open(&path), folder.path(), &format!("`{name}`, offset {expected}"));
    }
    assert_eq!(Shard::open(&folder.path().join("gone.bin")).unwrap_err().exit, Exit::Missing);
    fs::create_dir(folder.path().join("d.bin")).unwrap();
    let line = "`d.bin`, offset 0: not a token shard: found no regular file";
    refused(Shard::open(&folder.path().join("d.bin")), folder.path(), line);
}

#[test]
fn refusals_of_sidecars() {
    let (folder, out) = prepared();
    let path = out.join("train-00000.json");
    let good = fs::read_to_string(&path).unwrap();
    let with = |from: &str, to: &str| {
        fs::write(&path, good.replace(from, to)).unwrap();
        let fault = Shard::open(&out.join("train-00000.bin")).unwrap_err();
        assert_eq!(fault.exit, Exit::Data);
        fault.to_string().replace(&format!("{}/", folder.path().display()), "")
    };
    assert!(with("{", "[").starts_with("`out/train-00000.json`: not a shard's sidecar: found"));
    assert!(with("\"sha256\": \"", "\"sha256\": \"XYZ").contains("found sha256 `XYZ"));
    assert!(
        with("\"sidecar_version\": 1", "\"sidecar_version\": 2").contains("found sidecar_version 2, expected 1; hint")
    );
    assert!(with("\"tokens\": 8,\n  \"doc", "\"tokens\": 9,\n  \"doc").contains("found tokens 8, expected 9"));
    assert!(
        with("llm.c v1", "llm.c v7").contains("`out/train-00000.bin`, offset 0: the shard is not what its sidecar")
    );
    fs::write(&path, &good).unwrap();
    let mut bytes = fs::read(out.join("train-00000.bin")).unwrap();
    bytes[0] ^= 1;
    fs::write(out.join("train-00000.bin"), bytes).unwrap();
    assert!(with("", "").contains("not a token shard: found magic 20240521"), "never read as a headerless file");
}

#[test]
fn windows_overlap_by_one_token_and_stay_within_a_shard() {
    let (_folder, out) = prepared();
    let data = open(&out, 3, 256).unwrap();
    assert_eq!((data.windows(), data.tokens(), data.seq_len()), (6, 23, 3));
    let rows: Vec<String> = data.read(Stream::Main, 0, 7).unwrap().chunks(4).map(bytes::decode).collect();
    assert_eq!(rows, ["\0abc", "cdef", "hijk", "klmn", "pqrs", "stuv", "\0abc"]);
    let rows: Vec<String> = data.read(Stream::LineSearch, 1, 2).unwrap().chunks(4).map(bytes::decode).collect();
    assert_eq!(rows, ["pqrs", "klmn"]);
    assert_eq!(data.tokenizer().unwrap().name, bytes::NAME);
}

#[test]
fn shuffled_data_are_a_permutation_and_evaluation_is_fixed() {
    let (_folder, out) = prepared();
    let shuffled =
        |seed| Dataset::open(std::slice::from_ref(&out), Split::Train, 3, 256, Order::Shuffled { seed }).unwrap();
    let data = shuffled(3);
    let rows = |ids: Vec<i64>| ids.chunks(4).map(bytes::decode).collect::<Vec<_>>();
    let fixed = rows(data.read(Stream::Evaluation, 0, 6).unwrap());
    assert_eq!(fixed, rows(shuffled(4).read(Stream::Evaluation, 0, 6).unwrap()));
    let mut epoch = rows(data.read(Stream::Main, 6, 6).unwrap());
    assert_ne!(epoch, fixed);
    epoch.sort();
    let mut sorted = fixed.clone();
    sorted.sort();
    assert_eq!(epoch, sorted);
    assert_eq!(data.read(Stream::Evaluation, 6, 1).unwrap_err().exit, Exit::Data);
    assert_eq!(rows(data.read(Stream::Main, u64::MAX - 3, 2).unwrap()).len(), 2);
    assert_eq!(data.read(Stream::Main, u64::MAX, 2).unwrap_err().exit, Exit::Usage);
    assert_eq!(data.read(Stream::Main, 0, usize::MAX).unwrap_err().exit, Exit::Usage);
}

#[test]
fn refusals_of_a_data_set() {
    let (folder, out) = prepared();
    let text = |result: Result<Dataset>| {
        let fault = result.unwrap_err();
        assert_eq!(fault.exit, Exit::Data, "{fault}");
        fault.to_string().replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(
        text(open(&out, 8, 256)),
        "the train data are shorter than one sequence: found 8 tokens in the longest of 3 shards, expected at least 9 \
         for a sequence of 8; hint: prepare more text, or set a shorter sequence"
    );
    assert!(text(open(&out, usize::MAX, 256)).starts_with("the train data are shorter than one sequence"));
    assert!(
        text(open(&out, 3, 255))
            .contains("larger than the model's: found 256 ids of tokenizer `bytes`, expected at most 255")
    );
    assert!(text(open(&out.join("validation-00000.bin"), 3, 256)).contains("found validation, expected train"));
    assert!(
        text(open(&folder.path().join("texts"), 3, 256))
            .starts_with("`texts`: no train shards: expected files such as")
    );
    assert!(
        text(Dataset::open::<PathBuf>(&[], Split::Train, 3, 256, Order::Sequential)).starts_with("no token shards")
    );
    assert_eq!(open(&out, 0, 256).unwrap_err().exit, Exit::Usage);
    assert_eq!(open(&folder.path().join("gone"), 3, 256).unwrap_err().exit, Exit::Missing);
}

#[test]
fn ids_outside_the_vocabulary_are_named_by_shard_and_offset() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "train.bin", &shard_bytes(20240520, 1, 6, &ids16(&[1, 2, 3, 4, 300, 5])));
    let data = open(&path, 2, 256).unwrap();
    assert_eq!(data.read(Stream::Main, 0, 1).unwrap(), [1, 2, 3]);
    let line = "`train.bin`, offset 1032: a token id outside the vocabulary: found 300, expected below 256; hint: the \
                model's vocabulary must be that of the tokenizer that made the shards";
    refused(data.read(Stream::Main, 1, 1), folder.path(), line);
    assert!(open(&path, 2, 301).unwrap().read(Stream::Main, 1, 1).is_ok());
}

#[test]
fn shards_that_change_while_a_data_set_is_open_are_refused() {
    let (folder, out) = prepared();
    let path = out.join("train-00001.bin");
    let line = |data: &Dataset| {
        let fault = data.read(Stream::Main, 2, 1).unwrap_err();
        assert_eq!(fault.exit, Exit::Data);
        fault.to_string().replace(&format!("{}/", folder.path().display()), "")
    };
    let data = open(&out, 3, 256).unwrap();
    assert!(data.read(Stream::Main, 2, 1).is_ok());
    let good = fs::read(&path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1030).unwrap();
    assert_eq!(
        line(&data),
        "`out/train-00001.bin`, offset 1030: the shard changed since it was opened: found 1030 bytes, expected 1040 \
         bytes; hint: copy the file again, or prepare the data again"
    );
    fs::remove_file(&path).unwrap();
    assert!(line(&data).contains("`out/train-00001.bin`, offset 0: the shard is gone since it was opened"));
    assert!(data.read(Stream::Main, 0, 2).is_ok(), "the other shards are still read");
    fs::write(&path, &good).unwrap();
    assert!(data.read(Stream::Main, 2, 1).is_ok(), "the same bytes in another file are the same shard");
    let mut flipped = good;
    flipped[1030] ^= 1;
    fs::write(&path, &flipped).unwrap();
    assert!(line(&data).contains("offset 0: the shard is not what its sidecar says: found sha256"));
    assert!(line(&open(&out, 3, 256).unwrap()).contains("found sha256"), "a damaged shard is found at its first read");
}

#[test]
fn a_shard_cut_under_an_open_reader_is_an_error_with_its_offset() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "train.bin", &ids16(&[1; 100]));
    let shard = Shard::open(&path).unwrap();
    let mut reader = shard.reader().unwrap();
    File::options().write(true).open(&path).unwrap().set_len(50).unwrap();
    let mut ids = Vec::new();
    reader.read(0, 25, &mut ids).unwrap();
    let line = "`train.bin`, offset 40: the shard ends early: found the end of the file, expected 20 bytes from here; \
                hint: copy the file again, or prepare the data again";
    refused(reader.read(20, 10, &mut ids), folder.path(), line);
    assert_eq!(reader.read(95, 10, &mut ids).unwrap_err().exit, Exit::Internal);
    let other = file(&folder, "train.bin", &ids16(&[1; 100]));
    assert_eq!(other, path);
    File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let fault = shard.reader().unwrap_err().to_string();
    assert!(fault.contains("found another file or modification time"), "{fault}");
}

#[test]
fn files_beyond_four_gigabytes_are_read_by_64_bit_offsets() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "train.bin", &ids16(&[9; 1000]));
    let sparse = File::options().write(true).open(&path).unwrap();
    sparse.set_len(6 << 30).unwrap();
    sparse.write_all_at(&ids16(&[11, 12, 13]), (6 << 30) - 6).unwrap();
    let data = open(&path, 2, VOCAB).unwrap();
    let tokens = 3u64 << 30;
    assert_eq!((data.tokens(), data.windows()), (tokens, (tokens - 1) / 2));
    assert_eq!(data.read(Stream::LineSearch, 0, 1).unwrap(), [0, 11, 12]);
}

#[test]
fn verification_reports_every_problem() {
    let (folder, out) = prepared();
    let clean = verify(std::slice::from_ref(&out)).unwrap();
    assert!(clean.problems.is_empty());
    assert_eq!(
        clean.shards.iter().map(|s| (s.tokens, s.max_id)).collect::<Vec<_>>(),
        [(8, i64::from(b'g')), (8, i64::from(b'o')), (7, i64::from(b'v')), (8, 0xc3), (2, i64::from(b'e'))]
    );
    let mut bytes = fs::read(out.join("train-00000.bin")).unwrap();
    bytes[1029] = 1;
    fs::write(out.join("train-00000.bin"), bytes).unwrap();
    File::options().write(true).open(out.join("train-00001.bin")).unwrap().set_len(1039).unwrap();
    fs::remove_file(out.join("validation-00000.bin")).unwrap();
    let found = verify(std::slice::from_ref(&out)).unwrap();
    let lines: Vec<String> =
        found.problems.iter().map(|f| f.to_string().replace(&format!("{}/", folder.path().display()), "")).collect();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert!(lines[0].starts_with("`out/train-00000.bin`, offset 0: the shard is not what its sidecar says"));
    assert!(lines[1].starts_with("`out/train-00000.bin`, offset 1028: a token id outside the vocabulary: found 354"));
    assert!(lines[2].starts_with("`out/train-00001.bin`, offset 8: the header does not fit"));
    let missing = "`out`: shards of the validation split are missing: found 1 with sidecars, none for \
                   `validation-00000.bin`, expected 2";
    assert!(lines[3].starts_with(missing));
    assert!(found.problems.iter().all(|problem| problem.exit == Exit::Data));
    assert_eq!(found.outcome().unwrap_err().exit, Exit::Data);
    assert_eq!(verify(&[]).unwrap_err().exit, Exit::Data);
    assert_eq!(verify(&[out.join("gone")]).unwrap_err().exit, Exit::Missing);
}

#[test]
fn fingerprints_tell_data_apart_and_ignore_places() {
    let (_folder, out) = prepared();
    let (_other, same) = prepared();
    let print = |path: &Path, seq_len| open(path, seq_len, 256).unwrap().fingerprint();
    assert_eq!(print(&out, 3), print(&same, 2));
    assert_ne!(print(&out, 3), print(&out.join("train-00000.bin"), 3));
    let folder = tempfile::tempdir().unwrap();
    let mut ids = vec![1; 100_000];
    let first = print(&file(&folder, "train.bin", &ids16(&ids)), 3);
    ids[99_999] = 2;
    assert_ne!(first, print(&file(&folder, "train.bin", &ids16(&ids)), 3));
}

#[test]
fn a_mix_draws_by_weights_and_position_alone() {
    let folder = corpus(&[("a.txt", &"a".repeat(3000)), ("b.txt", &"b".repeat(999))]);
    let part = |name: &str| {
        let output = folder.path().join(name);
        let input = folder.path().join(format!("texts/{name}.txt"));
        prepare(&Prepare { validation_fraction: 0.0, ..Prepare::new(vec![input], output.clone()) }).unwrap();
        output
    };
    let (a, b) = (part("a"), part("b"));
    let weighted = |path: &Path, weight| {
        crate::config::ShardPath::Weighted(crate::config::Weighted { path: path.to_owned(), weight })
    };
    let open = |weights: [f64; 2], order| {
        Dataset::open(&[weighted(&a, weights[0]), weighted(&b, weights[1])], Split::Train, 3, 256, order).unwrap()
    };
    let order = Order::Shuffled { seed: 5 };
    let data = open([3.0, 1.0], order);
    assert_eq!((data.windows(), data.tokens()), (1000 + 333, 3001 + 1000));
    let all = data.read(Stream::Main, 0, 4000).unwrap();
    let of_b = all.chunks(4).filter(|row| row.contains(&i64::from(b'b'))).count();
    assert!((995..=1005).contains(&of_b), "{of_b} of 4000");
    for (first, count) in [(0, 1), (17, 30), (3999, 1), (4095, 3)] {
        let row = data.read(Stream::Main, first, count).unwrap();
        let expected = open([3.0, 1.0], order).read(Stream::Main, 0, first as usize + count).unwrap();
        assert_eq!(row, expected[4 * first as usize..], "a place does not depend on what was read before");
    }
    assert_eq!(data.read(Stream::Evaluation, 1000 + 332, 1).unwrap().len(), 4);
    assert_eq!(data.read(Stream::Evaluation, 1000 + 333, 1).unwrap_err().exit, Exit::Data);
    assert_eq!(open([6.0, 2.0], order).fingerprint(), data.fingerprint(), "only proportions count");
    let alone = Dataset::open(&[a.clone(), b.clone()], Split::Train, 3, 256, order).unwrap();
    assert!(open([1.0, 3.0], order).fingerprint() != data.fingerprint() && alone.fingerprint() != data.fingerprint());
    let gpt2 = folder.path().join("g");
    let tokenizer = tokenizer::Choice::Gpt2;
    let input = vec![folder.path().join("texts/a.txt")];
    prepare(&Prepare { validation_fraction: 0.0, tokenizer, ..Prepare::new(input, gpt2.clone()) }).unwrap();
    let two = Dataset::open(&[weighted(&a, 1.0), weighted(&gpt2, 1.0)], Split::Train, 3, 60_000, order);
    refused(two, folder.path(), "parts of a mix with two tokenizers: found `gpt2`, expected `bytes`");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn texts_come_back_whole(
        texts in prop::collection::btree_set("[^\0]{1,40}", 1..12), shard_tokens in 7u64..60, fraction in 0.0..0.9,
    ) {
        let names: Vec<String> = (0..texts.len()).map(|i| format!("{i:02}.txt")).collect();
        let pairs: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
        let folder = corpus(&pairs);
        let options = Prepare { shard_tokens, validation_fraction: fraction, ..options(&folder) };
        let summary = prepare(&options).unwrap();
        let mut found = Vec::new();
        for (split, size) in [(Split::Train, summary.train), (Split::Validation, summary.validation)] {
            if size.documents > 0 {
                let source = TokenSource::open(std::slice::from_ref(&options.output), split, 256).unwrap();
                prop_assert_eq!((source.tokens(), source.shards().len() as u64), (size.tokens, size.shards));
                let text = bytes::decode(&source.shards().iter().flat_map(all_ids).collect::<Vec<_>>());
                found.extend(text.split('\0').skip(1).map(str::to_owned));
            }
        }
        found.sort();
        prop_assert_eq!(found, texts.into_iter().collect::<Vec<_>>());
        prop_assert!(verify(&[options.output]).unwrap().problems.is_empty());
    }

    #[test]
    fn a_shard_of_every_layout_comes_back(ids in prop::collection::vec(any::<u32>(), 1..64)) {
        let folder = tempfile::tempdir().unwrap();
        for format in [Format::LlmC16, Format::LlmC32, Format::Headerless] {
            let most = if format == Format::LlmC32 { u32::MAX } else { u32::from(u16::MAX) };
            let ids: Vec<u32> = ids.iter().map(|id| id & most).collect();
            let body: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()[..if most == u32::MAX { 4 } else { 2 }].to_vec()).collect();
            let bytes = match format.magic_and_version() {
                Some((magic, version)) => shard_bytes(magic, version, ids.len() as i32, &body),
                None => body,
            };
            let shard = Shard::open(&file(&folder, "train.bin", &bytes)).unwrap();
            prop_assert_eq!(shard.format(), format);
            prop_assert_eq!(all_ids(&shard), ids.into_iter().map(i64::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_sidecar_comes_back(
        texts in prop::array::uniform4(".{0,12}"), numbers in prop::array::uniform5(any::<u64>()),
        vocab_size in any::<usize>(), [validation, hashed] in prop::array::uniform2(any::<bool>()), sha256 in "[0-9a-f]{64}", sources in 0..3_usize,
    ) {
        let ([gauntlet_version, format, dtype, name], [separator, shard, shards, tokens, documents]) = (texts, numbers);
        let sidecar = Sidecar {
            sidecar_version: 1,
            gauntlet_version,
            format,
            dtype,
            tokenizer: Tokenizer { name: name.clone(), vocab_size, separator, sha256: hashed.then(|| sha256.clone()) },
            split: if validation { Split::Validation } else { Split::Train },
            shard,
            shards,
            tokens,
            documents,
            text_bytes: hashed.then_some(tokens),
            sha256: sha256.clone(),
        };
        let source = |_| sidecar::Source { path: name.clone(), sha256: sha256.clone(), bytes: shard, tokens };
        let text = sidecar.to_json(&(0..sources).map(source).collect::<Vec<_>>()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        file(&folder, "train.json", text.as_bytes());
        prop_assert_eq!(Sidecar::beside(&folder.path().join("train.bin")).unwrap(), Some(sidecar));
    }

    #[test]
    fn any_bytes_are_a_shard_or_refused(start in prop::collection::vec(any::<u8>(), 0..16), size in 0usize..1100) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = start;
        bytes.resize(size, 0);
        let path = file(&folder, "train.bin", &bytes);
        if let Ok(shard) = Shard::open(&path) {
            all_ids(&shard);
        }
    }
}
