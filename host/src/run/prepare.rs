//! Puts a run together from its configuration: device, model, data, plugin, session, optimizer, trainer.

use super::identity::identity;
use super::memory;
use super::process::Process;
use crate::config::{self, Config, Device as DeviceChoice, Dtype, Loaded, OnError, Paths};
use crate::curvature::{Ema, LanguageModel, Problem, RunFacts, TorchBackend, TorchSession};
use crate::data::{Dataset, Order, Split};
use crate::error::{Exit, Fault, Result};
use crate::events::Started;
use crate::model::{ModelConfig, Transformer, init_params, num_params, param_specs};
use crate::plugin::image::Image;
use crate::plugin::probe::{self, Probed};
use crate::plugin::{Plugin, PluginFile, PluginOptimizer, SearchPath, file, state_bytes};
use crate::sinks::checkpoint::{Machine, Manifest, OptimizerInfo};
use crate::sinks::say;
use crate::trainer::{Ends, Evaluator, Options, Policy, Trainer, multiplier};
use gauntlet_plugin_abi::VERSION_NUMBERS;
use gauntlet_plugin_api::backend::{InitialParams, Session};
use gauntlet_plugin_api::metadata::Metadata;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tch::{Device, Kind};

/// A run that is ready to step, or to be resumed.
pub struct Prepared {
    pub trainer: Trainer,
    pub session: &'static TorchSession,
    /// What every checkpoint of the run has in common.
    pub manifest: Manifest,
    pub started: Started,
    pub model: ModelConfig,
    /// What the plugin says about itself.
    pub plugin: Metadata,
    /// Where it was read from.
    pub plugin_file: PluginFile,
    /// The process after the plugin was loaded.
    pub process: Process,
}

impl Prepared {
    /// Checks and opens everything that a run needs; nothing is written. A run that goes on from a checkpoint takes over
    /// what was chosen for it by memory.
    ///
    /// # Errors
    ///
    /// What is wrong, at once where possible.
    pub fn new(loaded: &Loaded, from: Option<&Manifest>) -> Result<Self, Vec<Fault>> {
        let Loaded { config, origins } = loaded;
        let one = |fault: Fault| vec![fault];
        let threads = set_up_libtorch(config.run.threads);
        let (device, kind) = (device(config.run.device).map_err(one)?, kind(config.run.dtype));
        let model_config = ModelConfig::resolve(&config.model, origins)?;
        let data = Arc::new(open_data(config, &model_config, &config.data.train, Split::Train).map_err(one)?);
        let validation = open_validation(config, &model_config).map_err(one)?;
        let Config { optimizer: chosen, plugins, .. } = config;
        let process = Process::now();
        let plugin = load_plugin(&chosen.plugin, chosen.sha256.as_deref(), plugins).map_err(one)?;
        refuse_unused_schedule(config, &plugin).map_err(one)?;
        let model = Arc::new(Transformer::new(model_config, device, kind).map_err(one)?);
        let kept_bytes = config.curvature.kept_bytes as usize;
        let micro_batch_size = micro_batch_size(config, model.config(), from);
        let problem = LanguageModel::new(model.clone(), data.clone(), micro_batch_size, kept_bytes);
        let session = start_session(config, &model, Box::new(problem)).map_err(one)?;
        let optimizer_config = Value::Object(chosen.config.clone());
        let optimizer = PluginOptimizer::new(&plugin, session, &optimizer_config, origins)?;
        let state_bytes = state_bytes(&plugin, session, &optimizer_config).map_err(one)?;
        process.refuse_changes(&plugin.metadata.name).map_err(one)?;
        let started = started(config, &plugin, &data, model.config(), (device, threads));
        let started = Started { micro_batch_size, state_bytes, ..started };
        let manifest = manifest(config, (&plugin, &data, model.config()), &started);
        let evaluator = validation
            .map(|validation| Evaluator::new(model.clone(), validation, config.eval.batches, config.eval.batch_size));
        let trainer = Trainer::new(optimizer, options(config, &plugin, evaluator, data));
        Ok(Self {
            trainer,
            session,
            manifest,
            started,
            model: model.config().clone(),
            plugin_file: PluginFile::of(&plugin.image),
            plugin: plugin.metadata,
            process: Process::now(),
        })
    }
}

/// The largest piece of freed memory that is kept for the next tensors, and all of it.
const KEPT_MEMORY: [i32; 2] = [64 << 20, 1 << 30];

/// Sets libtorch up for this process: threads (0 for all cores; gives the number), and memory that is used again.
pub fn set_up_libtorch(threads: usize) -> usize {
    gauntlet_torch_ext::keep_freed_memory(KEPT_MEMORY[0], KEPT_MEMORY[1]);
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { cores() } else { threads };
    tch::set_num_threads(threads as i32);
    threads
}

/// The device of a choice.
///
/// # Errors
///
/// [`Exit::Unavailable`] where it is not there.
pub fn device(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Auto => Ok(Device::cuda_if_available()),
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(index) if (index as i64) < tch::Cuda::device_count() => Ok(Device::Cuda(index)),
        DeviceChoice::Cuda(index) => {
            let found = if tch::utils::has_cuda() { "no such GPU" } else { "a libtorch without a usable GPU" };
            let fault =
                Fault::new(Exit::Unavailable, format!("`run.device`: `cuda:{index}` is not there")).found(found);
            Err(fault.hint("use `cpu`, or set up with `cargo xtask setup --cuda` on a machine with a GPU"))
        }
    }
}

/// The number type of a choice.
pub fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
    }
}

/// Finds a plugin, tries it in a process of its own, and loads it.
///
/// # Errors
///
/// [`Exit::Refused`] where a pin is missing that has to be there; those of [`probe::probe`] and [`Plugin::load`].
pub fn load_plugin(name: &str, pin: Option<&str>, plugins: &config::Plugins) -> Result<Plugin> {
    if plugins.require_pins && pin.is_none() {
        let fault = Fault::new(Exit::Refused, "`optimizer.sha256`: not set, and `plugins.require_pins` is");
        return Err(fault.hint("write it with `gauntlet plugins pin CONFIG`"));
    }
    let path = file::find(name, &SearchPath::of_this_program(&plugins.search_path)?)?;
    let image = Image::read(&path, pin, VERSION_NUMBERS)?;
    if plugins.probe
        && let Probed::Untried(keys) = probe::probe(&image, Duration::from_secs(plugins.probe_seconds))?
    {
        say(&format!("warning: plugin `{}` was not tried before it is loaded: {keys} have no default", path.display()));
    }
    Plugin::of_image(image)
}

fn open_data(config: &Config, model: &ModelConfig, paths: &Paths, split: Split) -> Result<Dataset> {
    let order = match config.data.order {
        config::Order::Sequential => Order::Sequential,
        config::Order::Shuffled => Order::Shuffled { seed: config.run.seed },
    };
    Dataset::open(paths.as_slice(), split, config.data.seq_len, model.vocab_size, order)
}

/// The validation data, where there are any.
///
/// # Errors
///
/// [`Exit::Usage`] where an evaluation would need more sequences than there are.
fn open_validation(config: &Config, model: &ModelConfig) -> Result<Option<Arc<Dataset>>> {
    if config.data.validation.as_slice().is_empty() {
        return Ok(None);
    }
    let data = open_data(config, model, &config.data.validation, Split::Validation)?;
    let sequences = (config.eval.batches as u64).saturating_mul(config.eval.batch_size as u64);
    if sequences > data.windows() {
        let what = "`eval.batches` times `eval.batch_size`: more sequences than the data of `data.validation` have";
        let fault = Fault::new(Exit::Usage, what).found(sequences).expected(format!("at most {}", data.windows()));
        return Err(fault.hint("set fewer batches, or a shorter `data.seq_len`"));
    }
    Ok(Some(Arc::new(data)))
}

/// A plugin that follows no schedule takes none.
///
/// # Errors
///
/// [`Exit::Usage`] where one is set.
pub fn refuse_unused_schedule(config: &Config, plugin: &Plugin) -> Result<()> {
    if plugin.metadata.uses_schedule || config.schedule == config::Schedule::default() {
        return Ok(());
    }
    let what = format!("`schedule`: plugin `{}` follows no schedule", plugin.metadata.name);
    Err(Fault::new(Exit::Usage, what).hint("remove the section `[schedule]`"))
}

fn schedule(config: &Config) -> impl Fn(f64) -> f64 + Send + use<> {
    let (schedule, horizon) = (config.schedule.clone(), config.schedule.horizon_steps.or(config.train.max_steps));
    move |x| multiplier(&schedule, horizon, x)
}

/// A session with the model's initial parameters.
fn start_session(config: &Config, model: &Transformer, problem: Box<dyn Problem>) -> Result<&'static TorchSession> {
    let facts = RunFacts {
        batch_size: config.data.batch_size as u64,
        total_steps: config.train.max_steps,
        seed: config.run.seed,
        device: model.device(),
        kind: model.kind(),
    };
    let tensors = init_params(model.config(), config.run.seed, model.kind(), model.device());
    let mut backend = TorchBackend::new(facts, problem, Box::new(schedule(config)));
    backend.max_output_bytes = config.curvature.max_output_bytes;
    backend.synchronizes = config.metrics.synchronize;
    backend.ema = config.ema.decay.map(|decay| Ema::new(decay, &tensors.iter().collect::<Vec<_>>()));
    let specs = param_specs(model.config()).into_iter().map(Arc::new).collect();
    Session::start(backend, InitialParams { specs, tensors })
        .map_err(|error| Fault::new(Exit::Internal, error.to_string()))
}

fn options(config: &Config, plugin: &Plugin, evaluator: Option<Evaluator>, data: Arc<Dataset>) -> Options {
    let train = &config.train;
    Options {
        ends: Ends {
            max_steps: train.max_steps,
            max_tokens: train.max_tokens,
            max_gradient_equivalents: train.max_gradient_equivalents,
            target_loss: train.target_loss,
        },
        policy: match train.on_error {
            OnError::Stop => Policy::Stop,
            OnError::Skip => Policy::Skip {
                snapshot_every: train.snapshot_every,
                max_skips: train.max_skips,
                window: train.max_skips_window,
            },
        },
        eval_every: config.eval.every_steps,
        evaluator,
        schedule: Box::new(schedule(config)),
        metrics: plugin.metadata.metrics.iter().map(|metric| metric.name.clone()).collect(),
        data,
    }
}

fn started(
    config: &Config,
    plugin: &Plugin,
    data: &Dataset,
    model: &ModelConfig,
    (device, threads): (Device, usize),
) -> Started {
    Started {
        version: env!("CARGO_PKG_VERSION").into(),
        commit: env!("GAUNTLET_COMMIT").into(),
        libtorch: gauntlet_torch_ext::libtorch_version().into(),
        device: match device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".into(),
        },
        threads,
        seed: config.run.seed,
        plugin: plugin.metadata.name.clone(),
        plugin_sha256: plugin.image.sha256.clone(),
        model: config.model.get("preset").and_then(Value::as_str).unwrap_or("custom").into(),
        num_params: num_params(model) as u64,
        state_bytes: 0,
        tokens_per_step: (config.data.batch_size * config.data.seq_len) as u64,
        micro_batch_size: 0,
        data: data.fingerprint(),
        epoch_tokens: data.windows() * data.seq_len() as u64,
        max_steps: config.train.max_steps,
        lr: learning_rate(config, plugin),
        timing: timing(config, device).into(),
        checkpoint_seconds: Some(60.0 * config.checkpoint.every_minutes).filter(|seconds| *seconds > 0.0),
        checkpoint_steps: Some(config.checkpoint.every_steps).filter(|steps| *steps > 0),
    }
}

/// What times of calls mean: on a CPU, a call's work is done when it returns.
fn timing(config: &Config, device: Device) -> &'static str {
    if device == Device::Cpu || config.metrics.synchronize { "synchronised" } else { "queued" }
}

/// The peak learning rate: the plugin's key `lr` as configured, or its default.
fn learning_rate(config: &Config, plugin: &Plugin) -> Option<f64> {
    let keys = config::describe::keys(&plugin.metadata.schema);
    let default = keys.iter().find(|key| key.key == "lr").and_then(|key| key.default.clone());
    config.optimizer.config.get("lr").or(default.as_ref()).and_then(Value::as_f64)
}

/// Sequences computed at once: as configured, as the checkpoint's run did, or by memory.
fn micro_batch_size(config: &Config, model: &ModelConfig, from: Option<&Manifest>) -> usize {
    let batch_size = config.data.batch_size;
    match (config.train.micro_batch_size, from) {
        (0, Some(manifest)) => manifest.micro_batch_size.max(1),
        (0, None) => memory::micro_batch_size(model, config.data.seq_len).min(batch_size),
        (configured, _) => configured,
    }
}

/// What every checkpoint of the run has in common.
fn manifest(config: &Config, (plugin, data, model): (&Plugin, &Dataset, &ModelConfig), started: &Started) -> Manifest {
    Manifest {
        format: 0,
        gauntlet: env!("CARGO_PKG_VERSION").into(),
        libtorch: gauntlet_torch_ext::libtorch_version().into(),
        step: 0,
        part: 0,
        sequences: BTreeMap::new(),
        sequences_before: BTreeMap::new(),
        flops: 0.0,
        skipped: vec![],
        ema_updated: false,
        seq_len: config.data.seq_len,
        micro_batch_size: started.micro_batch_size,
        seed: config.run.seed,
        model: model.clone(),
        optimizer: OptimizerInfo {
            name: plugin.metadata.name.clone(),
            version: plugin.metadata.version.clone(),
            sha256: plugin.image.sha256.clone(),
            state_version: plugin.metadata.state_version,
        },
        data: data.fingerprint(),
        tokenizer: data.tokenizer().map(|tokenizer| tokenizer.name.clone()),
        evaluate_at: "params".into(),
        validation_loss: None,
        identity: identity(config, model, data, plugin, started.micro_batch_size),
        machine: Machine { device: started.device.clone(), processor: processor(), threads: started.threads },
        changes: vec![],
        files: BTreeMap::new(),
        checksum: String::new(),
    }
}

/// The processor's model, as the system names it.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
