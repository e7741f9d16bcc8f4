//! Power losses: what a disk holds at an instant, with everything that was not synced gone.
//!
//! The run writes to an ext4 image that is mounted with `noauto_da_alloc`, so that a rename alone brings no data to the disk.
//! It is stopped, the image is copied as the disk would be found, and the copy is checked and mounted.

use crate::built::{GAUNTLET, plugin};
use crate::corpus::Run;
use crate::program::{gauntlet, without_own};
use crate::skipped::skipped;
use crate::soak::{random, rounds};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

fn done(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A file system in a file, mounted until it is dropped.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// A new file system; `None` where this machine cannot have one.
    fn new() -> Option<Self> {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        fs::File::create(disk.image()).unwrap().set_len(64 << 20).unwrap();
        let made = done("mkfs.ext4", &["-q", "-F", disk.image().to_str().unwrap()]);
        (made && disk.mounted("loop,noauto_da_alloc")).then_some(disk)
    }

    /// A copy of an image as it is now, repaired as at a start after a power loss.
    fn after_power_loss(image: &Path) -> Self {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        fs::copy(image, disk.image()).unwrap();
        // 1 means that errors were corrected.
        let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(disk.image()).output().unwrap();
        assert!(checked.status.code() <= Some(1), "{}", String::from_utf8_lossy(&checked.stdout));
        assert!(disk.mounted("loop"));
        disk
    }

    fn mounted(&self, options: &str) -> bool {
        fs::create_dir(self.mount()).unwrap();
        done("mount", &["-o", options, self.image().to_str().unwrap(), self.mount().to_str().unwrap()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        done("umount", &["-l", self.mount().to_str().unwrap()]);
    }
}

/// A run that saves after each step, and what it says on standard error.
fn start(run: &Run) -> (Child, Receiver<String>) {
    let mut command = Command::new(GAUNTLET);
    without_own(&mut command).args(run.args(&["--resume", "auto"])).current_dir(run.folder.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (to, from) = channel();
    let mut stderr = child.stderr.take().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut buffer) {
            let _ = to.send(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
    });
    (child, from)
}

/// The newest step that the run has called committed.
fn committed(said: &str) -> u64 {
    let line = said.lines().rev().find_map(|line| line.strip_prefix("checkpoint ")?.split("step-").nth(1));
    line.and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_power_loss_leaves_what_was_called_committed() {
    let Some(disk) = Disk::new() else { return skipped("no ext4 image may be mounted: power losses") };
    let run = Run::of(plugin("adam")).set("train.max_steps=1000000").set("checkpoint={every_steps = 1, keep = 3}");
    let run = run.set(format!("run.dir={}", disk.mount().join("run").display()));
    let (mut child, said) = start(&run);
    let (mut random, mut text) = (random(3), String::new());
    let signal = |name: &str, id: u32| assert!(done("kill", &["-s", name, &id.to_string()]));
    while committed(&text) == 0 {
        text.push_str(&said.recv_timeout(Duration::from_secs(30)).unwrap());
    }
    for round in 0..rounds(4, 100) {
        std::thread::sleep(Duration::from_secs_f64(0.3 * random()));
        signal("STOP", child.id());
        text.extend(said.try_iter());
        let found = Disk::after_power_loss(&disk.image());
        signal("CONT", child.id());
        let folder = found.mount().join("run");
        let folder = folder.to_str().unwrap();
        let verified = gauntlet(Path::new("/"), &["checkpoint", "verify", folder]);
        assert_eq!(verified.code, 0, "round {round}: {}", verified.stderr);
        let listed = gauntlet(Path::new("/"), &["checkpoint", "list", folder]).succeeded();
        let steps =
            listed.lines().filter_map(|line| line.split("step-").nth(1)?.split_whitespace().next()?.parse().ok());
        let newest: u64 = steps.max().unwrap_or(0);
        assert!(newest >= committed(&text), "round {round}: found {newest}, said {}", committed(&text));
    }
    signal("KILL", child.id());
    child.wait().unwrap();
}
