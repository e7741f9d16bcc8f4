//! Wrong configurations through the whole program: every problem at once, a line each with its layer, key, found and
//! expected; exit code 2 (66 for a file that cannot be read), and nothing written.

use crate::built::{GAUNTLET, plugin};
use crate::corpus::Run;
use crate::program::{Outcome, filtered, gauntlet, outcome, without_own};
use insta::assert_snapshot;
use std::fs;
use std::path::Path;
use std::process::Command;

fn said(outcome: &Outcome, folder: &Path) -> String {
    assert!(!outcome.stderr.contains("panicked") && !outcome.stderr.contains("RUST_BACKTRACE"), "{}", outcome.stderr);
    filtered(&outcome.stderr, folder)
}

/// What `train` and `config check` say; both must say the same.
fn refused(run: &Run, sets: &[&str], code: i32) -> String {
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let trained = run.train_with(&sets);
    assert_eq!(trained.code, code, "{sets:?}: {}", trained.stderr);
    assert!(!run.file("").exists(), "{sets:?}: the run's folder was made");
    let check = [&["config", "check", "--config", "run.toml"], &sets[..]].concat();
    let checked = gauntlet(run.folder.path(), &check);
    assert_eq!((checked.code, &checked.stderr), (code, &trained.stderr), "{sets:?}");
    said(&trained, run.folder.path())
}

#[test]
fn problems_of_keys_types_ranges_and_conflicts() {
    let adam = || Run::of(plugin("adam"));
    let table: [(&str, &[&str]); 9] = [
        ("unknown keys", &["train.max_step=3", "modle.width=8", "model.widht=8", "optimizer.config.beta=[0.9, 0.9]"]),
        ("depth", &["optimizer.config.groups=[{roles = ['norm'], set = {weigth_decay = 0.0}}]"]),
        ("of another section", &["optimizer.lr=0.1", "train.batch_size=4", "seed=3"]),
        ("types", &["train.max_steps='4'", "run.threads=1.5", "metrics.enabled=1", "optimizer.config.lr=fast"]),
        ("ranges", &["data.batch_size=0", "ema.decay=1.5", "train.target_loss=-1", "run.seed=-1", "checkpoint.keep=0"]),
        (
            "numbers beyond all",
            &["train.target_loss=1e999", "optimizer.config.lr=nan", "run.seed=99999999999999999999"],
        ),
        (
            "conflicts",
            &[
                "schedule.warmup_steps=9",
                "train.micro_batch_size=5",
                "train.max_skips=200",
                "data.validation=[]",
                "train.target_loss=1.0",
            ],
        ),
        ("conflicts of the model", &["model.num_heads=3", "model.num_kv_heads=5"]),
        (
            "all kinds at once",
            &[
                "run.sed=1",
                "data.batch_size=many",
                "schedule.warmup_steps=9",
                "model.num_heads=3",
                "optimizer.config.epsilon=1e-8",
            ],
        ),
    ];
    let report: String = table.iter().map(|(name, sets)| format!("# {name}\n{}", refused(&adam(), sets, 2))).collect();
    assert_snapshot!("keys_types_ranges_conflicts", report);
}

#[test]
fn a_plugin_refuses_what_its_schema_cannot_say() {
    let run = Run::of(plugin("adam")).set("optimizer.config.lr=-1");
    let outcome = run.train();
    assert_eq!((outcome.code, run.file("").exists()), (2, false));
    assert_snapshot!(said(&outcome, run.folder.path()), @"error: plugin `adam`: `optimizer.config.lr`: must be > 0, got -1");
}

/// A configuration file of these bytes after the run's own.
fn with_file(bytes: &[u8]) -> Run {
    let run = Run::of(plugin("adam"));
    fs::write(run.folder.path().join("more.toml"), bytes).unwrap();
    run
}

#[test]
fn files_that_are_no_configuration() {
    let large = vec![b'#'; 2 << 20];
    let nested = format!("x = {}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let table: [(&str, &[u8]); 9] = [
        ("no TOML", b"[run\nseed = 1\n"),
        ("a value without an end", b"[run]\ndir = \"x\n"),
        ("a key twice", b"[run]\nseed = 1\nseed = 2\n"),
        ("a table twice", b"[run]\nseed = 1\n[run]\nthreads = 1\n"),
        ("a null byte", b"[run]\nseed = \0\n"),
        ("not UTF-8", b"[run]\nseed = 1\ndir = \"\xff\"\n"),
        ("UTF-16", b"\xff\xfe[\0r\0u\0n\0]\0"),
        ("too large", &large),
        ("nested without end", nested.as_bytes()),
    ];
    let mut report = String::new();
    for (name, bytes) in table {
        let run = with_file(bytes);
        let outcome = run.train_with(&["--config", "more.toml"]);
        assert_eq!((outcome.code, outcome.errors().len(), run.file("").exists()), (2, 1, false), "{name}");
        assert!(outcome.stderr.len() < 500, "{name}: {}", outcome.stderr);
        report += &format!("# {name}\n{}", said(&outcome, run.folder.path()));
    }
    let folder = with_file(b"").train_with(&["--config", "."]);
    assert_eq!(folder.code, 66);
    report += &format!("# a folder\n{}", said(&folder, Path::new("/nowhere")));
    assert_snapshot!("files", report);
    for fine in [&b"\xef\xbb\xbf[run]\r\nseed = 3\r\n"[..], b"# nothing\n", b""] {
        let run = with_file(fine).set("train.max_steps=1");
        assert_eq!(run.train_with(&["--config", "more.toml"]).code, 0, "{fine:?}");
    }
}

/// The program with variables in its environment.
fn with_variables(run: &Run, args: &[&str], variables: &[(&str, &str)]) -> Outcome {
    outcome(
        without_own(&mut Command::new(GAUNTLET))
            .args(args)
            .current_dir(run.folder.path())
            .envs(variables.iter().copied()),
    )
}

#[test]
fn variables_are_layers_too() {
    let run = Run::of(plugin("adam"));
    let args = ["config", "check", "--config", "run.toml"];
    let wrong = [("GAUNTLET_SEED", "1"), ("GAUNTLET_RUN__SEDE", "1"), ("GAUNTLET_DATA__BATCH_SIZE", "x")];
    let refused = with_variables(&run, &args, &wrong);
    assert_eq!(refused.code, 2);
    assert_snapshot!("variables", said(&refused, run.folder.path()));
    assert_eq!(with_variables(&run, &args, &[("GAUNTLET_RUN__SEED", "1"), ("GAUNTLET_CACHE", "/tmp")]).code, 0);
}

#[test]
fn the_layer_that_wins_is_named() {
    let run = Run::of(plugin("adam"));
    fs::write(run.folder.path().join("more.toml"), "[run]\nseed = 2\n[eval]\nbatches = 3\n[train]\nmax_steps = 7\n")
        .unwrap();
    let files = ["config", "show", "--origin", "--config", "run.toml", "--config", "more.toml"];
    let args = [&files[..], &["--set", "eval.batches=5"]].concat();
    let shown =
        with_variables(&run, &args, &[("GAUNTLET_RUN__SEED", "4"), ("GAUNTLET_EVAL__BATCHES", "4")]).succeeded();
    for line in [
        "run.seed = 4  # environment `GAUNTLET_RUN__SEED`",
        "eval.batches = 5  # --set eval.batches=5",
        "train.max_steps = 7  # more.toml",
        "data.seq_len = 16  # run.toml",
        "run.grace_seconds = 25  # default",
        "model.rope_theta = 10000.0  # preset `tiny`",
    ] {
        assert!(shown.lines().any(|found| found == line), "no `{line}` in:\n{shown}");
    }
}

#[test]
fn paths_that_are_none_and_folders_that_are_taken() {
    let long = format!("run.dir=/{}", "a/".repeat(2048));
    let table: [&[&str]; 4] = [&["run.dir=~/runs"], &["run.dir=\"a\\nb\""], &["data.train=[\"x\\u0000\"]"], &[&long]];
    let mut report: String = table.iter().map(|sets| refused(&Run::of(plugin("adam")), sets, 2)).collect();
    report = report.replace(&"a/".repeat(40), "a/");
    let run = Run::of(plugin("adam")).set("train.max_steps=1").finished();
    let before = fs::read(run.file("events.jsonl")).unwrap();
    let again = run.train();
    assert_eq!(again.code, 2);
    assert_eq!(fs::read(run.file("events.jsonl")).unwrap(), before, "the run that is there was touched");
    report += &said(&again, run.folder.path());
    let shallow = gauntlet(run.folder.path(), &["train", "--config", "nowhere.toml", "--config", "neither.toml"]);
    assert_eq!((shallow.code, shallow.errors().len()), (66, 2));
    report += &said(&shallow, run.folder.path());
    assert_snapshot!("paths", report);
}

#[test]
fn more_evaluation_than_data_is_refused_before_the_run_begins() {
    let run = Run::of(plugin("adam")).set("eval.batches=100000");
    let outcome = run.train();
    assert_eq!((outcome.code, run.file("").exists()), (2, false));
    let [line] = outcome.errors()[..] else { panic!("{}", outcome.stderr) };
    let start = "`eval.batches` times `eval.batch_size`: more sequences than the data of `data.validation` have: found 400000, \
                 expected at most ";
    assert!(
        line.starts_with(start) && line.ends_with("; hint: set fewer batches, or a shorter `data.seq_len`"),
        "{line}"
    );
}
