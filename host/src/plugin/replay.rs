//! An optimizer of a plugin stepped over recorded gradients, and its distance from a reference.

use super::load::Plugin;
use super::optimizer::PluginOptimizer;
use crate::config::Origins;
use crate::curvature::{Recorded, RunFacts, TorchBackend, TorchSession};
use crate::error::{Exit, Fault, Result};
use gauntlet_plugin_abi::{Capability, DType};
use gauntlet_plugin_api::ParamSpec;
use gauntlet_plugin_api::backend::{Backend, InitialParams, Outcome, Session};
use gauntlet_plugin_api::testing::Trace;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// What an optimizer is stepped over: parameters and gradients in the order of `specs`, of one element type.
#[derive(Debug)]
pub struct Recording {
    /// The parameters.
    pub specs: Vec<ParamSpec>,
    /// Their values at the start.
    pub params: Vec<Tensor>,
    /// Gradients of steps 1, 2, ...
    pub gradients: Vec<Vec<Tensor>>,
}

/// An optimizer that steps over recorded gradients, through the boundary and on the backend of real runs.
#[derive(Debug)]
pub struct Replay {
    optimizer: PluginOptimizer,
    session: &'static TorchSession,
    step: u64,
}

impl Replay {
    /// Makes the optimizer; `schedule` is the multiplier at a fractional step.
    ///
    /// # Errors
    ///
    /// Those of [`PluginOptimizer::new`]; [`Exit::Plugin`] where the plugin needs more than gradients.
    pub fn new(
        plugin: &Plugin,
        config: &Value,
        recording: Recording,
        schedule: impl Fn(f64) -> f64 + Send + 'static,
    ) -> Result<Self, Vec<Fault>> {
        let Recording { specs, params, gradients } = recording;
        let facts = RunFacts {
            batch_size: 1,
            total_steps: Some(gradients.len() as u64),
            seed: 0,
            device: Device::Cpu,
            kind: params.first().map_or(Kind::Double, Tensor::kind),
        };
        let backend = TorchBackend::new(facts, Box::new(Recorded::new(gradients)), Box::new(schedule));
        let specs = specs.into_iter().map(Arc::new).collect();
        let session = Session::start(backend, InitialParams { specs, tensors: params })
            .map_err(|error| vec![Fault::new(Exit::Internal, error.to_string())])?;
        refuse_needs(plugin, session).map_err(|fault| vec![fault])?;
        let optimizer = PluginOptimizer::new(plugin, session, config, &Origins::default())?;
        Ok(Self { optimizer, session, step: 0 })
    }

    /// The optimizer on the trace that was read from `path`, at a multiplier of 1.
    ///
    /// # Errors
    ///
    /// As [`Replay::new`]; a configuration that the plugin refuses is a fault of the trace, [`Exit::Data`].
    pub fn of_trace(plugin: &Plugin, path: &Path, trace: &Trace) -> Result<Self, Vec<Fault>> {
        let list = |values: &[Vec<f64>]| tensors(trace, values);
        let recording = Recording {
            specs: trace.specs.clone(),
            params: list(&trace.params),
            gradients: trace.gradients.iter().map(|values| list(values)).collect(),
        };
        let of_file = |fault: Fault| match fault.exit {
            Exit::Usage => {
                Fault::new(Exit::Data, format!("`{}`: its configuration is refused: {fault}", path.display()))
            }
            _ => fault,
        };
        let replay = Self::new(plugin, &trace.config, recording, |_| 1.0);
        replay.map_err(|faults| faults.into_iter().map(of_file).collect())
    }

    /// One whole step, and the parameters after it.
    ///
    /// # Errors
    ///
    /// The plugin's own.
    pub fn step(&mut self) -> Result<Vec<Tensor>> {
        self.session.lock().backend.step = self.step;
        while self.optimizer.step(self.step)?.outcome == Outcome::More {}
        self.step += 1;
        Ok(self.session.lock().backend_and_params().1.into_iter().map(Tensor::copy).collect())
    }
}

/// A plugin that needs curvature or losses has nothing to do with recorded gradients.
fn refuse_needs(plugin: &Plugin, session: &'static TorchSession) -> Result<()> {
    let state = session.lock();
    let needs = plugin.metadata.needs.iter().filter(|need| !state.backend.supports(Capability(need.code)));
    let missing: Vec<String> = needs.map(|need| format!("`{}`", need.name)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => {
            let what = format!("plugin `{}` needs more than recorded gradients", plugin.metadata.name);
            Err(Fault::new(Exit::Plugin, what).found(missing.join(", ")))
        }
    }
}

/// One list of a trace as tensors of its element type.
pub fn tensors(trace: &Trace, values: &[Vec<f64>]) -> Vec<Tensor> {
    let kind = if trace.dtype == DType::F32 { Kind::Float } else { Kind::Double };
    let tensor = |(spec, values): (&ParamSpec, &Vec<f64>)| {
        let shape: Vec<i64> = spec.shape.iter().map(|size| *size as i64).collect();
        Tensor::from_slice(values).reshape(shape).to_kind(kind)
    };
    trace.specs.iter().zip(values).map(tensor).collect()
}

/// max_i |x_i - r_i| / max_i |r_i|, in float64; NaN where a value is NaN, infinite where only the reference is 0.
pub fn relative_error(found: &Tensor, reference: &Tensor) -> f64 {
    if reference.numel() == 0 {
        return 0.0;
    }
    let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    let reference = reference.to_kind(Kind::Double);
    match largest(&(found.to_kind(Kind::Double) - &reference)) {
        0.0 => 0.0,
        difference => difference / largest(&reference),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_relative_to_the_largest_value_and_keeps_what_is_not_finite() {
        let of = |found: &[f64], reference: &[f64]| {
            relative_error(&Tensor::from_slice(found), &Tensor::from_slice(reference))
        };
        assert_eq!(of(&[1.0, -4.5], &[1.25, -4.0]), 0.125);
        assert_eq!(of(&[0.0, 0.0], &[0.0, 0.0]), 0.0);
        assert_eq!(of(&[0.0, 1e-300], &[0.0, 0.0]), f64::INFINITY);
        assert!(of(&[f64::NAN, 1.0], &[0.0, 1.0]).is_nan());
        assert_eq!(of(&[], &[]), 0.0);
    }
}
