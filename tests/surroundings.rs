//! What else a machine can do to a run: a wall clock that jumps, few descriptors; and what a run must not do to it: grow.

use crate::built::{GAUNTLET, fixture, plugin, shipped};
use crate::corpus::Run;
use crate::program::{Outcome, gauntlet, outcome, program, without_own};
use crate::soak::rounds;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A run in a folder, by another program that calls it.
fn through(caller: &[&str], run: &Run) -> Outcome {
    let mut command = Command::new(caller[0]);
    outcome(
        without_own(&mut command).args(&caller[1..]).arg(GAUNTLET).args(run.args(&[])).current_dir(run.folder.path()),
    )
}

#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    let run = || Run::of(plugin("adam")).set("train.max_steps=30").set("eval.every_steps=3").set("ema.decay=0.5");
    let hours = "checkpoint={every_minutes = 600.0, keep = 9}";
    let (right, jumping) = (run().set(hours).finished(), run().set(hours));
    let preload = format!("LD_PRELOAD={}", fixture("clock").display());
    let ended = through(&["env", &preload], &jumping);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for file in ["params.safetensors", "optimizer.safetensors", "ema.safetensors"] {
        assert!(right.saved(30, file) == jumping.saved(30, file), "{file}");
    }
    let checkpoints = fs::read_dir(jumping.file("checkpoints")).unwrap().count();
    assert_eq!(checkpoints, 1, "no interval of hours has passed");
    let times = |key: &str| jumping.by_step(key);
    assert!(times("elapsed").is_sorted() && times("seconds").iter().all(|seconds| (0.0..60.0).contains(seconds)));
    let report = gauntlet(jumping.folder.path(), &["report", "run"]);
    assert_eq!(report.code, 0, "{}", report.stderr);
}

#[test]
fn a_plugin_that_is_replaced_is_said_at_the_next_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libadam.so");
    fs::copy(plugin("adam"), &library).unwrap();
    let run = Run::of(&library).set("train.max_steps=400").set("checkpoint={every_steps = 50, every_minutes = 0}");
    let mut command = program();
    without_own(&mut command).args(run.args(&[])).current_dir(run.folder.path()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let is_saved = || fs::read_dir(run.file("checkpoints")).is_ok_and(|mut found| found.next().is_some());
    while !is_saved() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    fs::copy(plugin("sgd"), folder.path().join("new")).unwrap();
    fs::rename(folder.path().join("new"), &library).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.code(), said.matches("was replaced").count()), (Some(0), 1), "{said}");
    let same = Run::of(plugin("adam")).set("train.max_steps=400").finished();
    assert_eq!(run.saved(400, "params.safetensors"), same.saved(400, "params.safetensors"));
}

#[test]
fn few_descriptors_end_in_one_line_and_lose_nothing() {
    let mut refused = 0;
    for limit in (6..40).step_by(3) {
        let run = Run::of(plugin("adam")).set("checkpoint={every_steps = 1, keep = 9}").set("metrics.enabled=true");
        let run = run.set("metrics.listen='127.0.0.1:0'").set("metrics.linger_seconds=0");
        let ended = through(&["prlimit", &format!("--nofile={limit}:{limit}")], &run);
        if ended.stderr.contains("error while loading shared libraries") {
            continue; // the system's loader, before the program begins
        }
        let errors = ended.errors();
        assert!(
            ended.code == 0 || (errors.len() == 1 && [2, 66, 70, 74, 80].contains(&ended.code)),
            "{limit}: {ended:?}"
        );
        if ended.code != 0 {
            refused += 1;
            assert!(errors[0].contains(&format!("hint: this process may open {limit} files at once")), "{}", errors[0]);
        }
        if run.file("checkpoints").exists() && fs::read_dir(run.file("checkpoints")).unwrap().count() > 0 {
            gauntlet(run.folder.path(), &["checkpoint", "verify", "run"]).succeeded();
        }
    }
    assert!(refused > 0, "no limit was low enough");
}

#[test]
fn no_shipped_plugin_grows() {
    // A gradient of this model has 43 kB; each step of a leak would keep one.
    let (short, long) = (40, rounds(340, 10_000));
    let most = 43_000 * (long - short) / 4;
    for name in shipped() {
        let resident = |steps: u64| {
            let run = crate::resume::of_shipped(&name).set(format!("train.max_steps={steps}"));
            let run = run.set("metrics.textfile=run.prom").set("checkpoint.every_minutes=0").set("eval.every_steps=0");
            run.train().succeeded();
            let text = fs::read_to_string(run.folder.path().join("run.prom")).unwrap();
            let line = text.lines().find(|line| line.starts_with("gauntlet_process_resident_memory_bytes")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        let (before, after) = (resident(short), resident(long));
        assert!(after - before < most as f64, "{name}: {before} bytes after {short} steps, {after} after {long}");
    }
}
