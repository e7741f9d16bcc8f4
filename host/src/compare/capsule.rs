//! A folder that holds all that a comparison needs to be made again: files, configurations, results, hashes, logs.

use super::file::Comparison;
use super::plan::{Plan, Spec, Stage, for_worker};
use super::result::{End, MadeWith, Measure, RunResult};
use super::statistics::first_crossing;
use super::summary::{Found, Summary, Versus};
use super::worker::{Job, Outcome, Workers};
use crate::durable;
use crate::error::{Exit, Fault, Result};
use crate::sinks::say;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Name of the folder in that of the comparison.
const FOLDER: &str = "capsule";
/// Its file of hashes.
const HASHES: &str = "hashes.json";
/// A file in the folder of a verification that came to its end.
const WHOLE: &str = "verified";
/// Nats by which the last loss of a run that missed its target may be another one.
const MISSED_BY: f64 = 0.02;

/// What the runs of a capsule were made with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hashes {
    /// Fingerprint of the training data.
    data: String,
    /// That of the validation data.
    validation: String,
    /// SHA-256 of the plugins' files, by name; several of one that was built again between runs.
    plugins: BTreeMap<String, BTreeSet<String>>,
    /// SHA-256 of the shards, by their path, as their sidecars have it.
    shards: BTreeMap<String, String>,
    /// Seeds of the runs.
    seeds: Vec<u64>,
    /// The program that made them: version and commit.
    made_by: Vec<String>,
}

/// Writes the capsule of a comparison, in place of an older one.
///
/// # Errors
///
/// [`Exit::Write`].
pub fn write(plan: &Plan, file: &Path, found: &[Found]) -> Result<()> {
    let dir = &plan.comparison.dir;
    let folder = dir.join(FOLDER);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| Fault::writing(&folder, &error))?;
    }
    for part in ["configs", "results", "logs"] {
        let part = folder.join(part);
        fs::create_dir_all(&part).map_err(|error| Fault::writing(&part, &error))?;
    }
    write_files(plan, file, &folder)?;
    let (data, validation, shards) = (plan.data.clone(), plan.validation.clone(), plan.shards.clone());
    let mut hashes = Hashes { data, validation, shards, ..Hashes::default() };
    for run in found.iter().flat_map(|found| &found.runs) {
        let Some(spec) = spec_of(plan, run) else { continue };
        let name = spec.name();
        durable::replace(&folder.join("configs").join(format!("{name}.toml")), for_worker(&spec, &[])?.as_bytes())?;
        run.write(&folder.join("results"), &spec)?;
        let log = dir.join("logs").join(format!("{name}.log"));
        if log.exists() {
            copy(&log, &folder.join("logs").join(format!("{name}.log")))?;
        }
        let MadeWith { plugin, plugin_sha256, .. } = run.made_with.clone();
        hashes.plugins.entry(plugin).or_default().insert(plugin_sha256);
        hashes.seeds.push(run.seed);
        hashes.made_by.push(format!("{} {}", run.made_with.gauntlet, run.made_with.commit));
    }
    hashes.seeds.sort_unstable();
    hashes.seeds.dedup();
    hashes.made_by.sort_unstable();
    hashes.made_by.dedup();
    let text = serde_json::to_string_pretty(&hashes).map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    durable::replace(&folder.join(HASHES), (text + "\n").as_bytes())
}

/// The comparison file, with the base configurations beside it, and what was made of the runs.
fn write_files(plan: &Plan, file: &Path, folder: &Path) -> Result<()> {
    let beside = file.parent().unwrap_or(Path::new(""));
    let mut comparison = plan.comparison.clone();
    for (index, base) in plan.comparison.base.iter().enumerate() {
        let name = format!("base-{index}.toml");
        copy(&beside.join(base), &folder.join(&name))?;
        comparison.base[index] = name.into();
    }
    comparison.results = None;
    let text = toml::to_string(&comparison).map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    durable::replace(&folder.join("comparison.toml"), text.as_bytes())?;
    for name in ["comparison.json", "comparison.html"] {
        copy(&plan.comparison.dir.join(name), &folder.join(name))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(|_| ()).map_err(|error| Fault::writing(to, &error))
}

/// The run that a result is of.
fn spec_of(plan: &Plan, run: &RunResult) -> Option<Spec> {
    let contender = plan.comparison.contender(&run.contender)?;
    Some(plan.run(contender, run.stage, run.seed, run.batch_size, &run.settings))
}

/// Makes the runs of a capsule again in the folder `work`, and compares. Gives how many agree to the bit and in their
/// crossings; lines say which do not. `None` when it was stopped: the next call goes on. One after a whole verification begins
/// anew, since plugins may be others by then.
///
/// # Errors
///
/// A capsule that is not whole, other data ([`Exit::Data`]), what keeps any run from being made;
/// [`Exit::NotHeld`] where a run comes out otherwise.
pub fn verify(capsule: &Path, work: &Path, stop: Arc<AtomicBool>) -> Result<Option<String>, Vec<Fault>> {
    let one = |fault: Fault| vec![fault];
    let file = capsule.join("comparison.toml");
    let mut comparison = Comparison::read(&file)?;
    comparison.dir = work.to_owned();
    let plan = Plan::new(comparison, &file)?;
    let hashes: Hashes = json(&capsule.join(HASHES)).map_err(one)?;
    for (what, now, then) in
        [("training", &plan.data, &hashes.data), ("validation", &plan.validation, &hashes.validation)]
    {
        if now != then {
            let fault = Fault::new(Exit::Data, format!("the {what} data are not those of the capsule"));
            return Err(one(fault.found(now).expected(then)));
        }
    }
    let before = results(&capsule.join("results")).map_err(one)?;
    let summary: Summary = json(&capsule.join("comparison.json")).map_err(one)?;
    same_ratios(&plan, &summary, &before).map_err(one)?;
    let whole = work.join(WHOLE);
    if whole.exists() {
        fs::remove_dir_all(work).map_err(|error| one(Fault::writing(work, &error)))?;
    }
    let mut jobs = vec![];
    for run in before {
        jobs.push((job(&plan, &run).map_err(one)?, run));
    }
    let workers = Workers::new(&plan, stop);
    let only: Vec<Job> = jobs.iter().map(|(job, _)| job.clone()).collect();
    let outcomes = workers.run(&plan, &only).map_err(one)?;
    let (mut bits, mut faults) = (0, vec![]);
    for ((job, before), outcome) in jobs.iter().zip(outcomes) {
        let Outcome::Done(now) = outcome else { return Ok(None) };
        let (was, is) = (&before.made_with.plugin_sha256, &now.made_with.plugin_sha256);
        if was != is {
            say(&format!("{}: made by another file of its plugin, sha256 {is} and not {was}", job.spec.name()));
        }
        match differs(before, &now, &summary.targets) {
            None if same_bits(before, &now) => bits += 1,
            None => say(&format!("{}: not to the bit, but with the same crossings", job.spec.name())),
            Some(what) => faults.push(Fault::new(Exit::NotHeld, format!("{}: {what}", job.spec.name()))),
        }
    }
    durable::replace(&whole, b"").map_err(one)?;
    match faults.is_empty() {
        true => Ok(Some(format!("{} runs made again, {bits} of them to the bit", jobs.len()))),
        false => Err(faults),
    }
}

/// Checks that the ratios of a capsule are those of its results.
///
/// # Errors
///
/// [`Exit::Data`]: they are not.
fn same_ratios(plan: &Plan, summary: &Summary, results: &[RunResult]) -> Result<()> {
    let of = |name: &String| results.iter().filter(|run| run.contender == *name).cloned().collect();
    let found = plan.comparison.contender.iter().map(|one| Found { runs: of(&one.name), ..Found::default() });
    let now = Summary::of(plan, &found.collect::<Vec<_>>());
    let means = |versus: &Versus| -> Vec<(Measure, Option<f64>)> {
        versus.by.iter().map(|(measure, ratio)| (*measure, ratio.ratio.map(|mean| mean.mean))).collect()
    };
    let same = |a: &Versus, b: &Versus| {
        let (a, b) = (means(a), means(b));
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs();
        let equal = |(a, b): (&(Measure, Option<f64>), &(Measure, Option<f64>))| {
            a.0 == b.0 && a.1.is_some() == b.1.is_some() && a.1.zip(b.1).is_none_or(|(a, b)| close(a, b))
        };
        a.len() == b.len() && a.iter().zip(&b).all(equal)
    };
    let of_two =
        |a: &Versus, b: &Versus| (&a.contender, &a.baseline) == (&b.contender, &b.baseline) && a.target == b.target;
    let changed = |versus: &&Versus| !now.ratios.iter().any(|now| of_two(now, versus) && same(now, versus));
    summary.ratios.iter().find(changed).map_or(Ok(()), |versus| {
        let Versus { contender, baseline, target, .. } = versus;
        let what =
            format!("the ratio of `{baseline}` over `{contender}` at {target} is not that of the capsule's results");
        Err(Fault::new(Exit::Data, what).hint("one of `comparison.json` and `results` was changed"))
    })
}

/// A run to be made again, to its old limit.
///
/// # Errors
///
/// [`Exit::Data`]: the capsule's files are not those that its result was made with.
fn job(plan: &Plan, run: &RunResult) -> Result<Job> {
    let spec = spec_of(plan, run).filter(|spec| spec.stage == Stage::Final && spec.hash == run.hash);
    let spec = spec.ok_or_else(|| {
        let what =
            format!("a result of `{}` with seed {} is not of the capsule's configuration", run.contender, run.seed);
        Fault::new(Exit::Data, what)
    })?;
    Ok(Job { spec, limit: run.limit, targets: plan.comparison.targets() })
}

fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(|error| Fault::reading(path, &error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Fault::new(Exit::Data, format!("`{}`: not of a capsule", path.display())).found(error))
}

/// All results of a folder, in the order of their names.
fn results(folder: &Path) -> Result<Vec<RunResult>> {
    let entries = fs::read_dir(folder).map_err(|error| Fault::reading(folder, &error))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| json(path)).collect()
}

fn same_bits(before: &RunResult, now: &RunResult) -> bool {
    let losses = |run: &RunResult| run.validation.iter().map(|at| (at.step, at.loss.to_bits())).collect::<Vec<_>>();
    losses(before) == losses(now) && before.end == now.end
}

/// What is not as it was: how a run ended, a crossing that moved further than its granularity, or the last loss of a run that
/// missed.
fn differs(before: &RunResult, now: &RunResult, targets: &[f64]) -> Option<String> {
    if before.end != now.end {
        return Some(format!("ended as {:?}, and before as {:?}", now.end, before.end));
    }
    let crossing = |run: &RunResult, target: f64| first_crossing(&run.curve(Measure::Steps), target);
    let moved = |target: &f64| match (crossing(before, *target), crossing(now, *target)) {
        (Some(old), Some(new)) if (old.at - new.at).abs() > old.granularity.max(1.0) => {
            Some(format!("{target} after {:.2} steps, and before after {:.2}", new.at, old.at))
        }
        (Some(_), None) => Some(format!("{target} is not reached, and was before")),
        (None, Some(_)) => Some(format!("{target} is reached, and was not before")),
        _ => None,
    };
    let last = |run: &RunResult| run.validation.last().map(|at| at.loss);
    let elsewhere = || match (before.end, last(before), last(now)) {
        (End::Limit, Some(old), Some(new)) if (new - old).abs() > MISSED_BY => {
            Some(format!("a last loss of {new:.4}, and before of {old:.4}"))
        }
        _ => None,
    };
    targets.iter().find_map(moved).or_else(elsewhere)
}
