//! Frames of recorded runs, and records that grow, end, are cut, replaced or none.

use super::follow::Follower;
use super::run::{Pace, State};
use super::view::View;
use super::*;
use insta::assert_snapshot;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// A recorded run of `tests/data/watch`.
fn recorded(name: &str) -> Vec<u8> {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    fs::read(PathBuf::from(root).join(format!("../tests/data/watch/{name}.jsonl"))).unwrap()
}

/// The first lines of a record.
fn lines(record: &[u8], count: usize) -> Vec<u8> {
    record.split_inclusive(|byte| *byte == b'\n').take(count).collect::<Vec<_>>().concat()
}

/// A run's folder, and its process's lock where that lives.
struct Folder {
    parent: tempfile::TempDir,
    lock: Option<File>,
}

impl Folder {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("run")).unwrap();
        Self { parent, lock: None }
    }

    fn with(record: &[u8]) -> Self {
        let folder = Self::new();
        folder.append(record);
        folder
    }

    fn path(&self) -> PathBuf {
        self.parent.path().join("run")
    }

    fn record(&self) -> PathBuf {
        self.path().join("events.jsonl")
    }

    fn append(&self, bytes: &[u8]) {
        let mut file = File::options().append(true).create(true).open(self.record()).unwrap();
        file.write_all(bytes).unwrap();
    }

    /// With a living process.
    fn held(mut self) -> Self {
        let lock = File::open(self.path()).unwrap();
        lock.try_lock().unwrap();
        self.lock = Some(lock);
        self
    }

    fn follower(&self) -> Follower {
        let mut follower = Follower::new(&self.path()).unwrap();
        follower.poll().unwrap();
        follower
    }
}

/// The frame on a terminal of this size, which no key leaves.
fn frame(folder: &Folder, (width, height): (u16, u16)) -> TestBackend {
    let follower = folder.follower();
    let age = Some(Duration::from_secs(12));
    let view = View { age, keys: true, ..View::of(&follower) };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| frame.render_widget(&view, frame.area())).unwrap();
    terminal.backend().clone()
}

#[test]
fn a_running_run() {
    let record = recorded("adam");
    let running = lines(&record, 30);
    assert_snapshot!("running", frame(&Folder::with(&running).held(), (100, 36)));
}

#[test]
fn a_finished_run() {
    assert_snapshot!("finished", frame(&Folder::with(&recorded("adam")), (100, 36)));
}

#[test]
fn a_failed_run() {
    assert_snapshot!("failed", frame(&Folder::with(&recorded("failed")), (100, 36)));
}

#[test]
fn a_second_order_run() {
    assert_snapshot!("second_order", frame(&Folder::with(&recorded("hessian-free")), (120, 44)));
}

#[test]
fn a_run_whose_process_is_gone() {
    let frame = frame(&Folder::with(&lines(&recorded("adam"), 30)), (80, 24));
    assert_snapshot!("lost", frame);
}

#[test]
fn a_frame_of_plain_text_has_the_same_without_trailing_spaces() {
    let folder = Folder::with(&recorded("hessian-free"));
    let plain = once(&folder.path(), 100).unwrap();
    assert!(plain.lines().all(|line| line == line.trim_end_matches(' ') && line.chars().count() <= 100), "{plain}");
    for words in ["run", "finished", "plugin hessian-free", "damping", "reduction_ratio", "validation loss", "tokens/s"]
    {
        assert!(plain.contains(words), "no `{words}` in\n{plain}");
    }
    assert!(!plain.contains('\u{1b}') && !plain.contains("q quits"), "{plain}");
}

#[test]
fn every_size_has_a_frame() {
    let folders = ["adam", "hessian-free", "failed"].map(|name| Folder::with(&recorded(name)));
    for folder in folders.iter().chain(&[Folder::new()]) {
        for size in [(1, 1), (2, 9), (20, 5), (40, 14), (60, 20), (69, 30), (71, 17), (300, 100)] {
            frame(folder, size);
        }
    }
}

#[test]
fn a_record_is_followed_as_it_grows_and_over_a_cut_line() {
    let record = recorded("adam");
    let folder = Folder::new().held();
    let mut follower = folder.follower();
    assert_eq!((follower.state(), follower.poll().unwrap()), (State::Waiting, false));
    let ends: Vec<usize> = (0..record.len()).filter(|at| record[*at] == b'\n').collect();
    folder.append(&record[..ends[9] + 1]);
    assert!(follower.poll().unwrap());
    let seen = follower.run().history.train.len();
    folder.append(&record[ends[9] + 1..ends[10] - 20]);
    follower.poll().unwrap();
    assert_eq!((follower.run().history.train.len(), follower.run().history.unreadable), (seen, 0));
    folder.append(&record[ends[10] - 20..]);
    assert!(follower.poll().unwrap());
    assert_eq!(follower.run().history, folder.follower().run().history, "as if it had been read at once");
    assert_eq!((follower.state(), follower.poll().unwrap()), (State::Finished, false));
}

#[test]
fn pieces_of_any_length_give_the_same_run() {
    let (record, folder) = (recorded("failed"), Folder::new().held());
    let mut follower = folder.follower();
    for piece in record.chunks(97) {
        folder.append(piece);
        follower.poll().unwrap();
    }
    let whole = Folder::with(&record).held();
    assert_eq!(follower.run().history.train, whole.follower().run().history.train);
    assert_eq!(follower.run().notes, whole.follower().run().notes);
}

#[test]
fn a_last_event_without_its_newline_counts_and_a_torn_one_does_not() {
    let record = recorded("adam");
    let folder = Folder::with(record.trim_ascii_end());
    assert_eq!(folder.follower().state(), State::Finished);
    let torn = Folder::with(&record.trim_ascii_end()[..record.len() - 3]);
    assert_eq!((torn.follower().state(), torn.follower().run().history.unreadable), (State::Lost, 0));
    // A later process ends the line and goes on.
    torn.append(b"\n");
    torn.append(&lines(&record, 1));
    assert_eq!((torn.held().follower().state(), folder.follower().run().history.unreadable), (State::Starting, 0));
}

#[test]
fn what_a_resumed_run_did_again_replaces_what_was_there() {
    let record = recorded("hessian-free");
    let folder = Folder::with(&record).held();
    let mut follower = folder.follower();
    let steps = follower.run().history.train.len() as u64;
    let damping = follower.run().metrics["damping"].clone();
    folder.append(&lines(&record, 1));
    let resumed =
        r#"{"elapsed":0.1,"event":"resumed","step":3,"checkpoint":"c","tokens":0,"line_search_tokens":0,"flops":0}"#;
    folder.append(format!("{resumed}\n").as_bytes());
    follower.poll().unwrap();
    let run = follower.run();
    assert_eq!((run.history.cost().step, run.history.resumes, follower.state()), (3, 1, State::Starting));
    assert_eq!(run.metrics["damping"].iter().collect::<Vec<_>>(), damping.iter().take(3).collect::<Vec<_>>());
    assert!(steps > 3 && run.seconds.iter().sum::<f64>() == 0.0, "phases are those of the present process");
}

#[test]
fn a_record_that_is_replaced_cut_or_removed_is_read_anew() {
    let record = recorded("adam");
    let folder = Folder::with(&record);
    let mut follower = folder.follower();
    let steps = follower.run().history.train.len();
    fs::write(folder.path().join("other"), lines(&record, 5)).unwrap();
    fs::rename(folder.path().join("other"), folder.record()).unwrap();
    assert!(follower.poll().unwrap() && follower.run().history.train.len() < steps);
    fs::write(folder.record(), lines(&record, 2)).unwrap();
    assert!(follower.poll().unwrap());
    assert_eq!(
        follower.run().history.train.len(),
        Folder::with(&lines(&record, 2)).follower().run().history.train.len()
    );
    fs::remove_file(folder.record()).unwrap();
    assert!(follower.poll().unwrap());
    assert_eq!((follower.state(), follower.run().history.started.is_none()), (State::Waiting, true));
}

#[test]
fn the_lock_tells_a_living_process_from_one_that_is_gone() {
    let running = lines(&recorded("adam"), 30);
    let mut folder = Folder::with(&running).held();
    let mut follower = folder.follower();
    assert!(follower.state().is_alive(), "{:?}", follower.state());
    folder.lock = None;
    assert!(follower.poll().unwrap(), "the end of the process is news");
    assert_eq!(follower.state(), State::Lost);
    // The look at the lock leaves it free.
    File::open(folder.path()).unwrap().try_lock().unwrap();
}

#[test]
fn what_is_no_record_is_refused_in_a_line() {
    let parent = tempfile::tempdir().unwrap();
    let fault = |path: &Path| once(path, 100).unwrap_err();
    let missing = fault(&parent.path().join("none"));
    assert_eq!(missing.exit, Exit::Missing);
    assert!(missing.to_string().ends_with("none`: no such file or directory"), "{missing}");
    let empty = fault(parent.path());
    assert_eq!(empty.exit, Exit::Missing);
    assert!(empty.to_string().contains("events.jsonl`: "), "{empty}");
    let file = Folder::with(b"x");
    assert_eq!(fault(&file.record()).exit, Exit::Missing);
    let other = fault(&Folder::with(b"hello\nworld\n").path());
    assert_eq!(other.exit, Exit::Data);
    let text = "not the record of a run: found 2 lines, none of which is an event";
    assert!(other.to_string().contains(text), "{other}");
    let folder = Folder::new();
    fs::create_dir(folder.record()).unwrap();
    assert_eq!(fault(&folder.path()).exit, Exit::Data);
    // A run that has just begun is none of these.
    assert!(once(&Folder::new().held().path(), 100).unwrap().contains("waiting for its record"));
    assert!(once(&Folder::with(b"").path(), 100).unwrap().contains("ended without a last line"));
}

#[test]
fn the_pace_is_that_of_the_last_steps() {
    let step = |number: u64, seconds: f64| {
        format!(
            "{{\"elapsed\":{},\"event\":\"step\",\"step\":{number},\"schedule\":1,\"tokens\":{},\"line_search_tokens\":0,\
             \"flops\":1,\"gradient_equivalents\":1,\"seconds\":{seconds},\"call_seconds\":0.1}}\n",
            if number <= 5 { 10.0 * number as f64 } else { 50.0 + 2.0 * (number - 5) as f64 },
            100 * number
        )
    };
    let started = String::from_utf8(lines(&recorded("adam"), 1)).unwrap();
    let slow: String = (1..=5).map(|number| step(number, 5.0)).collect();
    let fast: String = (6..=26).map(|number| step(number, 1.0)).collect();
    let folder = Folder::with((started + &slow).as_bytes()).held();
    let run = folder.follower();
    assert_eq!(run.run().pace(), Some(Pace { step_seconds: 10.0, tokens_per_second: 20.0 }));
    let most = run.run().max_steps().unwrap();
    assert_eq!(run.run().seconds_left(), Some(10.0 * (most - 5) as f64));
    folder.append(fast.as_bytes());
    assert_eq!(folder.follower().run().pace(), Some(Pace { step_seconds: 2.0, tokens_per_second: 100.0 }));
    assert_eq!(folder.follower().run().speeds(26), [vec![20.0; 5], vec![100.0; 21]].concat());
}

#[test]
fn hostile_texts_are_shown_and_do_nothing() {
    let started = String::from_utf8(lines(&recorded("adam"), 1)).unwrap().replace("\"adam\"", "\"a\\u001b[2Jb\"");
    let log = "{\"elapsed\":1e300,\"event\":\"log\",\"level\":\"error\",\"message\":\"x\\n\\u0007\u{202e}\u{4e16}\"}\n";
    let text = once(&Folder::with((started + log).as_bytes()).path(), 120).unwrap();
    assert!(text.contains("a\\u{1b}[2Jb") && text.contains("x\\n\\u{7}"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any numbers in the lines of a real record.
    #[test]
    fn any_numbers_have_a_frame(
        edits in prop::collection::vec((any::<prop::sample::Index>(), "-?[0-9]{1,20}(\\.[0-9]{1,3})?(e-?[0-9]{1,3})?"), 1..40),
        width in 1..200_u16,
    ) {
        let text = String::from_utf8(recorded("hessian-free")).unwrap();
        let mut parts: Vec<String> = text.split_inclusive([',', '}']).map(str::to_owned).collect();
        for (place, number) in edits {
            let part = &mut parts[place.index(text.matches([',', '}']).count())];
            if let Some((name, end)) = part.clone().rsplit_once(':').filter(|(_, value)| value.starts_with(|c: char| c.is_ascii_digit() || c == '-')) {
                *part = format!("{name}:{number}{}", &end[end.len() - 1..]);
            }
        }
        let folder = Folder::with(parts.concat().as_bytes());
        if let Ok(frame) = once(&folder.path(), width) {
            prop_assert!(frame.lines().count() > 20);
        }
    }
}
