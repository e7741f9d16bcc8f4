//! Disks that are full, read-only, or taken away: one line, exit code 74, and everything that was committed as it was.

use crate::built::plugin;
use crate::corpus::Run;
use crate::program::gauntlet;
use crate::skipped::skipped;
use crate::soak::spread;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A file system that is mounted in a folder of its own and goes with it.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None` where this user may not mount.
    fn new(args: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(args).arg(folder.path()).stderr(Stdio::null()).status();
        match mounted.is_ok_and(|status| status.success()) {
            true => Some(Self(folder)),
            false => {
                skipped(&format!("mount {} is not allowed", args.join(" ")));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Eight steps with a checkpoint after every second, in a folder of another file system.
fn run_in(folder: &Path) -> Run {
    let run = Run::of(plugin("adam")).set("train.max_steps=8").set("checkpoint={every_steps = 2, keep = 2}");
    run.set(format!("run.dir={}", folder.join("run").display()))
}

fn steps(folder: &Path) -> Vec<u64> {
    let entries = fs::read_dir(folder.join("run/checkpoints")).into_iter().flatten().flatten();
    let step = |name: String| name.strip_prefix("step-")?.parse().ok();
    let mut steps: Vec<u64> = entries.filter_map(|entry| step(entry.file_name().into_string().ok()?)).collect();
    steps.sort_unstable();
    steps
}

#[test]
fn a_disk_that_fills_up_costs_no_checkpoint() {
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=4m", "tmpfs"]) else { return };
    let (run, room) = (run_in(disk.path()), disk.path().join("fill"));
    run.train_with(&["--set", "train.max_tokens=256"]).succeeded();
    assert_eq!(steps(disk.path()), [2, 4]);
    let (mut refused, kept) = (0, tempfile::tempdir().unwrap());
    copy(&disk.path().join("run"), &kept.path().join("run"));
    let free = || {
        let stat = rustix::fs::statvfs(disk.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    for pages in spread(8, 90) {
        fs::write(&room, vec![0; (free() - 4096 * pages) as usize]).unwrap();
        let ended = run.resume();
        assert!([0, 74].contains(&ended.code), "{pages} pages: {}", ended.stderr);
        refused += u64::from(ended.code == 74);
        assert!(ended.code == 0 || ended.errors().len() == 1, "{pages} pages: {}", ended.stderr);
        fs::remove_file(&room).unwrap();
        let verified =
            gauntlet(run.folder.path(), &["checkpoint", "verify", &disk.path().join("run").to_string_lossy()]);
        assert_eq!(verified.code, 0, "{pages} pages: {}", verified.stderr);
        assert!(steps(disk.path()).contains(&4) || ended.code == 0, "{pages} pages: {:?}", steps(disk.path()));
        run.resume().succeeded();
        assert_eq!(steps(disk.path()), [6, 8]);
        fs::remove_dir_all(disk.path().join("run")).unwrap();
        copy(&kept.path().join("run"), &disk.path().join("run"));
    }
    assert!(refused > 0, "the disk was never full");
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn too_little_room_is_known_before_the_first_step() {
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=64k", "tmpfs"]) else { return };
    let refused = run_in(disk.path()).train();
    assert_eq!((refused.code, refused.errors().len()), (74, 1), "{}", refused.stderr);
    let line = refused.errors()[0].to_owned();
    assert!(
        line.contains("run/checkpoints`: no room for a checkpoint: found ") && line.contains(" bytes free, expected")
    );
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=512k", "tmpfs"]) else { return };
    let warned = run_in(disk.path()).set("checkpoint.keep=9").train();
    assert!(
        warned.stderr.contains("warn: `") && warned.stderr.contains("` may run out of room: "),
        "{}",
        warned.stderr
    );
}

#[test]
fn a_folder_that_cannot_be_written_ends_the_run_before_the_first_step() {
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "ro", "tmpfs"]) else { return };
    let refused = run_in(disk.path()).train();
    assert_eq!((refused.code, refused.errors().len()), (74, 1), "{}", refused.stderr);
    assert!(refused.errors()[0].contains("read-only file system"), "{}", refused.stderr);
}

#[test]
fn no_more_inodes_are_a_full_disk() {
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=8m,nr_inodes=16", "tmpfs"]) else { return };
    let ended = run_in(disk.path()).set("checkpoint={every_steps = 1, keep = 8}").train();
    assert_eq!((ended.code, ended.errors().len()), (74, 1), "{}", ended.stderr);
    let verified = gauntlet(Path::new("/"), &["checkpoint", "verify", &disk.path().join("run").to_string_lossy()]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
}

/// Four of eight steps, and something in the way of the checkpoint of step 6.
fn obstructed(policy: &str) -> (Run, PathBuf) {
    let run = Run::of(plugin("adam")).set("train.max_steps=8").set("checkpoint={every_steps = 2, keep = 2}");
    let run = run.set(format!("checkpoint.on_error={policy}"));
    run.train_with(&["--set", "train.max_tokens=256"]).succeeded();
    let obstacle = run.file("checkpoints/.step-6.partial");
    fs::write(&obstacle, "").unwrap();
    (run, obstacle)
}

#[test]
fn the_policy_says_what_follows_a_save_that_fails() {
    for policy in ["retry", "stop"] {
        let (run, obstacle) = obstructed(policy);
        let ended = run.resume();
        assert_eq!((ended.code, ended.errors().len()), (74, 1), "{policy}: {}", ended.stderr);
        assert!(ended.errors()[0].contains(".step-6.partial"), "{}", ended.stderr);
        assert_eq!(run.events("checkpoint_failed")[0]["step"], 6);
        assert_eq!(steps(run.folder.path()), [2, 4]);
        fs::remove_file(obstacle).unwrap();
        run.resume().succeeded();
    }
    let (run, _) = obstructed("continue");
    let ended = run.resume();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!((run.events("checkpoint_failed").len(), steps(run.folder.path())), (1, vec![4, 8]));
    let (run, obstacle) = obstructed("continue");
    fs::rename(obstacle, run.file("checkpoints/.step-8.partial")).unwrap();
    assert_eq!(run.resume().code, 74, "the last one has to succeed");
}

#[test]
fn a_folder_that_was_taken_away_is_not_made_again() {
    let run = Run::of(plugin("adam")).set("train.max_steps=1000000").set("checkpoint={every_steps = 5, keep = 2}");
    let args = run.args(&[]);
    let mut command = Command::new(crate::built::GAUNTLET);
    let child = crate::program::without_own(&mut command).args(&args).current_dir(run.folder.path());
    let child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while steps(run.folder.path()).is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::rename(run.file("checkpoints"), run.file("elsewhere")).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(74), "{said}");
    let why =
        ["`run/checkpoints` is not the folder that this run began with: found nothing", "no such file or directory"];
    assert!(why.iter().any(|why| said.contains(why)), "{said}");
    assert!(!run.file("checkpoints").exists());
}
