//! `cargo xtask bench`: what the host costs beside PyTorch on the same libtorch, model and data.
//!
//! A subject has sides, each a process that lives for all rounds. They run in turn, one at a time, in an order that
//! rotates from round to round, so that what disturbs the machine disturbs all of them; ratios are taken within a round.

mod machine;
mod peers;
mod report;
mod side;
mod statistics;
mod subject;
mod subjects;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::cargo;
use crate::corpus::SHAKESPEARE;
use crate::setup;
use peers::{PEERS, Python};
use report::Report;
use side::Side;
use subject::{Program, Rounds, Subject};
use subjects::SUBJECTS;

/// Options of the bench.
#[derive(clap::Args)]
pub struct Options {
    /// Measure only the subjects of these keys; may be repeated
    #[arg(long, value_name = "KEY")]
    only: Vec<String>,
    /// Rounds of each subject
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(15..))]
    rounds: u32,
    /// Threads of each side, 0 for as many as there are cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

/// Sides agree in what they compute to this share; they differ in the order of sums in single precision.
const AGREEMENT: f64 = 2e-3;

/// Measures, prints the table and writes `target/bench/latest.json`.
pub fn run(options: &Options) -> Result<()> {
    let subjects = chosen(&options.only)?;
    let cache = setup::ensure(setup::present_edition(), &[&PEERS, &SHAKESPEARE])?;
    let scratch = cargo::workspace_root().join("target/bench");
    cache::create_folder(&scratch)?;
    let gauntlet = cargo::build_workspace("gauntlet")?;
    let host = cargo::build_example("gauntlet", "bench")?;
    let bench = Bench {
        python: Python::prepare(&cache, &scratch)?,
        host,
        gauntlet,
        plays: SHAKESPEARE.path(&cache).join("plays"),
        scratch,
        threads: if options.threads == 0 { cores() } else { options.threads },
    };
    let mut report = Report::new(options.rounds as usize, bench.threads);
    for subject in subjects {
        bench.measure(subject, options.rounds as usize, &mut report)?;
    }
    let path = bench.scratch.join("latest.json");
    report.write(&path)?;
    println!("written to `{}`", path.display());
    if report.exceeded.is_empty() { Ok(()) } else { bail!("limits exceeded: {}", report.exceeded.join(", ")) }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The subjects of some keys, or all.
fn chosen(only: &[String]) -> Result<Vec<&'static Subject>> {
    for wanted in only {
        let mut keys = SUBJECTS.iter().flat_map(|subject| subject.keys);
        if !keys.any(|key| key.name == wanted) {
            let all: Vec<_> = SUBJECTS.iter().flat_map(|subject| subject.keys).map(|key| key.name).collect();
            bail!("no such key: found `{wanted}`, expected one of {}", all.join(", "));
        }
    }
    let is_chosen = |subject: &&Subject| {
        only.is_empty() || subject.keys.iter().any(|key| only.iter().any(|wanted| key.name == wanted))
    };
    Ok(SUBJECTS.iter().filter(is_chosen).collect())
}

/// What the sides are made of.
struct Bench {
    python: Python,
    host: PathBuf,
    gauntlet: PathBuf,
    plays: PathBuf,
    scratch: PathBuf,
    threads: usize,
}

impl Bench {
    fn measure(&self, subject: &Subject, rounds: usize, report: &mut Report) -> Result<()> {
        let folder = self.scratch.join(subject.name);
        cache::remove_folder(&folder)?;
        cache::create_folder(&folder)?;
        let mut sides = self.start(subject, &folder, report)?;
        let mut values = Rounds::new();
        for round in 0..rounds {
            eprint!("\r{}: round {} of {rounds} ", subject.name, round + 1);
            for turn in 0..sides.len() {
                let index = (round + turn) % sides.len();
                for (quantity, value) in sides[index].round()? {
                    values.entry((subject.sides[index].name.to_owned(), quantity)).or_default().push(value);
                }
            }
        }
        eprintln!();
        drop(sides);
        report.add(subject, &values);
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))
    }

    /// Starts the sides one after another, the first of which writes the inputs, and compares what they compute.
    fn start(&self, subject: &Subject, folder: &Path, report: &mut Report) -> Result<Vec<Side>> {
        let (mut sides, mut first_check) = (Vec::new(), None);
        for side in subject.sides {
            let what = format!("{} of `{}`", side.name, subject.name);
            eprintln!("{what}: getting warm");
            let mut command = self.command(side.program);
            command.args([subject.name, side.name]).arg(folder).arg(self.threads.to_string());
            let (process, ready) = Side::start(what.clone(), &mut command)?;
            report.versions(ready.versions);
            agree(&what, first_check.get_or_insert_with(|| ready.check.clone()), &ready.check)?;
            sides.push(process);
        }
        Ok(sides)
    }

    fn command(&self, program: Program) -> Command {
        let mut command = match program {
            Program::Host => Command::new(&self.host),
            Program::Python(file) => self.python.command(file),
        };
        command.env("OMP_NUM_THREADS", self.threads.to_string()).current_dir(cargo::workspace_root());
        command.env("BENCH_GAUNTLET", &self.gauntlet).env("BENCH_PLAYS", &self.plays);
        command
    }
}

/// Sides that compute something else are not compared.
fn agree(what: &str, first: &[f64], check: &[f64]) -> Result<()> {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= AGREEMENT * a.abs().max(1e-9);
    if first.len() == check.len() && first.iter().zip(check).all(close) {
        return Ok(());
    }
    bail!("{what}: it computes something else than the first side: found {check:?}, expected {first:?}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_unique_and_refer_to_sides_of_their_subject() {
        let keys: Vec<_> = SUBJECTS.iter().flat_map(|subject| subject.keys).map(|key| key.name).collect();
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        for subject in SUBJECTS {
            let has = |subject::Of(side, _): &subject::Of| subject.sides.iter().any(|known| known.name == *side);
            for key in subject.keys {
                assert!(has(&key.of), "{}", key.name);
                match key.against {
                    subject::Against::One(other) => assert!(has(&other), "{}", key.name),
                    subject::Against::Least(others) => assert!(others.iter().all(has), "{}", key.name),
                    subject::Against::Number(number) => assert!(number > 0.0, "{}", key.name),
                }
            }
        }
    }

    #[test]
    fn a_key_chooses_its_subject_and_a_wrong_one_is_refused() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            chosen(&only).map(|subjects| subjects.iter().map(|subject| subject.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), SUBJECTS.len());
        assert_eq!(names(&["gradient_over_torch_compile"]).unwrap(), ["gradient"]);
        assert!(names(&["gradient_over"]).unwrap_err().to_string().starts_with("no such key: found `gradient_over`"));
    }

    #[test]
    fn sides_agree_to_a_share() {
        assert!(agree("x", &[8.0, -1.0], &[8.001, -1.0]).is_ok());
        assert!(agree("x", &[8.0], &[8.1]).unwrap_err().to_string().contains("found [8.1], expected [8.0]"));
        assert!(agree("x", &[8.0], &[8.0, 1.0]).is_err());
    }
}
