//! For each check an optimizer that fails exactly that one.

use super::{Verdict, check};
use crate::prelude::*;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};

const NOTHING: usize = 0;
const NAME: usize = 1;
const RANDOM: usize = 2;
const FORGETS: usize = 3;
const FORGETS_WITHIN: usize = 4;
const STATE_BYTES: usize = 5;
const PANICS_ON_NAN: usize = 6;
const HANGS_ON_NAN: usize = 7;
const DIVIDES_BY_ZERO: usize = 8;
const NEEDS_A_PARAMETER: usize = 9;
const UNDECLARED_METRIC: usize = 10;
const LEAKS_TENSORS: usize = 11;
const LEAKS_BATCHES: usize = 12;
const REJECTS_WITH_CHANGES: usize = 13;
const HURRIES: usize = 14;
const REFUSES: usize = 15;
const PANICS_ON_FAILURE: usize = 16;
const KEEPS_WHAT_FAILED: usize = 17;
const MINDS_THREADS: usize = 18;

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Strict {
    lr: f64,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Lenient {
    lr: f64,
}

/// Descent with momentum in two calls a step, and one bad habit.
struct Bad<const HABIT: usize> {
    lr: f64,
    velocity: Params,
    pending: Option<Position>,
    made_on: std::thread::ThreadId,
    failed: bool,
}

/// Changes with every step of the process.
static STEPS: AtomicU64 = AtomicU64::new(0);

impl<const HABIT: usize> Optimizer for Bad<HABIT> {
    const NAME: &'static str = if HABIT == NAME { "Bad_Name" } else { "bad" };
    type Config = Strict;

    fn new(config: Strict, setup: &Setup) -> Result<Self> {
        if HABIT == REFUSES {
            return Err(Error::config("lr", "is never right"));
        }
        Ok(Self {
            lr: config.lr,
            velocity: setup.params().zeros_like()?,
            pending: None,
            made_on: std::thread::current().id(),
            failed: false,
        })
    }

    fn state_bytes(_: &Strict, params: &Params) -> u64 {
        if HABIT == STATE_BYTES { params.bytes() - 1 } else { params.bytes() }
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let Some(position) = self.pending.take() else {
            let batch = ctx.next_batch()?;
            if HABIT == HURRIES && !ctx.should_return()? {
                return self.update(ctx, &batch.slice(0, 1)?);
            }
            self.pending = Some(batch.position().clone());
            return Ok(StepReport::more());
        };
        let batch = ctx.batch(&position)?;
        self.update(ctx, &batch)
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        state.params("velocity", &self.velocity)?;
        if HABIT == FORGETS_WITHIN {
            return Ok(());
        }
        self.pending.as_ref().map_or(Ok(()), |position| state.text("pending", &position.to_json()?))
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.velocity = state.params("velocity")?;
        if HABIT == FORGETS && self.pending.is_none() && !state.has("pending") {
            self.velocity.fill_(0.0)?;
        }
        self.pending = None;
        if state.has("pending") {
            self.pending = Some(Position::from_json(&state.text("pending")?)?);
        }
        Ok(())
    }
}

impl<const HABIT: usize> Bad<HABIT> {
    fn update(&mut self, ctx: &mut StepContext, batch: &Batch) -> Result<StepReport> {
        let outcome = ctx.loss_and_gradient(ctx.params(), batch);
        if HABIT == PANICS_ON_FAILURE {
            assert!(outcome.is_ok(), "no gradient");
        }
        self.failed |= outcome.is_err();
        let (loss, mut gradient) = outcome?;
        let norm = gradient.norm()?;
        let mut report = StepReport::new(loss).gradient_norm(norm);
        match HABIT {
            RANDOM => self.lr += 1e-12 * STEPS.fetch_add(1, Ordering::Relaxed) as f64,
            KEEPS_WHAT_FAILED => self.lr *= if self.failed { 2.0 } else { 1.0 },
            MINDS_THREADS if std::thread::current().id() != self.made_on => self.lr *= 2.0,
            PANICS_ON_NAN => assert!(!norm.is_nan(), "the gradient is NaN"),
            HANGS_ON_NAN => while gradient.norm()?.is_nan() {},
            DIVIDES_BY_ZERO => drop(gradient.scale_(1.0 / norm)?),
            NEEDS_A_PARAMETER => assert!(ctx.params().specs()[0].numel() > 0),
            UNDECLARED_METRIC => report = report.metric("momentum", 0.9),
            LEAKS_TENSORS => std::mem::forget(gradient.try_clone()?),
            LEAKS_BATCHES => std::mem::forget(batch.slice(0, 1)?),
            REJECTS_WITH_CHANGES if norm == 0.0 => {
                ctx.params_mut().scale_(0.5)?;
                return Ok(StepReport::rejected("nothing to do"));
            }
            _ => {}
        }
        self.velocity.scale_(0.9)?.axpy_(1.0, &gradient)?;
        ctx.params_mut().axpy_(-self.lr, &self.velocity)?;
        Ok(report)
    }
}

/// A good optimizer but for its configuration.
struct TakesAnything(Bad<NOTHING>);

impl Optimizer for TakesAnything {
    const NAME: &'static str = "takes-anything";
    type Config = Lenient;

    fn new(config: Lenient, setup: &Setup) -> Result<Self> {
        Ok(Self(Bad::new(Strict { lr: config.lr }, setup)?))
    }

    fn state_bytes(_: &Lenient, params: &Params) -> u64 {
        params.bytes()
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        self.0.step(ctx)
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        self.0.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.0.load(state)
    }
}

#[track_caller]
fn fails_only<O: Optimizer>(name: &str, message: &str) {
    let report = check::<O>(json!({ "lr": 0.1 }));
    let failed: Vec<&str> = report.failed().map(|(name, _)| name).collect();
    assert_eq!(failed, [name], "{report}");
    let found = report.failed().next().map(|(_, message)| message.to_string()).unwrap_or_default();
    assert!(found.contains(message), "found `{found}`, expected `{message}`");
}

#[test]
fn a_good_optimizer_passes_every_check() {
    let report = check::<Bad<NOTHING>>(json!({ "lr": 0.1 }));
    assert!(report.checks.iter().all(|(_, verdict)| *verdict == Verdict::Passed), "{report}");
    assert_eq!(report.checks.len(), 14);
}

#[test]
fn each_check_has_an_optimizer_that_fails_it_alone() {
    fails_only::<Bad<REFUSES>>("creation", "lr: is never right (config)");
    fails_only::<Bad<NAME>>("metadata", "found name `Bad_Name`, expected a kebab-case word");
    fails_only::<TakesAnything>("config", "an unknown key is accepted");
    fails_only::<Bad<RANDOM>>("determinism", "two runs in f64 differ: step ");
    fails_only::<Bad<FORGETS>>("state round trip", "a state that was loaded is saved differently: entry `velocity`");
    fails_only::<Bad<FORGETS_WITHIN>>("stop and resume", "resumed after call 1 of step 2: step 2: the loss differ");
    fails_only::<Bad<HURRIES>>("stop and resume", "returning early changes the step: step 1: the loss differ");
    fails_only::<Bad<STATE_BYTES>>("state bytes", "in f64");
    fails_only::<Bad<PANICS_ON_NAN>>("NaN gradients", "panicked: the gradient is NaN (panic)");
    fails_only::<Bad<HANGS_ON_NAN>>("NaN gradients", "calls of the host (host)");
    fails_only::<Bad<DIVIDES_BY_ZERO>>("zero gradients", "a parameter is NaN");
    fails_only::<Bad<REJECTS_WITH_CHANGES>>("zero gradients", "rejected, but the parameters have changed");
    fails_only::<Bad<NEEDS_A_PARAMETER>>("empty parameters", "panicked: index out of bounds");
    fails_only::<Bad<UNDECLARED_METRIC>>("metrics", "`momentum` is reported but not declared in METRICS");
    fails_only::<Bad<PANICS_ON_FAILURE>>("failing calls", "of the host fails, and it panics");
    fails_only::<Bad<KEEPS_WHAT_FAILED>>("failing calls", "of the host had failed: step ");
    fails_only::<Bad<MINDS_THREADS>>("threads", "steps on threads of their own differ: step 1: ");
    fails_only::<Bad<LEAKS_TENSORS>>("handle leaks", "after 24 steps, expected ");
    fails_only::<Bad<LEAKS_BATCHES>>("handle leaks", "after 24 steps, expected ");
}

#[test]
#[should_panic(expected = "FAILED   metrics: `momentum` is reported")]
fn conformance_panics_with_the_report() {
    super::conformance::<Bad<UNDECLARED_METRIC>>(json!({ "lr": 0.1 }));
}
