//! Checkpoints: a folder `step-N` of safetensors files and `MANIFEST.json`, committed by one rename.
//!
//! Tensor files hold no time, path or run id, so equal states give equal bytes. The manifest is written last and holds
//! the size and SHA-256 of every other file. A checkpoint in the middle of a long step is `step-N.part-K`.

mod folder;
mod open;
mod save;
#[cfg(test)]
mod tests;

pub use folder::{Damaged, Found, clean, latest, list, rotate, set_aside};
pub use open::{Checkpoint, TensorInfo};
pub use save::{Snapshot, copied, save, sequences};

use crate::error::{Exit, Fault};
use crate::model::ModelConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the layout.
const FORMAT: u32 = 1;
/// Name of the file that makes a folder a checkpoint.
pub const MANIFEST: &str = "MANIFEST.json";
/// The largest manifest that is read, in bytes.
const MAX_MANIFEST_LEN: u64 = 16 << 20;

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
    /// Parts of the next step that are done, 0 between steps.
    pub part: u64,
    /// Sequences drawn, by purpose.
    pub sequences: BTreeMap<String, u64>,
    /// Sequences drawn before the step in progress, by purpose; empty between steps.
    pub sequences_before: BTreeMap<String, u64>,
    /// Floating-point operations so far.
    pub flops: f64,
    /// Steps that were skipped recently, which the policy counts.
    pub skipped: Vec<u64>,
    /// Whether the step in progress has averaged its own iterates.
    pub ema_updated: bool,
    /// Predicted tokens of one sequence.
    pub seq_len: usize,
    /// Sequences computed at once.
    pub micro_batch_size: usize,
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
    /// What a resumed run must have in common with this one, by configuration key.
    pub identity: Value,
    /// What it was computed on.
    pub machine: Machine,
    /// What the user let change when the run was resumed, in order.
    pub changes: Vec<Change>,
    /// Size and SHA-256 of each file.
    pub files: BTreeMap<String, FileInfo>,
    /// SHA-256 of all of the above, as JSON without spaces.
    pub checksum: String,
}

impl Manifest {
    /// What [`Manifest::checksum`] has to be.
    fn own_checksum(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value.as_object_mut().map(|table| table.remove("checksum"));
        digest(value.to_string().as_bytes())
    }
}

/// What the bits of a run depend on beside its identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Model of the processor, as the system names it.
    pub processor: String,
    /// Threads.
    pub threads: usize,
}

/// A key of the run's identity that changed at a resume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Finished steps by then.
    pub step: u64,
    /// The key.
    pub key: String,
    /// Its value before.
    pub saved: Value,
    /// Its value since.
    pub now: Value,
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

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn damaged(path: &Path, what: &str) -> Fault {
    Fault::new(Exit::Checkpoint, format!("`{}`: {what}", path.display()))
}
