//! One optimizer of a plugin on a session, driven from the host's side.

use super::saved::{SavedEntry, SavedState, SavedTensor};
use super::session::{Session, State};
use super::{Backend, session};
use crate::error::{Error, Result};
use crate::guard::guard;
use crate::metadata::{RULES, Rules};
use gauntlet_plugin_abi::*;

/// Makes an optimizer behind the boundary from its configuration (JSON).
pub type CreateFn = for<'a> extern "C" fn(Host, RStr<'a>) -> RT<RawOptimizerBox>;

/// How a call of `step` ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The step is finished.
    Finished,
    /// The step goes on with the next call.
    More,
    /// The step is finished without an update, and why.
    Rejected(String),
}

/// What a call of `step` gave.
#[derive(Clone, Debug, PartialEq)]
pub struct StepResult {
    /// How it ended.
    pub outcome: Outcome,
    /// Training loss in nats a token; NaN where the optimizer gave none.
    pub loss: f64,
    /// Metrics of the report.
    pub metrics: Vec<(String, f64)>,
}

/// An optimizer that lives in a plugin.
pub struct Instance<B: Backend> {
    session: &'static Session<B>,
    raw: RawOptimizerBox,
}

impl<B: Backend> Instance<B> {
    /// Makes the optimizer.
    ///
    /// # Errors
    ///
    /// What the plugin says of its configuration, or of the run.
    pub fn create(session: &'static Session<B>, create: CreateFn, config: &str) -> Result<Self> {
        let raw = create(session.host(), config.into()).into_result().map_err(Error::from)?;
        Ok(Self { session, raw })
    }

    /// The session it runs on.
    pub fn session(&self) -> &'static Session<B> {
        self.session
    }

    /// One call of `step`; linearizations end with it. A rejected step must not have written to the parameters:
    /// [`super::session::State::take_params_written`] tells.
    pub fn step(&mut self, step: u64) -> Result<StepResult> {
        let raw = RawStep { host: self.session.host(), step, extra: RStr::from("") };
        let report = self.raw.step(raw).into_result().map_err(Error::from);
        self.session.lock().end_call();
        let report = report?;
        let outcome = match report.outcome {
            gauntlet_plugin_abi::Outcome::FINISHED => Outcome::Finished,
            gauntlet_plugin_abi::Outcome::MORE => Outcome::More,
            gauntlet_plugin_abi::Outcome::REJECTED => Outcome::Rejected(report.reason.into()),
            other => return Err(Error::unsupported(format!("step outcome {}", other.name()))),
        };
        let metrics = report.metrics.into_iter().map(|Tuple2(name, value)| (name.into(), value)).collect();
        Ok(StepResult { outcome, loss: report.loss, metrics })
    }

    /// The rule that each parameter follows, of a plugin whose metadata say that it answers [`RULES`].
    pub fn rules(&mut self) -> Result<Vec<String>> {
        let question = serde_json::json!({ "ask": RULES }).to_string();
        let raw = RawStep { host: self.session.host(), step: 0, extra: RStr::from(question.as_str()) };
        let report = self.raw.step(raw).into_result().map_err(Error::from);
        self.session.lock().end_call();
        let unreadable = |error: serde_json::Error| Error::plugin(format!("its rules are not readable: {error}"));
        let Rules { rules } = serde_json::from_str(&report?.extra).map_err(unreadable)?;
        match self.session.lock().specs().len() == rules.len() {
            true => Ok(rules),
            false => Err(Error::plugin(format!("gave {} rules, not one a parameter", rules.len()))),
        }
    }

    /// Bytes of the tensors that the optimizer would save: of each parameter by its index, and of none. A list under the
    /// parameters' names is theirs; any other tensor is that of the parameter whose name is in the entry's name.
    pub fn state_bytes_by_param(&self) -> Result<(Vec<u64>, u64)> {
        let raw = self.raw.save().into_result().map_err(Error::from)?;
        let state = self.session.lock();
        let (mut of_param, mut of_none) = (vec![0; state.specs().len()], 0);
        for entry in &raw.entries {
            for (index, tensor) in entry.tensors.iter().enumerate() {
                let name = entry.names.get(index).map_or(entry.name.as_str(), |name| name.as_str());
                let (shape, dtype) = state.info(*tensor)?;
                let bytes = (shape.iter().product::<usize>() * session::element_size(dtype)?) as u64;
                let named = state.specs().iter().enumerate().filter(|(_, spec)| name.contains(&spec.name));
                let owner = named.max_by_key(|(_, spec)| spec.name.len()).map(|(index, _)| index);
                *owner.map_or(&mut of_none, |owner| &mut of_param[owner]) += bytes;
            }
        }
        Ok((of_param, of_none))
    }

    /// The optimizer's state as bytes.
    pub fn save(&self) -> Result<SavedState> {
        let raw = self.raw.save().into_result().map_err(Error::from)?;
        let state = self.session.lock();
        let entries = raw.entries.iter().map(|entry| saved_entry(&state, entry)).collect::<Result<_>>()?;
        Ok(SavedState { schema_version: raw.schema_version, entries })
    }

    /// Restores a state.
    pub fn load(&mut self, saved: &SavedState) -> Result<()> {
        let entries = {
            let mut state = self.session.lock();
            saved.entries.iter().map(|entry| raw_entry(&mut state, entry)).collect::<Result<Vec<_>>>()?
        };
        let raw = RawState { schema_version: saved.schema_version, entries: entries.into() };
        self.raw.load(raw).into_result().map_err(Error::from)
    }

    /// Parameters to evaluate at, where they are not the run's own. The handles are valid until the next call.
    pub fn evaluation_params(&self) -> Result<Option<Vec<RawTensor>>> {
        let raw = self.raw.evaluation_params().into_result().map_err(Error::from)?;
        if raw.is_empty() {
            return Ok(None);
        }
        self.session.lock().check_list("evaluation_params", &raw)?;
        Ok(Some(raw.into()))
    }
}

impl<B: Backend> std::fmt::Debug for Instance<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Instance")
    }
}

fn saved_entry<B: Backend>(state: &session::SessionGuard<'_, B>, entry: &RawEntry) -> Result<SavedEntry> {
    let known = StateKind::ALL.iter().any(|(kind, _)| *kind == entry.kind);
    if !known {
        return Err(Error::unsupported(format!("state entry {}", entry.kind.name())));
    }
    if entry.kind == StateKind::PARAMS && entry.names.len() != entry.tensors.len() {
        let message = format!("{} names for {} tensors", entry.names.len(), entry.tensors.len());
        return Err(Error::state(entry.name.as_str(), message));
    }
    let tensor = |(index, raw): (usize, &RawTensor)| {
        let (shape, dtype) = state.info(*raw)?;
        let bytes = state.backend.tensor_to_bytes(state.tensor(*raw)?)?;
        let name = entry.names.get(index).map(ToString::to_string).unwrap_or_default();
        Ok(SavedTensor { name, dtype, shape, bytes })
    };
    // The plugin owns these tensors; a panic of the backend must not cross back into it.
    let tensors = guard(|| entry.tensors.iter().enumerate().map(tensor).collect())?;
    Ok(SavedEntry { name: entry.name.to_string(), kind: entry.kind, tensors, bytes: entry.bytes.to_vec() })
}

fn raw_entry<B: Backend>(state: &mut State<B>, entry: &SavedEntry) -> Result<RawEntry> {
    let tensors = (entry.tensors.iter())
        .map(|saved| state.tensor_from_bytes(saved.dtype, &saved.shape, &saved.bytes))
        .collect::<Result<Vec<_>>>()?;
    Ok(RawEntry {
        name: entry.name.as_str().into(),
        kind: entry.kind,
        names: entry.tensors.iter().map(|saved| RString::from(saved.name.as_str())).collect(),
        tensors: tensors.into(),
        bytes: entry.bytes.as_slice().into(),
    })
}
