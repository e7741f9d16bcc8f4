//! The checks of the conformance suite.

use super::super::harness::{Harness, Snapshot};
use super::super::loss::Fault;
use super::super::problem::Problem;
use super::super::subject::Subject;
use super::figures::tensor_bytes;
use super::record::{Record, first_difference, state_difference};
use crate::backend;
use crate::error::Error;
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

pub(super) fn start(subject: &Subject, config: &Value) -> Result<Harness<Subject>, Failure> {
    Ok(Harness::of(subject, config, problem())?)
}

pub(super) fn creation(subject: &Subject, config: &Value) -> Outcome {
    start(subject, config).map(drop)
}

pub(super) fn metadata(subject: &Subject) -> Outcome {
    let metadata = &subject.metadata;
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

pub(super) fn config(subject: &Subject, config: &Value) -> Outcome {
    const UNKNOWN: &str = "a_key_that_nobody_has";
    let mut unknown = config.clone();
    if let Some(table) = unknown.as_object_mut() {
        table.insert(UNKNOWN.into(), 1.into());
    }
    match Harness::of(subject, &unknown, problem()) {
        Err(error) if error.code == ErrorCode::CONFIG => {}
        Err(error) => return Err(Failure(format!("an unknown key gives {} `{error}`", error.code.name()))),
        Ok(_) => return Err(Failure("an unknown key is accepted; `#[serde(deny_unknown_fields)]` is missing".into())),
    }
    // What a library writes of a configuration never crosses the boundary, so only its own tests can look at it.
    let Some(written) = subject.written(config) else { return Ok(()) };
    match Harness::of(subject, &written.map_err(Failure)?, problem()) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure(format!("what it writes of its configuration is refused: {error}"))),
    }
}

pub(super) fn determinism(subject: &Subject, config: &Value) -> Outcome {
    for dtype in [DType::F64, DType::F32] {
        let run = || Record::steps(&mut Harness::of(subject, config, problem().dtype(dtype))?, 4);
        equal(first_difference(&run()?, &run()?), &format!("two runs in {} differ", dtype.name()))?;
    }
    Ok(())
}

pub(super) fn state_round_trip(subject: &Subject, config: &Value) -> Outcome {
    let mut used = start(subject, config)?;
    Record::steps(&mut used, 3)?;
    let snapshot = used.snapshot()?;
    let expected = Record::steps(&mut used, 3)?;

    let mut fresh = start(subject, config)?;
    fresh.restore(&snapshot)?;
    equal(state_difference(&snapshot.state, &fresh.save()?), "a state that was loaded is saved differently")?;
    equal(first_difference(&expected, &Record::steps(&mut fresh, 3)?), "a fresh optimizer goes on differently")?;

    used.restore(&snapshot)?;
    equal(first_difference(&expected, &Record::steps(&mut used, 3)?), "an optimizer that is set back differs")
}

pub(super) fn stop_and_resume(subject: &Subject, config: &Value) -> Outcome {
    let mut whole = start(subject, config)?;
    let uninterrupted = Record::steps(&mut whole, 3)?;

    let mut parted = start(subject, config)?;
    parted.set_should_return(true);
    let mut expected = Record::steps(&mut parted, 3)?;
    equal(first_difference(&uninterrupted, &expected), "returning early changes the step")?;

    let mut stopped = start(subject, config)?;
    stopped.set_should_return(true);
    stopped.step()?;
    let stops = stops(&mut stopped)?;
    expected.remove(0);
    for (index, snapshot) in stops.iter().enumerate() {
        let mut resumed = start(subject, config)?;
        resumed.set_should_return(true);
        resumed.restore(snapshot)?;
        let context = format!("resumed after call {} of step 2", index + 1);
        equal(state_difference(&snapshot.state, &resumed.save()?), &context)?;
        equal(first_difference(&expected, &Record::steps(&mut resumed, 2)?), &context)?;
    }
    Ok(())
}

/// The run at every return of `more()` within the next step.
fn stops(harness: &mut Harness<Subject>) -> Result<Vec<Snapshot>, Failure> {
    let mut stops = vec![];
    while stops.len() < MAX_STOPS && harness.call()?.outcome == backend::Outcome::More {
        stops.push(harness.snapshot()?);
    }
    Ok(stops)
}

pub(super) fn state_bytes(subject: &Subject, config: &Value) -> Outcome {
    for dtype in [DType::F64, DType::F32] {
        let mut harness = Harness::of(subject, config, problem().dtype(dtype))?;
        harness.set_should_return(true);
        let declared = harness.declared_state_bytes(subject, config)?;
        let (mut largest, mut long) = (0, false);
        for _ in 0..3 {
            let within = stops(&mut harness)?;
            long |= !within.is_empty();
            largest = within.iter().map(|stop| tensor_bytes(&stop.state)).fold(largest, u64::max);
            if within.len() == MAX_STOPS {
                harness.step()?;
            }
            largest = largest.max(tensor_bytes(&harness.save()?));
        }
        let fits = if long { (largest..=4 * largest).contains(&declared) } else { declared == largest };
        let message = || format!("found {declared} declared, expected {largest} in {}", dtype.name());
        require(fits, message)?;
    }
    Ok(())
}

pub(super) fn nan_gradients(subject: &Subject, config: &Value) -> Outcome {
    for healthy in [0, 2] {
        let mut harness = start(subject, config)?;
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

pub(super) fn zero_gradients(subject: &Subject, config: &Value) -> Outcome {
    for healthy in [0, 2] {
        let mut harness = start(subject, config)?;
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

pub(super) fn empty_parameters(subject: &Subject, config: &Value) -> Outcome {
    let empty = || Harness::of(subject, config, Problem::empty().batch_size(4));
    let mut harness = empty()?;
    Record::steps(&mut harness, 2)?;
    let snapshot = harness.snapshot()?;
    let mut other = empty()?;
    other.restore(&snapshot)?;
    other.step()?;
    Ok(())
}

pub(super) fn metrics(subject: &Subject, config: &Value) -> Outcome {
    let mut harness = start(subject, config)?;
    let mut seen = vec![];
    for record in Record::steps(&mut harness, 3)? {
        seen.extend(record.metrics());
    }
    seen.extend(harness.metrics().into_iter().map(|(name, _)| name));
    let declared =
        |name: &String| name == "gradient_norm" || subject.metadata.metrics.iter().any(|metric| metric.name == *name);
    match seen.iter().find(|name| !declared(name)) {
        Some(name) => Err(Failure(format!("`{name}` is reported but not declared in METRICS"))),
        None => Ok(()),
    }
}

pub(super) fn handle_leaks(subject: &Subject, config: &Value) -> Outcome {
    const STEPS: usize = 12;
    let mut harness = start(subject, config)?;
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

pub(super) fn failing_calls(subject: &Subject, config: &Value) -> Outcome {
    const PLACES: u64 = 20;
    let mut harness = start(subject, config)?;
    Record::steps(&mut harness, 1)?;
    let snapshot = harness.snapshot()?;
    let before = harness.calls();
    harness.step()?;
    let calls = harness.calls() - before;
    harness.restore(&snapshot)?;
    let expected = Record::steps(&mut harness, 2)?;
    for place in 0..PLACES.min(calls) {
        let call = 1 + place * calls / PLACES.min(calls);
        harness.restore(&snapshot)?;
        harness.fail_at(call);
        let panic = harness.step().err().filter(|error| error.code == ErrorCode::PANIC);
        if let Some(error) = panic {
            return Err(Failure(format!("call {call} of {calls} of the host fails, and it panics: {error}")));
        }
        harness.restore(&snapshot)?;
        let context = format!("loaded after call {call} of {calls} of the host had failed");
        equal(first_difference(&expected, &Record::steps(&mut harness, 2)?), &context)?;
    }
    Ok(())
}

pub(super) fn threads(subject: &Subject, config: &Value) -> Outcome {
    const STEPS: usize = 3;
    let expected = Record::steps(&mut start(subject, config)?, STEPS)?;
    let (mut harness, mut found) = (start(subject, config)?, vec![]);
    for _ in 0..STEPS {
        let thread = std::thread::spawn(move || {
            let records = Record::steps(&mut harness, 1);
            (harness, records)
        });
        let (moved, records) = thread.join().map_err(|_| Failure("a thread that steps panicked".into()))?;
        harness = moved;
        found.extend(records?);
    }
    equal(first_difference(&expected, &found), "steps on threads of their own differ")?;
    let dropped = std::thread::spawn(move || harness.finish()).join();
    dropped.map(drop).map_err(|_| Failure("the thread on which it was dropped panicked".into()))
}
