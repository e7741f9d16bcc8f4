//! A trace: recorded gradients, and the parameters that a reference made of them, as one safetensors file.
//!
//! It holds `param/NAME`, the values at the start, and for each step from 1 the gradient `grad/STEP/NAME` and the
//! parameters after it `after/STEP/NAME`. The metadata, all text, are `optimizer` and `reference` (names, to be shown),
//! `config` (JSON, the plugin's own configuration), `params` (JSON, a list of `name`, `role` and `layer`), `steps` and
//! `dtype` (`float64` or `float32`, of all tensors).

use crate::curvature::tensor::from_bytes;
use crate::error::{Exit, Fault, Result};
use gauntlet_plugin_abi::DType;
use gauntlet_plugin_api::{ParamSpec, Role};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// A trace that has been read and checked: every list of tensors is in the order of `specs`, with their shapes.
#[derive(Debug)]
pub struct Trace {
    /// Its file.
    pub path: PathBuf,
    /// The optimizer that was recorded, in the words of the trace.
    pub optimizer: String,
    /// The implementation that was recorded.
    pub reference: String,
    /// Element type of all tensors.
    pub kind: Kind,
    /// The plugin's configuration.
    pub config: Value,
    /// The parameters.
    pub specs: Vec<ParamSpec>,
    /// Their values at the start.
    pub params: Vec<Tensor>,
    /// Gradients of steps 1, 2, ...
    pub gradients: Vec<Vec<Tensor>>,
    /// Parameters after steps 1, 2, ...
    pub after: Vec<Vec<Tensor>>,
}

/// An entry of `params`.
#[derive(Deserialize)]
struct Entry {
    name: String,
    role: Role,
    /// Index of the transformer block; negative outside of all.
    #[serde(default)]
    layer: Option<i64>,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    ///
    /// [`Exit::Missing`] where the file cannot be read; [`Exit::Data`] where it is no trace: metadata that are missing
    /// or not readable, a tensor that is missing, unknown, or of another shape or element type.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Fault::reading(path, &error))?;
        let broken = |error| wrong(path, "not a safetensors file").found(error);
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        let empty = HashMap::new();
        let metadata = Metadata { path, map: header.metadata().as_ref().unwrap_or(&empty) };
        let specs = specs(&metadata)?;
        let (kind, dtype) = metadata.dtype()?;
        let file = Tensors { path, tensors: SafeTensors::deserialize(&bytes).map_err(broken)?, dtype };
        let specs: Vec<ParamSpec> = specs.into_iter().map(|entry| file.spec(entry)).collect::<Result<_>>()?;
        let steps = metadata.steps()?;
        let params = file.list("param", &specs)?;
        let (mut gradients, mut after) = (vec![], vec![]);
        for step in 1..=steps {
            gradients.push(file.list(&format!("grad/{step}"), &specs)?);
            after.push(file.list(&format!("after/{step}"), &specs)?);
        }
        file.refuse_others(&specs, steps)?;
        let (optimizer, reference) = (metadata.text("optimizer")?.into(), metadata.text("reference")?.into());
        let config = metadata.config()?;
        Ok(Self { path: path.to_owned(), optimizer, reference, kind, config, specs, params, gradients, after })
    }
}

fn wrong(path: &Path, what: &str) -> Fault {
    Fault::new(Exit::Data, format!("`{}`: {what}", path.display()))
}

/// The parameters as the trace describes them, each named once.
fn specs(metadata: &Metadata) -> Result<Vec<Entry>> {
    let entries: Vec<Entry> = metadata.json("params", "a list of `name`, `role` and `layer`")?;
    if entries.is_empty() {
        return Err(wrong(metadata.path, "`params` of its metadata is empty").expected("at least one parameter"));
    }
    let mut names = BTreeSet::new();
    match entries.iter().find(|entry| !names.insert(&entry.name)) {
        Some(twice) => Err(wrong(metadata.path, &format!("`params` of its metadata names `{}` twice", twice.name))),
        None => Ok(entries),
    }
}

/// The texts of the header.
struct Metadata<'a> {
    path: &'a Path,
    map: &'a HashMap<String, String>,
}

impl Metadata<'_> {
    fn text(&self, key: &str) -> Result<&str> {
        let missing = || {
            let fault = wrong(self.path, &format!("its metadata have no `{key}`"));
            fault.expected("`optimizer`, `config`, `params`, `reference`, `steps` and `dtype`")
        };
        self.map.get(key).map(String::as_str).ok_or_else(missing)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, key: &str, expected: &str) -> Result<T> {
        serde_json::from_str(self.text(key)?).map_err(|error| {
            wrong(self.path, &format!("`{key}` of its metadata is not readable")).found(error).expected(expected)
        })
    }

    fn config(&self) -> Result<Value> {
        let table: serde_json::Map<String, Value> = self.json("config", "a JSON object")?;
        Ok(Value::Object(table))
    }

    fn steps(&self) -> Result<usize> {
        let text = self.text("steps")?;
        text.parse().ok().filter(|steps| *steps > 0).ok_or_else(|| {
            let fault = wrong(self.path, "`steps` of its metadata is not a number of steps");
            fault.found(format!("`{text}`")).expected("an integer >= 1")
        })
    }

    fn dtype(&self) -> Result<(Kind, Dtype)> {
        match self.text("dtype")? {
            "float64" => Ok((Kind::Double, Dtype::F64)),
            "float32" => Ok((Kind::Float, Dtype::F32)),
            other => Err(wrong(self.path, "`dtype` of its metadata is not supported")
                .found(format!("`{other}`"))
                .expected("`float64` or `float32`")),
        }
    }
}

/// The tensors of the file.
struct Tensors<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    dtype: Dtype,
}

impl Tensors<'_> {
    /// A parameter with the shape of its values at the start.
    fn spec(&self, Entry { name, role, layer }: Entry) -> Result<ParamSpec> {
        let view = self.tensors.tensor(&format!("param/{name}")).map_err(|_| self.missing(&format!("param/{name}")))?;
        let spec = ParamSpec::new(name, view.shape(), role);
        let inside = !matches!(role, Role::Embedding | Role::Head);
        Ok(match layer.and_then(|layer| usize::try_from(layer).ok()).filter(|_| inside) {
            Some(layer) => spec.in_layer(layer),
            None => spec,
        })
    }

    fn missing(&self, name: &str) -> Fault {
        wrong(self.path, &format!("holds no tensor `{name}`"))
    }

    /// One tensor a parameter.
    fn list(&self, prefix: &str, specs: &[ParamSpec]) -> Result<Vec<Tensor>> {
        specs.iter().map(|spec| self.tensor(&format!("{prefix}/{}", spec.name), &spec.shape)).collect()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let view = self.tensors.tensor(name).map_err(|_| self.missing(name))?;
        if view.shape() != shape {
            let fault = wrong(self.path, &format!("tensor `{name}` has another shape than its parameter"));
            return Err(fault.found(format!("{:?}", view.shape())).expected(format!("{shape:?}")));
        }
        if view.dtype() != self.dtype {
            let fault = wrong(self.path, &format!("tensor `{name}` has another element type than `dtype` says"));
            return Err(fault.found(view.dtype()).expected(self.dtype));
        }
        let dtype = if self.dtype == Dtype::F64 { DType::F64 } else { DType::F32 };
        from_bytes(Device::Cpu, dtype, shape, view.data())
            .map_err(|error| wrong(self.path, &format!("tensor `{name}` is not readable")).found(error))
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
        let mut others: Vec<&str> = self.tensors.names().into_iter().filter(|name| !known(name)).collect();
        others.sort_unstable();
        match others.first() {
            Some(other) => {
                let what = format!("holds a tensor `{other}` that is of no parameter and step of its metadata");
                Err(wrong(self.path, &what).expected(format!("{} parameters and {steps} steps", names.len())))
            }
            None => Ok(()),
        }
    }
}
