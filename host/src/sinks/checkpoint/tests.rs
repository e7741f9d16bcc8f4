//! What is written is read back exactly, and nothing that was damaged or made up gets through.

use super::*;
use crate::error::Result;
use gauntlet_plugin_abi::{DType, StateKind};
use gauntlet_plugin_api::backend::{SavedEntry, SavedState, SavedTensor};
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use tch::{Device, Tensor};

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        gauntlet: "0.1.0".into(),
        libtorch: "2.13.0".into(),
        step: 4,
        part: 0,
        sequences: [("step".into(), 16)].into(),
        sequences_before: BTreeMap::new(),
        flops: 1e9,
        skipped: vec![],
        ema_updated: false,
        seq_len: 16,
        micro_batch_size: 4,
        seed: 0,
        model: ModelConfig::preset("tiny").unwrap(),
        optimizer: OptimizerInfo {
            name: "adam".into(),
            version: "0.1.0".into(),
            sha256: "0".repeat(64),
            state_version: 0,
        },
        data: "d".repeat(64),
        tokenizer: Some("bytes".into()),
        evaluate_at: "params".into(),
        validation_loss: Some(1.5),
        identity: Value::Null,
        machine: Machine::default(),
        changes: vec![],
        files: BTreeMap::new(),
        checksum: String::new(),
    }
}

/// A state in each element type that a plugin may use: bfloat16 moments beside 32-bit parameters are ordinary.
fn state() -> SavedState {
    let types = [(DType::F32, 4), (DType::F64, 8), (DType::I64, 8), (DType::BF16, 2), (DType::F16, 2)];
    let tensor = |(index, (dtype, size)): (usize, (DType, usize))| SavedTensor {
        name: format!("t{index}"),
        dtype,
        shape: vec![2, 3],
        bytes: (0..6 * size as u8).map(|byte| byte.wrapping_mul(37)).collect(),
    };
    let tensors = types.into_iter().enumerate().map(tensor).collect();
    let params = SavedEntry { name: "moments".into(), kind: StateKind::PARAMS, tensors, bytes: vec![] };
    let bytes = f64::NAN.to_le_bytes().to_vec();
    let plain = SavedEntry { name: "a number".into(), kind: StateKind::F64, tensors: vec![], bytes };
    SavedState { schema_version: 3, entries: vec![params, plain] }
}

/// A small checkpoint in a folder of its own.
fn committed() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let params = vec![copied("a", &Tensor::from_slice(&[1.0_f32, -2.5, f32::MIN_POSITIVE])).unwrap()];
    let snapshot = Snapshot { manifest: manifest(), lists: vec![("params", params)], optimizer: state() };
    let (path, bytes) = save(folder.path(), &snapshot).unwrap();
    let on_disk: u64 = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(bytes, on_disk);
    (folder, path)
}

/// Opens a checkpoint as a resumed run does: manifest, hashes, tensors, state.
fn read(path: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(path)?;
    checkpoint.verify()?;
    checkpoint.tensors("params", &["a".to_owned()], Device::Cpu)?;
    checkpoint.optimizer().map(drop)
}

/// The refusal of a damaged checkpoint, which must name a file of it.
fn refused(path: &Path) -> String {
    let fault = read(path).unwrap_err();
    assert_eq!(fault.exit, Exit::Checkpoint, "{fault}");
    let line = fault.to_string();
    assert!(line.starts_with(&format!("`{}", path.display())), "{line}");
    line
}

const FILES: [&str; 3] = [MANIFEST, "optimizer.safetensors", "params.safetensors"];

#[test]
fn every_element_type_and_every_number_comes_back_as_it_was() {
    let (_folder, path) = committed();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.optimizer().unwrap(), state());
    let params = checkpoint.tensors("params", &["a".to_owned()], Device::Cpu).unwrap();
    assert_eq!(Vec::<f32>::try_from(&params[0]).unwrap(), [1.0, -2.5, f32::MIN_POSITIVE]);
}

#[test]
fn equal_states_give_equal_bytes() {
    let ((_a, first), (_b, second)) = (committed(), committed());
    for file in FILES {
        assert!(fs::read(first.join(file)).unwrap() == fs::read(second.join(file)).unwrap(), "{file}");
    }
}

#[test]
fn a_file_cut_anywhere_is_noticed() {
    let (_folder, path) = committed();
    for file in FILES {
        let whole = fs::read(path.join(file)).unwrap();
        let sixteenths = (0..16).map(|part| whole.len() * part / 16);
        for length in sixteenths.chain([whole.len() - 1]) {
            fs::write(path.join(file), &whole[..length]).unwrap();
            let line = refused(&path);
            assert!(line.contains(file), "{line}");
        }
        fs::write(path.join(file), [&whole[..], b"x"].concat()).unwrap();
        assert!(refused(&path).contains(file));
        fs::write(path.join(file), whole).unwrap();
    }
    read(&path).unwrap();
}

fn any_json() -> impl Strategy<Value = Value> {
    let number = any::<f64>().prop_filter("JSON holds it", |number| number.is_finite());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        number.prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4).prop_map(|table| table.into_iter().collect()),
        ]
    })
}

/// Manifests of every kind of value that a run writes, with their checksums.
fn any_manifest() -> impl Strategy<Value = Manifest> {
    let number = || any::<f64>().prop_filter("JSON holds it", |number| number.is_finite());
    let counts = || prop::collection::btree_map(".{0,8}", any::<u64>(), 0..4);
    let file = (any::<u64>(), "[0-9a-f]{64}").prop_map(|(bytes, sha256)| FileInfo { bytes, sha256 });
    let files = prop::collection::btree_map("[a-z][a-z0-9._-]{0,12}", file, 0..4);
    let changes = prop::collection::vec((any::<u64>(), ".{0,8}", any_json(), any_json()), 0..3);
    let plain = (any::<[u64; 3]>(), any::<[usize; 3]>(), any::<[bool; 2]>(), prop::array::uniform5(".{0,8}"));
    let nested = (counts(), counts(), prop::collection::vec(any::<u64>(), 0..4), any_json(), changes, files);
    (plain, nested, number(), proptest::option::of(number())).prop_map(|(plain, nested, flops, validation_loss)| {
        let ([step, part, seed], [seq_len, micro_batch_size, threads], [ema_updated, tokenizer], texts) = plain;
        let (sequences, sequences_before, skipped, identity, changes, files) = nested;
        let [gauntlet, data, evaluate_at, device, processor] = texts;
        let change = |(step, key, saved, now)| Change { step, key, saved, now };
        let mut manifest = Manifest {
            gauntlet,
            step,
            part,
            sequences,
            sequences_before,
            flops,
            skipped,
            ema_updated,
            seq_len,
            micro_batch_size,
            seed,
            data: data.clone(),
            tokenizer: tokenizer.then_some(data),
            evaluate_at,
            validation_loss,
            identity,
            machine: Machine { device, processor, threads },
            changes: changes.into_iter().map(change).collect(),
            files,
            ..manifest()
        };
        manifest.checksum = manifest.own_checksum();
        manifest
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_manifest_comes_back(manifest in any_manifest()) {
        let text = serde_json::to_vec_pretty(&manifest).unwrap();
        prop_assert_eq!(Manifest::parse(Path::new(MANIFEST), &text).unwrap(), manifest);
    }

    /// A space of the manifest may become another one; nothing else may change.
    #[test]
    fn a_flipped_bit_is_noticed(which in 0..3_usize, place in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let (_folder, path) = committed();
        let file = path.join(FILES[which]);
        let mut bytes = fs::read(&file).unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&file, bytes).unwrap();
        match read(&path) {
            Ok(()) => {
                let found = Checkpoint::open(&path).unwrap().manifest;
                let same = Manifest { files: BTreeMap::new(), checksum: String::new(), ..found } == manifest();
                prop_assert!(which == 0 && same);
            }
            Err(fault) => {
                let line = fault.to_string();
                let known = which == 0 || line.contains("has changed since it was written: found sha256 ");
                prop_assert!(known && fault.exit == Exit::Checkpoint && line.contains(FILES[which]), "{}", line);
            }
        }
    }
}

#[test]
fn files_that_are_missing_extra_empty_swapped_or_no_files_are_named() {
    type Damage = fn(&Path);
    let table: [(&str, Damage); 7] = [
        ("cannot be read: found no such file or directory", |path| fs::remove_file(path.join(FILES[2])).unwrap()),
        ("not in the manifest; hint: remove it", |path| fs::write(path.join("extra.bin"), b"x").unwrap()),
        ("has another size than when it was written: found 0 bytes", |path| {
            fs::write(path.join(FILES[2]), b"").unwrap()
        }),
        ("has another size than when it was written", |path| {
            fs::copy(path.join(FILES[1]), path.join(FILES[2])).unwrap();
        }),
        ("cannot be read: found not a plain file", |path| {
            fs::remove_file(path.join(FILES[2])).unwrap();
            fs::create_dir(path.join(FILES[2])).unwrap();
        }),
        ("cannot be read: found too many levels of symbolic links", |path| {
            fs::rename(path.join(FILES[2]), path.with_extension("moved")).unwrap();
            std::os::unix::fs::symlink(path.with_extension("moved"), path.join(FILES[2])).unwrap();
        }),
        ("is no checkpoint: found no `MANIFEST.json` that can be read", |path| {
            fs::remove_file(path.join(MANIFEST)).unwrap();
            fs::create_dir(path.join(MANIFEST)).unwrap();
        }),
    ];
    for (expected, damage) in table {
        let (_folder, path) = committed();
        damage(&path);
        let line = refused(&path);
        assert!(line.contains(expected), "no `{expected}` in {line}");
    }
}

/// Replaces a file and its entry in the manifest, as one who wants to be believed would.
fn forge(path: &Path, file: &str, bytes: &[u8]) {
    fs::write(path.join(file), bytes).unwrap();
    vouch(path, file, bytes);
}

/// Lets the manifest name a file.
fn vouch(path: &Path, file: &str, bytes: &[u8]) {
    let text = fs::read(path.join(MANIFEST)).unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&text).unwrap();
    manifest.files.insert(file.into(), FileInfo { bytes: bytes.len() as u64, sha256: digest(bytes) });
    manifest.checksum = manifest.own_checksum();
    fs::write(path.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// Headers that lie, each with a manifest that vouches for them.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let tensor = |text: &str| safetensors(&format!("{{\"a\":{text}}}"), &[0; 12]);
    let many: Vec<String> =
        (0..100_000).map(|i| format!("\"t{i}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}")).collect();
    let nested = format!("{{\"a\":{}", "[".repeat(200_000));
    vec![
        ("empty", vec![]),
        ("a length of 2^63", [&(1_u64 << 63).to_le_bytes()[..], b"{}"].concat()),
        ("a length beyond the file", [&1000_u64.to_le_bytes()[..], b"{}"].concat()),
        ("a length beyond the cap", [&(200_u64 << 20).to_le_bytes()[..], b"{}"].concat()),
        ("not UTF-8", [&2_u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
        ("not JSON", safetensors("{\"a\":", &[])),
        ("deep nesting", safetensors(&nested, &[])),
        ("offsets beyond the file", tensor(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,99]}"#)),
        ("offsets backwards", tensor(r#"{"dtype":"F32","shape":[3],"data_offsets":[12,0]}"#)),
        ("a hole before", tensor(r#"{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#)),
        ("a rest behind", tensor(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#)),
        ("a shape that overflows", tensor(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,12]}"#)),
        ("a shape of another size", tensor(r#"{"dtype":"F32","shape":[30],"data_offsets":[0,12]}"#)),
        ("a negative shape", tensor(r#"{"dtype":"F32","shape":[-3],"data_offsets":[0,12]}"#)),
        ("an unknown type", tensor(r#"{"dtype":"F33","shape":[3],"data_offsets":[0,12]}"#)),
        ("a type that is not ours", tensor(r#"{"dtype":"I32","shape":[3],"data_offsets":[0,12]}"#)),
        (
            "overlapping tensors",
            safetensors(
                r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}"#,
                &[0; 12],
            ),
        ),
        (
            "one name twice",
            safetensors(
                r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"a":{"dtype":"F32","shape":[3],"data_offsets":[12,24]}}"#,
                &[0; 24],
            ),
        ),
        ("another name", safetensors(r#"{"b":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}"#, &[0; 12])),
        ("100,000 entries", safetensors(&format!("{{{}}}", many.join(",")), &[])),
    ]
}

/// Seconds that this thread has computed.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[test]
fn hostile_headers_end_in_a_line_at_once() {
    let (_folder, path) = committed();
    let params = fs::read(path.join(FILES[2])).unwrap();
    for (name, bytes) in hostile() {
        for file in [FILES[2], FILES[1]] {
            forge(&path, file, &bytes);
            let before = cpu_time();
            let line = refused(&path);
            // A bound against what grows without limit, not a measurement: a refusal takes milliseconds.
            assert!(cpu_time() - before < 1.0 && line.len() < 1000, "{name}: {line}");
            assert!(line.contains(file), "{name}: {line}");
            forge(&path, FILES[2], &params);
        }
    }
}

#[test]
fn a_tensor_without_elements_is_read_as_it_is() {
    let (_folder, path) = committed();
    let empty = safetensors(r#"{"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}}"#, &[]);
    forge(&path, FILES[2], &empty);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let tensors = checkpoint.tensors("params", &["a".to_owned()], Device::Cpu).unwrap();
    assert_eq!(tensors[0].size(), [0, 7]);
}

#[test]
fn a_manifest_names_files_of_its_own_folder_only() {
    for name in ["../params.safetensors", "/etc/passwd", "a/b", ".hidden", "", "a\nb", &"a".repeat(129), "\u{e9}"] {
        let (_folder, path) = committed();
        vouch(&path, name, b"");
        let line = refused(&path);
        assert!(line.contains("names a file that cannot be of a checkpoint: found `"), "{line}");
    }
}

#[test]
fn manifests_that_are_damaged_or_of_a_later_version_are_refused() {
    let (_folder, path) = committed();
    let text = String::from_utf8(fs::read(path.join(MANIFEST)).unwrap()).unwrap();
    let later = text.replacen("\"format\": 1", "\"format\": 2", 1);
    let table = [
        (String::new(), "damaged: found EOF"),
        ("{}".into(), "damaged: found missing field"),
        ("[".repeat(100_000), "damaged: found invalid type: sequence"),
        (text.replacen("\"step\": 4", "\"step\": 5", 1), "has changed since it was written"),
        (text.replacen("\"step\": 4", "\"step\": -4", 1), "damaged: found invalid value"),
        (later, "written by a newer version: found format 2, expected at most 1; hint: update gauntlet"),
    ];
    for (text, expected) in table {
        fs::write(path.join(MANIFEST), text).unwrap();
        let line = refused(&path);
        assert!(line.contains(expected), "no `{expected}` in {line}");
    }
}

#[test]
fn a_damaged_checkpoint_is_set_aside_under_a_free_name() {
    let folder = tempfile::tempdir().unwrap();
    for expected in ["step-4.damaged", "step-4.damaged-2", "step-4.damaged-3"] {
        let path = folder.path().join("step-4");
        fs::create_dir(&path).unwrap();
        assert_eq!(set_aside(&path).unwrap(), folder.path().join(expected));
    }
    assert!(list(folder.path()).unwrap().is_empty());
}
