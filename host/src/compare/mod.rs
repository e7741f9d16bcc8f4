//! `gauntlet compare`: several optimizers on the same problem, from a file to figures with intervals.
//!
//! [`file`] is what a user writes; [`plan`] makes single runs of it, each known by a hash; [`worker`] runs them in
//! processes ([`process`]), each as [`execution`] says, which looks again at checkpoints around a target ([`fine`]);
//! [`result`] is the small file that a finished one leaves; [`tuning`] chooses settings; [`standing`] says what came out of
//! one contender and [`ratios`] of two, both by [`statistics`], and [`summary`] of all; [`preconditions`] are what a ratio
//! rests on; [`table`], [`page`] and [`capsule`] are its forms. A run whose result is there is not made again, so that a
//! comparison that was stopped goes on by the same command.

mod batches;
mod capsule;
mod execution;
mod file;
mod fine;
mod page;
mod plan;
mod preconditions;
mod process;
mod ratios;
mod result;
mod standing;
mod statistics;
mod summary;
mod table;
mod tuning;
mod worker;

pub use capsule::verify;
pub use file::Comparison;
pub use summary::Summary;

use crate::durable;
use crate::error::{Exit, Fault, Result, printable};
use file::Contender;
use plan::{Plan, Settings, Spec, Stage};
use result::RunResult;
use standing::Found;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use worker::{Job, Outcome, Workers, locked};

/// What a call does of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only these contenders run; the others are reported as far as they are there, and those that these are like have their
    /// settings chosen.
    pub only: Vec<String>,
    /// Only runs with these seeds are made, of those that count.
    pub seeds: Vec<u64>,
    /// Only runs at these batch sizes are made.
    pub batch_sizes: Vec<u64>,
    /// Nothing runs: what is there is reported.
    pub report_only: bool,
    /// Settings are chosen, and nothing is run with them.
    pub tune_only: bool,
}

/// What came of a call.
#[derive(Debug)]
pub struct Compared {
    /// The comparison as far as it is there.
    pub summary: Summary,
    /// Whether it was asked to stop, or runs were killed: the same call goes on.
    pub unfinished: bool,
    /// The page; absent where another process makes runs of the same comparison, and writes it.
    pub page: Option<PathBuf>,
}

impl Compared {
    /// The comparison as lines of text.
    pub fn text(&self) -> String {
        table::text(&self.summary)
    }

    /// How one contender's settings were chosen, and they, as lines of text.
    pub fn tuning(&self, name: &str) -> String {
        self.summary.contender(name).map_or_else(String::new, table::tuning)
    }
}

/// Makes the runs of a comparison file that are not there yet, and writes what they say. `stop` is set by signals.
///
/// # Errors
///
/// Everything that is wrong with the file; what keeps any run from being made, or the results from being written.
pub fn compare(path: &Path, options: &Options, stop: Arc<AtomicBool>) -> Result<Compared, Vec<Fault>> {
    let one = |fault: Fault| vec![fault];
    let plan = Plan::new(Comparison::read(path)?, path)?;
    refuse_unknown(&plan, options).map_err(one)?;
    let workers = Workers::new(&plan, stop);
    let lock = match hold(&plan.comparison.dir) {
        Err(fault) if options.report_only && fault.exit == Exit::Unavailable => None,
        held => Some(held.map_err(one)?),
    };
    if !options.report_only {
        workers.check(&plan)?;
    }
    let board = Board::new(&plan);
    let turn = |contender: &Contender| {
        let step = Step { plan: &plan, workers: &workers, contender, options };
        let end = catch_unwind(AssertUnwindSafe(|| step.take(&board))).unwrap_or_else(|_| Err(panicked()));
        // Whoever waits for this contender must not wait for ever.
        end.inspect_err(|_| {
            workers.fail();
            board.put(contender, not_chosen(contender));
        })
    };
    let ends: Vec<Result<bool>> = std::thread::scope(|scope| {
        let threads = plan.comparison.contender.iter().map(|contender| scope.spawn(|| turn(contender)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
    });
    let whole = ends.into_iter().collect::<Result<Vec<bool>>>().map_err(one)?;
    let unfinished = whole.contains(&false);
    let found = board.found();
    if lock.is_none() {
        // Who makes the runs writes the files.
        return Ok(Compared { summary: Summary::of(&plan, &found), unfinished, page: None });
    }
    let (summary, page) = write(&plan, &found).map_err(one)?;
    capsule::write(&plan, path, &found).map_err(one)?;
    Ok(Compared { summary, unfinished, page: Some(page) })
}

/// A comparison's folder, made where it is not there, for this process alone until the file is closed.
///
/// # Errors
///
/// [`Exit::Unavailable`]: another process holds it. [`Exit::Write`].
fn hold(dir: &Path) -> Result<File> {
    let failed = |error| Fault::writing(dir, &error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let folder = File::open(dir).map_err(failed)?;
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let fault = Fault::new(Exit::Unavailable, format!("`{}`: another process compares here", dir.display()));
            Err(fault.hint("wait for it; `--report` shows what is there"))
        }
        _ => Ok(folder),
    }
}

fn refuse_unknown(plan: &Plan, options: &Options) -> Result<()> {
    let contenders = &plan.comparison.contender;
    let words = |values: &BTreeSet<u64>| values.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = options.only.iter().find(|name| plan.comparison.contender(name).is_none()) {
        let known: Vec<&str> = contenders.iter().map(|contender| contender.name.as_str()).collect();
        let flag = if options.tune_only { "--contender" } else { "--only" };
        let fault = Fault::new(Exit::Usage, format!("`{flag} {}`: no contender has this name", printable(unknown)));
        return Err(fault.expected(known.join(", ")));
    }
    let seeds: BTreeSet<u64> = contenders.iter().flat_map(|contender| plan.seeds(contender)).collect();
    if let Some(unknown) = options.seeds.iter().find(|seed| !seeds.contains(*seed)) {
        return Err(Fault::new(Exit::Usage, format!("`--seed {unknown}`: no run has it")).expected(words(&seeds)));
    }
    let sizes: BTreeSet<u64> = contenders.iter().flat_map(|contender| plan.batch_sizes(contender)).collect();
    if let Some(unknown) = options.batch_sizes.iter().find(|size| !sizes.contains(*size)) {
        return Err(Fault::new(Exit::Usage, format!("`--batch-size {unknown}`: no run has it")).expected(words(&sizes)));
    }
    let runs = |contender: &Contender| {
        plan.seeds(contender).iter().any(|seed| among(&options.seeds, seed))
            && plan.batch_sizes(contender).iter().any(|size| among(&options.batch_sizes, size))
    };
    match contenders.iter().filter(|contender| among(&options.only, &contender.name)).any(runs) {
        true => Ok(()),
        false => {
            Err(Fault::new(Exit::Usage, "`--only`, `--seed` and `--batch-size` together: no run is of all of them"))
        }
    }
}

/// Whether one was asked for; an empty list asks for all.
fn among<T: PartialEq>(asked: &[T], one: &T) -> bool {
    asked.is_empty() || asked.contains(one)
}

/// What was found of each contender by now. One that is like another waits here for that one's settings.
struct Board<'a> {
    plan: &'a Plan,
    found: Mutex<Vec<Option<Found>>>,
    put: Condvar,
    /// Held while what is known so far is written.
    writing: Mutex<()>,
}

impl<'a> Board<'a> {
    fn new(plan: &'a Plan) -> Self {
        let none = plan.comparison.contender.iter().map(|_| None).collect();
        Self { plan, found: Mutex::new(none), put: Condvar::new(), writing: Mutex::new(()) }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.plan.comparison.contender.iter().position(|contender| contender.name == name)
    }

    fn put(&self, contender: &Contender, own: Found) {
        if let Some(place) = self.place(&contender.name) {
            locked(&self.found)[place] = Some(own);
            self.put.notify_all();
        }
    }

    /// The settings of the contender that one is like, when they are there; `None` where they could not be chosen.
    fn inherited(&self, contender: &Contender) -> Option<Settings> {
        let Some(like) = contender.like.as_ref().and_then(|name| self.place(name)) else {
            return Some(Settings::new());
        };
        let found = locked(&self.found);
        let found = self.put.wait_while(found, |found| found[like].is_none()).unwrap_or_else(PoisonError::into_inner);
        found[like].as_ref().filter(|found| found.is_chosen).map(|found| found.settings.clone())
    }

    /// All contenders; those that did not have their turn yet as they are.
    fn found(&self) -> Vec<Found> {
        let contenders = self.plan.comparison.contender.iter();
        let or_none = |(found, contender): (&Option<Found>, _)| found.clone().unwrap_or_else(|| not_chosen(contender));
        locked(&self.found).iter().zip(contenders).map(or_none).collect()
    }
}

/// What is known of a contender whose settings are not.
fn not_chosen(contender: &Contender) -> Found {
    Found { missing: vec![format!("{} (its settings are not chosen)", contender.name)], ..Found::default() }
}

fn panicked() -> Fault {
    Fault::new(Exit::Internal, "running a contender ended in a panic")
}

/// One contender's turn.
struct Step<'a> {
    plan: &'a Plan,
    workers: &'a Workers,
    contender: &'a Contender,
    options: &'a Options,
}

impl Step<'_> {
    /// Does all that the contender's turn is to do, and puts down what was found; false where runs are missing that this
    /// call was to make.
    fn take(&self, board: &Board) -> Result<bool> {
        let from = board.inherited(self.contender);
        let (own, whole) = self.contender(from, board)?;
        board.put(self.contender, own);
        if self.tunes() {
            // What is known so far is there even where the process ends here.
            let _writing = locked(&board.writing);
            write(self.plan, &board.found())?;
        }
        Ok(whole)
    }

    /// Its settings and its runs; and whether all of them are there that this call was to make.
    fn contender(&self, from: Option<Settings>, board: &Board) -> Result<(Found, bool)> {
        let tuned = from.map(|from| self.tuned(&from)).transpose()?.flatten();
        let Some((tuning, settings)) = tuned else { return Ok((not_chosen(self.contender), !self.tunes())) };
        let mut found = Found { tuning, settings, is_chosen: true, ..Found::default() };
        let jobs = self.jobs(&found.settings);
        self.read(&mut found, &jobs, &BTreeMap::new())?;
        // Those that are like it need no more of it than its settings.
        board.put(self.contender, found.clone());
        if !self.runs() {
            return Ok((found, true));
        }
        let asked: Vec<Job> = jobs.iter().filter(|job| self.is_asked(&job.spec)).cloned().collect();
        let outcomes = self.workers.run(self.plan, &asked)?;
        let whole = outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done(_)));
        let left = asked.iter().zip(outcomes).filter_map(|(job, outcome)| match outcome {
            Outcome::Left(why) => Some((job.spec.name(), why)),
            Outcome::Done(_) | Outcome::Stopped => None,
        });
        self.read(&mut found, &jobs, &left.collect())?;
        Ok((found, whole))
    }

    /// Reads the results that are there; notes those that are not, with why a run was `left`.
    fn read(&self, found: &mut Found, jobs: &[Job], left: &BTreeMap<String, String>) -> Result<()> {
        (found.runs, found.missing) = (vec![], vec![]);
        for job in jobs {
            match RunResult::read(&self.plan.comparison.results(), &job.spec)? {
                Some(result) if result.suffices(job.limit, job.last_target()) => {
                    found.runs.push(result.up_to(job.limit));
                }
                _ => {
                    let name = job.spec.name();
                    found.missing.push(left.get(&name).map_or_else(|| name.clone(), |why| format!("{name} ({why})")));
                }
            }
        }
        Ok(())
    }

    /// Whether its runs are to be made.
    fn runs(&self) -> bool {
        let Options { only, report_only, tune_only, .. } = self.options;
        !report_only && !tune_only && among(only, &self.contender.name)
    }

    /// Whether its settings are to be chosen: its own runs, or those of one that is like it, need them.
    fn tunes(&self) -> bool {
        let Options { only, report_only, .. } = self.options;
        let heirs = || only.iter().filter_map(|name| self.plan.comparison.contender(name));
        let needs = |heir: &Contender| self.plan.lineage(heir).iter().any(|one| one.name == self.contender.name);
        !report_only && (only.is_empty() || heirs().any(needs))
    }

    /// Whether this call was asked to make a run.
    fn is_asked(&self, spec: &Spec) -> bool {
        among(&self.options.seeds, &spec.seed) && among(&self.options.batch_sizes, &spec.batch_size)
    }

    /// How its settings were chosen, and they; `None` where they are not.
    fn tuned(&self, from: &Settings) -> Result<Option<(Option<tuning::Tuned>, Settings)>> {
        let Some(tuning) = self.plan.comparison.tuning.as_ref().filter(|_| !self.contender.tune.is_empty()) else {
            return Ok(Some((None, from.clone())));
        };
        let tuned = tuning::tune(self.plan, self.workers, tuning, self.contender, from, self.tunes())?;
        Ok(tuned.map(|tuned| {
            let settings = tuned.settings.clone();
            (Some(tuned), settings)
        }))
    }

    /// Its runs that count.
    fn jobs(&self, settings: &Settings) -> Vec<Job> {
        let (plan, contender) = (self.plan, self.contender);
        let targets = plan.comparison.targets();
        let of = |batch_size: u64| {
            let targets = &targets;
            let limit = plan.limit(contender, batch_size);
            plan.seeds(contender).into_iter().map(move |seed| Job {
                spec: plan.run(contender, Stage::Final, seed, batch_size, settings),
                limit,
                targets: targets.clone(),
            })
        };
        plan.batch_sizes(contender).into_iter().flat_map(of).collect()
    }
}

/// Writes `comparison.json` and `comparison.html`; gives what the first says and where the second is.
fn write(plan: &Plan, found: &[Found]) -> Result<(Summary, PathBuf)> {
    let dir = &plan.comparison.dir;
    std::fs::create_dir_all(dir).map_err(|error| Fault::writing(dir, &error))?;
    let summary = Summary::of(plan, found);
    let json = serde_json::to_string_pretty(&summary).map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    durable::replace(&dir.join("comparison.json"), (json + "\n").as_bytes())?;
    let runs: Vec<Vec<RunResult>> = found.iter().map(|found| found.runs.clone()).collect();
    let page = dir.join("comparison.html");
    durable::replace(&page, page::render(&summary, &runs)?.as_bytes())?;
    Ok((summary, page))
}

/// Chooses the settings of one contender of a file, and nothing else.
///
/// # Errors
///
/// As [`compare`].
pub fn sweep(path: &Path, name: &str, stop: Arc<AtomicBool>) -> Result<Compared, Vec<Fault>> {
    let options = Options { only: vec![name.to_owned()], tune_only: true, ..Options::default() };
    compare(path, &options, stop)
}

#[cfg(test)]
mod tests;
