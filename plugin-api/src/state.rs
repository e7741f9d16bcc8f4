//! An optimizer's state as named entries, exact to the bit.

use crate::error::{Error, Result};
use crate::host::Link;
use crate::params::Params;
use crate::tensor::Tensor;
use gauntlet_plugin_abi::{RString, RVec, RawEntry, RawState, StateKind};
use std::collections::HashMap;

/// Takes everything that the next call of `step` depends on.
#[derive(Debug, Default)]
pub struct StateWriter {
    entries: Vec<RawEntry>,
}

impl StateWriter {
    /// A list of tensors, each under its parameter's name.
    pub fn params(&mut self, name: &str, params: &Params) -> Result<()> {
        let names = params.specs().iter().map(|spec| RString::from(spec.name.as_str())).collect();
        self.push(name, StateKind::PARAMS, names, params.raw().into(), vec![])
    }

    /// One tensor.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        self.push(name, StateKind::TENSOR, RVec::new(), vec![tensor.raw()].into(), vec![])
    }

    /// A number; NaN keeps its bits.
    pub fn f64(&mut self, name: &str, value: f64) -> Result<()> {
        self.push(name, StateKind::F64, RVec::new(), RVec::new(), value.to_le_bytes().into())
    }

    /// Several numbers; NaN keeps its bits.
    pub fn f64s(&mut self, name: &str, values: &[f64]) -> Result<()> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.push(name, StateKind::BYTES, RVec::new(), RVec::new(), bytes)
    }

    /// A whole number.
    pub fn u64(&mut self, name: &str, value: u64) -> Result<()> {
        self.push(name, StateKind::U64, RVec::new(), RVec::new(), value.to_le_bytes().into())
    }

    /// A text.
    pub fn text(&mut self, name: &str, value: &str) -> Result<()> {
        self.push(name, StateKind::TEXT, RVec::new(), RVec::new(), value.as_bytes().into())
    }

    /// Bytes.
    pub fn bytes(&mut self, name: &str, value: &[u8]) -> Result<()> {
        self.push(name, StateKind::BYTES, RVec::new(), RVec::new(), value.into())
    }

    fn push(
        &mut self,
        name: &str,
        kind: StateKind,
        names: RVec<RString>,
        tensors: RVec<gauntlet_plugin_abi::RawTensor>,
        bytes: Vec<u8>,
    ) -> Result<()> {
        if self.entries.iter().any(|entry| entry.name.as_str() == name) {
            return Err(Error::state(name, "saved twice"));
        }
        self.entries.push(RawEntry { name: name.into(), kind, names, tensors, bytes: bytes.into() });
        Ok(())
    }

    pub(crate) fn into_raw(self, schema_version: u32) -> RawState {
        RawState { schema_version, entries: self.entries.into() }
    }
}

/// What a [`StateWriter`] took, by name.
#[derive(Debug)]
pub struct StateReader {
    schema_version: u32,
    entries: HashMap<String, Entry>,
    like: Params,
}

#[derive(Debug)]
struct Entry {
    kind: StateKind,
    names: Vec<String>,
    tensors: Vec<Tensor>,
    bytes: Vec<u8>,
}

impl StateReader {
    pub(crate) fn new(link: Link, raw: RawState, like: Params) -> Self {
        let entry = |raw: RawEntry| {
            let entry = Entry {
                kind: raw.kind,
                names: raw.names.into_iter().map(Into::into).collect(),
                tensors: raw.tensors.into_iter().map(|tensor| Tensor::owned(link, tensor)).collect(),
                bytes: raw.bytes.into(),
            };
            (raw.name.into(), entry)
        };
        Self { schema_version: raw.schema_version, entries: raw.entries.into_iter().map(entry).collect(), like }
    }

    /// Version of the layout that was saved, for migration ([`crate::Optimizer::STATE_VERSION`]).
    pub fn schema_version(&self) -> u32 {
        self.schema_version
    }

    /// Whether there is such an entry.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// A list of tensors, in the order they were saved.
    ///
    /// # Errors
    ///
    /// No such entry, another kind, or a parameter that the model does not have.
    pub fn params(&self, name: &str) -> Result<Params> {
        let entry = self.entry(name, StateKind::PARAMS)?;
        let spec = |wanted: &String| {
            let known = self.like.specs().iter().find(|spec| spec.name == *wanted).cloned();
            known.ok_or_else(|| Error::state(name, format!("the model has no parameter `{wanted}`")))
        };
        let specs = entry.names.iter().map(spec).collect::<Result<Vec<_>>>()?;
        for (spec, tensor) in specs.iter().zip(&entry.tensors) {
            let shape = tensor.shape()?;
            if shape != spec.shape {
                let message = format!("`{}` has shape {shape:?}, expected {:?}", spec.name, spec.shape);
                return Err(Error::state(name, message));
            }
        }
        let tensors = entry.tensors.iter().map(Tensor::try_clone).collect::<Result<_>>()?;
        Params::new(self.like.link(), self.like.dtype(), specs, tensors)
    }

    /// One tensor.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let entry = self.entry(name, StateKind::TENSOR)?;
        entry.tensors.first().ok_or_else(|| Error::state(name, "holds no tensor"))?.try_clone()
    }

    /// A number.
    pub fn f64(&self, name: &str) -> Result<f64> {
        self.eight(name, StateKind::F64).map(f64::from_le_bytes)
    }

    /// Several numbers.
    pub fn f64s(&self, name: &str) -> Result<Vec<f64>> {
        let bytes = &self.entry(name, StateKind::BYTES)?.bytes;
        let (eights, rest) = bytes.as_chunks::<8>();
        match rest {
            [] => Ok(eights.iter().map(|eight| f64::from_le_bytes(*eight)).collect()),
            _ => Err(Error::state(name, format!("{} bytes, not a multiple of 8", bytes.len()))),
        }
    }

    /// A whole number.
    pub fn u64(&self, name: &str) -> Result<u64> {
        self.eight(name, StateKind::U64).map(u64::from_le_bytes)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<String> {
        let bytes = self.entry(name, StateKind::TEXT)?.bytes.clone();
        String::from_utf8(bytes).map_err(|error| Error::state(name, error.to_string()))
    }

    /// Bytes.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.entry(name, StateKind::BYTES)?.bytes.clone())
    }

    fn eight(&self, name: &str, kind: StateKind) -> Result<[u8; 8]> {
        let bytes = &self.entry(name, kind)?.bytes;
        bytes.as_slice().try_into().map_err(|_| Error::state(name, format!("{} bytes instead of 8", bytes.len())))
    }

    fn entry(&self, name: &str, kind: StateKind) -> Result<&Entry> {
        let entry = self.entries.get(name).ok_or_else(|| Error::state(name, "missing from the saved state"))?;
        match entry.kind == kind {
            true => Ok(entry),
            false => Err(Error::state(name, format!("is {}, expected {}", entry.kind.name(), kind.name()))),
        }
    }
}
