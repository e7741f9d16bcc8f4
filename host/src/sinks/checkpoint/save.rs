//! Writes a checkpoint.

use super::{FORMAT, FileInfo, MANIFEST, Manifest, folder, hex};
use crate::curvature::Streams;
use crate::durable::{PartialFolder, write_new, write_new_parts};
use crate::error::{Exit, Fault, Result};
use gauntlet_plugin_abi::{DType, Purpose};
use gauntlet_plugin_api::backend::{SavedEntry, SavedState, SavedTensor};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
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

impl<'a> File<'a> {
    fn parts(&self) -> Result<Parts<'a>> {
        match self.of {
            Content::List(tensors) => parts(tensors.iter().map(|tensor| (tensor.name.clone(), tensor)).collect(), None),
            Content::State(state) => optimizer_parts(state),
        }
    }
}

/// Writes files one after another on this thread, each hashed by a thread of its own meanwhile.
fn write_all(folder: &Path, files: &[File<'_>]) -> Result<Vec<(String, FileInfo)>> {
    std::thread::scope(|scope| {
        let mut hashes = vec![];
        for file in files {
            let parts = Arc::new(file.parts()?);
            let hashed = parts.clone();
            hashes.push(scope.spawn(move || hashed.info()));
            write_new_parts(&folder.join(&file.name), &parts.all())?;
        }
        let ended = |_| Fault::new(Exit::Internal, "a thread that hashes a checkpoint ended early");
        let infos = files.iter().zip(hashes).map(|(file, hash)| Ok((file.name.clone(), hash.join().map_err(ended)?)));
        infos.collect()
    })
}

/// A safetensors file: its header, then the bytes of its tensors where they are.
struct Parts<'a> {
    header: Vec<u8>,
    data: Vec<&'a [u8]>,
}

impl Parts<'_> {
    fn all(&self) -> Vec<&[u8]> {
        std::iter::once(self.header.as_slice()).chain(self.data.iter().copied()).collect()
    }

    fn info(&self) -> FileInfo {
        let mut hash = Sha256::new();
        self.all().into_iter().for_each(|part| hash.update(part));
        FileInfo { bytes: self.all().iter().map(|part| part.len() as u64).sum(), sha256: hex(&hash.finalize()) }
    }
}

/// Tensors under `entry/parameter`, everything else of the state in the metadata.
fn optimizer_parts(state: &SavedState) -> Result<Parts<'_>> {
    let named = state.entries.iter().flat_map(|entry| {
        entry.tensors.iter().map(|tensor| (format!("{}/{}", entry.name, tensor.name), tensor)).collect::<Vec<_>>()
    });
    let named = named.collect();
    let entries = state.entries.iter().map(EntryInfo::of).collect();
    let info = serde_json::to_string(&StateInfo { schema_version: state.schema_version, entries });
    let info = info.map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    // One key, since several would be written in an order that changes from process to process.
    let metadata = HashMap::from([("state".to_owned(), info)]);
    parts(named, Some(metadata))
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

/// The file that `safetensors::serialize` would make, without a copy of the tensors: larger element types first, then by
/// name; the header filled up with spaces to a multiple of 8.
fn parts(mut tensors: Vec<(String, &SavedTensor)>, metadata: Option<HashMap<String, String>>) -> Result<Parts<'_>> {
    tensors.sort_by(|(name, tensor), (other_name, other)| {
        dtype(other).cmp(&dtype(tensor)).then_with(|| name.cmp(other_name))
    });
    let mut offset = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let start = offset;
        offset += tensor.bytes.len();
        let info = TensorInfo { dtype: dtype(tensor), shape: tensor.shape.clone(), data_offsets: (start, offset) };
        (name.clone(), info)
    });
    let failed =
        |error: &dyn std::fmt::Display| Fault::new(Exit::Internal, format!("tensors cannot be written: {error}"));
    let metadata = Metadata::new(metadata, infos.collect()).map_err(|error| failed(&error))?;
    let mut text = serde_json::to_vec(&metadata).map_err(|error| failed(&error))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let header = [&(text.len() as u64).to_le_bytes()[..], &text].concat();
    Ok(Parts { header, data: tensors.iter().map(|(_, tensor)| tensor.bytes.as_slice()).collect() })
}

fn dtype(tensor: &SavedTensor) -> Dtype {
    match tensor.dtype {
        DType::F64 => Dtype::F64,
        DType::I64 => Dtype::I64,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        _ => Dtype::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    #[test]
    fn a_file_has_the_bytes_that_the_library_writes() {
        let tensor = |name: &str, dtype, shape: &[usize], bytes: usize| {
            let bytes = (0..bytes).map(|byte| byte as u8).collect();
            SavedTensor { name: name.into(), dtype, shape: shape.to_vec(), bytes }
        };
        let tensors = [
            tensor("b", DType::F32, &[2, 3], 24),
            tensor("a", DType::BF16, &[3], 6),
            tensor("z", DType::F64, &[1], 8),
            tensor("a/\"quoted\"", DType::F32, &[], 4),
            tensor("empty", DType::F32, &[0, 4], 0),
        ];
        for metadata in [None, Some(HashMap::from([("state".to_owned(), "{\"x\":1}".to_owned())]))] {
            let ours = parts(tensors.iter().map(|one| (one.name.clone(), one)).collect(), metadata.clone()).unwrap();
            let views = tensors
                .iter()
                .map(|one| (one.name.as_str(), TensorView::new(dtype(one), one.shape.clone(), &one.bytes).unwrap()));
            let theirs = safetensors::serialize(views, metadata).unwrap();
            assert_eq!(ours.all().concat(), theirs);
            assert_eq!(
                ours.info(),
                FileInfo { bytes: theirs.len() as u64, sha256: crate::sinks::checkpoint::digest(&theirs) }
            );
        }
    }
}
