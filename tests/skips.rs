//! `train.on_error = "skip"`: a failed step is undone to the bit, and its batch is passed over.

use crate::built::fixture;
use crate::corpus::Run;
use serde_json::json;

/// Twelve steps in order through the data, with an average, that fail with the batches 3 and 7.
fn skipping(mode: &str) -> Run {
    Run::of(fixture("misbehaving"))
        .set("train.on_error=skip")
        .set("train.max_steps=12")
        .set("ema.decay=0.9")
        .set(format!("optimizer.config.mode={mode}"))
        .set("optimizer.config.batches=[3, 7]")
}

/// Everything that the next step would depend on, and what the run is judged at.
fn state(run: &Run) -> [Vec<u8>; 3] {
    ["params", "ema", "optimizer"].map(|name| run.saved(12, &format!("{name}.safetensors")))
}

#[test]
fn the_run_goes_on_and_says_what_it_passed_over() {
    let run = skipping("error-in-step").finished();
    let mut skipped = run.events("skipped");
    for event in &mut skipped {
        event.as_object_mut().unwrap().remove("elapsed");
    }
    let reason = "plugin `misbehaving`: cannot take this step";
    let event = |step: u64, first: u64| {
        json!({
            "event": "skipped", "step": step, "reason": reason, "exit_code": 80, "first_sequence": first, "sequences": 4,
        })
    };
    assert_eq!(skipped, [event(3, 12), event(6, 28)]);
    assert_eq!(run.events("step").len(), 12);
    assert_eq!(run.by_step("tokens").last(), Some(&(14.0 * 64.0)), "twelve batches used, two passed over");
    let manifest: serde_json::Value = serde_json::from_slice(&run.saved(12, "MANIFEST.json")).unwrap();
    assert_eq!((&manifest["step"], &manifest["sequences"]["step"]), (&json!(12), &json!(56)));
}

#[test]
fn every_kind_of_failure_leaves_the_same_run() {
    let expected = skipping("error-in-step").finished();
    for mode in ["panic-in-step", "nan-update", "nan-loss", "rejected-but-writes", "wrong-shape"] {
        let run = skipping(mode).finished();
        assert_eq!(run.events("skipped").len(), 2, "{mode}");
        assert!(state(&run) == state(&expected), "{mode}: a failed step left something behind");
    }
}

#[test]
fn rarer_snapshots_give_the_same_bits() {
    let every_step = skipping("nan-update").finished();
    let every_fourth = skipping("nan-update").set("train.snapshot_every=4").finished();
    assert!(state(&every_step) == state(&every_fourth));
    let elsewhere = skipping("nan-update").set("train.snapshot_every=100").finished();
    assert!(state(&every_step) == state(&elsewhere));
    assert_eq!(every_step.by_step("loss"), every_fourth.by_step("loss"));
    assert_eq!(every_fourth.events("step").len(), 12, "repeated steps are not reported again");
}

#[test]
fn a_long_step_that_fails_in_its_second_part_is_undone_whole() {
    let long = |every: u64| {
        let run = skipping("nan-update").set("optimizer.config.long=true");
        run.set(format!("train.snapshot_every={every}")).finished()
    };
    let (often, rarely) = (long(1), long(4));
    assert!(state(&often) == state(&rarely));
    assert!(state(&often) == state(&skipping("nan-update").finished()), "a long step computes what a short one does");
}

#[test]
fn a_run_that_fails_too_often_ends() {
    let run = Run::of(fixture("misbehaving"))
        .set("train.on_error=skip")
        .set("train.max_skips=2")
        .set("train.max_skips_window=10")
        .set("optimizer.config.mode=error-in-step")
        .set("optimizer.config.batches=[1, 2, 3]");
    let outcome = run.train();
    let expected = "plugin `misbehaving`: cannot take this step; it is one failed step too many: found 3 skips within 10 \
                    steps, expected at most 2 (`train.max_skips`)";
    assert_eq!((outcome.code, outcome.errors()), (80, vec![expected]));
    assert_eq!((run.events("step").len(), run.events("skipped").len()), (1, 2));
    assert!(std::fs::read_dir(run.file("checkpoints")).unwrap().count() == 0);
}

#[test]
fn skips_outside_the_window_are_forgotten() {
    let run = |window: u64| {
        skipping("error-in-step").set("train.max_skips=1").set(format!("train.max_skips_window={window}")).train().code
    };
    assert_eq!((run(3), run(4)), (0, 80), "the two failing steps are three steps apart");
}

#[test]
fn a_panic_while_state_is_restored_ends_the_run() {
    let run = skipping("panic-in-load");
    let outcome = run.train();
    assert_eq!(outcome.code, 80);
    assert!(outcome.errors()[0].ends_with("panicked: load panics"), "{}", outcome.stderr);
}

#[test]
fn a_bad_configuration_is_never_skipped() {
    let outcome = skipping("error-in-new").train();
    assert_eq!((outcome.code, outcome.errors()), (80, vec!["plugin `misbehaving`: cannot be made"]));
}
