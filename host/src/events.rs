//! What happens in a run, as plain values. The trainer emits them and knows no listener.
//!
//! This module uses no other and may be used by all. `events.jsonl`, one event a line, is the record of a run.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run starts.
    Started(Started),
    /// The run goes on from a checkpoint. Later events replace those of the steps after it.
    Resumed {
        /// Finished steps of the checkpoint.
        step: u64,
        /// Its folder; empty where there was none.
        checkpoint: String,
        /// Tokens drawn for steps by then.
        tokens: u64,
        /// Tokens drawn for line searches by then.
        line_search_tokens: u64,
        /// Floating-point operations by then.
        flops: f64,
    },
    /// A new run begins with the parameters of a checkpoint.
    Initialized {
        /// Finished steps of that checkpoint.
        step: u64,
        /// Its folder.
        checkpoint: String,
        /// Checksum of its manifest.
        checksum: String,
        /// Tokens drawn for steps by then, where the run goes on at its place in the data; else 0.
        tokens: u64,
        /// Tokens drawn for line searches by then, likewise.
        line_search_tokens: u64,
    },
    /// A step is finished.
    Step(Step),
    /// An evaluation begins.
    Evaluating {
        /// Finished steps.
        step: u64,
    },
    /// A validation loss.
    Evaluated(Evaluated),
    /// Something is not finite.
    NonFinite {
        /// Finished steps.
        step: u64,
        /// `loss`, `gradient`, `params`, `plugin` (its own numerical error) or `validation`.
        place: String,
    },
    /// A step failed: by its plugin, or by values that are not finite.
    StepFailed {
        /// Finished steps before it.
        step: u64,
        /// Why.
        reason: String,
        /// Exit code of the error.
        exit_code: u8,
        /// First sequence of the step's batch.
        first_sequence: u64,
        /// Sequences that it had drawn for its solve.
        sequences: u64,
    },
    /// A step was undone and its batch passed over.
    Skipped {
        /// Finished steps before it.
        step: u64,
        /// Why.
        reason: String,
        /// Exit code of the error: 79 for a value that is not finite, 80 for a fault of the plugin.
        exit_code: u8,
        /// First sequence of the step's batch.
        first_sequence: u64,
        /// Sequences drawn for it.
        sequences: u64,
    },
    /// A line of the plugin or of the host.
    Log {
        /// `error`, `warn`, `info` or `debug`.
        level: String,
        /// The line.
        message: String,
    },
    /// A checkpoint begins to be written.
    Checkpointing {
        /// Its step.
        step: u64,
    },
    /// The state for a checkpoint is copied, and the run goes on while it is written.
    CheckpointStaged {
        /// Its step.
        step: u64,
        /// Bytes of its tensors.
        bytes: u64,
        /// Seconds that the copy took.
        seconds: f64,
    },
    /// A checkpoint could not be written; earlier ones are as they were.
    CheckpointFailed {
        /// Its step.
        step: u64,
        /// Why.
        reason: String,
    },
    /// A checkpoint is committed.
    Checkpoint {
        /// Its step.
        step: u64,
        /// Its folder.
        path: String,
        /// Bytes of its files.
        bytes: u64,
        /// Seconds from its beginning to its commit.
        seconds: f64,
        /// Seconds that the run stood still for it.
        #[serde(default)]
        held_seconds: f64,
    },
    /// The run ends.
    Finished(Finished),
}

/// What a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Version of the program.
    pub version: String,
    /// Commit that the program was built from, or `unknown`.
    pub commit: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Device of the parameters.
    pub device: String,
    /// Threads.
    pub threads: usize,
    /// Seed of all randomness.
    pub seed: u64,
    /// Name of the plugin.
    pub plugin: String,
    /// SHA-256 of the plugin's file.
    pub plugin_sha256: String,
    /// Preset that the model begins from, or `custom`.
    pub model: String,
    /// Elements of all parameters.
    pub num_params: u64,
    /// Bytes of state that the plugin declares.
    pub state_bytes: u64,
    /// Predicted tokens of one step.
    pub tokens_per_step: u64,
    /// Sequences computed at once.
    pub micro_batch_size: usize,
    /// Fingerprint of the training data.
    pub data: String,
    /// Predicted tokens of one pass over the training data.
    pub epoch_tokens: u64,
    /// Steps of the run, where it has a number.
    pub max_steps: Option<u64>,
    /// Peak learning rate: the key `lr` of the optimizer's configuration, or its default; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lr: Option<f64>,
    /// What the wall times of calls mean: `synchronised` where a call's work is done when its time is taken, `queued` where
    /// a device may still work on it.
    #[serde(default)]
    pub timing: String,
    /// Seconds between checkpoints; absent where there are none by time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint_seconds: Option<f64>,
    /// Steps between checkpoints; absent where there are none by steps.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint_steps: Option<u64>,
}

/// A finished step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Finished steps, this one included.
    pub step: u64,
    /// Training loss in nats a token, before the update; absent where the plugin gave none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss: Option<f64>,
    /// The schedule's multiplier.
    pub schedule: f64,
    /// Tokens drawn for steps so far.
    pub tokens: u64,
    /// Tokens drawn for line searches so far.
    pub line_search_tokens: u64,
    /// Floating-point operations of all calls so far.
    pub flops: f64,
    /// Floating-point operations so far in units of one gradient of the global batch.
    pub gradient_equivalents: f64,
    /// Wall time of the step.
    pub seconds: f64,
    /// Wall time of the step's losses, gradients and products, which the host computes; reading data is part of it.
    pub call_seconds: f64,
    /// Wall time of reading the step's data.
    #[serde(default)]
    pub data_seconds: f64,
    /// Norm of all parameters after the step; absent where its update was rejected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub param_norm: Option<f64>,
    /// Calls of the step by kind: `gradient`, `loss` and the like.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub calls: BTreeMap<String, u64>,
    /// Why the plugin rejected the step's update, if it did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rejected: Option<String>,
    /// Metrics of the plugin. Values that JSON cannot hold are absent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub metrics: BTreeMap<String, f64>,
}

/// A validation loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Finished steps.
    pub step: u64,
    /// Mean loss in nats a token.
    pub loss: f64,
    /// The same in bits a byte of text; absent where it is not known how many bytes the tokens stand for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bits_per_byte: Option<f64>,
    /// Tokens of the validation batches.
    pub tokens: u64,
    /// `params`, `ema` or `plugin`: what it was evaluated at.
    pub at: String,
    /// Wall time.
    pub seconds: f64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Finished steps.
    pub step: u64,
    /// `max_steps`, `max_tokens`, `max_gradient_equivalents`, `target_loss`, `stopped` or `error`.
    pub reason: String,
    /// Exit code of the process.
    pub exit_code: u8,
    /// The error's line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Last validation loss.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation_loss: Option<f64>,
    /// Wall time of the run.
    pub seconds: f64,
}
