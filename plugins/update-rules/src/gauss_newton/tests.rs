//! Gauss-Newton against independent code: a recorded loop, dense algebra by hand, and the rules it is made of.

mod anchor;
mod degenerate;
mod exact;
mod loop_trace;
mod parts;
mod search;

use super::{Config, GaussNewton, METRICS};
use crate::inner::{Inner, InnerConfig};
use gauntlet_plugin_api::prelude::*;
use gauntlet_plugin_api::testing::{Harness, Problem, SavedState, StepResult, json};
use serde_json::Value;
use std::marker::PhantomData;

/// A structure as a type.
trait Kind: Send + 'static {
    fn structure(params: &Params) -> Structure;
}

struct Full;
struct Layerwise;
/// A partition of one block.
struct OneBlock;

impl Kind for Full {
    fn structure(_: &Params) -> Structure {
        Structure::Full
    }
}

impl Kind for Layerwise {
    fn structure(_: &Params) -> Structure {
        Structure::Layerwise
    }
}

impl Kind for OneBlock {
    fn structure(params: &Params) -> Structure {
        Structure::Partition(vec![params.specs().iter().map(|spec| spec.name.clone()).collect()])
    }
}

/// The solver as an optimizer, as full-gn and layerwise-gn make one of it.
struct Gn<K>(GaussNewton, PhantomData<fn() -> K>);

impl<K: Kind> Optimizer for Gn<K> {
    const NAME: &'static str = "gauss-newton";
    const NEEDS: &'static [Capability] = GaussNewton::NEEDS;
    const METRICS: &'static [Metric] = METRICS;
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        GaussNewton::new(config, K::structure(setup.params()), setup).map(|solver| Self(solver, PhantomData))
    }

    fn state_bytes(config: &Config, params: &Params) -> u64 {
        config.state_bytes(params)
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

/// A rule on the loss's own gradient, one step a minibatch.
struct Plain {
    config: PlainConfig,
    rule: Inner,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct PlainConfig {
    inner: InnerConfig,
    inner_batch_size: usize,
}

impl Optimizer for Plain {
    const NAME: &'static str = "plain";
    type Config = PlainConfig;

    fn new(config: PlainConfig, setup: &Setup) -> Result<Self> {
        Ok(Self { rule: Inner::new(&config.inner, setup.params())?, config })
    }

    fn state_bytes(config: &PlainConfig, params: &Params) -> u64 {
        config.inner.state_bytes(params)
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let batches = ctx.next_batch()?.split(self.config.inner_batch_size)?;
        let mut losses = 0.0;
        for (i, batch) in batches.iter().enumerate() {
            let (loss, mut gradient) = ctx.loss_and_gradient(ctx.params(), batch)?;
            let multiplier = ctx.schedule_at(ctx.step() as f64 + i as f64 / batches.len() as f64);
            self.rule.step(ctx.params_mut(), &mut gradient, multiplier)?;
            losses += loss;
        }
        Ok(StepReport::new(losses / batches.len() as f64))
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        self.rule.save(state, "")
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.rule.load(state, "")
    }
}

fn run<O: Optimizer>(config: Value, problem: Problem) -> Harness<O> {
    Harness::new(config, problem).unwrap()
}

/// A configuration with more keys.
fn with(mut config: Value, more: Value) -> Value {
    let more = more.as_object().cloned().unwrap_or_default();
    config.as_object_mut().unwrap().extend(more);
    config
}

fn sgd(lr: f64, momentum: f64) -> Value {
    json!({ "sgd": { "lr": lr, "momentum": momentum } })
}

/// The numbers of an entry of a state: a list of tensors, flat, or plain numbers.
fn entry(state: &SavedState, name: &str) -> Vec<f64> {
    let entry = state.entries.iter().find(|entry| entry.name == name);
    let entry = entry.unwrap_or_else(|| panic!("no entry {name}"));
    let numbers = |bytes: &[u8]| bytes.as_chunks::<8>().0.iter().map(|x| f64::from_le_bytes(*x)).collect::<Vec<_>>();
    match entry.tensors.is_empty() {
        true => numbers(&entry.bytes),
        false => entry.tensors.iter().flat_map(|tensor| numbers(&tensor.bytes)).collect(),
    }
}

fn metric(result: &StepResult, name: &str) -> Option<f64> {
    result.metrics.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
}

/// Largest difference by the largest number.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = |numbers: &mut dyn Iterator<Item = f64>| {
        numbers.fold(0.0, |a: f64, b| if b.is_nan() { b } else { a.max(b.abs()) })
    };
    let scale = largest(&mut expected.iter().copied());
    largest(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / if scale == 0.0 { 1.0 } else { scale }
}

#[track_caller]
fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    let distance = distance(found, expected);
    assert!(distance <= tolerance, "{distance:e}: {found:?} {expected:?}");
}

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|x| x.to_bits()).collect()
}
