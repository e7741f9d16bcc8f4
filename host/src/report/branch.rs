//! A branch beside the run that it left: differences of losses on the same data.

use super::history::{History, Loss};
use std::collections::BTreeMap;
use std::fmt;

/// Differences of a branch, its losses less those of the run, by step.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// Names of the run and of the branch.
    names: [String; 2],
    /// Validation losses of both at the steps that both have.
    validation: Vec<(u64, f64, f64)>,
    /// Differences of the training losses, each on one batch that both drew.
    train: Vec<f64>,
}

impl Branch {
    /// What both did after `step`.
    pub fn of(parent: &History, own: &History, step: u64) -> Self {
        let after = |losses: &[Loss]| -> BTreeMap<u64, f64> {
            let losses = losses.iter().filter(|at| at.cost.step > step);
            losses.filter_map(|at| Some((at.cost.step, at.loss?))).collect()
        };
        let both = |parent: &[Loss], own: &[Loss]| -> Vec<(u64, f64, f64)> {
            let parent = after(parent);
            after(own).into_iter().filter_map(|(step, loss)| Some((step, *parent.get(&step)?, loss))).collect()
        };
        let train = both(&parent.train, &own.train).into_iter().map(|(_, parent, own)| own - parent).collect();
        let validation = both(&parent.validation, &own.validation);
        Self { names: [parent.name.clone(), own.name.clone()], validation, train }
    }

    /// Mean of the training losses' differences and the standard error of the mean, as if steps were independent.
    fn train_difference(&self) -> Option<(f64, f64)> {
        let n = self.train.len() as f64;
        let mean = self.train.iter().sum::<f64>() / n;
        let squares: f64 = self.train.iter().map(|difference| (difference - mean).powi(2)).sum();
        (self.train.len() > 1).then(|| (mean, (squares / (n - 1.0) / n).sqrt()))
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [parent, own] = &self.names;
        if self.validation.is_empty() && self.train.is_empty() {
            return writeln!(f, "`{parent}` has no losses after the branch, so there is nothing to compare");
        }
        writeln!(f, "validation loss of `{own}` beside `{parent}`")?;
        for (step, parent, own) in &self.validation {
            writeln!(f, "  step {step:<8} {own:.4}  {parent:.4}  difference {:+.4}", own - parent)?;
        }
        if let Some((mean, error)) = self.train_difference() {
            let steps = self.train.len();
            writeln!(f, "training loss on the same {steps} batches: difference {mean:+.4}, standard error {error:.4}")?;
        }
        Ok(())
    }
}
