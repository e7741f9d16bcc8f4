//! Checkpoints: a folder `step-N` of safetensors files and `MANIFEST.json`, committed by one rename.
//!
//! Tensor files hold no time, path or run id, so equal states give equal bytes. The manifest is written last and holds
//! the size and SHA-256 of every other file.

use crate::curvature::Streams;
use crate::durable::{PartialFolder, write_new};
use crate::error::{Exit, Fault, Result};
use crate::model::ModelConfig;
use gauntlet_plugin_abi::{DType, Purpose};
use gauntlet_plugin_api::backend::{SavedEntry, SavedState};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Version of the layout.
const FORMAT: u32 = 1;
/// Name of the file that makes a folder a checkpoint.
pub const MANIFEST: &str = "MANIFEST.json";

/// What a checkpoint is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Version of the program that wrote it.
    pub gauntlet: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Finished steps.
    pub step: u64,
    /// Sequences drawn, by purpose.
    pub sequences: BTreeMap<String, u64>,
    /// Predicted tokens of one sequence.
    pub seq_len: usize,
    /// Seed of all randomness.
    pub seed: u64,
    /// The model.
    pub model: ModelConfig,
    /// The optimizer.
    pub optimizer: OptimizerInfo,
    /// Fingerprint of the training data.
    pub data: String,
    /// Tokenizer of the data, where it is known.
    pub tokenizer: Option<String>,
    /// Which file holds the parameters to evaluate and generate with: `params`, `ema` or `plugin`.
    pub evaluate_at: String,
    /// Last validation loss.
    pub validation_loss: Option<f64>,
    /// Size and SHA-256 of each file.
    pub files: BTreeMap<String, FileInfo>,
}

/// The optimizer that a checkpoint belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptimizerInfo {
    /// Name of the plugin.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// Version of the layout of its state.
    pub state_version: u32,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, 64 hexadecimal digits.
    pub sha256: String,
}

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
    let path = folder.join(format!("step-{}", manifest.step));
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
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    write_new(&partial.path().join(MANIFEST), &text)?;
    partial.commit()?;
    let bytes = manifest.files.values().map(|file| file.bytes).sum::<u64>() + text.len() as u64;
    Ok((path, bytes))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tensors_file(tensors: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (shape, dtype) = crate::curvature::tensors::info(tensor);
        let bytes = crate::curvature::tensors::to_bytes(tensor);
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
    let entries: Vec<EntryInfo> = state.entries.iter().map(EntryInfo::of).collect();
    let entries = serde_json::to_string(&entries).map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    let metadata = HashMap::from([
        ("entries".to_owned(), entries),
        ("schema_version".to_owned(), state.schema_version.to_string()),
    ]);
    let tensors = named.iter().map(|(name, t)| (name.as_str(), t.dtype, t.shape.clone(), t.bytes.as_slice()));
    serialize(tensors, Some(metadata))
}

/// An entry of an optimizer's state without its tensors.
#[derive(Debug, Serialize, Deserialize)]
struct EntryInfo {
    name: String,
    kind: u32,
    tensors: Vec<String>,
    bytes: Vec<u8>,
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

/// A checkpoint that has been opened.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// What it is of.
    pub manifest: Manifest,
}

impl Checkpoint {
    /// Opens the checkpoint in a folder.
    ///
    /// # Errors
    ///
    /// [`Exit::Missing`] where there is no such folder, [`Exit::Checkpoint`] where it is no whole checkpoint.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::metadata(path).map_err(|error| Fault::reading(path, &error))?;
        let file = path.join(MANIFEST);
        let text = std::fs::read(&file).map_err(|_| {
            Fault::new(Exit::Checkpoint, format!("`{}` is no checkpoint", path.display()))
                .found(format!("no `{MANIFEST}`"))
                .hint("name a folder `checkpoints/step-N` of a run")
        })?;
        let format = serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|json| json["format"].as_u64());
        if let Some(format) = format.filter(|format| *format > u64::from(FORMAT)) {
            return Err(damaged(&file, "written by a newer version")
                .found(format!("format {format}"))
                .expected(format!("at most {FORMAT}"))
                .hint("update gauntlet"));
        }
        let manifest = serde_json::from_slice(&text).map_err(|error| damaged(&file, "damaged").found(error))?;
        Ok(Self { path: path.to_owned(), manifest })
    }

    /// The parameters to evaluate and generate with, in the order of `names`.
    ///
    /// # Errors
    ///
    /// [`Exit::Checkpoint`]: a file that is missing, changed, or does not hold these parameters.
    pub fn evaluation_params(&self, names: &[String], device: Device, kind: Kind) -> Result<Vec<Tensor>> {
        let file = format!("{}.safetensors", self.manifest.evaluate_at);
        let bytes = self.file(&file)?;
        let path = self.path.join(&file);
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&path, "damaged").found(error))?;
        let tensor = |name: &String| {
            let view = tensors.tensor(name).map_err(|_| damaged(&path, &format!("holds no tensor `{name}`")))?;
            let dtype = match view.dtype() {
                Dtype::F32 => DType::F32,
                Dtype::F64 => DType::F64,
                other => return Err(damaged(&path, &format!("`{name}` has another type")).found(format!("{other:?}"))),
            };
            let tensor = crate::curvature::tensors::from_bytes(device, dtype, view.shape(), view.data());
            tensor.map(|tensor| tensor.to_kind(kind)).map_err(|error| damaged(&path, "damaged").found(error))
        };
        names.iter().map(tensor).collect()
    }

    /// The bytes of a file, with size and hash compared.
    fn file(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path.join(name);
        let info = self.manifest.files.get(name).ok_or_else(|| damaged(&path, "not in the manifest"))?;
        let bytes = std::fs::read(&path).map_err(|error| damaged(&path, "cannot be read").found(error))?;
        if bytes.len() as u64 != info.bytes {
            let fault = damaged(&path, "has another size than when it was written");
            return Err(fault.found(format!("{} bytes", bytes.len())).expected(format!("{} bytes", info.bytes)));
        }
        let found = digest(&bytes);
        match found == info.sha256 {
            true => Ok(bytes),
            false => Err(damaged(&path, "has changed since it was written")
                .found(format!("sha256 {found}"))
                .expected(format!("sha256 {}", info.sha256))),
        }
    }
}

fn damaged(path: &Path, what: &str) -> Fault {
    Fault::new(Exit::Checkpoint, format!("`{}`: {what}", path.display()))
}
