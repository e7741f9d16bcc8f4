//! Runs in processes of their own, some at a time, and the warm-ups that they begin at.

use super::plan::{Plan, Settings, Spec, Stage};
use super::process;
use super::result::{End, RunResult};
use crate::error::{Exit, Fault, Result};
use crate::sinks::checkpoint;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Where runs are made and how.
#[derive(Clone, Debug)]
pub struct Workers {
    /// Folder of the comparison.
    pub(super) dir: PathBuf,
    /// Folder of the results.
    pub(super) results: PathBuf,
    /// Places for runs, which all contenders share.
    pub(super) places: Arc<Places>,
    /// Held while warm-ups are made, so that contenders do not make the same one at once.
    warming: Arc<Mutex<()>>,
    /// Threads of each.
    pub(super) threads: usize,
    /// Sequences that they compute at a time, where the comparison says so.
    pub(super) micro_batch_size: Option<u64>,
    pub(super) fine_batches: Option<usize>,
    /// Set by a signal: no run begins, and those that go on are stopped.
    stop: Arc<AtomicBool>,
    /// The same, after an error of another contender.
    failed: Arc<AtomicBool>,
}

/// One run, how far it may go, and the losses at which it is looked at.
#[derive(Clone, Debug)]
pub struct Job {
    /// The run.
    pub spec: Spec,
    /// Gradients of its batch that it may spend.
    pub limit: f64,
    /// Targets, the largest loss first; none for a warm-up.
    pub targets: Vec<f64>,
}

impl Job {
    /// The least of its targets; 0, which nothing reaches, where there are none.
    pub(super) fn last_target(&self) -> f64 {
        self.targets.last().copied().unwrap_or(0.0)
    }
}

/// What became of a job.
#[derive(Debug)]
pub enum Outcome {
    /// It ended, now or earlier.
    Done(Box<RunResult>),
    /// Its processes were killed, or the machine kept it from going on, for this reason; the next call does.
    Left(String),
    /// The comparison was asked to stop.
    Stopped,
}

impl Workers {
    /// For a comparison; `stop` is set by signals.
    pub fn new(plan: &Plan, stop: Arc<AtomicBool>) -> Self {
        let comparison = &plan.comparison;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            dir: comparison.dir.clone(),
            results: comparison.results(),
            places: Arc::new(Places::new(comparison.workers)),
            warming: Arc::default(),
            threads: comparison.threads.unwrap_or((cores / comparison.workers).max(1)),
            micro_batch_size: comparison.micro_batch_size,
            fine_batches: comparison.fine_batches,
            stop,
            failed: Arc::default(),
        }
    }

    /// Whether the comparison was asked to stop, or cannot go on.
    pub fn is_stopped(&self) -> bool {
        [&self.stop, &self.failed].iter().any(|flag| flag.load(Ordering::Relaxed))
    }

    /// After an error: no run begins any more, and those that go on are stopped.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Makes the runs that have no result yet; outcomes in the order of the jobs. Those whose warm-up was killed are left.
    ///
    /// # Errors
    ///
    /// What keeps any run from being made: a program or a folder that is not there, a disk that is full.
    pub fn run(&self, plan: &Plan, jobs: &[Job]) -> Result<Vec<Outcome>> {
        let cold = self.warm_up(plan, jobs)?;
        self.in_turn(jobs, &|job| match self.result(job)? {
            None if cold.contains(&job.spec.seed) => Ok(Outcome::Left("its warm-up was not made".into())),
            _ => self.one(plan, job),
        })
    }

    /// What there is of these jobs; those without a result count as stopped.
    ///
    /// # Errors
    ///
    /// A file that is no result.
    pub fn found(&self, jobs: &[Job]) -> Result<Vec<Outcome>> {
        jobs.iter()
            .map(|job| Ok(self.result(job)?.map_or(Outcome::Stopped, |one| Outcome::Done(Box::new(one)))))
            .collect()
    }

    /// Checks the configuration of every contender and of the warm-up before anything runs, by a program as it will run them.
    ///
    /// # Errors
    ///
    /// The first one that is refused, with what is said of it.
    pub fn check(&self, plan: &Plan) -> Result<(), Vec<Fault>> {
        for contender in &plan.comparison.contender {
            let batch_size = plan.batch_sizes(contender).first().copied().unwrap_or(1);
            let spaces = plan.lineage(contender).into_iter().flat_map(|one| &one.tune);
            let settings: Settings = spaces.filter_map(|(key, space)| Some((key.clone(), space.first()?))).collect();
            let spec = plan.run(contender, Stage::Final, 0, batch_size, &settings);
            self.check_one(&format!("contender `{}`", contender.name), spec)?;
        }
        plan.warm_up(0).map_or(Ok(()), |warm_up| self.check_one("`warm_up`", warm_up))
    }

    fn check_one(&self, whose: &str, spec: Spec) -> Result<(), Vec<Fault>> {
        let one = |fault: Fault| vec![fault];
        let text = self.configured(&Job { spec, limit: 1.0, targets: vec![1.0] }, 1.0, None).map_err(one)?;
        let failed = |error: &std::io::Error| vec![Fault::writing(&std::env::temp_dir(), error)];
        let file = tempfile::Builder::new().prefix("contender-").suffix(".toml").tempfile();
        let file = file.map_err(|error| failed(&error))?;
        fs::write(file.path(), text).map_err(|error| failed(&error))?;
        let args = [OsString::from("config"), "check".into(), "--config".into(), file.path().into()];
        let output = process::output(&args).map_err(one)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(refused(whose, file.path(), &output)),
        }
    }

    /// A job's result, if there is one that suffices.
    pub(super) fn result(&self, job: &Job) -> Result<Option<RunResult>> {
        let result = RunResult::read(&self.results, &job.spec)?;
        Ok(result.filter(|result| result.suffices(job.limit, job.last_target())))
    }

    /// The warm-ups that these jobs begin at; gives the seeds of those that were left.
    ///
    /// # Errors
    ///
    /// [`Exit::Data`]: one that diverged or failed.
    fn warm_up(&self, plan: &Plan, jobs: &[Job]) -> Result<Vec<u64>> {
        let _warming = locked(&self.warming);
        let mut seeds: Vec<u64> = vec![];
        for job in jobs {
            seeds.extend(self.result(job)?.is_none().then_some(job.spec.seed));
        }
        seeds.sort_unstable();
        seeds.dedup();
        let warm_ups = seeds.iter().filter_map(|seed| plan.warm_up(*seed));
        let warm_ups: Vec<Job> = warm_ups.map(|spec| Job { spec, limit: f64::MAX, targets: vec![] }).collect();
        let failed = |spec: &Spec, why: &str| {
            let log = self.log(spec);
            Fault::new(Exit::Data, format!("the warm-up of seed {} did not end: {why}", spec.seed))
                .hint(format!("see `{}`", log.display()))
        };
        let mut left = vec![];
        for (job, outcome) in warm_ups.iter().zip(self.in_turn(&warm_ups, &|job| self.one(plan, job))?) {
            match outcome {
                Outcome::Done(result) if matches!(result.end, End::Limit | End::Target) => {}
                Outcome::Done(result) => return Err(failed(&job.spec, result.error.as_deref().unwrap_or("it failed"))),
                Outcome::Left(_) => left.push(job.spec.seed),
                Outcome::Stopped => {}
            }
        }
        Ok(left)
    }

    /// The last checkpoint of a run.
    pub(super) fn end_of(&self, spec: &Spec) -> Option<PathBuf> {
        let (latest, _) = checkpoint::latest(&self.folder(spec).join("checkpoints")).ok()?;
        latest.map(|checkpoint| checkpoint.path)
    }

    /// The jobs in their order, as many at a time as there are places.
    fn in_turn(&self, jobs: &[Job], one: &(dyn Fn(&Job) -> Result<Outcome> + Sync)) -> Result<Vec<Outcome>> {
        let next = AtomicUsize::new(0);
        let outcomes: Mutex<Vec<(usize, Result<Outcome>)>> = Mutex::new(vec![]);
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(at) else { break };
                // In this order: the others go on meanwhile.
                let outcome = one(job);
                locked(&outcomes).push((at, outcome));
            }
        };
        std::thread::scope(|scope| (0..self.places.count.min(jobs.len())).for_each(|_| drop(scope.spawn(work))));
        let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcomes.sort_by_key(|(at, _)| *at);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// A run's folder.
    pub(super) fn folder(&self, spec: &Spec) -> PathBuf {
        self.dir.join("runs").join(spec.name())
    }

    /// What its processes said.
    pub(super) fn log(&self, spec: &Spec) -> PathBuf {
        self.dir.join("logs").join(format!("{}.log", spec.name()))
    }
}

/// A number of places, each held by one run at a time.
#[derive(Debug)]
pub(super) struct Places {
    count: usize,
    free: Mutex<usize>,
    left: Condvar,
}

impl Places {
    fn new(count: usize) -> Self {
        Self { count, free: Mutex::new(count), left: Condvar::new() }
    }

    /// Waits for a place; it is free again when what is given is dropped.
    pub fn take(&self) -> Place<'_> {
        let free = locked(&self.free);
        let mut free = self.left.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self)
    }
}

/// A place that is taken.
pub(super) struct Place<'a>(&'a Places);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *locked(&self.0.free) += 1;
        self.0.left.notify_one();
    }
}

/// A panic elsewhere leaves nothing half done behind these locks.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a check said of a configuration, with its exit code: the user named no file, so its name is left out.
fn refused(whose: &str, file: &Path, output: &Output) -> Vec<Fault> {
    let exit = output.status.code().and_then(Exit::of).unwrap_or(Exit::Usage);
    let (file, said) = (format!("{}: ", file.display()), String::from_utf8_lossy(&output.stderr));
    let fault = |line: &str| Fault::new(exit, format!("{whose}: {}", line.strip_prefix(&file).unwrap_or(line)));
    let faults: Vec<Fault> = said.lines().filter_map(|line| line.strip_prefix("error: ")).map(fault).collect();
    if faults.is_empty() { vec![Fault::new(exit, format!("{whose}: refused"))] } else { faults }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Comparison;
    use std::time::Duration;

    /// Each of two jobs ends when both have begun, or after ten seconds.
    #[test]
    fn jobs_of_one_contender_run_side_by_side() {
        let comparison: Comparison = serde_json::from_value(serde_json::json!({
            "base": [], "dir": "d", "seeds": [1], "target_loss": 1.0, "max_gradient_equivalents": 1.0, "workers": 2,
            "contender": [{ "name": "a" }],
        }))
        .unwrap();
        let plan = Plan::without_data(comparison.clone(), 8);
        let spec = plan.run(&comparison.contender[0], Stage::Final, 1, 8, &Settings::new());
        let jobs = [1.0, 2.0].map(|limit| Job { spec: spec.clone(), limit, targets: vec![] });
        let begun = (Mutex::new(0), Condvar::new());
        let both_began = AtomicUsize::new(0);
        let one = |_: &Job| {
            *locked(&begun.0) += 1;
            begun.1.notify_all();
            let (_guard, waited) =
                begun.1.wait_timeout_while(locked(&begun.0), Duration::from_secs(10), |begun| *begun < 2).unwrap();
            both_began.fetch_add(usize::from(!waited.timed_out()), Ordering::Relaxed);
            Ok(Outcome::Stopped)
        };
        Workers::new(&plan, Arc::default()).in_turn(&jobs, &one).unwrap();
        assert_eq!(both_began.into_inner(), 2);
    }

    #[test]
    fn no_more_hold_a_place_than_there_are() {
        let (places, now, most) = (Places::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            for _ in 0..200 {
                let _place = places.take();
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            }
        };
        std::thread::scope(|scope| (0..5).for_each(|_| drop(scope.spawn(work))));
        assert_eq!((most.into_inner(), *locked(&places.free)), (2, 2));
    }
}
