//! A plugin is tried in a process of its own before a run loads it; pins; and plugins that end or hang a step.

use crate::built::{fixture, plugin};
use crate::corpus::Run;
use crate::program::{Outcome, gauntlet, outcome, program, without_own};
use std::fs;
use std::path::Path;

/// A run of the fixture that does what `mood` says, with a cache of its own in its folder.
fn train(run: &Run, mood: &str) -> Outcome {
    let mut command = program();
    without_own(&mut command).args(run.args(&[])).current_dir(run.folder.path());
    outcome(command.env("MOOD", mood).env("XDG_CACHE_HOME", run.folder.path().join("cache")))
}

fn probed() -> Run {
    Run::of(fixture("moody")).set("plugins.probe=true").set("plugins.probe_seconds=4")
}

#[test]
fn what_ends_or_hangs_a_process_ends_no_run() {
    let table = [
        ("abort", "it ended the process in the check `creation`: found signal 6 (abort)"),
        ("crash", "it ended the process in the check `creation`: found signal 11 (invalid memory access)"),
        ("exit", "it ended the process in the check `creation`: found exit code 0"),
        ("hang", "the check `creation` did not end within 4 s"),
        ("panic", "creation: "),
        ("random", "determinism: "),
    ];
    for (mood, expected) in table {
        let run = probed();
        let refused = train(&run, mood);
        assert_eq!((refused.code, refused.errors().len()), (80, 1), "{mood}: {}", refused.stderr);
        let line = refused.errors()[0].to_owned();
        assert!(line.contains(&format!("libmoody.so` fails its self-test: {expected}")), "{mood}: {line}");
        assert!(line.ends_with("hint: `gauntlet plugins check` shows more; `plugins.probe = false` loads it untried"));
        assert!(!run.file("").exists(), "nothing was written");
    }
}

#[test]
fn a_check_that_hangs_is_ended_at_its_limit() {
    let mut command = program();
    without_own(&mut command).args(["plugins", "check", fixture("moody").to_str().unwrap(), "--timeout", "2"]);
    let ended = outcome(command.env("MOOD", "hang"));
    assert_eq!((ended.code, ended.errors().len()), (80, 1), "{}", ended.stderr);
    let line = "the check `creation` did not end within 2 s; hint: allow more with `--timeout`";
    assert!(ended.errors()[0].ends_with(line), "{}", ended.stderr);
}

#[test]
fn a_pass_is_remembered_by_the_hash() {
    let run = probed();
    train(&run, "").succeeded();
    let passes = || fs::read_dir(run.folder.path().join("cache/gauntlet/probed")).unwrap().count();
    assert_eq!(passes(), 1);
    fs::remove_dir_all(run.file("")).unwrap();
    train(&run, "random").succeeded();
    assert_eq!(passes(), 1, "it is not tried again");
}

#[test]
fn a_plugin_that_is_not_tried_is_loaded() {
    let run = Run::of(fixture("moody"));
    assert!(run.args(&[]).iter().all(|arg| !arg.contains("plugins.probe=true")));
    train(&run, "random").succeeded();
    assert!(!run.folder.path().join("cache").exists());
}

#[test]
fn an_exit_in_a_step_is_an_error_of_the_plugin_and_the_next_process_says_so() {
    let run = Run::of(fixture("misbehaving")).set("train.max_steps=6").set("checkpoint.every_steps=1");
    let run = run.set("optimizer.config={mode='exit', batches=[3]}");
    let ended = run.train();
    assert_eq!(ended.code, 80, "{}", ended.stderr);
    let line = "the plugin ended the process in a step; checkpoints that were committed are whole";
    assert_eq!(ended.errors(), [line]);
    assert!(run.file("checkpoints/step-2").exists());
    let again = run.resume();
    let said = "warn: the last process of this run, from step 0, was killed or ended by its plugin `misbehaving`";
    assert!(again.stderr.contains(said), "{}", again.stderr);
}

#[test]
fn a_step_without_a_sign_of_life_is_warned_of_and_ended() {
    let run = Run::of(fixture("misbehaving")).set("train.max_steps=6").set("run.hang_seconds=3");
    let run = run.set("checkpoint.every_steps=2").set("optimizer.config={mode='hang', batches=[3]}");
    let ended = run.train();
    let error = "the step hangs: no sign of life for 3 s; hint: raise `run.hang_seconds`, or set it to 0";
    assert_eq!((ended.code, ended.errors()), (80, vec![error]), "{}", ended.stderr);
    assert!(ended.stderr.contains("warning: no sign of life for 1 s; the run ends at 3 s"), "{}", ended.stderr);
    assert!(ended.stderr.contains("` runs, ") || ended.stderr.contains(": sleeps, "), "{}", ended.stderr);
    let last = "exit code=80 reason=hang last_checkpoint=run/checkpoints/step-2 step=3";
    assert_eq!(ended.stderr.lines().last(), Some(last));
}

/// The configuration of a run in a file, pinned.
fn pinned(run: &Run, file: &Path) -> String {
    let stdout = gauntlet(run.folder.path(), &["plugins", "pin", file.to_str().unwrap()]).succeeded();
    assert!(stdout.starts_with(&format!("{}: `optimizer.sha256` is that of `", file.display())), "{stdout}");
    fs::read_to_string(file).unwrap()
}

#[test]
fn a_pin_is_written_beside_everything_else_and_asked_for() {
    let run = Run::of(plugin("adam")).set("plugins.require_pins=true");
    let refused = run.train();
    let error = "`optimizer.sha256`: not set, and `plugins.require_pins` is; hint: write it with `gauntlet plugins pin \
                 CONFIG`";
    assert_eq!((refused.code, refused.errors()), (77, vec![error]), "{}", refused.stderr);
    let file = run.folder.path().join("run.toml");
    let before = fs::read_to_string(&file).unwrap().replace("[optimizer]", "# what steps\n[optimizer]");
    fs::write(&file, &before).unwrap();
    let after = pinned(&run, &file);
    let added: Vec<&str> = after.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    assert!(added.len() == 1 && added[0].starts_with("sha256 = \""), "{after}");
    assert!(after.contains("# what steps"));
    run.train().succeeded();
    let (pin, other) = (added[0].to_owned(), format!("sha256 = \"{}\"", "0".repeat(64)));
    fs::write(&file, after.replace(&pin, &other)).unwrap();
    fs::remove_dir_all(run.file("")).unwrap();
    assert_eq!(run.train().code, 77, "the pin of another file");
    fs::write(&file, "[optimizer]\nlr = 1\n").unwrap();
    let refused = gauntlet(run.folder.path(), &["plugins", "pin", "run.toml"]);
    assert_eq!(refused.errors(), ["run.toml: no `optimizer.plugin`: expected a plugin to pin"]);
}
