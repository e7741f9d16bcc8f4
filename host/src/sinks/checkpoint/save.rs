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
use std::sync::Arc;
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
    let files: Vec<File<'_>> = lists
        .iter()
        .map(|(name, tensors)| File { name: format!("{name}.safetensors"), of: Content::List(tensors) })
        .chain([File { name: "optimizer.safetensors".into(), of: Content::State(optimizer) }])
        .collect();
    manifest.files.extend(write_all(partial.path(), &files)?);
    manifest.format = FORMAT;
    manifest.checksum = manifest.own_checksum();
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    write_new(&partial.path().join(MANIFEST), &text)?;
    partial.commit()?;
    let bytes = manifest.files.values().map(|file| file.bytes).sum::<u64>() + text.len() as u64;
    Ok((path, bytes))
}

/// A file to be written.
struct File<'a> {
    name: String,
    of: Content<'a>,
}

enum Content<'a> {
    List(&'a [SavedTensor]),
    State(&'a SavedState),
}

impl File<'_> {
    fn bytes(&self) -> Result<Vec<u8>> {
        match self.of {
            Content::List(tensors) => serialize(tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)), None),
            Content::State(state) => optimizer_file(state),
        }
    }
}

/// Writes files one after another on this thread, each hashed by a thread of its own meanwhile.
fn write_all(folder: &Path, files: &[File<'_>]) -> Result<Vec<(String, FileInfo)>> {
    std::thread::scope(|scope| {
        let mut hashes = vec![];
        for file in files {
            let bytes = Arc::new(file.bytes()?);
            let hashed = bytes.clone();
            hashes.push(scope.spawn(move || FileInfo { bytes: hashed.len() as u64, sha256: digest(&hashed) }));
            write_new(&folder.join(&file.name), &bytes)?;
        }
        let ended = |_| Fault::new(Exit::Internal, "a thread that hashes a checkpoint ended early");
        let infos = files.iter().zip(hashes).map(|(file, hash)| Ok((file.name.clone(), hash.join().map_err(ended)?)));
        infos.collect()
    })
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
