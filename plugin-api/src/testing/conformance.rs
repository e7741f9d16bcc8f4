//! Checks that every plugin has to pass, and their report.

mod checks;
#[cfg(test)]
mod misbehaving;
mod record;

use crate::optimizer::Optimizer;
use std::fmt;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// What is wrong.
    Failed(String),
    /// Another check failed that this one needs.
    Skipped(&'static str),
}

/// What the checks found, in the order they ran.
#[derive(Clone, Debug)]
pub struct Report {
    /// The optimizer's name.
    pub optimizer: &'static str,
    /// Name and verdict of each check.
    pub checks: Vec<(&'static str, Verdict)>,
}

impl Report {
    /// Names and messages of the checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.checks.iter().filter_map(|(name, verdict)| match verdict {
            Verdict::Failed(message) => Some((*name, message.as_str())),
            _ => None,
        })
    }

    fn run(&mut self, name: &'static str, needs: &[&'static str], check: impl FnOnce() -> checks::Outcome) {
        let passed = |need: &&&'static str| {
            let verdict = self.checks.iter().find(|(name, _)| *name == **need).map(|(_, verdict)| verdict);
            verdict == Some(&Verdict::Passed)
        };
        let verdict = match needs.iter().find(|need| !passed(need)) {
            Some(need) => Verdict::Skipped(need),
            None => match check() {
                Ok(()) => Verdict::Passed,
                Err(failure) => Verdict::Failed(failure.0),
            },
        };
        self.checks.push((name, verdict));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` fails {} of {} checks", self.optimizer, self.failed().count(), self.checks.len())?;
        for (name, verdict) in &self.checks {
            match verdict {
                Verdict::Passed => write!(f, "\n  passed   {name}")?,
                Verdict::Failed(message) => write!(f, "\n  FAILED   {name}: {message}")?,
                Verdict::Skipped(need) => write!(f, "\n  skipped  {name}: it needs `{need}`")?,
            }
        }
        Ok(())
    }
}

/// Runs every check on an optimizer with a configuration that is valid for [`two_layer`](super::Problem::two_layer).
///
/// * creation: the configuration is accepted.
/// * metadata: a kebab-case name, a schema, metrics with names in snake case and help.
/// * config: an unknown key is refused; what is written of a configuration can be read.
/// * determinism: two runs are equal bit for bit, in F32 and in F64.
/// * state round trip: a state that is loaded into a fresh optimizer and into a used one gives the same next steps bit
///   for bit, and is saved as it was.
/// * stop and resume: a step that returns `more()` goes on bit for bit in a fresh optimizer, from every such point;
///   and returning early changes no number.
/// * state bytes: `state_bytes` is the sum over the saved tensors. Where a step returns `more()`: at least the largest
///   sum, at most four times it.
/// * NaN gradients: the step ends, with an error or without, and without a panic.
/// * zero gradients: the step succeeds and leaves finite parameters.
/// * empty parameters: a model without parameters is no error.
/// * metrics: none but `gradient_norm` and the declared ones.
/// * handle leaks: tensors and handles do not grow with steps, and all are freed in the end.
pub fn check<O: Optimizer>(config: serde_json::Value) -> Report {
    let mut report = Report { optimizer: O::NAME, checks: vec![] };
    let created = &["creation"];
    let repeatable = &["creation", "determinism"];
    report.run("creation", &[], || checks::creation::<O>(&config));
    report.run("metadata", &[], checks::metadata::<O>);
    report.run("config", created, || checks::config::<O>(&config));
    report.run("determinism", created, || checks::determinism::<O>(&config));
    report.run("state round trip", repeatable, || checks::state_round_trip::<O>(&config));
    report.run("stop and resume", repeatable, || checks::stop_and_resume::<O>(&config));
    report.run("state bytes", created, || checks::state_bytes::<O>(&config));
    report.run("NaN gradients", created, || checks::nan_gradients::<O>(&config));
    report.run("zero gradients", created, || checks::zero_gradients::<O>(&config));
    report.run("empty parameters", created, || checks::empty_parameters::<O>(&config));
    report.run("metrics", created, || checks::metrics::<O>(&config));
    report.run("handle leaks", created, || checks::handle_leaks::<O>(&config));
    report
}

/// [`check`] for a plugin's own `#[test]`.
///
/// # Panics
///
/// With the report, when a check failed.
pub fn conformance<O: Optimizer>(config: serde_json::Value) {
    let report = check::<O>(config);
    assert!(report.failed().next().is_none(), "{report}");
}
