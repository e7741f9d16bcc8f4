//! A folder that holds all that a comparison needs to be made again: files, configurations, results, hashes, logs.

use super::file::Comparison;
use super::plan::{Plan, Spec, Stage, for_worker};
use super::ratios::Versus;
use super::result::{End, MadeWith, Measure, RunResult};
use super::standing::Found;
use super::statistics::{Ratio, first_crossing};
use super::summary::Summary;
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
/// A file in the folder of a verification, which says how far that came.
const MARK: &str = "verification";
const BEGUN: &[u8] = b"begun\n";
const WHOLE: &[u8] = b"whole\n";
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
        // One that failed before its record began names none.
        if !plugin.is_empty() {
            hashes.plugins.entry(plugin).or_default().insert(plugin_sha256);
        }
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
/// A folder that is not of a verification ([`Exit::Usage`]); a capsule that is not whole, other data ([`Exit::Data`]); what
/// keeps any run from being made; [`Exit::NotHeld`] where a run comes out otherwise.
pub fn verify(capsule: &Path, work: &Path, stop: Arc<AtomicBool>) -> Result<Option<String>, Vec<Fault>> {
    let one = |fault: Fault| vec![fault];
    let file = capsule.join("comparison.toml");
    let mut comparison = Comparison::read(&file)?;
    comparison.dir = work.to_owned();
    let plan = Plan::new(comparison, &file)?;
    same_data(&plan, &json(&capsule.join(HASHES)).map_err(one)?).map_err(one)?;
    let before = results(&capsule.join("results")).map_err(one)?;
    let summary: Summary = json(&capsule.join("comparison.json")).map_err(one)?;
    same_ratios(&plan, &summary, &before).map_err(one)?;
    let jobs = before.iter().map(|run| job(&plan, run)).collect::<Result<Vec<Job>>>().map_err(one)?;
    let _lock = super::hold(work).map_err(one)?;
    begin(work).map_err(one)?;
    let outcomes = Workers::new(&plan, stop).run(&plan, &jobs).map_err(one)?;
    let (mut bits, mut faults) = (0, vec![]);
    for ((job, before), outcome) in jobs.iter().zip(&before).zip(outcomes) {
        let Outcome::Done(now) = outcome else { return Ok(None) };
        match judge(&job.spec.name(), before, &now.up_to(job.limit), &summary.targets) {
            Ok(same) => bits += usize::from(same),
            Err(fault) => faults.push(fault),
        }
    }
    durable::replace(&work.join(MARK), WHOLE).map_err(one)?;
    match faults.is_empty() {
        true => Ok(Some(format!("{} runs made again, {bits} of them to the bit", jobs.len()))),
        false => Err(faults),
    }
}

/// Whether a run came out as before, to the bit or nearly.
///
/// # Errors
///
/// [`Exit::NotHeld`]: it did not.
fn judge(name: &str, before: &RunResult, now: &RunResult, targets: &[f64]) -> Result<bool> {
    let (was, is) = (&before.made_with.plugin_sha256, &now.made_with.plugin_sha256);
    if was != is {
        say(&format!("{name}: made by another file of its plugin, sha256 {is} and not {was}"));
    }
    if let Some(what) = differs(before, now, targets) {
        return Err(Fault::new(Exit::NotHeld, format!("{name}: {what}")));
    }
    let same = same_bits(before, now);
    if !same {
        say(&format!("{name}: not to the bit, but with the same crossings"));
    }
    Ok(same)
}

/// Makes a folder ready for a verification: a new one, one that was interrupted, or one that came to its end, whose runs are
/// removed.
///
/// # Errors
///
/// [`Exit::Usage`]: it holds something else.
fn begin(work: &Path) -> Result<()> {
    let failed = |error| Fault::writing(work, &error);
    fs::create_dir_all(work).map_err(failed)?;
    let mark = work.join(MARK);
    match fs::read(&mark) {
        Ok(said) if said == WHOLE => {
            for part in ["runs", "results", "configs", "logs"].map(|part| work.join(part)) {
                if part.exists() {
                    fs::remove_dir_all(&part).map_err(failed)?;
                }
            }
        }
        Ok(_) => return Ok(()),
        Err(_) if fs::read_dir(work).map_err(failed)?.next().is_some() => {
            let fault = Fault::new(Exit::Usage, format!("`{}`: not a folder of a verification", work.display()));
            return Err(fault.expected("a new or an empty one").hint("name another with `--work DIR`"));
        }
        Err(_) => {}
    }
    durable::replace(&mark, BEGUN)
}

/// Checks that data are those of a capsule.
///
/// # Errors
///
/// [`Exit::Data`]: they are not.
fn same_data(plan: &Plan, hashes: &Hashes) -> Result<()> {
    let both = [("training", &plan.data, &hashes.data), ("validation", &plan.validation, &hashes.validation)];
    let other = both.into_iter().find(|(_, now, then)| now != then);
    other.map_or(Ok(()), |(what, now, then)| {
        let fault = Fault::new(Exit::Data, format!("the {what} data are not those of the capsule"));
        Err(fault.found(now).expected(then))
    })
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
    let key = |versus: &Versus| (versus.contender.clone(), versus.baseline.clone(), versus.target.to_bits());
    let by_key = |ratios: &[Versus]| ratios.iter().map(|one| (key(one), one.by.clone())).collect::<BTreeMap<_, _>>();
    let (then, now) = (by_key(&summary.ratios), by_key(&now.ratios));
    let changed = now.iter().find(|(key, now)| then.get(*key).is_none_or(|then| !about_equal(then, now)));
    let unknown = then.iter().find(|(key, _)| !now.contains_key(*key));
    changed.or(unknown).map_or(Ok(()), |((contender, baseline, _), _)| {
        let what = format!("the ratio of `{baseline}` over `{contender}` is not that of the capsule's results");
        Err(Fault::new(Exit::Data, what).hint("one of `comparison.json` and `results` was changed"))
    })
}

/// Equal but for the order in which numbers were added.
fn about_equal(a: &BTreeMap<Measure, Ratio>, b: &BTreeMap<Measure, Ratio>) -> bool {
    let numbers = |ratio: &Ratio| {
        let mean =
            ratio.ratio.map(|mean| [mean.mean, mean.n as f64].into_iter().chain(mean.interval.into_iter().flatten()));
        let counts = [ratio.never as f64, ratio.missed as f64];
        mean.into_iter().flatten().chain(ratio.at_least.clone()).chain(counts).collect::<Vec<f64>>()
    };
    let (a, b): (Vec<_>, Vec<_>) = (a.values().map(numbers).collect(), b.values().map(numbers).collect());
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(close))
}

/// A run to be made again, to its old limit and its old last target.
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
    let before = plan.comparison.targets().into_iter().filter(|target| *target > run.target);
    Ok(Job { spec, limit: run.limit, targets: before.chain([run.target]).collect() })
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
