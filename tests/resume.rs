//! A run that was stopped and resumed ends with the bits of one that was not, wherever it was stopped.

use crate::built::{fixture, plugin, shipped};
use crate::corpus::{Run, play};
use crate::program::gauntlet;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Six steps with an average and evaluations.
fn averaged(plugin: &Path) -> Run {
    let run = Run::of(plugin).set("train.max_steps=6").set("ema.decay=0.9");
    run.set("eval.every_steps=2").set("checkpoint.keep=100")
}

/// The same with a schedule that decays, so that a checkpoint has to hold everything that there is.
fn full(plugin: &Path) -> Run {
    averaged(plugin).set("schedule={kind = 'cosine', warmup_steps = 2}")
}

/// A shipped plugin with the keys that it has no defaults for, on batches as small as these.
/// A run of a shipped plugin with all that a state can hold.
pub fn of_shipped(name: &str) -> Run {
    let plugin = plugin(name);
    match name {
        "sgd" => full(plugin).set("optimizer.config.lr=0.1").set("optimizer.config.momentum=0.9"),
        "full-gn" | "layerwise-gn" => full(plugin).set("optimizer.config.inner_batch_size=2"),
        "hessian-free" => averaged(plugin), // it follows no schedule
        _ => full(plugin),
    }
}

const TENSORS: [&str; 3] = ["params.safetensors", "ema.safetensors", "optimizer.safetensors"];

/// Both runs end with the same tensors, states, place in the data and losses.
fn assert_same(straight: &Run, resumed: &Run, step: u64, what: &str) {
    for file in TENSORS {
        assert!(straight.saved(step, file) == resumed.saved(step, file), "{what}: {file} differs");
    }
    let manifest = |run: &Run| serde_json::from_slice::<Value>(&run.saved(step, "MANIFEST.json")).unwrap();
    let (a, b) = (manifest(straight), manifest(resumed));
    for key in ["step", "part", "sequences", "validation_loss", "evaluate_at", "ema_updated", "skipped"] {
        assert_eq!(a[key], b[key], "{what}: `{key}`");
    }
}

/// The losses by step and evaluation are those of the other run, as far as this record tells them.
fn assert_same_losses(straight: &Run, resumed: &Run, what: &str) {
    for kind in ["step", "evaluated"] {
        let losses = |run: &Run| {
            let events = run.events(kind).into_iter();
            events.map(|event| (event["step"].as_u64(), event["loss"].as_f64())).collect::<Vec<_>>()
        };
        // A run that ends evaluates, so a resumed one has a few evaluations more.
        let (expected, found) = (losses(straight), losses(resumed));
        assert!(expected.iter().all(|at| found.contains(at)), "{what}: {kind}: {expected:?} {found:?}");
    }
}

#[test]
fn every_shipped_plugin_ends_bit_identical_after_three_resumes() {
    for name in shipped() {
        let straight = of_shipped(&name).finished();
        let resumed = of_shipped(&name);
        // A step draws 64 tokens for itself; the end by tokens is no part of a run's identity.
        for steps in [1, 3, 4] {
            let end = format!("train.max_tokens={}", 64 * steps);
            let outcome = resumed.train_with(&["--resume", "auto", "--set", &end]);
            assert_eq!(outcome.code, 0, "{name}: {}", outcome.stderr);
            assert!(resumed.file(&format!("checkpoints/step-{steps}")).exists(), "{name}");
        }
        let outcome = resumed.resume();
        assert_eq!(outcome.code, 0, "{name}: {}", outcome.stderr);
        assert_same(&straight, &resumed, 6, &name);
        assert_same_losses(&straight, &resumed, &name);
    }
}

/// The folders of checkpoints in the middle of a step.
fn parts(run: &Run) -> Vec<String> {
    let entries = fs::read_dir(run.file("checkpoints")).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.contains(".part-"));
    names.sort();
    names
}

#[test]
fn every_shipped_plugin_with_long_steps_goes_on_in_the_middle_of_one() {
    let mut long = vec![];
    for name in shipped() {
        let whole = of_shipped(&name).set("train.max_steps=2").set("checkpoint.every_minutes=1e-9").finished();
        let parts = parts(&whole);
        // The first, one in the middle, the last.
        let picked = [0, parts.len() / 2, parts.len().saturating_sub(1)];
        for part in picked.into_iter().filter_map(|index| parts.get(index)) {
            let from = whole.file(&format!("checkpoints/{part}"));
            let resumed = of_shipped(&name).set("train.max_steps=2");
            let outcome = resumed.train_with(&["--resume", from.to_str().unwrap()]);
            assert_eq!(outcome.code, 0, "{name} {part}: {}", outcome.stderr);
            assert_same(&whole, &resumed, 2, &format!("{name} from {part}"));
        }
        long.extend((!parts.is_empty()).then_some(name));
    }
    assert!(long.iter().any(|name| name == "full-gn"), "{long:?}");
}

/// The fixture, whose steps depend on state, noise and data alike.
fn noisy(mode: &str, long: bool) -> Run {
    let run = full(fixture("misbehaving")).set(format!("optimizer.config.mode={mode}"));
    run.set("optimizer.config.batches=[0, 2, 4]").set(format!("optimizer.config.long={long}"))
}

#[test]
fn three_signals_in_the_middle_of_steps_leave_no_trace() {
    let straight = noisy("nothing", true).finished();
    for mode in ["terminate", "interrupt", "hang-up"] {
        let stopped = noisy(mode, true);
        for step in [0, 2, 4] {
            let outcome = stopped.resume();
            assert_eq!(outcome.code, 75, "{mode}: {}", outcome.stderr);
            let last = outcome.stderr.lines().last().unwrap();
            let checkpoint = format!("run/checkpoints/step-{step}.part-1");
            assert_eq!(last, format!("exit code=75 reason=stopped last_checkpoint={checkpoint} step={step}"));
        }
        let outcome = stopped.resume();
        assert_eq!(outcome.code, 0, "{mode}: {}", outcome.stderr);
        assert_same(&straight, &stopped, 6, mode);
        assert_same_losses(&straight, &stopped, mode);
        assert_eq!(straight.by_step("tokens"), stopped.by_step("tokens"), "a batch is counted once");
    }
}

#[test]
fn a_signal_in_a_short_step_stops_after_it() {
    let (straight, stopped) = (noisy("nothing", false).finished(), noisy("terminate", false));
    for step in [1, 3, 5] {
        let outcome = stopped.resume();
        let last = format!("exit code=75 reason=stopped last_checkpoint=run/checkpoints/step-{step} step={step}");
        assert_eq!((outcome.code, outcome.stderr.lines().last()), (75, Some(last.as_str())), "{}", outcome.stderr);
    }
    assert_eq!(stopped.resume().code, 0);
    assert_same(&straight, &stopped, 6, "terminate");
}

/// Shards whose epoch is five sequences of 16 tokens, in a folder.
fn short_epoch(folder: &Path) {
    fs::create_dir(folder.join("texts")).unwrap();
    fs::write(folder.join("texts/a.md"), &play(1, 4)[..80]).unwrap();
    fs::write(folder.join("texts/b.md"), play(2, 8)).unwrap();
    let args = ["data", "prepare", "texts", "--out", "short", "--validation-file", "b.md"];
    gauntlet(folder, &args).succeeded();
}

#[test]
fn the_data_go_on_at_any_place_of_an_epoch() {
    let of = || {
        let run = full(plugin("adam")).set("train.max_steps=12").set("data.batch_size=1");
        let run = run.set("data.train=short").set("data.validation=short").set("eval.batches=1");
        short_epoch(run.folder.path());
        run
    };
    let straight = of().finished();
    assert_eq!(straight.events("started")[0]["epoch_tokens"], 80, "an epoch is five steps");
    let resumed = of();
    // In the middle, at the exact end of an epoch, just behind it, at the end of the second, at the last step.
    for steps in [1, 3, 5, 6, 10, 12] {
        let outcome = resumed.train_with(&["--resume", "auto", "--set", &format!("train.max_tokens={}", 16 * steps)]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert_same_at(&resumed, steps);
    }
    assert_same(&straight, &resumed, 12, "epochs");
    assert_same_losses(&straight, &resumed, "epochs");
}

fn assert_same_at(run: &Run, step: u64) {
    let manifest: Value = serde_json::from_slice(&run.saved(step, "MANIFEST.json")).unwrap();
    assert_eq!((&manifest["step"], &manifest["sequences"]["step"]), (&step.into(), &step.into()));
}

#[test]
fn checkpoints_come_by_steps_and_by_minutes_and_old_ones_go() {
    let names = |run: &Run| {
        let entries = fs::read_dir(run.file("checkpoints")).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let run = |sets: &[&str]| {
        let run = Run::of(plugin("adam")).set("train.max_steps=5");
        sets.iter().fold(run, |run, set| run.set(*set)).finished()
    };
    assert_eq!(names(&run(&[])), ["step-5"], "one at the end");
    assert_eq!(names(&run(&["checkpoint={every_steps = 2, keep = 9}"])), ["step-2", "step-4", "step-5"]);
    assert_eq!(names(&run(&["checkpoint={every_steps = 1}"])), ["step-4", "step-5"], "two are kept");
    assert_eq!(names(&run(&["checkpoint={every_minutes = 1e-9, keep = 1}"])), ["step-5"]);
    let all = run(&["checkpoint={every_minutes = 1e-9, keep = 100}"]);
    assert_eq!(names(&all).len(), 5);
    let checkpoints = all.events("checkpoint");
    assert_eq!(checkpoints.len(), 5);
    let listed = gauntlet(all.folder.path(), &["checkpoint", "list", "run"]).succeeded();
    let steps: Vec<&str> = listed.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(steps, ["1", "2", "3", "4", "5"]);
    let verified = gauntlet(all.folder.path(), &["checkpoint", "verify", "run"]).succeeded();
    assert!(verified.lines().count() == 5 && verified.lines().all(|line| line.starts_with("ok  ")), "{verified}");
}

#[test]
fn tensor_files_hold_nothing_of_the_run_but_its_state() {
    let run = |dir: &str| {
        let run = noisy("nothing", false).set(format!("run.dir={dir}"));
        run.train().succeeded();
        let folder = run.folder.path().join(dir).join("checkpoints/step-6");
        TENSORS.map(|file| fs::read(folder.join(file)).unwrap())
    };
    assert!(run("here") == run("a/longer/name"));
}
