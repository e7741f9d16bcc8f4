//! Runs in processes of their own: one after another or some at a time, resumed after a kill, recorded when they end.

use super::plan::{Plan, Settings, Spec, Stage, for_worker};
use super::result::{End, Measure, RunResult};
use crate::durable;
use crate::error::{Exit, Fault, Result, printable};
use crate::report::History;
use crate::sinks::checkpoint;
use crate::sinks::say;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The running program, also where its file was replaced since it started.
const PROGRAM: &str = "/proc/self/exe";
/// Times that a run goes on after its process was killed, before the comparison leaves it for the next call.
const RESTARTS: usize = 2;
/// Nats by which a run at least goes further where a larger set does not find the target reached.
const STEP_BELOW: f64 = 1e-3;

/// Where runs are made and how.
#[derive(Clone, Debug)]
pub struct Workers {
    /// Folder of the comparison.
    dir: PathBuf,
    /// Folder of the results.
    results: PathBuf,
    /// Runs at a time.
    workers: usize,
    /// Threads of each.
    threads: usize,
    fine_batches: Option<usize>,
    /// Set by a signal: no run begins, and those that go on are stopped.
    stop: Arc<AtomicBool>,
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

/// What became of a job.
#[derive(Debug)]
pub enum Outcome {
    /// It ended, now or earlier.
    Done(Box<RunResult>),
    /// Its processes were killed; the next call goes on with it.
    Killed,
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
            workers: comparison.workers,
            threads: comparison.threads.unwrap_or((cores / comparison.workers).max(1)),
            fine_batches: comparison.fine_batches,
            stop,
        }
    }

    /// Whether the comparison was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Makes the runs that have no result yet; outcomes in the order of the jobs.
    ///
    /// # Errors
    ///
    /// What keeps any run from being made: a program or a folder that is not there, a disk that is full.
    pub fn run(&self, plan: &Plan, jobs: &[Job]) -> Result<Vec<Outcome>> {
        self.warm_up(plan, jobs)?;
        self.in_turn(jobs, &|job| self.one(plan, job))
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

    /// Checks the configuration of every contender before anything runs, by a program as it will run them.
    ///
    /// # Errors
    ///
    /// The first contender whose configuration is refused, with what is said of it.
    pub fn check(&self, plan: &Plan) -> Result<(), Vec<Fault>> {
        for contender in &plan.comparison.contender {
            let batch_size = plan.batch_sizes(contender).first().copied().unwrap_or(1);
            let mut settings = Settings::new();
            settings.extend(contender.tune.iter().filter_map(|(key, space)| Some((key.clone(), space.first()?))));
            let spec = plan.run(contender, Stage::Final, 0, batch_size, &settings);
            let job = Job { spec, limit: 1.0, targets: vec![1.0] };
            let file = self.configuration(&job, 1.0, None).map_err(|fault| vec![fault])?;
            let args = ["config".into(), "check".into(), "--config".into(), file.clone().into()];
            let output = command(&args).output().map_err(|error| vec![cannot_start(error)])?;
            let _ = fs::remove_file(&file);
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let lines = said.lines().filter_map(|line| line.strip_prefix("error: "));
                let file = file.display().to_string();
                let fault = |line: &str| {
                    let line = line.strip_prefix(&format!("{file}: ")).unwrap_or(line);
                    Fault::new(Exit::Usage, format!("contender `{}`: {line}", contender.name))
                };
                let faults: Vec<Fault> = lines.map(fault).collect();
                let unsaid = || vec![Fault::new(Exit::Usage, format!("contender `{}`: refused", contender.name))];
                return Err(if faults.is_empty() { unsaid() } else { faults });
            }
        }
        Ok(())
    }

    /// A job's result, if there is one that suffices.
    fn result(&self, job: &Job) -> Result<Option<RunResult>> {
        let last = job.targets.last().copied().unwrap_or(0.0);
        Ok(RunResult::read(&self.results, &job.spec)?.filter(|result| result.suffices(job.limit, last)))
    }

    /// The warm-ups that these jobs begin at.
    fn warm_up(&self, plan: &Plan, jobs: &[Job]) -> Result<()> {
        let mut seeds: Vec<u64> = vec![];
        for job in jobs {
            seeds.extend(self.result(job)?.is_none().then_some(job.spec.seed));
        }
        seeds.sort_unstable();
        seeds.dedup();
        let missing = |seed: &u64| plan.warm_up(*seed).filter(|spec| !self.has_ended(spec));
        let warm_ups: Vec<Job> =
            seeds.iter().filter_map(missing).map(|spec| Job { spec, limit: f64::INFINITY, targets: vec![] }).collect();
        let failed = |spec: &Spec, why: &str| {
            let log = self.log(spec);
            Fault::new(Exit::Data, format!("the warm-up of seed {} did not end: {why}", spec.seed))
                .hint(format!("see `{}`", log.display()))
        };
        for (job, outcome) in warm_ups.iter().zip(self.in_turn(&warm_ups, &|job| self.one(plan, job))?) {
            match outcome {
                Outcome::Done(result) if matches!(result.end, End::Limit | End::Target) => {}
                Outcome::Done(result) => return Err(failed(&job.spec, result.error.as_deref().unwrap_or("it failed"))),
                Outcome::Killed => return Err(failed(&job.spec, "it was killed")),
                Outcome::Stopped => {}
            }
        }
        Ok(())
    }

    /// Whether a warm-up's folder holds its end.
    fn has_ended(&self, spec: &Spec) -> bool {
        let done = |result: Result<Option<RunResult>>| result.ok().flatten().is_some();
        done(RunResult::read(&self.results, spec)) && self.end_of(spec).is_some()
    }

    /// The last checkpoint of a run.
    fn end_of(&self, spec: &Spec) -> Option<PathBuf> {
        let (latest, _) = checkpoint::latest(&self.folder(spec).join("checkpoints")).ok()?;
        latest.map(|checkpoint| checkpoint.path)
    }

    /// Some jobs at a time, each taken when a worker is free.
    fn in_turn(&self, jobs: &[Job], one: &(dyn Fn(&Job) -> Result<Outcome> + Sync)) -> Result<Vec<Outcome>> {
        let next = AtomicUsize::new(0);
        let outcomes: Mutex<Vec<(usize, Result<Outcome>)>> = Mutex::new(vec![]);
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(at) else { break };
                let outcome = if self.is_stopped() { Ok(Outcome::Stopped) } else { one(job) };
                outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((at, outcome));
            }
        };
        std::thread::scope(|scope| (0..self.workers.min(jobs.len())).for_each(|_| drop(scope.spawn(work))));
        let mut outcomes = outcomes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        outcomes.sort_by_key(|(at, _)| *at);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// One run to its end, unless there is a result that suffices.
    fn one(&self, plan: &Plan, job: &Job) -> Result<Outcome> {
        let last = job.targets.last().copied().unwrap_or(0.0);
        if let Some(result) = self.result(job)?
            && (job.spec.stage != Stage::WarmUp || self.end_of(&job.spec).is_some())
        {
            return Ok(Outcome::Done(Box::new(result)));
        }
        let init_from = plan.warm_up(job.spec.seed).filter(|_| job.spec.stage != Stage::WarmUp);
        let init_from = init_from.and_then(|warm_up| self.end_of(&warm_up));
        let mut fine = BTreeMap::new();
        let stops = if job.targets.is_empty() { &[0.0][..] } else { &job.targets };
        let mut ended = (End::Limit, None);
        for target in stops {
            ended = match self.to_target_as_finer_losses_say(job, *target, init_from.as_deref(), &mut fine)? {
                Ended::Killed => return Ok(Outcome::Killed),
                Ended::Stopped => return Ok(Outcome::Stopped),
                Ended::As(end, error) => (end, error),
            };
            if ended.0 != End::Target {
                break;
            }
        }
        let mut result = self.result_of(job, ended, last);
        result.fine = fine;
        result.write(&self.results, &job.spec)?;
        say(&line(&job.spec, &result));
        Ok(Outcome::Done(Box::new(result)))
    }

    fn result_of(&self, job: &Job, ended: (End, Option<String>), target: f64) -> RunResult {
        let history = History::read(&self.folder(&job.spec)).unwrap_or_default();
        RunResult::of(&job.spec, &history, ended, job.limit.min(f64::MAX), target)
    }

    /// Runs until a target is reached, also by the losses over more validation data; these are added to `fine`.
    fn to_target_as_finer_losses_say(
        &self,
        job: &Job,
        target: f64,
        init_from: Option<&Path>,
        fine: &mut BTreeMap<u64, f64>,
    ) -> Result<Ended> {
        let mut below = 0.0;
        loop {
            let ended = self.to_target(job, target - below, init_from)?;
            if !matches!(ended, Ended::As(End::Target, _)) {
                return Ok(ended);
            }
            fine.extend(self.fine(&job.spec)?);
            let mut so_far = self.result_of(job, (End::Target, None), target);
            so_far.fine.clone_from(fine);
            let least = so_far.curve(Measure::Steps).into_iter().map(|at| at.1).fold(f64::INFINITY, f64::min);
            if least <= target {
                return Ok(ended);
            }
            below += least - target + STEP_BELOW;
        }
    }

    /// Runs until a target, by as many processes as that takes.
    fn to_target(&self, job: &Job, target: f64, init_from: Option<&Path>) -> Result<Ended> {
        let file = self.configuration(job, target, init_from)?;
        let folder = self.folder(&job.spec);
        for _ in 0..=RESTARTS {
            let args = ["train".into(), "--config".into(), file.clone().into(), "--resume".into(), "auto".into()];
            let status = self.program(&args, &self.log(&job.spec))?;
            if self.is_stopped() {
                return Ok(Ended::Stopped);
            }
            let Some(code) = status.code().filter(|code| *code != Exit::Stopped as i32) else { continue };
            return Ok(self.ended(code, &folder, &self.log(&job.spec)));
        }
        say(&format!("warning: {}: its processes were killed; the same command goes on with it", job.spec.name()));
        Ok(Ended::Killed)
    }

    fn ended(&self, code: i32, folder: &Path, log: &Path) -> Ended {
        let status = fs::read(folder.join("status.json")).ok();
        let status: Value = status.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        if code == 0 {
            let end = if status["reason"] == "target_loss" { End::Target } else { End::Limit };
            return Ended::As(end, None);
        }
        let said = fs::read_to_string(log).unwrap_or_default();
        let said = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
        let error = said.or(status["error"].as_str()).map_or_else(|| format!("exit code {code}"), printable);
        let end = if code == Exit::NonFinite as i32 { End::Diverged } else { End::Failed };
        Ended::As(end, Some(error))
    }

    /// Writes a run's configuration; gives its path.
    fn configuration(&self, job: &Job, target: f64, init_from: Option<&Path>) -> Result<PathBuf> {
        let Job { spec, limit, .. } = job;
        let mut own = vec![
            ("run.dir", json!(self.folder(spec))),
            ("run.threads", json!(self.threads)),
            ("metrics.enabled", json!(false)),
        ];
        if spec.stage != Stage::WarmUp {
            own.extend([
                ("train.target_loss", json!(target.max(f64::MIN_POSITIVE))),
                ("train.max_gradient_equivalents", json!(limit)),
                ("eval.every_steps", json!(1)),
                // The last two are those around a target.
                ("checkpoint.every_steps", json!(1)),
                ("checkpoint.keep", json!(2)),
                ("checkpoint.every_minutes", json!(0.0)),
            ]);
        }
        own.extend(init_from.map(|path| ("run.init_from", json!(path))));
        let (folder, name) = (self.dir.join("configs"), format!("{}.toml", spec.name()));
        let parents = [&folder, &self.dir.join("logs")];
        for parent in parents {
            fs::create_dir_all(parent).map_err(|error| Fault::writing(parent, &error))?;
        }
        durable::replace(&folder.join(&name), for_worker(spec, &own)?.as_bytes())?;
        Ok(folder.join(name))
    }

    /// Losses of a run's last two checkpoints over more validation data.
    fn fine(&self, spec: &Spec) -> Result<Vec<(u64, f64)>> {
        let Some(batches) = self.fine_batches else { return Ok(vec![]) };
        let found = checkpoint::list(&self.folder(spec).join("checkpoints"))?;
        let mut losses = vec![];
        for at in found.iter().rev().take(2) {
            let text = |text: &str| OsString::from(text);
            let args = [
                text("eval"),
                text("--json"),
                text("--checkpoint"),
                at.path.clone().into(),
                text("--batches"),
                text(&batches.to_string()),
                text("--threads"),
                text(&self.threads.to_string()),
            ];
            let output = command(&args).stderr(Stdio::null()).output().map_err(cannot_start)?;
            let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            match value["loss"].as_f64() {
                Some(loss) => losses.push((at.at.0, loss)),
                None => say(&format!("warning: `{}` could not be evaluated", at.path.display())),
            }
        }
        Ok(losses)
    }

    /// Runs this program, its output appended to a log. A stop is passed on as a signal, and its end is waited for.
    fn program(&self, args: &[OsString], log: &Path) -> Result<ExitStatus> {
        let file = File::options().create(true).append(true).open(log).map_err(|error| Fault::writing(log, &error))?;
        let other = file.try_clone().map_err(|error| Fault::writing(log, &error))?;
        let mut child = command(args).stdout(file).stderr(other).spawn().map_err(cannot_start)?;
        let mut told = false;
        loop {
            if let Some(status) = child.try_wait().map_err(cannot_start)? {
                return Ok(status);
            }
            if self.is_stopped() && !told {
                told = true;
                tell(&child);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn folder(&self, spec: &Spec) -> PathBuf {
        self.dir.join("runs").join(spec.name())
    }

    fn log(&self, spec: &Spec) -> PathBuf {
        self.dir.join("logs").join(format!("{}.log", spec.name()))
    }
}

/// How the processes of a run ended.
enum Ended {
    As(End, Option<String>),
    Killed,
    Stopped,
}

/// This program in a process group of its own, so that a Ctrl-C reaches it through the comparison alone, and without the
/// configuration of the environment.
fn command(args: &[OsString]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg0("gauntlet").args(args).stdin(Stdio::null()).process_group(0);
    for (name, _) in crate::config::environment() {
        command.env_remove(name);
    }
    command
}

fn tell(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn cannot_start(error: std::io::Error) -> Fault {
    Fault::reading(Path::new(PROGRAM), &error)
}

/// What is said of a run that ended.
fn line(spec: &Spec, result: &RunResult) -> String {
    let Some(last) = result.validation.last() else {
        let why = result.error.as_deref().unwrap_or("without a validation loss");
        return format!("{}: {}", spec.name(), printable(why));
    };
    let end = match (&result.end, &result.error) {
        (End::Target, _) => "target reached",
        (End::Limit, _) => "ended",
        (_, Some(error)) => error,
        _ => "failed",
    };
    let (steps, spent, seconds) = (last.step, last.gradient_equivalents, last.seconds);
    let (name, loss) = (spec.name(), last.loss);
    format!(
        "{name}: {steps} steps, {spent:.1} gradients, {seconds:.0} s, validation loss {loss:.4}: {}",
        printable(end)
    )
}
