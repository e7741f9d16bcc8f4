//! The sections of a configuration: their keys, with units, defaults and ranges.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `[run]`: where a run lives and what it runs on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Run directory. Default `runs/run`.
    #[schemars(length(min = 1))]
    pub dir: PathBuf,
    /// Seed of initialisation, shuffling and sampling. Default 0.
    #[schemars(range(max = 9223372036854775807u64))]
    pub seed: u64,
    /// A checkpoint whose parameters a new run begins with, and whose place in the data where these are the same. Default
    /// none: parameters at random.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub init_from: Option<PathBuf>,
    /// Device: `auto` (the first GPU, else the CPU), `cpu`, or `cuda:N`. Default `auto`.
    #[schemars(with = "String")]
    pub device: Device,
    /// Threads of the CPU; 0 means all cores. Default 0, at most 4096.
    #[schemars(range(max = 4096))]
    pub threads: usize,
    /// Number type of parameters and activations. Default `f32`; `f64` is for tests.
    pub dtype: Dtype,
    /// Seconds from the first SIGINT or SIGTERM to the end of the process at the latest. Default 25, at least 1.
    #[schemars(range(min = 1, max = 86400))]
    pub grace_seconds: u64,
    /// Seconds without any sign of life, a call of the plugin or the end of a step, after which a run ends as hanging;
    /// it warns after a third of them, and names its threads after two. Default 7200; 0 for never.
    #[schemars(range(max = 31536000))]
    pub hang_seconds: u64,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            dir: "runs/run".into(),
            seed: 0,
            init_from: None,
            device: Device::Auto,
            threads: 0,
            dtype: Dtype::F32,
            grace_seconds: 25,
            hang_seconds: 7200,
        }
    }
}

/// What a run runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The first GPU that libtorch can use, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this index.
    Cuda(usize),
}

impl Device {
    /// The forms in which a device is written.
    pub const FORMS: &str = "`auto`, `cpu` or `cuda:N`";
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("cuda:").filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
        match (text, digits.map(str::parse)) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some(Ok(index))) => Ok(Self::Cuda(index)),
            _ => Err(format!("unknown device `{text}`, expected {}", Self::FORMS)),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        match device {
            Device::Auto => "auto".to_owned(),
            Device::Cpu => "cpu".to_owned(),
            Device::Cuda(index) => format!("cuda:{index}"),
        }
    }
}

/// Number type of parameters and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floating point.
    #[default]
    F32,
    /// 64-bit floating point.
    F64,
}

/// `[data]`: the token shards and how batches are drawn from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Training shards: a folder, or a list of files and folders. Of a list of tables `{path, weight}`, sequences are drawn
    /// in proportion to the weights, to 1/4096. No default.
    pub train: Paths,
    /// Validation shards: a folder, or a list of files. Default none.
    #[serde(default)]
    pub validation: Paths,
    /// Tokens in a sequence. Default 128, at least 1.
    #[serde(default = "defaults::seq_len")]
    #[schemars(range(min = 1))]
    pub seq_len: usize,
    /// Sequences in the batch of one optimizer step, over all micro-batches. Default 16, at least 1.
    #[serde(default = "defaults::batch_size")]
    #[schemars(range(min = 1))]
    pub batch_size: usize,
    /// Order in which training sequences are drawn. Default `shuffled`.
    #[serde(default)]
    pub order: Order,
}

mod defaults {
    pub const fn seq_len() -> usize {
        128
    }

    pub const fn batch_size() -> usize {
        16
    }
}

/// A folder, or files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// One folder or file.
    One(#[schemars(with = "PathBuf", length(min = 1))] ShardPath),
    /// Several files or folders.
    Many(Vec<ShardPath>),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Paths {
    /// The paths in order.
    pub fn as_slice(&self) -> &[ShardPath] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }
}

/// A folder or file of shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ShardPath {
    /// One of several that follow each other.
    Plain(PathBuf),
    /// One of several that are mixed.
    Weighted(Weighted),
}

/// A part of a mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weighted {
    /// Folder or file.
    #[schemars(length(min = 1))]
    pub path: PathBuf,
    /// Its share of all sequences, above 0; only the proportions count.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub weight: f64,
}

impl ShardPath {
    /// The path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Plain(path) | Self::Weighted(Weighted { path, .. }) => path,
        }
    }

    /// The weight in a mix.
    pub fn weight(&self) -> Option<f64> {
        match self {
            Self::Plain(_) => None,
            Self::Weighted(weighted) => Some(weighted.weight),
        }
    }
}

/// Order in which training sequences are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// As they stand in the shards.
    Sequential,
    /// By a permutation that depends on `run.seed` and the epoch.
    #[default]
    Shuffled,
}

/// `[optimizer]`: the plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// The plugin's name, for example `adam`, or the absolute path of its library. No default.
    #[schemars(length(min = 1))]
    pub plugin: String,
    /// SHA-256 that the library must have, 64 hexadecimal digits. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The plugin's own keys, which it checks itself. Default: its defaults.
    #[serde(default)]
    pub config: Map<String, Value>,
}

/// `[schedule]`: the multiplier in [0, 1] of the learning rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Shape after the warm-up. Default `constant`.
    pub kind: ScheduleKind,
    /// Steps in which the multiplier rises linearly from 0 to 1. Default 0.
    pub warmup_steps: u64,
    /// Multiplier at the end of a decay. Default 0, from 0 to 1; `constant` does not decay.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_fraction: f64,
    /// Steps at which the schedule ends, at least 1. Default `train.max_steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub horizon_steps: Option<u64>,
    /// Steps of the decay at the end, at least 1; for `wsd` only, and needed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub decay_steps: Option<u64>,
}

/// Shape of the learning rate's multiplier after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Stays at 1.
    #[default]
    Constant,
    /// Falls along half a cosine.
    Cosine,
    /// Falls linearly.
    Linear,
    /// Warm-up, stable, decay: stays at 1, then falls linearly in the last `decay_steps`.
    Wsd,
}

/// `[train]`: how a step is computed, when a run ends, and what happens on errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Sequences that are computed at once, at most `data.batch_size`; 0 means as many as fit a quarter of the free memory
    /// when the run begins, at most 2 GiB. A resumed run keeps the number. Default 0.
    pub micro_batch_size: usize,
    /// End after this many steps, at least 1. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
    /// End when this many tokens have been drawn for training, at least 1. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
    /// End when the floating-point operations of all calls reach those of this many gradients of the global batch, above 0.
    /// Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_gradient_equivalents: Option<f64>,
    /// End when the validation loss, in nats a token, is at most this; above 0. Default: no target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub target_loss: Option<f64>,
    /// What a plugin's error or a non-finite value does. Default `stop`.
    pub on_error: OnError,
    /// Steps between the snapshots in memory that `on_error = "skip"` goes back to. Default 1, at least 1.
    #[schemars(range(min = 1))]
    pub snapshot_every: u64,
    /// Steps that may be skipped within `max_skips_window` steps before the run ends. Default 3.
    pub max_skips: u64,
    /// Steps over which skips are counted. Default 100, at least 1.
    #[schemars(range(min = 1))]
    pub max_skips_window: u64,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            micro_batch_size: 0,
            max_steps: None,
            max_tokens: None,
            max_gradient_equivalents: None,
            target_loss: None,
            on_error: OnError::Stop,
            snapshot_every: 1,
            max_skips: 3,
            max_skips_window: 100,
        }
    }
}

/// What a plugin's error or a non-finite value does to a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The run ends; its last checkpoint stays, and nothing of the failed step is evaluated or saved.
    #[default]
    Stop,
    /// The step is undone and its batch passed over.
    Skip,
}

/// `[ema]`: an exponential moving average of the parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ema {
    /// Weight of the old average in each step, between 0 and 1. Default: no average.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub decay: Option<f64>,
}

/// `[eval]`: the validation loss during a run, over fixed batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Eval {
    /// Steps between evaluations; 0 means only at the end. Default 100.
    pub every_steps: u64,
    /// Batches in one evaluation, at least 1. Default 8.
    #[schemars(range(min = 1))]
    pub batches: usize,
    /// Sequences in a batch, at least 1. Default 16.
    #[schemars(range(min = 1))]
    pub batch_size: usize,
}

impl Default for Eval {
    fn default() -> Self {
        Self { every_steps: 100, batches: 8, batch_size: 16 }
    }
}

/// `[checkpoint]`: what of a run survives its process. A last checkpoint is always written at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0 for none by steps. Default 0.
    pub every_steps: u64,
    /// Minutes between checkpoints, also within a long step; 0 for none by time. Default 15.
    #[schemars(range(min = 0.0, max = 100000.0))]
    pub every_minutes: f64,
    /// Whole checkpoints that are kept, at least 1. Default 2.
    #[schemars(range(min = 1))]
    pub keep: usize,
    /// What follows when a checkpoint cannot be written: "retry" tries once more and then ends the run, "stop" ends it,
    /// "continue" goes on to the next; the last one of a run has to succeed. Default "retry".
    pub on_error: OnSaveError,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { every_steps: 0, every_minutes: 15.0, keep: 2, on_error: OnSaveError::Retry }
    }
}

/// What follows when a checkpoint cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSaveError {
    /// Try once more, then end the run.
    Retry,
    /// End the run.
    Stop,
    /// Go on to the next checkpoint.
    Continue,
}

/// `[curvature]`: memory of curvature calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Curvature {
    /// Largest tensor of shape [tokens, vocabulary] that a plugin may ask for, in bytes, at least 1. Default 1 GiB.
    #[schemars(range(min = 1))]
    pub max_output_bytes: u64,
    /// Activations that a linearization keeps for its later products, in bytes; what exceeds them is computed again. 0
    /// keeps none. Default 1 GiB.
    pub kept_bytes: u64,
}

impl Default for Curvature {
    fn default() -> Self {
        Self { max_output_bytes: 1 << 30, kept_bytes: 1 << 30 }
    }
}

/// `[plugins]`: where plugins are found, and what they have to pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Plugins {
    /// Folders, by absolute path, searched after the executable's own and `<prefix>/lib/gauntlet/plugins`. Default none.
    pub search_path: Vec<PathBuf>,
    /// Whether a plugin is first tried in a process of its own; a pass is remembered by its hash. Default `true`.
    pub probe: bool,
    /// Seconds that it may take there, at least 1. Default 30.
    #[schemars(range(min = 1, max = 86400))]
    pub probe_seconds: u64,
    /// Whether a run needs `optimizer.sha256`, which `gauntlet plugins pin` writes. Default `false`.
    pub require_pins: bool,
}

impl Default for Plugins {
    fn default() -> Self {
        Self { search_path: vec![], probe: true, probe_seconds: 30, require_pins: false }
    }
}

/// `[metrics]`: the run's metrics for Prometheus: served over HTTP, and at the end pushed or written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Whether they are served. Default `true`.
    pub enabled: bool,
    /// Address and port; port 0 means any free one. Default `127.0.0.1:9464`. There is no password: mind who can reach it.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Whether the run ends before its first step when it cannot listen there; else it warns and goes on. Default `false`.
    pub required: bool,
    /// Floating-point operations that the machine can do in a second, as measured or known, above 0: what
    /// `gauntlet_mfu_ratio` is a share of. Default none, and then there is no such metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub peak_flops: Option<f64>,
    /// Whether calls wait for the device, so that the times of phases on a GPU are true; it costs speed. Default `false`.
    pub synchronize: bool,
    /// For how many seconds a run that ended waits for its last scrape, at most 3600; only where one came in the minute
    /// before, and at most 5 after a signal. 0: it does not wait. Default 15.
    #[schemars(range(max = 3600))]
    pub linger_seconds: u64,
    /// A Pushgateway that gets the last metrics when the run ends, `http://HOST:PORT`. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_gateway: Option<String>,
    /// A file that gets the last metrics when the run ends; node_exporter's textfile collector reads files `*.prom`.
    /// Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub textfile: Option<PathBuf>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: (Ipv4Addr::LOCALHOST, 9464).into(),
            required: false,
            peak_flops: None,
            synchronize: false,
            linger_seconds: 15,
            push_gateway: None,
            textfile: None,
        }
    }
}

impl Metrics {
    /// Host and port of a Pushgateway's address `http://HOST:PORT`; `None` where it has another form.
    pub fn gateway(address: &str) -> Option<&str> {
        let authority = address.strip_prefix("http://")?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = authority.rsplit_once(':')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(plain),
        };
        (is_host && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(authority)
    }
}
