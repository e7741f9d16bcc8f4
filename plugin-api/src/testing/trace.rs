//! A recorded run of another implementation, replayed through an optimizer: gradients in, parameters compared.

use super::harness::Harness;
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::spec::{ParamSpec, Role};
use gauntlet_plugin_abi::ErrorCode;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// A recorded run in float64, one safetensors file.
///
/// `param/NAME` are the parameters at the start, `grad/STEP/NAME` their gradients at step 1, 2, ..., `after/STEP/NAME`
/// the parameters after that step. Metadata, all text: `config` (JSON, the optimizer's own configuration), `params`
/// (JSON list of `name`, `role`, `layer`, -1 outside blocks), `steps`.
#[derive(Clone, Debug)]
pub struct Trace {
    config: Value,
    specs: Vec<ParamSpec>,
    params: Vec<Vec<f64>>,
    gradients: Vec<Vec<Vec<f64>>>,
    after: Vec<Vec<Vec<f64>>>,
}

/// Where a replay is farthest from its trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// `max |x - r| / max |r|` of one tensor after one step; NaN if any element is.
    pub error: f64,
    /// The step, from 1.
    pub step: usize,
    /// The parameter.
    pub name: String,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:e} at step {} in `{}`", self.error, self.step, self.name)
    }
}

#[derive(Deserialize)]
struct Param {
    name: String,
    role: Role,
    layer: i64,
}

impl Trace {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not a trace.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let wrong = |message: String| Error::new(ErrorCode::DATA, path.display().to_string(), message);
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&bytes).map_err(|error| wrong(error.to_string()))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorCode::DATA, "", message);
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| wrong(error.to_string()))?;
        let header = SafeTensors::read_metadata(bytes).map_err(|error| wrong(error.to_string()))?.1;
        let text = |key: &str| {
            let entry = header.metadata().as_ref().and_then(|metadata| metadata.get(key));
            entry.ok_or_else(|| wrong(format!("the metadata have no `{key}`")))
        };
        let json = |error: serde_json::Error| wrong(error.to_string());
        let steps: usize = serde_json::from_str(text("steps")?).map_err(json)?;
        let params: Vec<Param> = serde_json::from_str(text("params")?).map_err(json)?;
        let values =
            |prefix: &str| params.iter().map(|param| f64s(&tensors, prefix, &param.name)).collect::<Result<_>>();
        let list = |prefix: &str| (1..=steps).map(|step| values(&format!("{prefix}/{step}"))).collect::<Result<_>>();
        let spec = |param: &Param| {
            let view = tensors.tensor(&format!("param/{}", param.name)).map_err(|error| wrong(error.to_string()))?;
            let spec = ParamSpec::new(&param.name, view.shape(), param.role);
            Ok(match usize::try_from(param.layer) {
                Ok(layer_idx) if param.role != Role::Head => spec.in_layer(layer_idx),
                _ => spec,
            })
        };
        Ok(Self {
            config: serde_json::from_str(text("config")?).map_err(json)?,
            specs: params.iter().map(spec).collect::<Result<_>>()?,
            params: values("param")?,
            gradients: list("grad")?,
            after: list("after")?,
        })
    }

    /// The configuration that the trace was recorded with.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The same trace with another configuration.
    pub fn with_config(self, config: Value) -> Self {
        Self { config, ..self }
    }

    /// Steps through the trace and gives the largest deviation of a tensor.
    ///
    /// # Errors
    ///
    /// The optimizer's own.
    pub fn replay<O: Optimizer>(&self) -> Result<Deviation> {
        let (specs, params, gradients) = (self.specs.clone(), self.params.clone(), self.gradients.clone());
        let mut harness = Harness::<O>::with_gradients(self.config.clone(), specs, params, gradients)?;
        let mut worst = Deviation { error: 0.0, step: 0, name: String::new() };
        for (index, after) in self.after.iter().enumerate() {
            harness.step()?;
            let params = harness.params();
            let mut found = params.as_slice();
            for (spec, expected) in self.specs.iter().zip(after) {
                let (tensor, rest) = found.split_at(expected.len());
                found = rest;
                let error = deviation(tensor, expected);
                if error > worst.error || (error.is_nan() && !worst.error.is_nan()) {
                    worst = Deviation { error, step: index + 1, name: spec.name.clone() };
                }
            }
        }
        Ok(worst)
    }
}

fn f64s(tensors: &SafeTensors<'_>, prefix: &str, name: &str) -> Result<Vec<f64>> {
    let wrong = |message: String| Error::new(ErrorCode::DATA, format!("{prefix}/{name}"), message);
    let view = tensors.tensor(&format!("{prefix}/{name}")).map_err(|error| wrong(error.to_string()))?;
    match view.dtype() {
        Dtype::F64 => Ok(view.data().as_chunks().0.iter().copied().map(f64::from_le_bytes).collect()),
        other => Err(wrong(format!("found element type {other:?}, expected F64"))),
    }
}

/// `max |x - r| / max |r|`.
fn deviation(found: &[f64], reference: &[f64]) -> f64 {
    let most = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(0.0, |most: f64, x| if x > most || x.is_nan() { x } else { most })
    };
    let difference = most(&mut found.iter().zip(reference).map(|(x, r)| (x - r).abs()));
    if difference == 0.0 { 0.0 } else { difference / most(&mut reference.iter().map(|r| r.abs())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deviation_is_relative_to_the_largest_number_and_shows_nan() {
        assert_eq!(deviation(&[1.0, 2.0, -3.0], &[1.0, 2.0, -4.0]), 0.25);
        assert_eq!(deviation(&[0.0, 0.0], &[0.0, 0.0]), 0.0);
        assert_eq!(deviation(&[1.0], &[0.0]), f64::INFINITY);
        assert!(deviation(&[f64::NAN, 1.0], &[1.0, 1.0]).is_nan());
    }

    #[test]
    fn a_file_that_is_no_trace_is_an_error_with_its_path() {
        let missing = Trace::read("/nowhere/run.safetensors").unwrap_err();
        assert_eq!((missing.code, missing.at.as_str()), (ErrorCode::DATA, "/nowhere/run.safetensors"));
        let text = Trace::parse(b"a text").unwrap_err();
        assert_eq!(text.code, ErrorCode::DATA);
        let nothing: [(&str, safetensors::tensor::TensorView<'_>); 0] = [];
        let bare = safetensors::serialize(nothing, None);
        assert_eq!(Trace::parse(&bare.unwrap()).unwrap_err().to_string(), "the metadata have no `steps`");
    }
}
