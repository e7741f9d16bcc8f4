//! Checks that every plugin has to pass, and their report.

mod checks;
mod figures;
#[cfg(test)]
mod misbehaving;
mod record;

pub use figures::{Figures, measure};

use super::subject::Subject;
use crate::optimizer::Optimizer;
use serde_json::Value;
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
    pub optimizer: String,
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

    fn run(&mut self, name: &'static str, needs: &[&'static str], check: impl FnOnce() -> checks::Outcome) -> &Verdict {
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
        &self.checks[self.checks.len() - 1].1
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
/// * failing calls: where a call of the host fails, the step ends with an error or recovers, without a panic, and the
///   optimizer can be loaded and goes on as if nothing had been.
/// * threads: made on one thread, stepped on others and dropped on another, it gives the same bits.
/// * handle leaks: tensors and handles do not grow with steps, and all are freed in the end.
pub fn check<O: Optimizer>(config: Value) -> Report {
    check_subject(&Subject::of::<O>(), &config, |_, _| ())
}

type Check = fn(&Subject, &Value) -> checks::Outcome;

/// Every check with the checks that it needs, in the order in which they run.
const CHECKS: [(&str, &[&str], Check); 14] = [
    ("creation", &[], checks::creation),
    ("metadata", &[], |subject, _| checks::metadata(subject)),
    ("config", CREATED, checks::config),
    ("determinism", CREATED, checks::determinism),
    ("state round trip", REPEATABLE, checks::state_round_trip),
    ("stop and resume", REPEATABLE, checks::stop_and_resume),
    ("state bytes", CREATED, checks::state_bytes),
    ("NaN gradients", CREATED, checks::nan_gradients),
    ("zero gradients", CREATED, checks::zero_gradients),
    ("empty parameters", CREATED, checks::empty_parameters),
    ("metrics", CREATED, checks::metrics),
    ("failing calls", RESTORABLE, checks::failing_calls),
    ("threads", REPEATABLE, checks::threads),
    ("handle leaks", CREATED, checks::handle_leaks),
];

const CREATED: &[&str] = &["creation"];
const REPEATABLE: &[&str] = &["creation", "determinism"];
const RESTORABLE: &[&str] = &["creation", "determinism", "state round trip", "stop and resume"];

/// [`check`] for any subject. `observe` hears of each check: when it begins, without a verdict, and when it has ended.
pub fn check_subject(subject: &Subject, config: &Value, observe: impl FnMut(&'static str, Option<&Verdict>)) -> Report {
    check_some(&CHECKS.map(|(name, ..)| name), subject, config, observe)
}

/// The checks with these names.
pub fn check_some(
    names: &[&str],
    subject: &Subject,
    config: &Value,
    mut observe: impl FnMut(&'static str, Option<&Verdict>),
) -> Report {
    let mut report = Report { optimizer: subject.metadata.name.clone(), checks: vec![] };
    for (name, needs, check) in CHECKS.into_iter().filter(|(name, ..)| names.contains(name)) {
        observe(name, None);
        let verdict = report.run(name, needs, || check(subject, config));
        observe(name, Some(verdict));
    }
    report
}

/// [`check`] for a plugin's own `#[test]`.
///
/// # Panics
///
/// With the report, when a check failed.
pub fn conformance<O: Optimizer>(config: Value) {
    let report = check::<O>(config);
    assert!(report.failed().next().is_none(), "{report}");
}
