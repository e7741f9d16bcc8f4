//! A trace: recorded gradients, and the parameters that a reference made of them, as one safetensors file.
//!
//! It holds `param/NAME`, the values at the start, and for each step from 1 the gradient `grad/STEP/NAME` and the
//! parameters after it `after/STEP/NAME`. The metadata, all text, are `optimizer` and `reference` (names, to be shown),
//! `config` (JSON, the optimizer's own configuration), `params` (JSON, a list of `name`, `role` and `layer`, which is
//! negative outside of all blocks), `steps` and `dtype` (`float64` or `float32`, of all tensors).

mod replay;

pub use replay::Deviation;

use crate::error::{Error, Result};
use crate::spec::{ParamSpec, Role};
use gauntlet_plugin_abi::{DType, ErrorCode};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// A recorded run that has been read and checked: every list of tensors is in the order of `specs`, row-major, with
/// their shapes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trace {
    /// The optimizer that was recorded, in the words of the trace.
    pub optimizer: String,
    /// The implementation that was recorded.
    pub reference: String,
    /// Element type of the recorded tensors.
    pub dtype: DType,
    /// The optimizer's configuration.
    pub config: Value,
    /// The parameters.
    pub specs: Vec<ParamSpec>,
    /// Their values at the start.
    pub params: Vec<Vec<f64>>,
    /// Gradients of steps 1, 2, ...
    pub gradients: Vec<Vec<Vec<f64>>>,
    /// Parameters after steps 1, 2, ...
    pub after: Vec<Vec<Vec<f64>>>,
}

/// An entry of `params`.
#[derive(Deserialize)]
struct Entry {
    name: String,
    role: Role,
    #[serde(default)]
    layer: Option<i64>,
}

impl Trace {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not a trace.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let at = |message: String| Error::new(ErrorCode::DATA, path.display().to_string(), message);
        let bytes = std::fs::read(path).map_err(|error| at(error.to_string()))?;
        Self::parse(&bytes).map_err(|error| at(error.message))
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    ///
    /// Metadata that are missing or not readable, a tensor that is missing, unknown, or of another shape or element type.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let broken = |error| wrong(format!("not a safetensors file: found {error}"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let empty = HashMap::new();
        let metadata = Metadata(header.metadata().as_ref().unwrap_or(&empty));
        let entries = metadata.params()?;
        let (dtype, stored) = metadata.dtype()?;
        let file = Tensors { tensors: SafeTensors::deserialize(bytes).map_err(broken)?, stored };
        let specs: Vec<ParamSpec> = entries.into_iter().map(|entry| file.spec(entry)).collect::<Result<_>>()?;
        let steps = metadata.steps()?;
        let of_steps =
            |kind: &str| (1..=steps).map(|step| file.list(&format!("{kind}/{step}"), &specs)).collect::<Result<_>>();
        let trace = Self {
            optimizer: metadata.text("optimizer")?.into(),
            reference: metadata.text("reference")?.into(),
            dtype,
            config: metadata.config()?,
            params: file.list("param", &specs)?,
            gradients: of_steps("grad")?,
            after: of_steps("after")?,
            specs,
        };
        file.refuse_others(&trace.specs, steps)?;
        Ok(trace)
    }

    /// The same trace with another configuration.
    pub fn with_config(self, config: Value) -> Self {
        Self { config, ..self }
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::DATA, "", message)
}

/// The texts of the header.
struct Metadata<'a>(&'a HashMap<String, String>);

impl Metadata<'_> {
    fn text(&self, key: &str) -> Result<&str> {
        const KEYS: &str = "`optimizer`, `config`, `params`, `reference`, `steps` and `dtype`";
        let missing = || wrong(format!("its metadata have no `{key}`: expected {KEYS}"));
        self.0.get(key).map(String::as_str).ok_or_else(missing)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, key: &str, expected: &str) -> Result<T> {
        serde_json::from_str(self.text(key)?).map_err(|error| {
            wrong(format!("`{key}` of its metadata is not readable: found {error}, expected {expected}"))
        })
    }

    /// The parameters as the trace describes them, each named once.
    fn params(&self) -> Result<Vec<Entry>> {
        let entries: Vec<Entry> = self.json("params", "a list of `name`, `role` and `layer`")?;
        if entries.is_empty() {
            return Err(wrong("`params` of its metadata is empty: expected at least one parameter"));
        }
        let mut names = BTreeSet::new();
        match entries.iter().find(|entry| !names.insert(&entry.name)) {
            Some(twice) => Err(wrong(format!("`params` of its metadata names `{}` twice", twice.name))),
            None => Ok(entries),
        }
    }

    fn config(&self) -> Result<Value> {
        let table: serde_json::Map<String, Value> = self.json("config", "a JSON object")?;
        Ok(Value::Object(table))
    }

    fn steps(&self) -> Result<usize> {
        let text = self.text("steps")?;
        text.parse().ok().filter(|steps| *steps > 0).ok_or_else(|| {
            wrong(format!("`steps` of its metadata is not a number of steps: found `{text}`, expected an integer >= 1"))
        })
    }

    fn dtype(&self) -> Result<(DType, Dtype)> {
        match self.text("dtype")? {
            "float64" => Ok((DType::F64, Dtype::F64)),
            "float32" => Ok((DType::F32, Dtype::F32)),
            other => Err(wrong(format!(
                "`dtype` of its metadata is not supported: found `{other}`, expected `float64` or `float32`"
            ))),
        }
    }
}

/// The tensors of the file.
struct Tensors<'a> {
    tensors: SafeTensors<'a>,
    stored: Dtype,
}

impl Tensors<'_> {
    /// A parameter with the shape of its values at the start.
    fn spec(&self, Entry { name, role, layer }: Entry) -> Result<ParamSpec> {
        let start = format!("param/{name}");
        let view = self.tensors.tensor(&start).map_err(|_| missing(&start))?;
        let spec = ParamSpec::new(name, view.shape(), role);
        let inside = !matches!(role, Role::Embedding | Role::Head);
        Ok(match layer.and_then(|layer| usize::try_from(layer).ok()).filter(|_| inside) {
            Some(layer) => spec.in_layer(layer),
            None => spec,
        })
    }

    /// One tensor a parameter.
    fn list(&self, prefix: &str, specs: &[ParamSpec]) -> Result<Vec<Vec<f64>>> {
        specs.iter().map(|spec| self.tensor(&format!("{prefix}/{}", spec.name), &spec.shape)).collect()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let view = self.tensors.tensor(name).map_err(|_| missing(name))?;
        let other = |what: &str, found: String, expected: String| {
            Err(wrong(format!("tensor `{name}` has another {what}: found {found}, expected {expected}")))
        };
        if view.shape() != shape {
            return other("shape than its parameter", format!("{:?}", view.shape()), format!("{shape:?}"));
        }
        if view.dtype() != self.stored {
            return other("element type than `dtype` says", view.dtype().to_string(), self.stored.to_string());
        }
        Ok(match self.stored {
            Dtype::F64 => view.data().as_chunks().0.iter().copied().map(f64::from_le_bytes).collect(),
            _ => view.data().as_chunks().0.iter().copied().map(|bytes| f32::from_le_bytes(bytes).into()).collect(),
        })
    }

    /// Refuses tensors that are neither a start value nor of one of the steps.
    fn refuse_others(&self, specs: &[ParamSpec], steps: usize) -> Result<()> {
        let names: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let known = |tensor: &str| match tensor.split_once('/') {
            Some(("param", name)) => names.contains(name),
            Some(("grad" | "after", rest)) => rest.split_once('/').is_some_and(|(step, name)| {
                let number = step.parse::<usize>().ok().filter(|number| (1..=steps).contains(number));
                names.contains(name) && number.is_some_and(|number| number.to_string() == step)
            }),
            _ => false,
        };
        match self.tensors.names().into_iter().filter(|name| !known(name)).min() {
            Some(other) => Err(wrong(format!(
                "holds a tensor `{other}` that is of no parameter and step of its metadata: expected {} parameters \
                 and {steps} steps",
                names.len()
            ))),
            None => Ok(()),
        }
    }
}

fn missing(name: &str) -> Error {
    wrong(format!("holds no tensor `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_trace_is_an_error_with_its_path() {
        let missing = Trace::read("/nowhere/run.safetensors").unwrap_err();
        assert_eq!((missing.code, missing.at.as_str()), (ErrorCode::DATA, "/nowhere/run.safetensors"));
        let text = Trace::parse(b"a text").unwrap_err();
        assert_eq!(text.code, ErrorCode::DATA);
        let nothing: [(&str, safetensors::tensor::TensorView<'_>); 0] = [];
        let bare = safetensors::serialize(nothing, None);
        let expected = "its metadata have no `params`: expected `optimizer`, `config`, `params`, `reference`, `steps` \
                        and `dtype`";
        assert_eq!(Trace::parse(&bare.unwrap()).unwrap_err().to_string(), expected);
    }
}
