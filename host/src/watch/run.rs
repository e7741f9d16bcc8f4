//! What a view shows of a run beside its history: state, pace, phases, metrics, last events. All of it is of the record.

use super::words::{Note, words};
use crate::events::{Event, Step};
use crate::report::{Cost, History};
use std::collections::{BTreeMap, VecDeque};

/// Steps over which the pace is averaged.
const PACE_STEPS: usize = 20;
/// Values of a metric that are kept: the last ones.
const MOST_VALUES: usize = 1024;
/// Notes that are kept.
const MOST_NOTES: usize = 100;

/// What a run does, as far as its record and its folder's lock tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// There is no record yet.
    #[default]
    Waiting,
    /// It has begun and finished no step.
    Starting,
    /// It computes steps.
    Training,
    /// It computes a validation loss.
    Evaluating,
    /// It writes a checkpoint.
    Checkpointing,
    /// It reached its end.
    Finished,
    /// It was asked to stop.
    Stopped,
    /// It ended by an error.
    Failed,
    /// Its process is gone and has not said how it ended.
    Lost,
}

impl State {
    /// The state in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for its record",
            Self::Starting => "starting",
            Self::Training => "training",
            Self::Evaluating => "evaluating",
            Self::Checkpointing => "checkpointing",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Lost => "ended without a last line",
        }
    }

    /// Whether the run still goes on.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Waiting | Self::Starting | Self::Training | Self::Evaluating | Self::Checkpointing)
    }
}

/// What the wall time of a run is spent on.
pub const PHASES: [&str; 5] = ["data", "model", "optimizer", "eval", "checkpoint"];

/// The last values of a metric with their steps.
pub type Values = VecDeque<(u64, f64)>;

/// A run as its record tells it so far.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Losses and costs.
    pub history: History,
    /// By the last event.
    pub state: State,
    /// Seconds that the present process spent, by phase.
    pub seconds: [f64; PHASES.len()],
    /// What the optimizer reported.
    pub metrics: BTreeMap<String, Values>,
    /// Calls of the last step, by kind.
    pub calls: BTreeMap<String, u64>,
    /// Last multiplier of the schedule.
    pub schedule: Option<f64>,
    /// The last events that are worth a line.
    pub notes: VecDeque<Note>,
    /// Values that were not finite.
    pub nonfinite: u64,
}

/// How fast a run goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Wall time from one step's end to the next.
    pub step_seconds: f64,
    /// Tokens drawn, for steps and line searches, by the seconds within steps.
    pub tokens_per_second: f64,
}

impl Run {
    /// Takes in one event, `elapsed` seconds after its process began.
    pub fn hear(&mut self, elapsed: f64, event: Event) {
        self.state = state_after(&event, self.state);
        match &event {
            Event::Started(_) => self.seconds = Default::default(),
            Event::Resumed { step, .. } => self.forget_from(step.saturating_add(1)),
            Event::Step(step) => self.step(step),
            Event::Evaluated(evaluated) => self.spend("eval", evaluated.seconds),
            Event::Checkpoint { seconds, .. } => self.spend("checkpoint", *seconds),
            Event::NonFinite { .. } => self.nonfinite += 1,
            _ => {}
        }
        if let Some((level, text)) = words(&event) {
            self.notes.push_back(Note { elapsed, level, text });
            self.notes.drain(..self.notes.len().saturating_sub(MOST_NOTES));
        }
        self.history.hear(elapsed, event);
    }

    fn step(&mut self, step: &Step) {
        self.forget_from(step.step);
        self.spend("data", step.data_seconds);
        self.spend("model", step.call_seconds - step.data_seconds);
        self.spend("optimizer", step.seconds - step.call_seconds);
        for (name, value) in &step.metrics {
            let values = self.metrics.entry(name.clone()).or_default();
            values.push_back((step.step, *value));
            values.drain(..values.len().saturating_sub(MOST_VALUES));
        }
        (self.calls, self.schedule) = (step.calls.clone(), Some(step.schedule));
    }

    /// Forgets what the optimizer reported at a step and after it.
    fn forget_from(&mut self, step: u64) {
        for values in self.metrics.values_mut() {
            values.truncate(values.partition_point(|(at, _)| *at < step));
        }
        self.metrics.retain(|_, values| !values.is_empty());
    }

    fn spend(&mut self, phase: &str, seconds: f64) {
        let place = PHASES.iter().position(|name| *name == phase);
        if let Some(sum) = place.and_then(|place| self.seconds.get_mut(place)) {
            *sum += seconds.max(0.0);
        }
    }

    /// The pace over the last steps; `None` before the first.
    pub fn pace(&self) -> Option<Pace> {
        let train = &self.history.train;
        let last = train.last()?.cost;
        let first = match train.len().checked_sub(PACE_STEPS + 1) {
            Some(before) => train.get(before)?.cost,
            None if train.first()?.cost.step == 1 => Cost::default(),
            None => train.first()?.cost,
        };
        let steps = last.step.checked_sub(first.step).filter(|steps| *steps > 0)?;
        let speed = last.tokens.saturating_sub(first.tokens) as f64 / (last.step_seconds - first.step_seconds);
        Some(Pace { step_seconds: (last.seconds - first.seconds) / steps as f64, tokens_per_second: speed })
    }

    /// Seconds to the last step at the present pace, where the run has a number of steps.
    pub fn seconds_left(&self) -> Option<f64> {
        let left = self.max_steps()?.saturating_sub(self.history.cost().step);
        Some(self.pace()?.step_seconds * left as f64)
    }

    /// Steps of the whole run, where it has a number.
    pub fn max_steps(&self) -> Option<u64> {
        self.history.started.as_ref()?.max_steps
    }

    /// Tokens a second over the whole run, in at most `most` stretches of equally many steps.
    pub fn speeds(&self, most: usize) -> Vec<f64> {
        let train = &self.history.train;
        let stretch = train.len().div_ceil(most.max(1)).max(1);
        let mut before = Cost::default();
        let speed = |steps: &[crate::report::Loss]| {
            let after = steps.last().map_or(before, |last| last.cost);
            let first = std::mem::replace(&mut before, after);
            after.tokens.saturating_sub(first.tokens) as f64 / (after.step_seconds - first.step_seconds)
        };
        train.chunks(stretch).map(speed).filter(|speed| speed.is_finite()).collect()
    }
}

/// The state after an event: the end of an evaluation or of a checkpoint's copy goes back to training.
fn state_after(event: &Event, before: State) -> State {
    match event {
        Event::Started(_) => State::Starting,
        Event::Step(_) | Event::Evaluated(_) | Event::CheckpointStaged { .. } => State::Training,
        Event::Evaluating { .. } => State::Evaluating,
        Event::Checkpointing { .. } => State::Checkpointing,
        Event::Finished(finished) => match finished.reason.as_str() {
            "error" => State::Failed,
            "stopped" => State::Stopped,
            _ => State::Finished,
        },
        Event::Resumed { .. } | Event::Initialized { .. } | Event::NonFinite { .. } | Event::Skipped { .. } => before,
        Event::Log { .. } | Event::CheckpointFailed { .. } | Event::Checkpoint { .. } => before,
        Event::StepFailed { .. } => before,
    }
}
