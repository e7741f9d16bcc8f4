//! A small corpus that looks like a play, its shards, and tiny runs on them.

use crate::program::{Outcome, gauntlet};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

const WORDS: &str = "the and to of thou my in is that not with me his it be this your for what have as will but so king \
    love good lord night sweet heart come speak death world crown hand eyes blood honour";
const SPEAKERS: [&str; 4] = ["ROSALIND", "ORLANDO", "FIRST LORD", "THE GHOST"];

/// Prose by a linear congruential generator (Knuth's MMIX): the same for the same seed, everywhere.
pub fn play(seed: u64, lines: usize) -> String {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut state = seed;
    let mut below = |count: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % count
    };
    let mut text = String::new();
    for _ in 0..lines {
        text += &format!("**{}.** ", SPEAKERS[below(SPEAKERS.len())]);
        let spoken: Vec<&str> = (0..6 + below(6)).map(|_| words[below(words.len())]).collect();
        text += &format!("{}.\n", spoken.join(" "));
    }
    text
}

/// Shards of four plays, of which `d.md` is for validation.
pub fn shards() -> &'static Path {
    static SHARDS: LazyLock<PathBuf> = LazyLock::new(|| {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        remove_of_ended_processes(parent);
        let folder = parent.join(format!("corpus-{}", std::process::id()));
        prepare(&folder).succeeded();
        folder.join("shards")
    });
    &SHARDS
}

/// Writes the plays into `FOLDER/plays` and makes shards of them in `FOLDER/shards`.
pub fn prepare(folder: &Path) -> Outcome {
    let plays = folder.join("plays");
    fs::create_dir_all(&plays).unwrap();
    for (seed, name) in ["a.md", "b.md", "c.md", "d.md"].iter().enumerate() {
        fs::write(plays.join(name), play(seed as u64, 400)).unwrap();
    }
    gauntlet(folder, &["data", "prepare", "plays", "--out", "shards", "--validation-file", "d.md"])
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => assert!(fs::copy(entry.path(), target).is_ok()),
        }
    }
}

fn remove_of_ended_processes(parent: &Path) {
    for entry in fs::read_dir(parent).unwrap().flatten() {
        let name = entry.file_name();
        let ended = |pid: &str| !Path::new("/proc").join(pid).exists();
        if name.to_string_lossy().strip_prefix("corpus-").is_some_and(ended) {
            // Another process that starts now may be removing it as well.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A run of a tiny model in a folder of its own.
pub struct Run {
    /// The folder that holds `run.toml` and, as `run`, the run directory.
    pub folder: TempDir,
    sets: Vec<String>,
}

impl Run {
    /// Four steps of a shipped plugin, or of a library by its path, each of 4 sequences of 16 tokens.
    pub fn of(plugin: impl AsRef<Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[run]\ndir = 'run'\nthreads = 1\n\
             [model]\nwidth = 16\nnum_layers = 1\nnum_heads = 2\nmlp_width = 32\nqk_norm = true\n\
             [data]\ntrain = '{shards}'\nvalidation = '{shards}'\nseq_len = 16\nbatch_size = 4\n\
             [optimizer]\nplugin = '{plugin}'\n\
             [train]\nmax_steps = 4\n\
             [eval]\nbatches = 2\nbatch_size = 4\n\
             [metrics]\nenabled = false\n\
             [plugins]\nprobe = false\n",
            shards = shards().display(),
            plugin = plugin.as_ref().display(),
        );
        fs::write(folder.path().join("run.toml"), text).unwrap();
        Self { folder, sets: vec![] }
    }

    /// Sets one key, `KEY=VALUE`.
    pub fn set(mut self, setting: impl Into<String>) -> Self {
        self.sets.push(setting.into());
        self
    }

    /// Trains.
    pub fn train(&self) -> Outcome {
        self.train_with(&[])
    }

    /// Goes on at the latest checkpoint.
    pub fn resume(&self) -> Outcome {
        self.train_with(&["--resume", "auto"])
    }

    /// Shows the run and trains nothing.
    pub fn dry_run(&self) -> Outcome {
        self.train_with(&["--dry-run"])
    }

    /// Trains with more arguments.
    pub fn train_with(&self, more: &[&str]) -> Outcome {
        gauntlet(self.folder.path(), &self.args(more))
    }

    /// The arguments of a call that trains.
    pub fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["train", "--config", "run.toml"];
        self.sets.iter().for_each(|setting| args.extend(["--set", setting]));
        args.extend(more);
        args
    }

    /// The same run, with all that it has written, in a folder of its own.
    pub fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), folder.path());
        Self { folder, sets: self.sets.clone() }
    }

    /// Trains, and gives the run, which must succeed.
    pub fn finished(self) -> Self {
        self.train().succeeded();
        self
    }

    /// A file of the run directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("run").join(name)
    }

    /// The bytes of a file of the checkpoint of a step.
    pub fn saved(&self, step: u64, name: &str) -> Vec<u8> {
        let path = self.file(&format!("checkpoints/step-{step}/{name}"));
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The events of one kind.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.file("events.jsonl")).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["event"] == kind).collect()
    }

    /// One number of each finished step.
    pub fn by_step(&self, key: &str) -> Vec<f64> {
        self.events("step").iter().map(|event| event[key].as_f64().unwrap_or(f64::NAN)).collect()
    }
}
