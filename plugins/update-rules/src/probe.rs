//! Runs code of a test on tensors of the testing backend: an optimizer whose one step is a closure.

use gauntlet_plugin_api::prelude::*;
use gauntlet_plugin_api::testing::{Harness, Problem, json};
use std::any::Any;
use std::cell::RefCell;

type Body = Box<dyn FnOnce(&mut StepContext) -> Result<Box<dyn Any>>>;

thread_local! {
    static BODY: RefCell<Option<Body>> = const { RefCell::new(None) };
    static ANSWER: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Config {}

struct Probe;

impl Optimizer for Probe {
    const NAME: &'static str = "probe";
    type Config = Config;

    fn new(_: Config, _: &Setup) -> Result<Self> {
        Ok(Self)
    }

    fn state_bytes(_: &Config, _: &Params) -> u64 {
        0
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let body = BODY.take().ok_or_else(|| Error::plugin("no body"))?;
        ANSWER.set(Some(body(ctx)?));
        Ok(StepReport::new(0.0))
    }

    fn save(&self, _: &mut StateWriter) -> Result<()> {
        Ok(())
    }

    fn load(&mut self, _: &StateReader) -> Result<()> {
        Ok(())
    }
}

/// Runs a closure in a step of a run with these parameters, and gives what it returned.
pub fn on<T: 'static>(
    dtype: DType,
    params: Vec<(ParamSpec, Vec<f64>)>,
    body: impl FnOnce(&mut StepContext) -> Result<T> + 'static,
) -> Result<T> {
    let (specs, values) = params.into_iter().unzip();
    let mut harness = Harness::<Probe>::new(json!({}), Problem::recorded(specs, values, vec![])?.dtype(dtype))?;
    BODY.set(Some(Box::new(|ctx| Ok(Box::new(body(ctx)?) as Box<dyn Any>))));
    harness.step()?;
    let answer = ANSWER.take().and_then(|answer| answer.downcast().ok());
    answer.map(|answer| *answer).ok_or_else(|| Error::plugin("no answer"))
}

/// Runs a closure on one tensor in f64.
pub fn on_tensor<T: 'static>(
    shape: &[usize],
    values: Vec<f64>,
    body: impl FnOnce(&Tensor) -> Result<T> + 'static,
) -> Result<T> {
    let param = (ParamSpec::new("x", shape, Role::Hidden), values);
    on(DType::F64, vec![param], |ctx| ctx.params().iter().next().map_or(Err(Error::plugin("none")), |(_, x)| body(x)))
}

/// Numbers in [-1, 1), the same everywhere (xorshift, Marsaglia 2003).
pub fn numbers(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}
