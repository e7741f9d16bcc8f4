//! `gauntlet watch` on real runs: frames as text, a terminal that is given back, a run that is left alone.

use crate::built::{GAUNTLET, plugin};
use crate::corpus::Run;
use crate::program::{Outcome, filtered, gauntlet, outcome, without_own};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the terminal gets when its view is taken over, and when it is given back.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
/// No wait of these tests is longer.
const PATIENCE: Duration = Duration::from_secs(30);

fn finished() -> Run {
    Run::of(plugin("adam")).set("train.max_steps=6").set("eval.every_steps=2").finished()
}

fn once(folder: &Path, args: &[&str]) -> Outcome {
    gauntlet(folder, &[&["watch", "--once"], args].concat())
}

#[test]
fn one_frame_of_a_finished_run_is_plain_text() {
    let run = finished();
    let folder = run.folder.path();
    let before = fs::read(run.file("events.jsonl")).unwrap();
    let frame = once(folder, &["run"]).succeeded();
    for words in [
        "┌ run ",
        " finished ┐",
        "plugin adam",
        "step 6 of 6",
        "100 %",
        "tokens/s",
        "time by phase",
        "checkpoint of step 6",
    ] {
        assert!(frame.contains(words), "no `{words}` in\n{frame}");
    }
    assert_eq!(frame.lines().map(|line| line.chars().count()).max(), Some(100), "{frame}");
    let mut narrow = Command::new(GAUNTLET);
    let narrow = without_own(&mut narrow).args(["watch", "run", "--once"]).env("COLUMNS", "60").current_dir(folder);
    let narrow = outcome(narrow).succeeded();
    assert_eq!(narrow.lines().map(|line| line.chars().count()).max(), Some(60), "{narrow}");
    assert!(fs::read(run.file("events.jsonl")).unwrap() == before, "the record is only read");
}

#[test]
fn bad_input_is_a_line_and_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("empty")).unwrap();
    fs::create_dir_all(folder.path().join("other")).unwrap();
    fs::write(folder.path().join("other/events.jsonl"), "hello\n{\"event\":\"unheard_of\"}\n").unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let table = [
        ("none", 66, "cannot read `none`: no such file or directory"),
        ("empty", 66, "cannot read `empty/events.jsonl`: no such file or directory"),
        ("file", 66, "`file` is no folder of a run: found a file; hint: name the folder that holds `events.jsonl`"),
        ("other", 65, "`other/events.jsonl`: not the record of a run: found 2 lines, none of which is an event"),
    ];
    for (name, code, line) in table {
        let outcome = once(folder.path(), &[name]);
        assert_eq!(
            (outcome.code, outcome.errors()),
            (code, vec![line]),
            "{}",
            filtered(&outcome.stderr, folder.path())
        );
        assert_eq!(outcome.stdout, "", "{name}");
    }
}

#[test]
fn without_a_terminal_there_is_a_line_and_no_view() {
    let run = finished();
    let outcome = gauntlet(run.folder.path(), &["watch", "run"]);
    let line = "`gauntlet watch` needs a terminal: found standard input or output that is none; \
                hint: print one frame with `--once`";
    assert_eq!((outcome.code, outcome.errors(), outcome.stdout.as_str()), (2, vec![line], ""), "{}", outcome.stderr);
}

/// A run that goes on for minutes if it is let.
fn long() -> (Run, Child) {
    let run = Run::of(plugin("adam")).set("train.max_steps=100000000").set("eval.every_steps=1000000");
    let mut command = Command::new(GAUNTLET);
    let command = without_own(&mut command).args(run.args(&[])).current_dir(run.folder.path());
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a first step", || {
        fs::read_to_string(run.file("events.jsonl")).is_ok_and(|text| text.contains("\"event\":\"step\""))
    });
    (run, child)
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_there() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_living_run_is_told_from_one_that_was_killed_and_is_left_alone() {
    let (run, mut child) = long();
    let living = once(run.folder.path(), &["run"]).succeeded();
    assert!(living.contains(" training ┐") && living.contains("of 100000000"), "{living}");
    let mut terminal = Terminal::watching(&run);
    terminal.wait_for("training");
    terminal.send(b"q");
    assert_eq!(terminal.ended().code(), Some(0));
    assert!(child.try_wait().unwrap().is_none(), "the run goes on");
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = once(run.folder.path(), &["run"]).succeeded();
    assert!(killed.contains(" ended without a last line ┐"), "{killed}");
    assert_eq!(run.train_with(&["--resume", "auto", "--set", "train.max_steps=2", "--allow-change", "train"]).code, 0);
    assert!(once(run.folder.path(), &["run"]).succeeded().contains(" finished ┐"));
}

/// The program in a terminal of its own, as the leader of its session.
struct Terminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    before: Termios,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn watching(run: &Run) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let slave = open(path.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        resize(&master, 100, 36);
        let before = tcgetattr(&slave).unwrap();
        let standard = || Stdio::from(slave.try_clone().unwrap());
        let mut command = Command::new("setsid");
        let command = without_own(&mut command).args(["--ctty", "--wait", GAUNTLET, "watch", "run"]);
        let command = command.current_dir(run.folder.path()).env("TERM", "xterm-256color");
        let child = command.stdin(standard()).stdout(standard()).stderr(standard()).spawn().unwrap();
        let (master, output) = (File::from(master), Arc::new(Mutex::new(Vec::new())));
        let (mut reader, written) = (master.try_clone().unwrap(), output.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                written.lock().unwrap().extend_from_slice(&piece[..count]);
            }
        });
        Self { child, master, slave, before, output }
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, words: &str) {
        let started = Instant::now();
        while !self.output().contains(words) {
            assert!(started.elapsed() < PATIENCE, "no `{words}` in {:?}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn send(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end, after which the terminal must be what it was.
    fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end: {:?}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        };
        self.wait_for(LEAVE);
        let after = tcgetattr(&self.slave).unwrap();
        let modes = |state: &Termios| (state.input_modes, state.output_modes, state.control_modes, state.local_modes);
        assert_eq!(modes(&after), modes(&self.before), "the terminal's modes are not what they were");
        let output = self.output();
        assert_eq!(output.matches(ENTER).count(), 1, "{output:?}");
        assert!(output.rfind("\u{1b}[?25h") > output.rfind("\u{1b}[?25l"), "the cursor is hidden: {output:?}");
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(master: impl std::os::fd::AsFd, columns: u16, rows: u16) {
    tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

#[test]
fn q_escape_and_control_c_quit_and_other_keys_do_not() {
    let run = finished();
    for keys in [&b"q"[..], b"\x1b", b"\x03", b"xQ\x1b[A\rq"] {
        let mut terminal = Terminal::watching(&run);
        terminal.wait_for("finished");
        terminal.send(keys);
        assert_eq!(terminal.ended().code(), Some(0), "{keys:?}");
    }
}

#[test]
fn a_signal_ends_it_with_the_terminal_given_back() {
    let run = finished();
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let mut terminal = Terminal::watching(&run);
        terminal.wait_for("finished");
        terminal.signal(signal);
        assert_eq!(terminal.ended().code(), Some(code), "{signal}");
    }
}

#[test]
fn a_frame_follows_the_size_of_the_terminal() {
    let run = finished();
    let mut terminal = Terminal::watching(&run);
    terminal.wait_for("phase");
    let before = terminal.output().len();
    resize(&terminal.master, 60, 20);
    wait_for("a new frame", || terminal.output()[before..].contains("adam,"));
    let after = terminal.output()[before..].to_owned();
    assert!(!after.contains("phase"), "a narrow frame has one column: {after:?}");
    terminal.send(b"q");
    assert_eq!(terminal.ended().code(), Some(0));
}

#[test]
fn an_error_in_the_middle_is_told_after_the_terminal_is_given_back() {
    let run = finished();
    let mut terminal = Terminal::watching(&run);
    terminal.wait_for("finished");
    fs::write(run.file("other"), "hello\n").unwrap();
    fs::rename(run.file("other"), run.file("events.jsonl")).unwrap();
    assert_eq!(terminal.ended().code(), Some(65));
    terminal.wait_for("error: `run/events.jsonl`: not the record of a run");
    assert!(terminal.output().rfind("error: ") > terminal.output().rfind(LEAVE), "{:?}", terminal.output());
}
