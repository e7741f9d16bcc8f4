//! Signals, and what becomes of a run whose terminal or reader is gone.

use crate::built::{GAUNTLET, fixture, plugin};
use crate::corpus::Run;
use crate::program::without_own;
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};

/// A run of six short steps that sends itself signals in its fourth.
fn signalled(mode: &str) -> Run {
    let run = Run::of(fixture("misbehaving")).set("train.max_steps=6").set("checkpoint.every_steps=2");
    run.set("optimizer.config.batches=[3]").set(format!("optimizer.config.mode={mode}"))
}

fn status(run: &Run) -> Value {
    serde_json::from_slice(&fs::read(run.file("status.json")).unwrap()).unwrap()
}

#[test]
fn the_first_signal_saves_and_ends_with_75() {
    for mode in ["interrupt", "terminate", "hang-up"] {
        let run = signalled(mode);
        let outcome = run.train();
        assert_eq!(outcome.code, 75, "{mode}: {}", outcome.stderr);
        let last = "exit code=75 reason=stopped last_checkpoint=run/checkpoints/step-4 step=4";
        assert_eq!(outcome.stderr.lines().last(), Some(last));
        let expected = json!({
            "exit_code": 75, "reason": "stopped", "step": 4, "last_checkpoint": "run/checkpoints/step-4", "error": null,
        });
        assert_eq!(status(&run), expected);
        let finished = &run.events("finished")[0];
        assert_eq!((&finished["reason"], &finished["exit_code"]), (&json!("stopped"), &json!(75)));
    }
}

#[test]
fn schedulers_may_choose_the_code_of_a_graceful_stop() {
    for code in [0, 143] {
        let run = signalled("terminate");
        let outcome = run.train_with(&["--graceful-exit-code", &code.to_string()]);
        let last = format!("exit code={code} reason=stopped last_checkpoint=run/checkpoints/step-4 step=4");
        assert_eq!((outcome.code, outcome.stderr.lines().last()), (code, Some(last.as_str())));
    }
    assert_eq!(signalled("terminate").train_with(&["--graceful-exit-code", "1"]).code, 2);
}

#[test]
fn the_second_signal_ends_the_process_at_once() {
    for (mode, code) in [("interrupt-twice", 130), ("terminate-twice", 143)] {
        let run = signalled(mode);
        let outcome = run.train();
        assert_eq!(outcome.code, code, "{mode}: {}", outcome.stderr);
        assert!(!run.file("checkpoints/step-4").exists(), "nothing more was saved");
        assert!(run.events("finished").is_empty() && run.events("step").len() == 3);
    }
}

#[test]
fn a_step_that_outlasts_the_grace_ends_without_a_save_and_says_so() {
    let run = signalled("terminate-and-hang").set("run.grace_seconds=1");
    let outcome = run.train();
    let error = "the run did not reach a point to stop within 1 s; hint: raise `run.grace_seconds`";
    assert_eq!((outcome.code, outcome.errors()), (143, vec![error]), "{}", outcome.stderr);
    let last = "exit code=143 reason=grace last_checkpoint=run/checkpoints/step-2 step=3";
    assert_eq!(outcome.stderr.lines().last(), Some(last));
    let expected = json!({
        "exit_code": 143, "reason": "grace", "step": 3, "last_checkpoint": "run/checkpoints/step-2", "error": error,
    });
    assert_eq!(status(&run), expected);
}

#[test]
fn a_checkpoint_can_be_asked_for() {
    let run = signalled("ask-for-checkpoint").set("checkpoint.every_steps=0").set("checkpoint.keep=9");
    let outcome = run.train();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let steps: Vec<u64> = run.events("checkpoint").iter().map(|event| event["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [4, 6], "after the step in which it was asked for, and at the end");
}

#[test]
fn the_states_of_all_threads_can_be_asked_for() {
    let run = signalled("ask-for-states");
    let outcome = run.train();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let threads: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("thread ")).collect();
    assert!(threads.iter().any(|line| line.contains("`watch`: runs, ")), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("{} threads:", threads.len())));
}

/// The program started by a shell, which first does something.
fn through_shell(run: &Run, first: &str) -> Command {
    let mut command = Command::new("sh");
    without_own(&mut command);
    let script = format!("{first}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, GAUNTLET]).args(run.args(&[])).current_dir(run.folder.path());
    command
}

#[test]
fn a_run_that_was_started_to_outlive_its_terminal_does() {
    let run = signalled("hang-up");
    let ended = through_shell(&run, "trap '' HUP").output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(run.events("step").len(), 6);
}

#[test]
fn a_reader_that_is_gone_does_not_end_the_run() {
    let run = Run::of(plugin("adam")).set("train.max_steps=40");
    let mut child = Command::new(GAUNTLET);
    without_own(&mut child)
        .args(run.args(&[]))
        .current_dir(run.folder.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = child.spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let run = Run::of(plugin("adam"));
    let ended = through_shell(&run, "exec 2>&-").output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "standard error is closed");
}
