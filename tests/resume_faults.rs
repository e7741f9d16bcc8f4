//! Resuming from what is damaged, missing, or of another run: one line that says what, found, expected and a way out, the
//! exit code, and nothing lost.

use crate::built::{fixture, plugin};
use crate::corpus::{Run, play};
use crate::program::{Outcome, filtered, gauntlet};
use insta::assert_snapshot;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// Four of eight steps, with checkpoints after the second and the fourth.
fn stopped() -> Run {
    static RUN: LazyLock<Run> = LazyLock::new(|| {
        let run = Run::of(plugin("adam")).set("train.max_steps=8").set("ema.decay=0.9");
        let run = run.set("schedule.kind=linear").set("checkpoint={every_steps = 2, keep = 9}");
        let outcome = run.train_with(&["--set", "train.max_tokens=256"]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        run
    });
    RUN.copy()
}

/// Every file of the run's folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        match path.is_dir() {
            true => found.extend(contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes))),
            false => drop(found.insert(name, fs::read(path).unwrap())),
        }
    }
    found
}

/// Exit code and everything that is said beside progress.
fn said(outcome: &Outcome, folder: &Path) -> String {
    let lines =
        outcome.stderr.lines().filter(|line| ["error: ", "warning: ", "warn: "].iter().any(|p| line.starts_with(p)));
    let text = filtered(&lines.collect::<Vec<_>>().join("\n"), folder);
    format!("{}\n{text}\n", outcome.code)
}

/// A resume that is refused leaves the folder as it was.
fn refused(run: &Run, args: &[&str], code: i32) -> String {
    let before = contents(&run.file(""));
    let outcome = run.train_with(args);
    assert_eq!(outcome.code, code, "{args:?}: {}", outcome.stderr);
    assert!(contents(&run.file("")) == before, "{args:?}: a refused resume changed the run's folder");
    assert!(!outcome.stderr.contains("panicked") && !outcome.stderr.contains("RUST_BACKTRACE"), "{}", outcome.stderr);
    said(&outcome, run.folder.path())
}

#[test]
fn a_folder_that_another_process_runs_in() {
    let run = stopped();
    let lock = fs::File::open(run.file("")).unwrap();
    lock.lock().unwrap();
    assert_snapshot!(refused(&run, &["--resume", "auto"], 69), @r"
    69
    error: `run.dir`: another process runs in `run`; hint: wait for it, or choose another with `--set run.dir=DIR`
    ");
    drop(lock);
    assert_eq!(run.train_with(&["--resume", "auto"]).code, 0);
}

type Damage = fn(&Path);

/// What can happen to the newest checkpoint.
const DAMAGES: [(&str, Damage); 9] = [
    ("cut in half", |at| {
        let bytes = fs::read(at.join("params.safetensors")).unwrap();
        fs::write(at.join("params.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("one bit flipped", |at| {
        let mut bytes = fs::read(at.join("optimizer.safetensors")).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(at.join("optimizer.safetensors"), bytes).unwrap();
    }),
    ("a file missing", |at| fs::remove_file(at.join("ema.safetensors")).unwrap()),
    ("a file too many", |at| fs::write(at.join("notes.txt"), "x").unwrap()),
    ("a file empty", |at| fs::write(at.join("params.safetensors"), "").unwrap()),
    ("a file of another checkpoint", |at| {
        fs::copy(at.join("../step-2/params.safetensors"), at.join("params.safetensors")).unwrap();
    }),
    ("no manifest", |at| fs::remove_file(at.join("MANIFEST.json")).unwrap()),
    ("garbage for a manifest", |at| fs::write(at.join("MANIFEST.json"), "{").unwrap()),
    ("a newer format", |at| {
        let text = fs::read_to_string(at.join("MANIFEST.json")).unwrap();
        fs::write(at.join("MANIFEST.json"), text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
    }),
];

#[test]
fn damaged_checkpoints_are_refused_by_name_and_passed_over_by_auto() {
    let mut report = String::new();
    for (name, damage) in DAMAGES {
        let run = stopped();
        damage(&run.file("checkpoints/step-4"));
        let verified = gauntlet(run.folder.path(), &["checkpoint", "verify", "run"]);
        assert_eq!((verified.code, verified.stdout.as_str()), (76, "ok  run/checkpoints/step-2\n"), "{name}");
        report += &format!("# {name}\n{}", refused(&run, &["--resume", "run/checkpoints/step-4"], 76));
        let outcome = run.resume();
        assert_eq!(outcome.code, 0, "{name}: {}", outcome.stderr);
        assert_eq!(run.events("resumed").last().unwrap()["step"], 2, "{name}");
        assert!(run.file("checkpoints/step-4.damaged").exists(), "{name}: what was damaged is lost");
        gauntlet(run.folder.path(), &["checkpoint", "verify", "run"]).succeeded();
        assert!(run.saved(8, "params.safetensors") == straight().saved(8, "params.safetensors"), "{name}");
    }
    assert_snapshot!("damaged_checkpoints", report);
}

/// The run without a stop.
fn straight() -> &'static Run {
    static RUN: LazyLock<Run> = LazyLock::new(|| {
        let run = stopped();
        fs::remove_dir_all(run.file("")).unwrap();
        run.finished()
    });
    &RUN
}

#[test]
fn nothing_begins_anew_by_itself() {
    let run = stopped();
    let mut report = refused(&run, &["--resume", "run/checkpoints/step-3"], 76);
    report += &refused(&run, &["--resume", "run"], 76);
    report += &refused(&run, &["--resume", "run/checkpoints/step-2"], 76);
    report += &refused(&run, &[], 2);
    for step in [2, 4] {
        fs::write(run.file(&format!("checkpoints/step-{step}/params.safetensors")), "").unwrap();
    }
    report += &refused(&run, &["--resume", "auto"], 76);
    assert_snapshot!("nothing_begins_anew", report);
    let fresh = Run::of(plugin("adam"));
    let outcome = fresh.resume();
    assert_eq!(outcome.code, 0);
    assert!(outcome.stderr.contains("no checkpoint: begins at the start\n"), "{}", outcome.stderr);
}

#[test]
fn a_run_that_is_complete_is_left_as_it_is() {
    let run = stopped();
    assert_eq!(run.resume().code, 0);
    let before = contents(&run.file(""));
    let outcome = run.resume();
    let lines = "the run was already complete after 8 steps (max_steps): nothing to do\n\
                 exit code=0 reason=max_steps last_checkpoint=run/checkpoints/step-8 step=8\n";
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, lines));
    assert!(contents(&run.file("")) == before);
}

/// Every way in which a configuration can differ from the checkpoint's, and the flag that allows it.
#[test]
fn a_checkpoint_of_another_run_is_refused_with_all_that_differs() {
    let other = other_data();
    let data = format!("data.train={}", other.display());
    let table: [(&str, Vec<&str>); 12] = [
        ("width", vec!["model.width=32"]),
        ("more layers", vec!["model.num_layers=4"]),
        ("a tied head", vec!["model.tied_head=true"]),
        ("the model's numbers", vec!["model.rope_theta=500.0", "model.norm_eps=1e-4"]),
        ("batch and sequence", vec!["data.batch_size=2", "data.seq_len=8"]),
        ("order and seed", vec!["data.order=sequential", "run.seed=1"]),
        ("other data", vec![&data]),
        ("schedule", vec!["schedule.kind=cosine", "schedule.warmup_steps=2"]),
        ("the end, and so the schedule", vec!["train.max_steps=9"]),
        ("average", vec!["ema.decay=0.5"]),
        ("the optimizer's keys", vec!["optimizer.config.lr=0.5", "optimizer.config.betas=[0.5, 0.5]"]),
        ("several at once", vec!["run.dtype=f64", "train.micro_batch_size=2", "optimizer.config.eps=1e-6"]),
    ];
    let (run, mut report) = (stopped(), String::new());
    for (name, sets) in table {
        let args: Vec<&str> =
            ["--resume", "auto"].into_iter().chain(sets.into_iter().flat_map(|set| ["--set", set])).collect();
        report += &format!("# {name}\n{}", refused(&run, &args, 76));
    }
    assert_snapshot!("another_run", report);
}

/// Shards of another text.
fn other_data() -> std::path::PathBuf {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("texts")).unwrap();
        fs::write(folder.path().join("texts/a.md"), play(9, 100)).unwrap();
        let args = ["data", "prepare", "texts", "--out", "shards", "--validation-fraction", "0"];
        let prepared = gauntlet(folder.path(), &args);
        assert_eq!(prepared.code, 0, "{}", prepared.stderr);
        folder
    });
    FOLDER.path().join("shards")
}

fn manifest(run: &Run, step: u64) -> Value {
    serde_json::from_slice(&run.saved(step, "MANIFEST.json")).unwrap()
}

#[test]
fn what_the_user_allows_is_done_said_and_remembered() {
    let run = stopped();
    let sets = ["--set", "data.batch_size=2", "--set", "schedule.kind=cosine"];
    let allow = ["--resume", "auto", "--allow-change", "data.batch_size", "--allow-change", "schedule"];
    let outcome = run.train_with(&[&sets[..], &allow[..]].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_snapshot!("allowed", said(&outcome, run.folder.path()));
    assert_eq!(&run.by_step("tokens")[4..], [288.0, 320.0, 352.0, 384.0], "the place in the data is kept in sequences");
    let cosine = |x: f64| 0.5 * (1.0 + (std::f64::consts::PI * x / 8.0).cos());
    let (found, expected) = (run.by_step("schedule"), [4.0, 5.0, 6.0, 7.0].map(cosine));
    assert!(found[4..].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    let change = |key: &str, saved: Value, now: Value| json!({ "step": 4, "key": key, "saved": saved, "now": now });
    let changes = json!([
        change("data.batch_size", 4.into(), 2.into()),
        change("schedule.kind", "linear".into(), "cosine".into()),
    ]);
    assert_eq!(manifest(&run, 8)["changes"], changes);
}

#[test]
fn keys_that_change_nothing_of_the_course_are_allowed_and_listed() {
    let run = stopped();
    let sets = ["--set", "eval.every_steps=2", "--set", "checkpoint.keep=5"];
    let outcome = run.train_with(&[&["--resume", "auto"], &sets[..]].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let listed: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("with a change")).collect();
    let expected = ["`checkpoint.keep`: 9 to 5", "`eval.every_steps`: 100 to 2", "`train.max_tokens`: 256 to nothing"];
    let expected = expected.map(|change| format!("info: resumed with a change: {change}"));
    assert_eq!(listed, expected);
}

#[test]
fn a_shorter_sequence_goes_on_at_the_same_token() {
    let run = stopped();
    let outcome = run.train_with(&["--resume", "auto", "--set", "data.seq_len=8", "--allow-change", "data.seq_len"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(&run.by_step("tokens")[4..], [288.0, 320.0, 352.0, 384.0]);
    assert_eq!(manifest(&run, 8)["sequences"]["step"], 48, "16 of 16 tokens are 32 of 8, and 16 more");
}

#[test]
fn flags_allow_what_they_name_and_nothing_else() {
    let (run, mut report) = (stopped(), String::new());
    let sgd = format!("optimizer.plugin={}", plugin("sgd").display());
    let table: [&[&str]; 6] = [
        &["--set", "data.seq_len=8", "--allow-change", "data.seqlen"],
        &["--set", "data.seq_len=8", "--set", "run.seed=1", "--allow-change", "data"],
        &["--set", "model.width=32", "--allow-change", "model"],
        &["--set", "run.dtype=f64", "--allow-change", "run.dtype"],
        &["--set", &sgd, "--set", "optimizer.config={lr = 0.1}"],
        &["--set", &sgd, "--set", "optimizer.config={lr = 0.1}", "--allow-change", "optimizer"],
    ];
    for args in table {
        let code = if args.contains(&"data.seqlen") { 2 } else { 76 };
        report += &refused(&run, &[&["--resume", "auto"], args].concat(), code);
    }
    assert_snapshot!("flags", report);
    let without = run.train_with(&["--allow-change", "data"]);
    assert!(without.code == 2 && without.stderr.contains("--resume"), "{}", without.stderr);
    let reset = run.train_with(&[
        "--resume",
        "auto",
        "--set",
        &sgd,
        "--set",
        "optimizer.config={lr = 0.1}",
        "--reset-optimizer",
    ]);
    assert_eq!(reset.code, 0, "{}", reset.stderr);
    assert_snapshot!("reset_optimizer", said(&reset, run.folder.path()));
    assert_eq!(manifest(&run, 8)["optimizer"]["name"], "sgd");
}

/// Changes the manifest as an older or another machine would have written it.
fn rewrite(at: &Path, change: impl FnOnce(&mut Value)) {
    let path = at.join("MANIFEST.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    let mut own = value.clone();
    own.as_object_mut().unwrap().remove("checksum");
    value["checksum"] = hash(own.to_string().as_bytes()).into();
    fs::write(path, value.to_string()).unwrap();
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn another_file_of_the_plugin_needs_a_word() {
    let run = stopped();
    rewrite(&run.file("checkpoints/step-4"), |manifest| {
        manifest["identity"]["optimizer"]["sha256"] = "0".repeat(64).into();
        manifest["identity"]["optimizer"]["version"] = "0.0.9".into();
    });
    assert_snapshot!("plugin_change", refused(&run, &["--resume", "auto"], 76));
    let outcome = run.train_with(&["--resume", "auto", "--allow-plugin-change"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let changes = manifest(&run, 8)["changes"].clone();
    let keys: Vec<&str> = changes.as_array().unwrap().iter().map(|change| change["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["optimizer.sha256", "optimizer.version"]);
    assert!(run.saved(8, "params.safetensors") == straight().saved(8, "params.safetensors"));
}

#[test]
fn another_machine_is_allowed_and_said() {
    let run = stopped();
    rewrite(&run.file("checkpoints/step-4"), |manifest| {
        manifest["libtorch"] = "2.12.0".into();
        manifest["machine"]["threads"] = 64.into();
    });
    let outcome = run.resume();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_snapshot!("another_machine", said(&outcome, run.folder.path()));
}

/// Lets a checkpoint hold a NaN, its manifest in order.
fn poison(at: &Path) {
    let file = at.join("params.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, &bytes).unwrap();
    rewrite(at, |manifest| manifest["files"]["params.safetensors"]["sha256"] = hash(&bytes).into());
}

#[test]
fn values_that_are_not_finite_are_taken_only_by_their_name() {
    let run = stopped();
    poison(&run.file("checkpoints/step-4"));
    let report = refused(&run, &["--resume", "auto"], 76);
    let taken = run.train_with(&["--resume", "auto", "--allow-nonfinite"]);
    assert_eq!(taken.code, 79, "what is not finite is not trained on: {}", taken.stderr);
    assert!(!run.file("checkpoints/step-5").exists() && !run.file("checkpoints/step-6").exists());
    assert_snapshot!("nonfinite", report + &said(&taken, run.folder.path()));
}

#[test]
fn what_is_not_finite_is_never_committed() {
    let run = Run::of(fixture("misbehaving")).set("data.validation=[]");
    let run = run.set("optimizer.config.mode=nan-evaluation-params");
    let outcome = run.train();
    assert_eq!(outcome.code, 79, "{}", outcome.stderr);
    assert_snapshot!("never_committed", said(&outcome, run.folder.path()));
    assert_eq!(run.events("checkpoint_failed").len(), 1);
    assert!(gauntlet(run.folder.path(), &["checkpoint", "list", "run"]).code == 76);
}

#[test]
fn the_middle_of_a_step_goes_on_as_it_was_or_not_at_all() {
    let run = Run::of(fixture("misbehaving")).set("optimizer.config={long = true, mode = 'terminate', batches = [1]}");
    assert_eq!(run.train().code, 75);
    let mut report = refused(&run, &["--resume", "auto", "--reset-optimizer"], 76);
    report += &refused(&run, &["--resume", "auto", "--set", "data.batch_size=2", "--allow-change", "data"], 76);
    assert_snapshot!("middle_of_a_step", report);
    assert_eq!(run.resume().code, 0);
}
