//! What happens once in a run: loading a plugin, and the time from the start of the process to its first finished step.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use gauntlet::plugin::Plugin;

use crate::drive::{Arguments, Round, Subject};
use crate::{quickstart, session};

/// The quickstart from the start of its process.
pub struct Start {
    folder: PathBuf,
    shards: PathBuf,
    runs: u32,
}

impl Start {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let shards = quickstart::prepare(&arguments.folder)?;
        Ok(Self { folder: arguments.folder.clone(), shards, runs: 0 })
    }

    /// Reads, checks and loads the plugin, as a run does.
    fn load(&self) -> Result<f64> {
        let (path, started) = (session::plugin_path("adam")?, Instant::now());
        drop(Plugin::load(&path, None)?);
        Ok(started.elapsed().as_secs_f64())
    }

    /// Starts a run and waits for the event of its first step.
    fn first_step(&mut self) -> Result<f64> {
        self.runs += 1;
        let run = self.folder.join(format!("run-{}", self.runs));
        let set = |key: &str, value: &Path| format!("{key}={}", value.display());
        let sets = [
            set("run.dir", &run),
            set("data.train", &self.shards),
            set("data.validation", &self.shards),
            "metrics.listen=127.0.0.1:0".into(),
        ];
        let mut command = Command::new(session::program()?);
        command.args(["train", "--config", "configs/quickstart.toml"]);
        command.args(sets.iter().flat_map(|set| ["--set", set]));
        let started = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let waited = wait_for_step(&mut child, &run.join("events.jsonl"));
        let elapsed = started.elapsed().as_secs_f64();
        child.kill().context("cannot end the run")?;
        child.wait()?;
        waited.map(|()| elapsed)
    }
}

fn wait_for_step(child: &mut Child, events: &Path) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        let record = fs::read_to_string(events).unwrap_or_default();
        if record.lines().any(|line| line.contains(r#""event":"step""#)) {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("the quickstart ended with {status} before its first step");
        }
        thread::sleep(Duration::from_millis(1));
    }
    bail!("the quickstart made no step within a minute")
}

impl Subject for Start {
    fn check(&mut self) -> Result<Vec<f64>> {
        self.load()?;
        self.first_step()?;
        Ok(vec![])
    }

    fn round(&mut self) -> Result<Round> {
        Ok(vec![("load", self.load()?), ("first_step", self.first_step()?)])
    }
}
