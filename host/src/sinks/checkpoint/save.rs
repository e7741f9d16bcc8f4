//! Writes a checkpoint.

use super::{FORMAT, FileInfo, MANIFEST, Manifest, digest, folder};
use crate::curvature::Streams;
use crate::durable::{PartialFolder, write_new};
use crate::error::{Exit, Fault, Result};
use gauntlet_plugin_abi::{DType, Purpose};
use gauntlet_plugin_api::backend::{SavedEntry, SavedState, SavedTensor};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// All that a checkpoint holds, as bytes: it stays as it is while the run goes on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What it is of; `files` and `checksum` are filled in when it is written.
    pub manifest: Manifest,
    /// Named lists of tensors: `params`, and `ema` or `plugin` where there are.
    pub lists: Vec<(&'static str, Vec<SavedTensor>)>,
    /// The optimizer's state.
    pub optimizer: SavedState,
}

impl Snapshot {
    /// Bytes of its tensors.
    pub fn bytes(&self) -> u64 {
        let state = self.optimizer.entries.iter().flat_map(|entry| &entry.tensors);
        self.lists.iter().flat_map(|(_, tensors)| tensors).chain(state).map(|tensor| tensor.bytes.len() as u64).sum()
    }
}

/// A copy of a tensor's elements.
///
/// # Errors
///
/// [`Exit::Internal`]: an element type that no file holds.
pub fn copied(name: &str, tensor: &Tensor) -> Result<SavedTensor> {
    let (shape, dtype) = crate::curvature::tensor::info(tensor);
    let bytes = crate::curvature::tensor::to_bytes(tensor);
    let bytes = bytes.map_err(|error| Fault::new(Exit::Internal, format!("`{name}`: {error}")))?;
    Ok(SavedTensor { name: name.to_owned(), dtype, shape, bytes })
}

/// Sequences drawn, as the manifest names them.
pub fn sequences(streams: &Streams) -> BTreeMap<String, u64> {
    Purpose::ALL.iter().map(|(purpose, name)| (name.to_lowercase(), streams.drawn(*purpose))).collect()
}

/// Writes and commits the checkpoint `step-N` in `folder`, which exists; gives its path and bytes.
///
/// # Errors
///
/// [`Exit::Write`]; nothing is left under the final name then.
pub fn save(folder: &Path, snapshot: &Snapshot) -> Result<(PathBuf, u64)> {
    let Snapshot { manifest, lists, optimizer } = snapshot;
    let mut manifest = manifest.clone();
    let path = folder.join(folder::name(manifest.step, manifest.part));
    let partial = PartialFolder::begin_in_place(&path)?;
    let mut write = |name: &str, bytes: &[u8]| {
        write_new(&partial.path().join(name), bytes)?;
        let info = FileInfo { bytes: bytes.len() as u64, sha256: digest(bytes) };
        manifest.files.insert(name.to_owned(), info);
        Ok(())
    };
    for (name, tensors) in lists {
        write(&format!("{name}.safetensors"), &serialize(tensors.iter().map(|t| (t.name.as_str(), t)), None)?)?;
    }
    write("optimizer.safetensors", &optimizer_file(optimizer)?)?;
    manifest.format = FORMAT;
    manifest.checksum = manifest.own_checksum();
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    write_new(&partial.path().join(MANIFEST), &text)?;
    partial.commit()?;
    let bytes = manifest.files.values().map(|file| file.bytes).sum::<u64>() + text.len() as u64;
    Ok((path, bytes))
}

/// Tensors under `entry/parameter`, everything else of the state in the metadata.
fn optimizer_file(state: &SavedState) -> Result<Vec<u8>> {
    let named = state.entries.iter().flat_map(|entry| {
        entry.tensors.iter().map(|tensor| (format!("{}/{}", entry.name, tensor.name), tensor)).collect::<Vec<_>>()
    });
    let named: Vec<_> = named.collect();
    let entries = state.entries.iter().map(EntryInfo::of).collect();
    let info = serde_json::to_string(&StateInfo { schema_version: state.schema_version, entries });
    let info = info.map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    // One key, since several would be written in an order that changes from process to process.
    let metadata = HashMap::from([("state".to_owned(), info)]);
    serialize(named.iter().map(|(name, tensor)| (name.as_str(), *tensor)), Some(metadata))
}

/// An optimizer's state without its tensors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StateInfo {
    pub schema_version: u32,
    pub entries: Vec<EntryInfo>,
}

/// An entry of an optimizer's state without its tensors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EntryInfo {
    pub name: String,
    pub kind: u32,
    pub tensors: Vec<String>,
    pub bytes: Vec<u8>,
}

impl EntryInfo {
    fn of(entry: &SavedEntry) -> Self {
        let tensors = entry.tensors.iter().map(|tensor| tensor.name.clone()).collect();
        Self { name: entry.name.clone(), kind: entry.kind.0, tensors, bytes: entry.bytes.clone() }
    }
}

fn serialize<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a SavedTensor)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>> {
    let view = |(name, tensor): (&'a str, &'a SavedTensor)| {
        let dtype = match tensor.dtype {
            DType::F64 => Dtype::F64,
            DType::I64 => Dtype::I64,
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
            _ => Dtype::F32,
        };
        TensorView::new(dtype, tensor.shape.clone(), &tensor.bytes).map(|view| (name, view))
    };
    let views = tensors.map(view).collect::<Result<Vec<_>, _>>();
    views
        .and_then(|views| safetensors::serialize(views, metadata))
        .map_err(|error| Fault::new(Exit::Internal, format!("tensors cannot be written: {error}")))
}
