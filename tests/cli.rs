//! What the command line prints, and what it says of a bad configuration: one line a problem, exit code 2.

use crate::built::{plugin, source_tree};
use crate::corpus::Run;
use crate::program::{filtered, gauntlet, program, without_own};
use insta::assert_snapshot;
use std::fs;
use std::path::{Path, PathBuf};

fn stdout(args: &[&str]) -> String {
    gauntlet(Path::new("/"), args).succeeded()
}

#[test]
fn help_names_every_command() {
    for (args, words) in [
        (vec!["--help"], vec!["train", "eval", "generate", "data", "watch", "plugins", "--verbose", "--version"]),
        (vec!["plugins", "--help"], vec!["list", "inspect", "new"]),
        (vec!["data", "--help"], vec!["prepare", "verify"]),
        (vec!["train", "--help"], vec!["--config <FILE>", "--set <KEY=VALUE>"]),
    ] {
        let help = stdout(&args);
        words.iter().for_each(|word| assert!(help.contains(word), "{args:?} does not name `{word}`:\n{help}"));
    }
    let nothing = gauntlet(Path::new("/"), &[]);
    assert_eq!((nothing.code, nothing.stderr.contains("Usage: gauntlet")), (2, true));
}

#[test]
fn shipped_configurations_are_valid() {
    let files = fs::read_dir(source_tree().join("configs")).unwrap().map(|entry| entry.unwrap().path());
    let is_run =
        |file: &PathBuf| file.is_file() && !file.file_name().unwrap().to_string_lossy().starts_with("compare-");
    let files: Vec<PathBuf> = files.filter(is_run).collect();
    assert!(files.len() > 18, "{files:?}");
    for file in files {
        gauntlet(Path::new("/"), &["config", "check", "--config", file.to_str().unwrap()]).succeeded();
    }
}

#[test]
fn the_version_names_commit_abi_and_libtorch() {
    let version = stdout(&["--version"]);
    let words: Vec<&str> = version.split_whitespace().collect();
    assert_eq!((words[0], words[1], words[2]), ("gauntlet", env!("CARGO_PKG_VERSION"), "(commit"));
    assert!(
        version.ends_with(&format!("plugin ABI {}, libtorch 2.13.0)\n", gauntlet_plugin_abi::VERSION)),
        "{version}"
    );
}

/// `gauntlet ... | head` is no bug, and a full disk is said.
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let config = source_tree().join("configs/adam.toml");
    let into = |output: std::process::Stdio, args: &[&str]| {
        let mut command = program();
        let ended = without_own(&mut command).args(args).stdout(output).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let inspect = ["plugins", "inspect", plugin("adam").to_str().unwrap()];
    let show = ["config", "show", "--config", config.to_str().unwrap()];
    for (args, seen) in [(&inspect[..], 141), (&show[..], 0)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(into(writer.into(), args), (Some(seen), String::new()), "{args:?}");
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let (code, said) = into(full.into(), args);
        assert!(code == Some(74) && said.starts_with("error: cannot write"), "{args:?}: {said}");
        assert!(said.contains("no space left on device"), "{said}");
    }
}

#[test]
fn an_unknown_command_is_answered_with_the_nearest() {
    let outcome = gauntlet(Path::new("/"), &["trian"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("a similar subcommand exists: 'train'"), "{}", outcome.stderr);
}

#[test]
fn plugins_are_listed_with_version_abi_and_path() {
    plugin("adam");
    let list = filtered(&stdout(&["plugins", "list"]), Path::new("/nowhere"));
    for line in [
        "adam             0.1.0      ABI 1.0.0    [PROGRAM]/libadam.so",
        "sgd              0.1.0      ABI 1.0.0    [PROGRAM]/libsgd.so",
    ] {
        assert!(list.lines().any(|found| found == line), "{list}");
    }
}

#[test]
fn a_plugin_is_described_with_its_keys_and_metrics() {
    plugin("adam");
    let built = |text: String| {
        let lines = text.lines().map(|line| match line.starts_with("built") {
            true => "built    [RUSTC]",
            false => line,
        });
        filtered(&lines.collect::<Vec<_>>().join("\n"), Path::new("/nowhere"))
    };
    assert_snapshot!(built(stdout(&["plugins", "inspect", "adam"])), @r"
    name     adam
    version  0.1.0
    ABI      1.0.0
    needs    gradient
    file     [PROGRAM]/libadam.so
    sha256   [SHA256]
    built    [RUSTC]

    [optimizer.config]
      betas         a list (default [0.9,0.999])
                      Decay rates of the first and the second moment, each in [0, 1).
      eps           a number (default 1e-8)
                      Added to the bias-corrected root of the second moment.
      groups        a list (default [])
                      Other settings for some of the parameters, by role or name.
      lr            a number (default 0.001)
                      Peak step size; the run's schedule multiplies it.
      weight_decay  a number (default 0.01)
                      Decoupled weight decay; it multiplies the step size.

    metrics  (none of its own)
    ");
    assert_snapshot!(built(stdout(&["plugins", "inspect", "sgd"])), @r"
    name     sgd
    version  0.1.0
    ABI      1.0.0
    needs    gradient
    file     [PROGRAM]/libsgd.so
    sha256   [SHA256]
    built    [RUSTC]

    [optimizer.config]
      lr        a number (required)
                  Step size.
      momentum  a number (default 0.0)
                  Share of the last update that is kept, beta.

    metrics  (none of its own)
    ");
}

/// The run must end before it begins, with these lines.
fn check(settings: &[&str], expected: &[&str]) {
    let run = settings.iter().fold(Run::of(plugin("adam")), |run, setting| run.set(*setting));
    let outcome = run.train();
    assert_eq!((outcome.code, outcome.errors()), (2, expected.to_vec()), "{settings:?}");
    assert!(!run.file("").exists(), "{settings:?}: the run directory was made");
}

#[test]
fn unknown_keys_are_errors_at_every_depth() {
    check(
        &["train.max_stps=3"],
        &["--set train.max_stps=3: `train.max_stps`: unknown key; hint: did you mean `train.max_steps`?"],
    );
    check(
        &["optimizer.config.beta=0.9"],
        &["--set optimizer.config.beta=0.9: `optimizer.config.beta`: unknown key; hint: did you mean \
         `optimizer.config.betas`?"],
    );
    check(
        &["model.widht=16"],
        &["--set model.widht=16: `model.widht`: unknown key; hint: did you mean `model.width`?"],
    );
}

#[test]
fn bad_values_name_their_layer_and_what_is_expected() {
    check(&["optimizer.config.lr=-1"], &["plugin `adam`: `optimizer.config.lr`: must be > 0, got -1"]);
    check(
        &["optimizer.config.lr=fast"],
        &[
            "--set optimizer.config.lr=fast: `optimizer.config.lr`: wrong type: found the string `fast`, expected a number",
        ],
    );
    check(
        &["optimizer.config.betas=[0.9]"],
        &[
            "--set optimizer.config.betas=[0.9]: `optimizer.config.betas`: wrong length: found 1 items, expected 2 items",
        ],
    );
    check(
        &["train.max_steps=0"],
        &["--set train.max_steps=0: `train.max_steps`: out of range: found 0, expected an integer >= 1"],
    );
    check(
        &["model.num_heads=3"],
        &[
            "--set model.num_heads=3: `model.num_heads`: cannot be: found 3, expected a divisor of width 16 into heads of \
           even width",
        ],
    );
}

#[test]
fn all_problems_of_a_configuration_are_told_at_once() {
    check(
        &["data.batch_size=0", "eval.batches=x", "schedule.kind=cosin"],
        &[
            "--set data.batch_size=0: `data.batch_size`: out of range: found 0, expected an integer >= 1",
            "--set eval.batches=x: `eval.batches`: wrong type: found the string `x`, expected an integer >= 1",
            "--set schedule.kind=cosin: `schedule.kind`: unknown choice: found the string `cosin`, expected one of `constant`, \
         `cosine`, `linear`, `wsd`; hint: did you mean `cosine`?",
        ],
    );
}

#[test]
fn a_configuration_that_is_missing_or_no_toml() {
    let run = Run::of(plugin("adam"));
    let folder = run.folder.path();
    let missing = gauntlet(folder, &["train", "--config", "gone.toml"]);
    assert_eq!(
        (missing.code, missing.stderr.as_str()),
        (66, "error: cannot read `gone.toml`: no such file or directory\n")
    );
    std::fs::write(folder.join("bad.toml"), "[run\n").unwrap();
    let bad = gauntlet(folder, &["train", "--config", "bad.toml"]);
    assert_eq!((bad.code, bad.errors().len()), (2, 1), "{}", bad.stderr);
    assert!(bad.errors()[0].starts_with("bad.toml:1:"), "{}", bad.stderr);
}
