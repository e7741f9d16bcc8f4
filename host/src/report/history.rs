//! A run's record read back: what counts of it after every resume.

use super::lines::Lines;
use crate::error::{Fault, Result};
use crate::events::{Event, Finished, Started, Step};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Name of the record in a run's folder.
pub const RECORD: &str = "events.jsonl";

/// How far a run had come: the four ways to measure its cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Finished steps.
    pub step: u64,
    /// Tokens drawn since the run's start, for steps and for line searches.
    pub tokens: u64,
    /// Those of them for line searches.
    pub line_search_tokens: u64,
    /// Floating-point operations.
    pub flops: f64,
    /// Floating-point operations in units of one gradient of the global batch.
    pub gradient_equivalents: f64,
    /// Seconds since the start of the run, without the time between its processes, and without work that was lost.
    pub seconds: f64,
    /// Seconds of these within steps.
    pub step_seconds: f64,
}

/// A loss, in nats a token, at a cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// What had been spent.
    pub cost: Cost,
    /// The loss; absent where the plugin gave none.
    pub loss: Option<f64>,
}

/// What a record tells of a run. Steps that a resumed run went over again are there once, as they went the last time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Name of the run's folder.
    pub name: String,
    /// What the run is, as its last process said.
    pub started: Option<Started>,
    /// Training loss of every finished step.
    pub train: Vec<Loss>,
    /// Validation losses.
    pub validation: Vec<Loss>,
    /// The checkpoint that it first went on from: of a branch, one of the run that it left.
    pub began_at: Option<String>,
    /// How the run ended; absent while it runs and when it was killed.
    pub finished: Option<Finished>,
    /// Steps that were undone, by their number.
    pub skipped: Vec<u64>,
    /// Steps whose update the plugin rejected.
    pub rejected: Vec<u64>,
    /// The optimizer's metrics at the last finished step.
    pub metrics: BTreeMap<String, f64>,
    /// Times that the run was resumed.
    pub resumes: u64,
    /// Wall time of the run's processes so far, without work that was lost.
    pub seconds: f64,
    /// Lines of the record that could not be read; a torn last line is not among them.
    pub unreadable: u64,
    /// Wall time before the present process.
    seconds_before: f64,
    /// Tokens, and those of line searches, that were drawn for the checkpoint that the run began with.
    tokens_before: [u64; 2],
}

impl History {
    /// Of a run's folder, before anything of its record is read.
    pub fn of(run: &Path) -> Self {
        let name = run.canonicalize().unwrap_or_else(|_| run.to_owned());
        let name = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned();
        Self { name, ..Self::default() }
    }

    /// Reads the record of a run's folder.
    ///
    /// # Errors
    ///
    /// [`Exit::Missing`](crate::error::Exit::Missing) where there is none, [`Exit::Data`](crate::error::Exit::Data) where
    /// not one line of it is an event.
    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join(RECORD);
        let failed = |error: std::io::Error| Fault::reading(&path, &error);
        let (mut history, mut lines) = (Self::of(run), Lines::default());
        let mut file = File::open(&path).map_err(failed)?;
        lines.read(&mut file, &mut |elapsed, event| history.hear(elapsed, event)).map_err(failed)?;
        lines.check(&path)?;
        history.unreadable = lines.unreadable;
        Ok(history)
    }

    /// Takes in one event, `elapsed` seconds after its process began.
    pub fn hear(&mut self, elapsed: f64, event: Event) {
        match &event {
            Event::Started(started) => {
                (self.seconds_before, self.finished) = (self.seconds, None);
                self.started = Some(started.clone());
            }
            Event::Resumed { step, checkpoint, .. } => {
                self.began_at.get_or_insert_with(|| checkpoint.clone());
                self.resume(*step);
            }
            Event::Initialized { tokens, line_search_tokens, .. } => {
                self.tokens_before = [tokens.saturating_add(*line_search_tokens), *line_search_tokens];
            }
            _ => {}
        }
        self.seconds = self.seconds.max(self.seconds_before + elapsed);
        match event {
            Event::Step(step) => {
                self.forget_from(step.step);
                let cost = self.cost_of(&step);
                self.train.push(Loss { cost, loss: step.loss });
                self.rejected.extend(step.rejected.map(|_| step.step));
                self.metrics = step.metrics;
            }
            Event::Evaluated(evaluated) => {
                keep_before(evaluated.step, &mut self.validation);
                let cost = Cost { step: evaluated.step, seconds: self.seconds, ..self.cost() };
                self.validation.push(Loss { cost, loss: Some(evaluated.loss) });
            }
            Event::Skipped { step, .. } => self.skipped.push(step),
            Event::Finished(finished) => self.finished = Some(finished),
            _ => {}
        }
    }

    /// What a step that ends now has cost, with all before it.
    fn cost_of(&self, step: &Step) -> Cost {
        let [tokens_before, searched_before] = self.tokens_before;
        Cost {
            step: step.step,
            tokens: step.tokens.saturating_add(step.line_search_tokens).saturating_sub(tokens_before),
            line_search_tokens: step.line_search_tokens.saturating_sub(searched_before),
            flops: step.flops,
            gradient_equivalents: step.gradient_equivalents,
            seconds: self.seconds,
            step_seconds: self.cost().step_seconds + step.seconds,
        }
    }

    /// Goes on after a step, by a new process.
    fn resume(&mut self, step: u64) {
        self.resumes += 1;
        self.forget_from(step.saturating_add(1));
        self.skipped.truncate(self.skipped.partition_point(|skipped| *skipped < step));
        self.seconds_before = self.cost().seconds;
        self.seconds = self.seconds_before;
    }

    /// Forgets a step and those after it.
    fn forget_from(&mut self, step: u64) {
        keep_before(step, &mut self.train);
        keep_before(step, &mut self.validation);
        self.skipped.truncate(self.skipped.partition_point(|skipped| *skipped < step));
        self.rejected.truncate(self.rejected.partition_point(|rejected| *rejected < step));
    }

    /// What the last finished step, and the evaluation after it, had cost.
    pub fn cost(&self) -> Cost {
        let train = self.train.last().map(|point| point.cost).unwrap_or_default();
        let evaluated = self.validation.last().map(|point| point.cost.seconds).unwrap_or_default();
        Cost { seconds: train.seconds.max(evaluated), ..train }
    }
}

/// Keeps the losses before a step; they are in the order of their steps.
fn keep_before(step: u64, losses: &mut Vec<Loss>) {
    losses.truncate(losses.partition_point(|point| point.cost.step < step));
}
