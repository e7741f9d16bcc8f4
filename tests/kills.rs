//! Processes that are killed, at any instant and at each system call of a save: what was committed stays whole, and the run
//! goes on to the bits of one that was not killed.

use crate::built::{GAUNTLET, example, plugin};
use crate::corpus::Run;
use crate::program::{Outcome, gauntlet, outcome, program, without_own};
use crate::skipped::skipped;
use crate::soak::{random, rounds, spread};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Twelve steps with a checkpoint after each.
fn run() -> Run {
    let run = Run::of(plugin("adam")).set("train.max_steps=12").set("ema.decay=0.9");
    run.set("checkpoint={every_steps = 1, keep = 3}").set("eval.every_steps=4")
}

/// The files of the last checkpoint of a run that was never killed.
fn straight() -> &'static [Vec<u8>; 3] {
    static STRAIGHT: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| last(&run().finished()));
    &STRAIGHT
}

fn last(run: &Run) -> [Vec<u8>; 3] {
    ["params", "ema", "optimizer"].map(|list| run.saved(12, &format!("{list}.safetensors")))
}

/// Checkpoints that the program lists verify, all of them.
fn verify(run: &Run) {
    let folders = fs::read_dir(run.file("checkpoints")).into_iter().flatten().flatten();
    if folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("step-")).count() > 0 {
        gauntlet(run.folder.path(), &["checkpoint", "verify", "run"]).succeeded();
    }
}

/// The step of the newest checkpoint, 0 without any.
fn newest(run: &Run) -> u64 {
    let folders = fs::read_dir(run.file("checkpoints")).into_iter().flatten().flatten();
    let step = |name: String| name.strip_prefix("step-")?.split('.').next()?.parse().ok();
    folders.filter_map(|entry| step(entry.file_name().into_string().ok()?)).max().unwrap_or(0)
}

fn start(run: &Run) -> Child {
    let mut command = Command::new(GAUNTLET);
    without_own(&mut command).args(run.args(&["--resume", "auto"])).current_dir(run.folder.path());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Resumes a run that was killed to its end, and compares.
fn ends_like_one_that_was_not_killed(run: &Run, what: &str) {
    let ended = run.resume();
    assert_eq!(ended.code, 0, "{what}: {}", ended.stderr);
    assert!(last(run) == *straight(), "{what}: other bits");
    let left = fs::read_dir(run.file("checkpoints")).unwrap().flatten().map(|entry| entry.file_name());
    let hidden: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "{what}: {hidden:?}");
}

#[test]
fn a_kill_at_any_instant_loses_nothing_that_was_committed() {
    let (mut random, mut killed) = (random(1), 0);
    let mut run = self::run();
    for round in 0..rounds(10, 500) {
        let before = newest(&run);
        let mut child = start(&run);
        std::thread::sleep(Duration::from_secs_f64(0.7 * random()));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        verify(&run);
        assert!(newest(&run) >= before, "round {round}: step {before} is gone");
        killed += u64::from(!ended.success());
        if ended.success() {
            assert!(last(&run) == *straight(), "round {round}: other bits");
            run = self::run();
        }
    }
    assert!(killed > 0);
    ends_like_one_that_was_not_killed(&run, "after the last kill");
}

/// Three checkpoints by the writer of real runs, under strace, after that of a run's last step.
struct Torture {
    run: Run,
}

impl Torture {
    /// `None` where this machine cannot trace.
    fn new() -> Option<Self> {
        static RUN: LazyLock<Run> = LazyLock::new(|| run().finished());
        let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
        match probe.is_ok_and(|status| status.success()) {
            true => Some(Self { run: RUN.copy() }),
            false => {
                skipped("no strace that may trace: faults at system calls");
                None
            }
        }
    }

    fn path(&self, name: &str) -> String {
        self.run.file(name).to_string_lossy().into_owned()
    }

    /// Writes, with what strace is told to do.
    fn write(&self, what: &[&str]) -> Outcome {
        let mut command = Command::new("strace");
        command.args(["-o", &self.path("trace.txt")]).args(what).arg(example("torture"));
        let folders = [self.path("checkpoints/step-12"), self.path("checkpoints")];
        outcome(without_own(&mut command).args(folders).env("LD_LIBRARY_PATH", ""))
    }

    fn trace(&self) -> String {
        fs::read_to_string(self.path("trace.txt")).unwrap()
    }

    /// The system calls of the three saves: names, and which call of that name.
    fn calls(&self) -> Vec<(String, u64)> {
        self.write(&["-e", "trace=mkdir,openat,write,fsync,rename,renameat2,unlink,unlinkat,getdents64"]).succeeded();
        let (mut calls, mut counts, mut begun) = (vec![], std::collections::BTreeMap::<String, u64>::new(), false);
        for line in self.trace().lines().filter(|line| line.contains('(')) {
            let name = line.split('(').next().unwrap_or_default().to_owned();
            let count = counts.entry(name.clone()).or_default();
            *count += 1;
            if begun {
                calls.push((name, *count));
            }
            begun |= line.contains("\"begin\\n\"");
        }
        assert!(calls.len() > 60, "{}", self.trace());
        calls
    }

    /// Everything that was said to be committed is there and whole, and so is at least one checkpoint.
    fn check(&self, ended: &Outcome, what: &str) {
        let committed = ended.stdout.lines().filter_map(|line| line.strip_prefix("committed ")?.parse().ok()).max();
        let committed = committed.unwrap_or(12);
        assert!(newest(&self.run) >= committed, "{what}: step {committed} is gone");
        let folder = self.run.folder.path();
        let verified = gauntlet(folder, &["checkpoint", "verify", "run"]);
        assert_eq!(verified.code, 0, "{what}: {}", verified.stderr);
        assert!(verified.stdout.lines().count() >= 2, "{what}: {}", verified.stdout);
    }
}

#[test]
fn a_kill_at_a_system_call_of_a_save_leaves_the_old_or_the_new() {
    let Some(torture) = Torture::new() else { return };
    let calls = torture.calls();
    for index in spread(10, calls.len() as u64) {
        let (name, when) = &calls[index as usize];
        let Some(torture) = Torture::new() else { return };
        let ended = torture.write(&["-e", &format!("inject={name}:signal=SIGKILL:when={when}")]);
        assert_eq!(ended.code, 137, "{name} {when}");
        torture.check(&ended, &format!("killed at {name} {when}"));
    }
}

#[test]
fn an_error_at_a_system_call_of_a_save_is_one_line_and_harms_nothing() {
    let Some(torture) = Torture::new() else { return };
    let calls: Vec<_> = torture.calls().into_iter().filter(|(name, _)| name != "getdents64").collect();
    let errors = ["EIO", "ENOSPC", "EDQUOT"];
    for (round, index) in spread(10, calls.len() as u64).into_iter().enumerate() {
        let ((name, when), error) = (&calls[index as usize], errors[round % 3]);
        let Some(torture) = Torture::new() else { return };
        let ended =
            torture.write(&["-e", "trace=fsync,close", "-e", &format!("inject={name}:error={error}:when={when}")]);
        let what = format!("{error} at {name} {when}");
        torture.check(&ended, &what);
        let lines = ended.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert!((ended.code == 74 && lines == 1) || (ended.code == 0 && lines == 0), "{what}: {ended:?}");
        asked_once(&torture.trace(), &what);
    }
}

/// After an fsync failed, its file was closed and not asked again.
fn asked_once(trace: &str, what: &str) {
    let mut lines = trace.lines().skip_while(|line| !(line.starts_with("fsync(") && line.contains("(INJECTED)")));
    let Some(failed) = lines.next() else { return };
    let file = failed.trim_start_matches("fsync(").split(')').next().unwrap_or_default();
    let next = lines.find(|line| line.split(['(', ')']).nth(1) == Some(file));
    assert!(next.is_none_or(|line| line.starts_with("close(")), "{what}: {next:?}");
}

#[test]
fn a_disk_that_writes_nothing_and_says_it_did_is_found_out() {
    let Some(torture) = Torture::new() else { return };
    let ended = torture.write(&["-e", "trace=write"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (trace, size) = (torture.trace(), |line: &str| line.split("= ").last()?.parse::<u64>().ok());
    let large = trace.lines().enumerate().filter(|(_, line)| size(line) > Some(20_000)).last().unwrap();
    let Some(torture) = Torture::new() else { return };
    let lie = format!("inject=write:retval={}:when={}", size(large.1).unwrap(), large.0 + 1);
    assert_eq!(torture.write(&["-e", &lie]).code, 0);
    let folder = torture.run.folder.path();
    let verified = gauntlet(folder, &["checkpoint", "verify", "run"]);
    assert_eq!(verified.code, 76, "{}", verified.stdout);
    assert!(verified.stderr.contains("step-15/"), "{}", verified.stderr);
}

#[test]
fn a_stop_is_obeyed_whenever_it_comes() {
    let mut random = random(2);
    let long = ["optimizer.config={inner_batch_size = 1, line_search_batches = 4}", "data.batch_size=16"];
    // Short steps; long ones that return between their parts; evaluations most of the time.
    let runs: [&dyn Fn() -> Run; 3] =
        [&|| run(), &|| long.iter().fold(Run::of(plugin("full-gn")), |run, set| run.set(*set)), &|| {
            run().set("eval={every_steps = 1, batches = 64, batch_size = 1}")
        }];
    for (round, kind) in (0..rounds(9, 90)).zip(runs.iter().cycle()) {
        let run = kind().set("train.max_steps=100000").set("checkpoint.every_steps=50");
        let mut command = program();
        let child = without_own(&mut command).args(run.args(&[])).current_dir(run.folder.path());
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(0.05 + random()));
        let sent = Instant::now();
        Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
        let ended = child.wait().unwrap();
        assert!(sent.elapsed() < Duration::from_secs(20), "round {round}");
        // Before the program listens, a signal ends it as it ends any other.
        let unheard = std::os::unix::process::ExitStatusExt::signal(&ended) == Some(15) && newest(&run) == 0;
        assert!(ended.code() == Some(75) || unheard, "round {round}: {ended:?}");
        verify(&run);
        assert!(
            unheard || fs::read_dir(run.file("checkpoints")).unwrap().count() > 0,
            "round {round}: nothing was saved"
        );
    }
}
