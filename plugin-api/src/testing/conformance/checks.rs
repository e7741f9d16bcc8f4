//! The checks of the conformance suite.

use super::super::harness::{Harness, Snapshot};
use super::super::loss::Fault;
use super::super::problem::Problem;
use super::record::{Record, first_difference, state_difference};
use crate::backend::{self, SavedState};
use crate::error::Error;
use crate::metadata::Metadata;
use crate::optimizer::Optimizer;
use gauntlet_plugin_abi::{Capability, DType, ErrorCode};
use serde_json::Value;

/// Points of one step at which it is stopped and resumed, at most.
const MAX_STOPS: usize = 50;

/// What is wrong, in one line.
pub(super) struct Failure(pub String);

pub(super) type Outcome = Result<(), Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(format!("{error} ({})", error.code.name()))
    }
}

fn require(condition: bool, message: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(Failure(message())) }
}

fn equal(difference: Option<String>, context: &str) -> Outcome {
    difference.map_or(Ok(()), |difference| Err(Failure(format!("{context}: {difference}"))))
}

/// Batches of a quarter of the data, so that every step sees others.
fn problem() -> Problem {
    Problem::two_layer().batch_size(4).total_steps(100)
}

fn start<O: Optimizer>(config: &Value) -> Result<Harness<O>, Failure> {
    Ok(Harness::new(config.clone(), problem())?)
}

pub(super) fn creation<O: Optimizer>(config: &Value) -> Outcome {
    start::<O>(config).map(drop)
}

pub(super) fn metadata<O: Optimizer>() -> Outcome {
    let metadata = Metadata::of::<O>("0.0.0");
    let name = &metadata.name;
    let word = |word: &str, extra: char| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == extra;
        word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(plain) && !word.ends_with(extra)
    };
    require(word(name, '-') && !name.contains("--"), || format!("found name `{name}`, expected a kebab-case word"))?;
    let kind = metadata.schema.get("type").and_then(Value::as_str);
    require(kind == Some("object"), || "the schema of the configuration is not that of a table".into())?;
    require(metadata.state_version > 0, || "found STATE_VERSION 0, expected at least 1".into())?;
    for need in &metadata.needs {
        let known = Capability::ALL.iter().any(|(known, _)| known.0 == need.code);
        require(known, || format!("needs a capability {} that the interface does not have", need.code))?;
    }
    for (i, metric) in metadata.metrics.iter().enumerate() {
        let name = &metric.name;
        require(word(name, '_'), || format!("found metric `{name}`, expected a snake_case word"))?;
        require(!metric.help.is_empty(), || format!("metric `{name}` has no help"))?;
        let twice = metadata.metrics[..i].iter().any(|other| other.name == *name);
        require(!twice, || format!("metric `{name}` is declared twice"))?;
    }
    Ok(())
}

pub(super) fn config<O: Optimizer>(config: &Value) -> Outcome {
    const UNKNOWN: &str = "a_key_that_nobody_has";
    let mut unknown = config.clone();
    if let Some(table) = unknown.as_object_mut() {
        table.insert(UNKNOWN.into(), 1.into());
    }
    match Harness::<O>::new(unknown, problem()) {
        Err(error) if error.code == ErrorCode::CONFIG => {}
        Err(error) => return Err(Failure(format!("an unknown key gives {} `{error}`", error.code.name()))),
        Ok(_) => return Err(Failure("an unknown key is accepted; `#[serde(deny_unknown_fields)]` is missing".into())),
    }
    let parsed: O::Config = serde_json::from_value(config.clone()).map_err(|error| Failure(error.to_string()))?;
    let written = serde_json::to_value(parsed).map_err(|error| Failure(error.to_string()))?;
    match Harness::<O>::new(written, problem()) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure(format!("what it writes of its configuration is refused: {error}"))),
    }
}

pub(super) fn determinism<O: Optimizer>(config: &Value) -> Outcome {
    for dtype in [DType::F64, DType::F32] {
        let run = || Record::steps(&mut Harness::<O>::new(config.clone(), problem().dtype(dtype))?, 4);
        equal(first_difference(&run()?, &run()?), &format!("two runs in {} differ", dtype.name()))?;
    }
    Ok(())
}

pub(super) fn state_round_trip<O: Optimizer>(config: &Value) -> Outcome {
    let mut used = start::<O>(config)?;
    Record::steps(&mut used, 3)?;
    let snapshot = used.snapshot()?;
    let expected = Record::steps(&mut used, 3)?;

    let mut fresh = start::<O>(config)?;
    fresh.restore(&snapshot)?;
    equal(state_difference(&snapshot.state, &fresh.save()?), "a state that was loaded is saved differently")?;
    equal(first_difference(&expected, &Record::steps(&mut fresh, 3)?), "a fresh optimizer goes on differently")?;

    used.restore(&snapshot)?;
    equal(first_difference(&expected, &Record::steps(&mut used, 3)?), "an optimizer that is set back differs")
}

pub(super) fn stop_and_resume<O: Optimizer>(config: &Value) -> Outcome {
    let mut whole = start::<O>(config)?;
    let uninterrupted = Record::steps(&mut whole, 3)?;

    let mut parted = start::<O>(config)?;
    parted.set_should_return(true);
    let mut expected = Record::steps(&mut parted, 3)?;
    equal(first_difference(&uninterrupted, &expected), "returning early changes the step")?;

    let mut stopped = start::<O>(config)?;
    stopped.set_should_return(true);
    stopped.step()?;
    let stops = stops(&mut stopped)?;
    expected.remove(0);
    for (index, snapshot) in stops.iter().enumerate() {
        let mut resumed = start::<O>(config)?;
        resumed.set_should_return(true);
        resumed.restore(snapshot)?;
        let context = format!("resumed after call {} of step 2", index + 1);
        equal(state_difference(&snapshot.state, &resumed.save()?), &context)?;
        equal(first_difference(&expected, &Record::steps(&mut resumed, 2)?), &context)?;
    }
    Ok(())
}

/// The run at every return of `more()` within the next step.
fn stops<O: Optimizer>(harness: &mut Harness<O>) -> Result<Vec<Snapshot>, Failure> {
    let mut stops = vec![];
    while stops.len() < MAX_STOPS && harness.call()?.outcome == backend::Outcome::More {
        stops.push(harness.snapshot()?);
    }
    Ok(stops)
}

pub(super) fn state_bytes<O: Optimizer>(config: &Value) -> Outcome {
    let bytes = |state: &SavedState| -> u64 {
        state.entries.iter().flat_map(|entry| &entry.tensors).map(|tensor| tensor.bytes.len() as u64).sum()
    };
    for dtype in [DType::F64, DType::F32] {
        let mut harness = Harness::<O>::new(config.clone(), problem().dtype(dtype))?;
        harness.set_should_return(true);
        let declared = harness.declared_state_bytes(config)?;
        let (mut largest, mut long) = (0, false);
        for _ in 0..3 {
            let within = stops(&mut harness)?;
            long |= !within.is_empty();
            largest = within.iter().map(|stop| bytes(&stop.state)).fold(largest, u64::max);
            if within.len() == MAX_STOPS {
                harness.step()?;
            }
            largest = largest.max(bytes(&harness.save()?));
        }
        let fits = if long { (largest..=4 * largest).contains(&declared) } else { declared == largest };
        let message = || format!("found {declared} declared, expected {largest} in {}", dtype.name());
        require(fits, message)?;
    }
    Ok(())
}

pub(super) fn nan_gradients<O: Optimizer>(config: &Value) -> Outcome {
    for healthy in [0, 2] {
        let mut harness = start::<O>(config)?;
        Record::steps(&mut harness, healthy)?;
        harness.inject(Some(Fault::NanGradients));
        for _ in 0..2 {
            match harness.step() {
                Ok(_) => {
                    harness.save()?;
                }
                Err(error) if error.code == ErrorCode::PANIC || error.code == ErrorCode::HOST => {
                    return Err(Failure(format!("step {}: {error} ({})", healthy + 1, error.code.name())));
                }
                Err(_) => break,
            }
        }
    }
    Ok(())
}

pub(super) fn zero_gradients<O: Optimizer>(config: &Value) -> Outcome {
    for healthy in [0, 2] {
        let mut harness = start::<O>(config)?;
        Record::steps(&mut harness, healthy)?;
        harness.inject(Some(Fault::ZeroGradients));
        for _ in 0..3 {
            harness.step()?;
            let mut params = harness.params();
            params.extend(harness.evaluation_params()?.unwrap_or_default());
            let wrong = params.iter().find(|x| !x.is_finite());
            require(wrong.is_none(), || format!("step {}: a parameter is {}", harness.steps(), params[0]))?;
        }
    }
    Ok(())
}

pub(super) fn empty_parameters<O: Optimizer>(config: &Value) -> Outcome {
    let empty = || Harness::<O>::new(config.clone(), Problem::empty().batch_size(4));
    let mut harness = empty()?;
    Record::steps(&mut harness, 2)?;
    let snapshot = harness.snapshot()?;
    let mut other = empty()?;
    other.restore(&snapshot)?;
    other.step()?;
    Ok(())
}

pub(super) fn metrics<O: Optimizer>(config: &Value) -> Outcome {
    let mut harness = start::<O>(config)?;
    let mut seen = vec![];
    for record in Record::steps(&mut harness, 3)? {
        seen.extend(record.metrics());
    }
    seen.extend(harness.metrics().into_iter().map(|(name, _)| name));
    let declared = |name: &String| name == "gradient_norm" || O::METRICS.iter().any(|metric| metric.name == name);
    match seen.iter().find(|name| !declared(name)) {
        Some(name) => Err(Failure(format!("`{name}` is reported but not declared in METRICS"))),
        None => Ok(()),
    }
}

pub(super) fn handle_leaks<O: Optimizer>(config: &Value) -> Outcome {
    const STEPS: usize = 12;
    let mut harness = start::<O>(config)?;
    let mut after = || -> Result<(u64, u64), Failure> {
        (0..STEPS).try_for_each(|_| harness.step().map(drop))?;
        Ok(harness.live())
    };
    let (early, late) = (after()?, after()?);
    require(late == early, || {
        let [(tensors, handles), (more_tensors, more_handles)] = [early, late];
        let found = format!("found {more_tensors} tensors and {more_handles} handles after {} steps", 2 * STEPS);
        format!("{found}, expected {tensors} and {handles} as after {STEPS}")
    })?;
    let (tensors, handles) = harness.finish();
    require((tensors, handles) == (0, 0), || {
        format!("found {tensors} tensors and {handles} handles after it was dropped, expected none")
    })
}
