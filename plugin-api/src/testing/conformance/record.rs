//! Everything that a step leaves, to the bit.

use super::super::harness::Harness;
use super::super::subject::Subject;
use crate::backend::{SavedState, StepResult};
use crate::error::Result;

/// What a finished step left behind.
#[derive(Debug)]
pub(super) struct Record {
    step: u64,
    result: StepResult,
    params: Vec<f64>,
    evaluation_params: Vec<f64>,
    ema: Vec<f64>,
    state: SavedState,
}

impl Record {
    fn of(harness: &Harness<Subject>, result: StepResult) -> Result<Self> {
        Ok(Self {
            step: harness.steps(),
            result,
            params: harness.params(),
            evaluation_params: harness.evaluation_params()?.unwrap_or_default(),
            ema: harness.ema().unwrap_or_default(),
            state: harness.save()?,
        })
    }

    /// Runs steps and records each.
    pub fn steps(harness: &mut Harness<Subject>, count: usize) -> Result<Vec<Self>> {
        let record = |_| {
            let result = harness.step()?;
            Self::of(harness, result)
        };
        (0..count).map(record).collect()
    }

    /// Names of the metrics in the report.
    pub fn metrics(&self) -> impl Iterator<Item = String> + '_ {
        self.result.metrics.iter().map(|(name, _)| name.clone())
    }

    /// The first difference, in words.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let metric = |result: &StepResult| result.metrics.iter().map(|(_, value)| *value).collect::<Vec<_>>();
        let numbers = [
            ("the loss", vec![self.result.loss], vec![other.result.loss]),
            ("the parameters", self.params.clone(), other.params.clone()),
            ("the parameters to evaluate at", self.evaluation_params.clone(), other.evaluation_params.clone()),
            ("the averaged parameters", self.ema.clone(), other.ema.clone()),
            ("the metrics", metric(&self.result), metric(&other.result)),
        ];
        let differs = numbers.iter().find_map(|(what, a, b)| different_numbers(what, a, b));
        let differs = differs.or_else(|| state_difference(&self.state, &other.state));
        let differs = differs.or_else(|| {
            let outcomes = (&self.result.outcome, &other.result.outcome);
            (outcomes.0 != outcomes.1).then(|| format!("the outcome is {:?} and {:?}", outcomes.0, outcomes.1))
        });
        differs.map(|what| format!("step {}: {what}", self.step))
    }
}

/// The first difference between two runs.
pub(super) fn first_difference(a: &[Record], b: &[Record]) -> Option<String> {
    a.iter().zip(b).find_map(|(a, b)| a.difference(b))
}

fn different_numbers(what: &str, a: &[f64], b: &[f64]) -> Option<String> {
    if a.len() != b.len() {
        return Some(format!("{what} are {} and {} numbers", a.len(), b.len()));
    }
    let place = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits())?;
    Some(format!("{what} differ at {place}: {:e} and {:e}", a[place], b[place]))
}

/// The first difference between two states.
pub(super) fn state_difference(a: &SavedState, b: &SavedState) -> Option<String> {
    let names = |state: &SavedState| state.entries.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>();
    if names(a) != names(b) || a.schema_version != b.schema_version {
        return Some(format!("the states hold {:?} and {:?}", names(a), names(b)));
    }
    let entry = a.entries.iter().zip(&b.entries).find(|(a, b)| a != b)?;
    Some(format!("entry `{}` of the state differs", entry.0.name))
}
