//! Writes a checkpoint.

use super::{FORMAT, FileInfo, MANIFEST, Manifest, digest, folder};
use crate::curvature::Streams;
use crate::durable::{PartialFolder, write_new};
use crate::error::{Exit, Fault, Result};
use gauntlet_plugin_abi::{DType, Purpose};
use gauntlet_plugin_api::backend::{SavedEntry, SavedState};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Named lists of tensors: `params`, and `ema` or `plugin` where there are.
pub type TensorLists = Vec<(&'static str, Vec<(String, Tensor)>)>;

/// Sequences drawn, as the manifest names them.
pub fn sequences(streams: &Streams) -> BTreeMap<String, u64> {
    Purpose::ALL.iter().map(|(purpose, name)| (name.to_lowercase(), streams.drawn(*purpose))).collect()
}

/// Writes and commits the checkpoint `step-N` in `folder`; gives its path and bytes. `manifest.files` is filled in.
///
/// # Errors
///
/// [`Exit::Write`]; nothing is left under the final name then.
pub fn save(
    folder: &Path,
    mut manifest: Manifest,
    lists: &TensorLists,
    optimizer: &SavedState,
) -> Result<(PathBuf, u64)> {
    std::fs::create_dir_all(folder).map_err(|error| Fault::writing(folder, &error))?;
    let path = folder.join(folder::name(manifest.step, manifest.part));
    let partial = PartialFolder::begin(&path)?;
    let mut write = |name: &str, bytes: &[u8]| {
        write_new(&partial.path().join(name), bytes)?;
        let info = FileInfo { bytes: bytes.len() as u64, sha256: digest(bytes) };
        manifest.files.insert(name.to_owned(), info);
        Ok(())
    };
    for (name, tensors) in lists {
        write(&format!("{name}.safetensors"), &tensors_file(tensors)?)?;
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

fn tensors_file(tensors: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (shape, dtype) = crate::curvature::tensor::info(tensor);
        let bytes = crate::curvature::tensor::to_bytes(tensor);
        let bytes = bytes.map_err(|error| Fault::new(Exit::Internal, format!("`{name}`: {error}")))?;
        data.push((name.as_str(), dtype, shape, bytes));
    }
    serialize(data.iter().map(|(name, dtype, shape, bytes)| (*name, *dtype, shape.clone(), bytes.as_slice())), None)
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
    let tensors = named.iter().map(|(name, t)| (name.as_str(), t.dtype, t.shape.clone(), t.bytes.as_slice()));
    serialize(tensors, Some(metadata))
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
    tensors: impl Iterator<Item = (&'a str, DType, Vec<usize>, &'a [u8])>,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>> {
    let view = |(name, dtype, shape, bytes): (&'a str, DType, Vec<usize>, &'a [u8])| {
        let dtype = match dtype {
            DType::F64 => Dtype::F64,
            DType::I64 => Dtype::I64,
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
            _ => Dtype::F32,
        };
        TensorView::new(dtype, shape, bytes).map(|view| (name, view))
    };
    let views = tensors.map(view).collect::<Result<Vec<_>, _>>();
    views
        .and_then(|views| safetensors::serialize(views, metadata))
        .map_err(|error| Fault::new(Exit::Internal, format!("tensors cannot be written: {error}")))
}
