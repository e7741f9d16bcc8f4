//! Opening a hundred long runs: `gauntlet report`, and `gauntlet compare --report`. The runs are real ones of two steps,
//! whose records and results are then written as long as those of many steps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::drive::{Arguments, Round, Subject};
use crate::{quickstart, session};

/// Runs of each of the two contenders.
const SEEDS: usize = 50;
/// Steps, each with an event and an evaluation, that a run is made to have.
const STEPS: usize = 10_000;
/// Gradients that a run may spend.
const LIMIT: f64 = 2.0;

pub struct Reporting {
    comparison: PathBuf,
    runs: Vec<PathBuf>,
    page: PathBuf,
}

impl Reporting {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let folder = &arguments.folder;
        let comparison = write_comparison(folder, &quickstart::prepare(folder)?)?;
        gauntlet(&[Path::new("compare"), &comparison])?;
        for result in entries(&folder.join("out/results"))? {
            lengthen_result(&result)?;
        }
        let runs = entries(&folder.join("out/runs"))?;
        ensure!(runs.len() == 2 * SEEDS, "found {} runs, expected {}", runs.len(), 2 * SEEDS);
        for run in &runs {
            lengthen_record(&run.join("events.jsonl"))?;
        }
        Ok(Self { comparison, runs, page: folder.join("report.html") })
    }

    fn report(&self) -> Result<f64> {
        let mut words = vec![Path::new("report"), Path::new("--out"), &self.page];
        words.extend(self.runs.iter().map(PathBuf::as_path));
        gauntlet(&words)
    }

    fn compare(&self) -> Result<f64> {
        gauntlet(&[Path::new("compare"), &self.comparison, Path::new("--report")])
    }
}

impl Subject for Reporting {
    fn check(&mut self) -> Result<Vec<f64>> {
        self.report()?;
        self.compare()?;
        Ok(vec![])
    }

    fn round(&mut self) -> Result<Round> {
        Ok(vec![("report", self.report()?), ("compare", self.compare()?)])
    }
}

/// A small model, and two optimizers with `SEEDS` seeds each.
fn write_comparison(folder: &Path, shards: &Path) -> Result<PathBuf> {
    let base = format!(
        "[model]\nwidth = 16\nnum_layers = 1\nnum_heads = 2\nmlp_width = 32\n\
        [data]\ntrain = '{shards}'\nvalidation = '{shards}'\nseq_len = 16\nbatch_size = 4\n\
        [eval]\nbatches = 1\nbatch_size = 4\n[plugins]\nprobe = false\n",
        shards = shards.display()
    );
    fs::write(folder.join("base.toml"), base)?;
    let seeds: Vec<usize> = (1..=SEEDS).collect();
    let contender = |name: &str, baseline: bool| {
        format!(
            "[[contender]]\nname = '{name}'\nbaseline = {baseline}\n\
            set.optimizer = {{ plugin = '{name}', config = {{ lr = 0.001 }} }}\n"
        )
    };
    let comparison = format!(
        "base = ['base.toml']\ndir = '{}'\nseeds = {seeds:?}\ntarget_loss = 1.65\nother_targets = [1.75]\n\
        max_gradient_equivalents = {LIMIT:.1}\nthreads = 1\nworkers = 2\n{}{}",
        folder.join("out").display(),
        contender("sgd", true),
        contender("adam", false)
    );
    let path = folder.join("comparison.toml");
    fs::write(&path, comparison)?;
    Ok(path)
}

/// `STEPS` evaluations, whose losses fall through the targets.
fn lengthen_result(path: &Path) -> Result<()> {
    let mut result: Value = serde_json::from_slice(&fs::read(path)?)?;
    let rate = 3.0 + result["seed"].as_f64().context("no seed")? / SEEDS as f64;
    let evaluation = |step: usize| {
        let share = step as f64 / STEPS as f64;
        json!({
            "step": step, "loss": 1.5 + 1.5 * (-rate * share).exp(), "tokens": 64 * step, "line_search_tokens": 0,
            "gradient_equivalents": LIMIT * share, "flops": 1e6 * step as f64, "seconds": 0.01 * step as f64,
        })
    };
    result["validation"] = (1..=STEPS).map(evaluation).collect();
    Ok(fs::write(path, result.to_string())?)
}

/// The start, and `STEPS` events as the first one of a step.
fn lengthen_record(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let first = |event: &str| lines.iter().find(|line| line["event"] == event).with_context(|| format!("no `{event}`"));
    let mut long = format!("{}\n", first("started")?);
    let mut step = first("step")?.clone();
    for index in 1..=STEPS {
        step["step"] = index.into();
        long += &format!("{step}\n");
    }
    Ok(fs::write(path, long)?)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Runs the program; gives the seconds that it took.
fn gauntlet(words: &[&Path]) -> Result<f64> {
    let mut command = Command::new(session::program()?);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status().context("cannot run `gauntlet`")?;
    ensure!(status.success(), "`gauntlet {}` ended with {status}", words[0].display());
    Ok(started.elapsed().as_secs_f64())
}
