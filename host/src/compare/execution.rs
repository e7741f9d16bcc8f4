//! One run of a comparison from its configuration to its result: targets in turn, finer losses around each, and what an
//! exit code means.

use super::fine::{ByStep, Fine};
use super::plan::{Plan, Spec, Stage, for_worker};
use super::process;
use super::result::{End, RunResult};
use super::worker::{Job, Outcome, Workers};
use crate::durable;
use crate::error::{Exit, Fault, Result, printable};
use crate::report::History;
use crate::sinks::checkpoint;
use crate::sinks::say;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

/// Times that a run goes on after its process was killed, before the comparison leaves it for the next call.
const RESTARTS: usize = 2;
/// Signals that a process brings upon itself.
const OWN_SIGNALS: [Signal; 6] = [Signal::ILL, Signal::ABORT, Signal::BUS, Signal::FPE, Signal::SEGV, Signal::SYS];
/// Checkpoints of a run at work that is evaluated again on more data: its curve may come down to a target some steps before
/// it pauses.
const KEPT: usize = 24;
/// Checkpoints of a run that has ended.
const LEFT: usize = 2;
/// Nats by which a run at least goes further where a larger set does not find the target reached.
const STEP_BELOW: f64 = 1e-6;

impl Workers {
    /// One run to its end, unless there is a result that suffices.
    pub(super) fn one(&self, plan: &Plan, job: &Job) -> Result<Outcome> {
        if let Some(result) = self.result(job)?
            && (job.spec.stage != Stage::WarmUp || self.end_of(&job.spec).is_some())
        {
            return Ok(Outcome::Done(Box::new(result)));
        }
        let _place = self.places.take();
        if self.is_stopped() {
            return Ok(Outcome::Stopped);
        }
        let init_from = self.start(plan, &job.spec)?;
        let mut fine = Fine::of(&self.folder(&job.spec), self.fine_batches.unwrap_or(0));
        let (mut losses, mut ended) = (ByStep::new(), (End::Limit, None));
        for target in job.targets.iter().copied().chain(job.targets.is_empty().then_some(0.0)) {
            ended =
                match self.to_target_as_finer_losses_say(job, target, init_from.as_deref(), &mut fine, &mut losses)? {
                    Ended::Left(why) => return Ok(self.left(job, &why)),
                    Ended::Stopped => return Ok(Outcome::Stopped),
                    Ended::As(end, error) => (end, error),
                };
            if ended.0 != End::Target {
                break;
            }
        }
        let mut result = self.result_of(job, ended, job.last_target())?;
        result.fine = losses;
        result.write(&self.results, &job.spec)?;
        self.forget_checkpoints(&job.spec)?;
        say(&line(&job.spec, &result));
        Ok(Outcome::Done(Box::new(result)))
    }

    /// The checkpoint that a run begins at; none where there is no warm-up.
    ///
    /// # Errors
    ///
    /// [`Exit::Checkpoint`]: the warm-up has none.
    fn start(&self, plan: &Plan, spec: &Spec) -> Result<Option<PathBuf>> {
        let Some(warm_up) = plan.warm_up(spec.seed).filter(|_| spec.stage != Stage::WarmUp) else { return Ok(None) };
        self.end_of(&warm_up).map(Some).ok_or_else(|| {
            let folder = self.folder(&warm_up);
            Fault::new(Exit::Checkpoint, format!("`{}`: the warm-up has no whole checkpoint", folder.display()))
                .hint("remove the folder, and it is made again")
        })
    }

    fn left(&self, job: &Job, why: &str) -> Outcome {
        let why = printable(why);
        say(&format!("warning: {}: {why}; the same command goes on with it", job.spec.name()));
        Outcome::Left(why)
    }

    /// What the run's record says by now.
    ///
    /// # Errors
    ///
    /// A run that came to an end of its own and left no record.
    fn result_of(&self, job: &Job, ended: (End, Option<String>), target: f64) -> Result<RunResult> {
        let history = match (History::read(&self.folder(&job.spec)), ended.0) {
            (Ok(history), _) => history,
            // It failed before it began to write.
            (Err(_), End::Failed | End::Diverged) => History::default(),
            (Err(fault), _) => return Err(fault),
        };
        Ok(RunResult::of(&job.spec, &history, ended, job.limit, target))
    }

    /// Runs until a target is reached, also by the losses over more validation data, which are added to `losses`. Where
    /// these do not find it reached, the run goes on below it.
    fn to_target_as_finer_losses_say(
        &self,
        job: &Job,
        target: f64,
        init_from: Option<&Path>,
        fine: &mut Fine,
        losses: &mut ByStep,
    ) -> Result<Ended> {
        let mut aim = target;
        loop {
            let reached = match fine.at(aim) {
                Some(found) => found.clone(),
                None => {
                    let ended = self.to_target(job, aim, init_from)?;
                    if !matches!(ended, Ended::As(End::Target, _)) || self.fine_batches.is_none() {
                        return Ok(ended);
                    }
                    let found = match self.evaluated_again(job, target, losses)? {
                        Ok(found) if found.is_empty() => return Ok(Ended::Left("it has no checkpoint".into())),
                        Ok(found) => found,
                        Err(ended) => return Ok(ended),
                    };
                    fine.keep(aim, found.clone())?;
                    found
                }
            };
            losses.extend(&reached);
            let least = losses.values().copied().fold(f64::INFINITY, f64::min);
            if least <= target {
                return Ok(Ended::As(End::Target, None));
            }
            // As far below what the smaller set says by now as the larger one is above the target.
            let here = self.result_of(job, (End::Target, None), target)?;
            let here = here.validation.iter().rfind(|at| reached.contains_key(&at.step)).map_or(aim, |at| at.loss);
            aim = here.min(aim) - (least - target).max(STEP_BELOW);
        }
    }

    /// Runs until a target, by as many processes as that takes. One that ends itself by a signal each time, as a plugin makes
    /// it do that reads where it must not, has failed; one that others kill is left.
    fn to_target(&self, job: &Job, target: f64, init_from: Option<&Path>) -> Result<Ended> {
        let (file, log) = (self.configuration(job, target, init_from)?, self.log(&job.spec));
        let mut own = 0;
        for _ in 0..=RESTARTS {
            let args = ["train", "--resume", "auto", "--with-parent", "--config"].map(OsString::from);
            let status =
                process::run(&[args.as_slice(), &[file.clone().into()]].concat(), &log, &|| self.is_stopped())?;
            if self.is_stopped() {
                return Ok(Ended::Stopped);
            }
            if let Some(code) = status.code().filter(|code| *code != Exit::Stopped as i32) {
                return self.ended(code, &job.spec, target);
            }
            own += OWN_SIGNALS.iter().filter(|own| status.signal() == Some(own.as_raw())).count();
        }
        Ok(match own > RESTARTS {
            true => Ended::As(End::Failed, Some(format!("its process ended by a signal of its own, {own} times"))),
            false => Ended::Left("its processes were killed".into()),
        })
    }

    /// What an exit code makes of a run: an end, a failure that is the contender's own, or something about the machine,
    /// of which nothing is recorded.
    fn ended(&self, code: i32, spec: &Spec, target: f64) -> Result<Ended> {
        if code == 0 {
            // The record says it, not the status: that is as it was where a run has nothing left to do for a lower target.
            let last = History::read(&self.folder(spec))?.validation.last().and_then(|at| at.loss);
            let reached = last.is_some_and(|loss| loss <= target);
            return Ok(Ended::As(if reached { End::Target } else { End::Limit }, None));
        }
        let status = fs::read(self.folder(spec).join("status.json")).ok();
        let status: Value = status.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let said = fs::read_to_string(self.log(spec)).unwrap_or_default();
        let said = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
        let error = said.or(status["error"].as_str()).map_or_else(|| format!("exit code {code}"), printable);
        Ok(match code {
            _ if code == Exit::NonFinite as i32 => Ended::As(End::Diverged, Some(error)),
            _ if code == Exit::Plugin as i32 => Ended::As(End::Failed, Some(error)),
            _ if code == Exit::Usage as i32 => Ended::As(End::Failed, Some(error)),
            _ => Ended::Left(error),
        })
    }

    /// Writes a run's configuration; gives its path.
    fn configuration(&self, job: &Job, target: f64, init_from: Option<&Path>) -> Result<PathBuf> {
        let (folder, name) = (self.dir.join("configs"), format!("{}.toml", job.spec.name()));
        let parents = [&folder, &self.dir.join("logs")];
        for parent in parents {
            fs::create_dir_all(parent).map_err(|error| Fault::writing(parent, &error))?;
        }
        durable::replace(&folder.join(&name), self.configured(job, target, init_from)?.as_bytes())?;
        Ok(folder.join(name))
    }

    /// A run's configuration.
    pub(super) fn configured(&self, job: &Job, target: f64, init_from: Option<&Path>) -> Result<String> {
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
                ("checkpoint.every_steps", json!(1)),
                ("checkpoint.keep", json!(if self.fine_batches.is_some() { KEPT } else { LEFT })),
                ("checkpoint.every_minutes", json!(0.0)),
            ]);
        }
        own.extend(init_from.map(|path| ("run.init_from", json!(path))));
        own.extend(self.micro_batch_size.map(|size| ("train.micro_batch_size", json!(size.min(spec.batch_size)))));
        for_worker(spec, &own)
    }

    /// Losses of a run's last two checkpoints over more validation data, and of the two between which its curve comes down to
    /// the target by all that is `known`, as far as they are kept: what they say can move that place, where the next two are
    /// looked at. Or how the run ended where they could not be told.
    ///
    /// # Errors
    ///
    /// No process can be started.
    fn evaluated_again(&self, job: &Job, target: f64, known: &ByStep) -> Result<Result<ByStep, Ended>> {
        let mut result = self.result_of(job, (End::Target, None), target)?;
        result.fine = known.clone();
        let kept = checkpoint::list(&self.folder(&job.spec).join("checkpoints"))?;
        let mut losses = ByStep::new();
        let mut wanted: Vec<u64> = kept.iter().rev().take(2).map(|found| found.at.0).collect();
        while !wanted.is_empty() {
            for found in kept.iter().filter(|found| wanted.contains(&found.at.0)) {
                // A run that is below the next target too pauses where it was.
                let loss = match known.get(&found.at.0) {
                    Some(loss) => *loss,
                    None => match self.finer_loss(&found.path)? {
                        Ok(loss) => loss,
                        Err(ended) => return Ok(Err(ended)),
                    },
                };
                losses.insert(found.at.0, loss);
            }
            result.fine.extend(&losses);
            let is_kept = |step: &u64| kept.iter().any(|found| found.at.0 == *step);
            wanted = result.around(target).into_iter().filter(|step| !result.fine.contains_key(step)).collect();
            wanted.retain(is_kept);
        }
        Ok(Ok(losses))
    }

    /// Removes what a run needed while it was at work.
    fn forget_checkpoints(&self, spec: &Spec) -> Result<()> {
        let folder = self.folder(spec).join("checkpoints");
        match checkpoint::list(&folder)?.last() {
            Some(newest) => checkpoint::rotate(&folder, LEFT, &newest.path),
            None => Ok(()),
        }
    }

    /// Loss of a checkpoint over more validation data, by as many processes as that takes.
    fn finer_loss(&self, checkpoint: &Path) -> Result<Result<f64, Ended>> {
        let (batches, threads) = (self.fine_batches.unwrap_or(1).to_string(), self.threads.to_string());
        let args = ["eval", "--json", "--with-parent", "--batches", &batches, "--threads", &threads, "--checkpoint"];
        let args = [&args.map(OsString::from)[..], &[checkpoint.into()]].concat();
        for _ in 0..=RESTARTS {
            let output = process::output(&args)?;
            let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if let Some(loss) = said["loss"].as_f64() {
                return Ok(Ok(loss));
            }
            if self.is_stopped() {
                return Ok(Err(Ended::Stopped));
            }
            if output.status.signal().is_none() {
                let why = String::from_utf8_lossy(&output.stderr);
                let why = why.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("no loss was given");
                let why = format!("`{}` cannot be evaluated: {why}", checkpoint.display());
                return Ok(Err(Ended::Left(why)));
            }
        }
        Ok(Err(Ended::Left("the processes that evaluate it were killed".into())))
    }
}

/// How the processes of a run ended.
enum Ended {
    As(End, Option<String>),
    /// Without an end, for this reason.
    Left(String),
    Stopped,
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
