//! Opens and reads a checkpoint, comparing sizes and hashes with the manifest.

use super::save::{EntryInfo, StateInfo};
use super::{FORMAT, FileInfo, MANIFEST, MAX_MANIFEST_LEN, Manifest, damaged, digest, hex};
use crate::curvature::Streams;
use crate::error::{Exit, Fault, Result, reason};
use gauntlet_plugin_abi::{DType, Purpose, StateKind};
use gauntlet_plugin_api::backend::{SavedEntry, SavedState, SavedTensor};
use rustix::fs::OFlags;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// A checkpoint that has been opened.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// What it is of.
    pub manifest: Manifest,
}

/// Shape and element type of a tensor in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Elements along each dimension.
    pub shape: Vec<usize>,
    /// Type of its elements.
    pub dtype: DType,
}

impl Manifest {
    /// Reads the text of a manifest, which messages call `file`, and compares it with its own checksum.
    ///
    /// # Errors
    ///
    /// [`Exit::Checkpoint`]: another version, damaged, changed, or a name of a file that no checkpoint has.
    pub fn parse(file: &Path, text: &[u8]) -> Result<Self> {
        let format = serde_json::from_slice::<serde_json::Value>(text).ok().and_then(|json| json["format"].as_u64());
        if let Some(format) = format.filter(|format| *format > u64::from(FORMAT)) {
            return Err(damaged(file, "written by a newer version")
                .found(format!("format {format}"))
                .expected(format!("at most {FORMAT}"))
                .hint("update gauntlet"));
        }
        let manifest: Manifest = serde_json::from_slice(text).map_err(|error| damaged(file, "damaged").found(error))?;
        if manifest.checksum != manifest.own_checksum() {
            return Err(damaged(file, "has changed since it was written"));
        }
        match manifest.files.keys().find(|name| !is_plain(name)) {
            None => Ok(manifest),
            Some(name) => Err(damaged(file, "names a file that cannot be of a checkpoint")
                .found(format!("`{}`", name.chars().take(MAX_NAME_LEN).collect::<String>()))
                .expected("letters, digits, `.`, `_` and `-`, beginning with a letter")),
        }
    }
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
        let text = read_at_most(&file, MAX_MANIFEST_LEN).map_err(|_| {
            Fault::new(Exit::Checkpoint, format!("`{}` is no checkpoint", path.display()))
                .found(format!("no `{MANIFEST}` that can be read"))
                .hint("name a folder `checkpoints/step-N` of a run")
        })?;
        Ok(Self { path: path.to_owned(), manifest: Manifest::parse(&file, &text)? })
    }

    /// The parameters to evaluate and generate with, in the order of `names`.
    ///
    /// # Errors
    ///
    /// [`Exit::Checkpoint`]: a file that is missing, changed, or does not hold these parameters.
    pub fn evaluation_params(&self, names: &[String], device: Device, kind: Kind) -> Result<Vec<Tensor>> {
        let params = self.tensors(&self.manifest.evaluate_at, names, device)?;
        Ok(params.into_iter().map(|param| param.to_kind(kind)).collect())
    }

    /// One list of tensors, `params`, `ema` or `plugin`, in the order of `names`.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::evaluation_params`].
    pub fn tensors(&self, list: &str, names: &[String], device: Device) -> Result<Vec<Tensor>> {
        let file = format!("{list}.safetensors");
        let (bytes, path) = (self.file(&file)?, self.path.join(&file));
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&path, "damaged").found(error))?;
        let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        if let Some(extra) = tensors.names().into_iter().find(|name| !known.contains(name)) {
            return Err(damaged(&path, &format!("holds a tensor `{extra}` that the model does not have")));
        }
        let tensor = |name: &String| {
            let view = tensors.tensor(name).map_err(|_| damaged(&path, &format!("holds no tensor `{name}`")))?;
            let tensor = crate::curvature::tensor::from_bytes(device, dtype(&view, &path)?, view.shape(), view.data());
            tensor.map_err(|error| damaged(&path, "damaged").found(error))
        };
        names.iter().map(tensor).collect()
    }

    /// Name, shape and element type of each tensor of a list, by name.
    ///
    /// # Errors
    ///
    /// [`Exit::Checkpoint`]: a file that is missing, changed or damaged.
    pub fn tensor_infos(&self, list: &str) -> Result<BTreeMap<String, TensorInfo>> {
        let file = format!("{list}.safetensors");
        let (bytes, path) = (self.file(&file)?, self.path.join(&file));
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&path, "damaged").found(error))?;
        let info = |(name, view): (String, TensorView<'_>)| {
            let info = TensorInfo { shape: view.shape().to_vec(), dtype: dtype(&view, &path)? };
            Ok((name, info))
        };
        tensors.tensors().into_iter().map(info).collect()
    }

    /// Whether there is a list of tensors of this name.
    pub fn has(&self, list: &str) -> bool {
        self.manifest.files.contains_key(&format!("{list}.safetensors"))
    }

    /// The optimizer's state.
    ///
    /// # Errors
    ///
    /// [`Exit::Checkpoint`]: the file is missing, changed, or damaged.
    pub fn optimizer(&self) -> Result<SavedState> {
        let (bytes, path) = (self.file(OPTIMIZER)?, self.path.join(OPTIMIZER));
        let bad = |error: String| damaged(&path, "damaged").found(error);
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| bad(error.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| bad(error.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let info = metadata.get("state").ok_or_else(|| bad("no `state`".into()))?;
        let StateInfo { schema_version, entries } =
            serde_json::from_str(info).map_err(|error| bad(error.to_string()))?;
        let entry = |info: EntryInfo| {
            let tensor = |name: &String| saved_tensor(&tensors, &info.name, name, &path);
            let saved = info.tensors.iter().map(tensor).collect::<Result<_>>()?;
            Ok(SavedEntry { name: info.name, kind: StateKind(info.kind), tensors: saved, bytes: info.bytes })
        };
        let entries = entries.into_iter().map(entry).collect::<Result<_>>()?;
        Ok(SavedState { schema_version, entries })
    }

    /// The position in the data.
    pub fn streams(&self) -> Streams {
        streams(&self.manifest.sequences)
    }

    /// The position in the data before the step in progress, if one is.
    pub fn streams_before(&self) -> Option<Streams> {
        (self.manifest.part > 0).then(|| streams(&self.manifest.sequences_before))
    }

    /// Compares every file with the manifest.
    ///
    /// # Errors
    ///
    /// The first file that is missing, extra or changed ([`Exit::Checkpoint`]).
    pub fn verify(&self) -> Result<()> {
        let entries = std::fs::read_dir(&self.path).map_err(|error| Fault::reading(&self.path, &error))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != MANIFEST && !self.manifest.files.contains_key(&name) {
                return Err(damaged(&entry.path(), "not in the manifest").hint("remove it"));
            }
        }
        // All at once, a thread each: there are few, and most of the time is hashing.
        std::thread::scope(|scope| {
            let checks: Vec<_> = self.manifest.files.keys().map(|name| scope.spawn(|| self.check(name))).collect();
            let ended = |_| Fault::new(Exit::Internal, "a thread that verifies a checkpoint ended early");
            checks.into_iter().try_for_each(|check| check.join().map_err(ended)?)
        })
    }

    /// Compares a file with the manifest without holding it whole.
    fn check(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        let info = self.info(name)?;
        let cannot = |error| damaged(&path, "cannot be read").found(reason(&error));
        let mut file = open_plain(&path).map_err(cannot)?.take(info.bytes.saturating_add(1));
        let (mut hash, mut buffer, mut read) = (Sha256::new(), vec![0; CHUNK], 0);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    read += count as u64;
                    hash.update(&buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(cannot(error)),
            }
        }
        self.compare(name, read, &hex(&hash.finalize()))
    }

    /// The bytes of a file, with size and hash compared.
    fn file(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path.join(name);
        let info = self.info(name)?;
        let cannot = |error| damaged(&path, "cannot be read").found(reason(&error));
        // One byte more than there should be tells that there are more, without reading them.
        let bytes = read_at_most(&path, info.bytes.saturating_add(1)).map_err(cannot)?;
        self.compare(name, bytes.len() as u64, &digest(&bytes))?;
        Ok(bytes)
    }

    fn info(&self, name: &str) -> Result<&FileInfo> {
        self.manifest.files.get(name).ok_or_else(|| damaged(&self.path.join(name), "not in the manifest"))
    }

    /// Compares what was read of a file, at most one byte more than it should have, with the manifest.
    fn compare(&self, name: &str, read: u64, sha256: &str) -> Result<()> {
        let (path, info) = (self.path.join(name), self.info(name)?);
        if read != info.bytes {
            let fault = damaged(&path, "has another size than when it was written");
            let found = std::fs::metadata(&path).map_or(read, |metadata| metadata.len());
            return Err(fault.found(format!("{found} bytes")).expected(format!("{} bytes", info.bytes)));
        }
        match sha256 == info.sha256 {
            true => Ok(()),
            false => Err(damaged(&path, "has changed since it was written")
                .found(format!("sha256 {sha256}"))
                .expected(format!("sha256 {}", info.sha256))),
        }
    }
}

/// Bytes that are read and hashed at once.
const CHUNK: usize = 1 << 20;

/// The most characters of a file's name.
const MAX_NAME_LEN: usize = 128;

/// Whether a name from a manifest stays within the checkpoint's folder.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.len() <= MAX_NAME_LEN && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain)
}

/// Up to `limit` bytes of a plain file: no link is followed, and nothing that would wait for a writer is opened.
fn open_plain(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a plain file"));
    }
    Ok(file)
}

fn read_at_most(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_plain(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The optimizer's file.
const OPTIMIZER: &str = "optimizer.safetensors";

fn streams(sequences: &BTreeMap<String, u64>) -> Streams {
    let mut streams = Streams::default();
    for (purpose, name) in Purpose::ALL {
        if let Some(drawn) = sequences.get(&name.to_lowercase()) {
            streams.set(*purpose, *drawn);
        }
    }
    streams
}

fn saved_tensor(tensors: &SafeTensors<'_>, entry: &str, name: &str, path: &Path) -> Result<SavedTensor> {
    let view = tensors.tensor(&format!("{entry}/{name}"));
    let view = view.map_err(|_| damaged(path, &format!("holds no tensor `{entry}/{name}`")))?;
    let (dtype, shape) = (dtype(&view, path)?, view.shape().to_vec());
    Ok(SavedTensor { name: name.to_owned(), dtype, shape, bytes: view.data().to_vec() })
}

fn dtype(view: &TensorView<'_>, path: &Path) -> Result<DType> {
    match view.dtype() {
        Dtype::F32 => Ok(DType::F32),
        Dtype::F64 => Ok(DType::F64),
        Dtype::I64 => Ok(DType::I64),
        Dtype::BF16 => Ok(DType::BF16),
        Dtype::F16 => Ok(DType::F16),
        other => Err(damaged(path, "holds a tensor of another type").found(format!("{other:?}"))),
    }
}
