//! A training run from its configuration to its last checkpoint. The only module that knows all others.

use crate::config::{self, Config, Device as DeviceChoice, Dtype, Loaded, OnError, Origins, Paths};
use crate::curvature::{Ema, LanguageModel, Problem, RunFacts, TorchBackend, TorchSession};
use crate::data::{Dataset, Order, Split};
use crate::durable;
use crate::error::{Exit, Fault, Result};
use crate::events::{Event, Finished, Started};
use crate::model::{ModelConfig, Transformer, init_params, num_params, param_specs};
use crate::plugin::{Plugin, PluginOptimizer, SearchPath, file, state_bytes};
use crate::sinks::checkpoint::{self, Manifest, OptimizerInfo, TensorLists};
use crate::sinks::{Progress, Record};
use crate::trainer::{self, End, Ends, Evaluator, Options, Policy, Trainer, multiplier};
use gauntlet_plugin_api::backend::{InitialParams, Session};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why it ended.
    pub end: End,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
}

/// Trains as configured.
///
/// # Errors
///
/// Everything that is found wrong before the first step, at once where possible; later the one error that ended the
/// run, which then keeps its last checkpoint.
pub fn train(loaded: &Loaded) -> Result<Outcome, Vec<Fault>> {
    let started = Instant::now();
    let mut run = Run::prepare(loaded)?;
    let mut listeners = Listeners::open(&run.dir).map_err(|fault| vec![fault])?;
    listeners.hear(&Event::Started(run.started.clone()));
    let outcome = run.steps(&mut listeners).and_then(|end| {
        let checkpoint = run.save(&mut listeners)?;
        Ok(Outcome { end, checkpoint })
    });
    listeners.hear(&Event::Finished(Finished {
        step: run.trainer.step(),
        reason: outcome.as_ref().map_or("error", |outcome| outcome.end.name()).into(),
        error: outcome.as_ref().err().map(ToString::to_string),
        validation_loss: run.trainer.validation_loss(),
        seconds: started.elapsed().as_secs_f64(),
    }));
    outcome.and_then(|outcome| listeners.close().map(|()| outcome)).map_err(|fault| vec![fault])
}

/// A run that is ready to step.
struct Run {
    dir: PathBuf,
    trainer: Trainer,
    session: &'static TorchSession,
    manifest: Manifest,
    started: Started,
}

impl Run {
    fn prepare(loaded: &Loaded) -> Result<Self, Vec<Fault>> {
        let Loaded { config, origins } = loaded;
        let one = |fault: Fault| vec![fault];
        durable::refuse_existing(&config.run.dir).map_err(|_| one(existing_run(&config.run.dir)))?;
        let threads = set_threads(config.run.threads);
        let (device, kind) = (device(config.run.device).map_err(one)?, kind(config.run.dtype));
        let model_config = ModelConfig::resolve(&config.model, origins)?;
        let data = Arc::new(open_data(config, &model_config, &config.data.train, Split::Train).map_err(one)?);
        let validation = open_validation(config, &model_config).map_err(one)?;
        let plugin =
            load_plugin(&config.optimizer.plugin, config.optimizer.sha256.as_deref(), &config.plugins.search_path)
                .map_err(one)?;
        refuse_unused_schedule(config, &plugin).map_err(one)?;
        let model = Arc::new(Transformer::new(model_config, device, kind).map_err(one)?);
        let problem = LanguageModel::new(model.clone(), data.clone(), config.train.micro_batch_size);
        let micro_batch_size = problem.micro_batch().min(config.data.batch_size);
        let session = start_session(config, &model, Box::new(problem)).map_err(one)?;
        let optimizer = make_optimizer(config, origins, &plugin, session)?;
        let state_bytes = state_bytes(&plugin, session, &optimizer_config(config)).map_err(one)?;
        let started = Started {
            micro_batch_size,
            state_bytes,
            ..started(config, &plugin, &data, model.config(), (device, threads))
        };
        let manifest = manifest(config, &plugin, &data, model.config());
        let evaluator = validation
            .map(|validation| Evaluator::new(model.clone(), validation, config.eval.batches, config.eval.batch_size));
        let trainer = Trainer::new(optimizer, options(config, &plugin, evaluator));
        create_run_dir(config, model.config()).map_err(one)?;
        Ok(Self { dir: config.run.dir.clone(), trainer, session, manifest, started })
    }

    fn steps(&mut self, listeners: &mut Listeners) -> Result<End> {
        loop {
            let progress = self.trainer.advance(&mut |event| listeners.hear(&event))?;
            listeners.check()?;
            if let trainer::Progress::End(end) = progress {
                return Ok(end);
            }
        }
    }

    fn save(&self, listeners: &mut Listeners) -> Result<PathBuf> {
        let started = Instant::now();
        let (evaluate_at, evaluation_params) = self.trainer.evaluation_params()?;
        let state = self.trainer.optimizer().save()?;
        let mut session = self.session.lock();
        let names: Vec<String> = session.specs().iter().map(|spec| spec.name.clone()).collect();
        let (backend, params) = session.backend_and_params();
        let params = params.into_iter().map(Tensor::shallow_clone).collect();
        let named = |tensors: Vec<Tensor>| names.iter().cloned().zip(tensors).collect::<Vec<_>>();
        let mut lists: TensorLists = vec![("params", named(params))];
        if let Some(ema) = &backend.ema {
            lists.push(("ema", named(ema.params().iter().map(Tensor::shallow_clone).collect())));
        }
        if evaluate_at == "plugin" {
            lists.push(("plugin", named(evaluation_params)));
        }
        let manifest = Manifest {
            step: self.trainer.step(),
            sequences: checkpoint::sequences(&backend.streams),
            evaluate_at: evaluate_at.into(),
            validation_loss: self.trainer.validation_loss(),
            ..self.manifest.clone()
        };
        drop(session);
        let (path, bytes) = checkpoint::save(&self.dir.join("checkpoints"), manifest, &lists, &state)?;
        listeners.hear(&Event::Checkpoint {
            step: self.trainer.step(),
            path: path.display().to_string(),
            bytes,
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(path)
    }
}

/// Everything that hears a run's events.
struct Listeners {
    record: Record,
    progress: Progress,
    failed: Option<Fault>,
}

impl Listeners {
    fn open(dir: &Path) -> Result<Self> {
        Ok(Self { record: Record::create(&dir.join("events.jsonl"))?, progress: Progress::new(), failed: None })
    }

    fn hear(&mut self, event: &Event) {
        self.progress.show(event);
        if let Err(fault) = self.record.write(event) {
            self.failed.get_or_insert(fault);
        }
    }

    /// The record is part of the run: when it cannot be written, the run ends.
    fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn close(mut self) -> Result<()> {
        self.check()?;
        self.record.sync()
    }
}

fn existing_run(dir: &Path) -> Fault {
    Fault::new(Exit::Usage, format!("`run.dir`: `{}` exists", dir.display()))
        .expected("a folder to be made")
        .hint("choose another with `--set run.dir=DIR`")
}

/// Uses this many threads, 0 for all cores; gives the number.
pub fn set_threads(threads: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { cores() } else { threads };
    tch::set_num_threads(threads as i32);
    // An error says that the pool was already made, by an earlier call in this process with its own number.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    threads
}

/// The device of a choice.
pub fn device(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Auto => Ok(Device::cuda_if_available()),
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(index) if (index as i64) < tch::Cuda::device_count() => Ok(Device::Cuda(index)),
        DeviceChoice::Cuda(index) => {
            let found = if tch::utils::has_cuda() { "no such GPU" } else { "a libtorch without a usable GPU" };
            let fault = Fault::new(Exit::Usage, format!("`run.device`: `cuda:{index}` is not there")).found(found);
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

/// Finds and loads a plugin.
pub fn load_plugin(name: &str, pin: Option<&str>, search_path: &[PathBuf]) -> Result<Plugin> {
    let search = SearchPath::of_this_program(search_path)?;
    Plugin::load(&file::find(name, &search)?, pin)
}

fn open_data(config: &Config, model: &ModelConfig, paths: &Paths, split: Split) -> Result<Dataset> {
    let order = match config.data.order {
        config::Order::Sequential => Order::Sequential,
        config::Order::Shuffled => Order::Shuffled { seed: config.run.seed },
    };
    Dataset::open(paths.as_slice(), split, config.data.seq_len, model.vocab_size, order)
}

fn open_validation(config: &Config, model: &ModelConfig) -> Result<Option<Arc<Dataset>>> {
    match config.data.validation.as_slice() {
        [] => Ok(None),
        _ => open_data(config, model, &config.data.validation, Split::Validation).map(|data| Some(Arc::new(data))),
    }
}

fn refuse_unused_schedule(config: &Config, plugin: &Plugin) -> Result<()> {
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
    backend.ema = config.ema.decay.map(|decay| Ema::new(decay, &tensors.iter().collect::<Vec<_>>()));
    let specs = param_specs(model.config()).into_iter().map(Arc::new).collect();
    Session::start(backend, InitialParams { specs, tensors })
        .map_err(|error| Fault::new(Exit::Internal, error.to_string()))
}

fn optimizer_config(config: &Config) -> Value {
    Value::Object(config.optimizer.config.clone())
}

fn make_optimizer(
    config: &Config,
    origins: &Origins,
    plugin: &Plugin,
    session: &'static TorchSession,
) -> Result<PluginOptimizer, Vec<Fault>> {
    PluginOptimizer::new(plugin, session, &optimizer_config(config), origins)
}

fn options(config: &Config, plugin: &Plugin, evaluator: Option<Evaluator>) -> Options {
    let train = &config.train;
    Options {
        ends: Ends { max_steps: train.max_steps, max_tokens: train.max_tokens, target_loss: train.target_loss },
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
        libtorch: gauntlet_torch_ext::libtorch_version().into(),
        device: match device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".into(),
        },
        threads,
        seed: config.run.seed,
        plugin: plugin.metadata.name.clone(),
        plugin_sha256: plugin.image.sha256.clone(),
        num_params: num_params(model) as u64,
        state_bytes: 0,
        tokens_per_step: (config.data.batch_size * config.data.seq_len) as u64,
        micro_batch_size: 0,
        data: data.fingerprint(),
        max_steps: config.train.max_steps,
    }
}

/// What every checkpoint of the run has in common.
fn manifest(config: &Config, plugin: &Plugin, data: &Dataset, model: &ModelConfig) -> Manifest {
    Manifest {
        format: 0,
        gauntlet: env!("CARGO_PKG_VERSION").into(),
        libtorch: gauntlet_torch_ext::libtorch_version().into(),
        step: 0,
        sequences: BTreeMap::new(),
        seq_len: config.data.seq_len,
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
        files: BTreeMap::new(),
    }
}

/// Makes the run's folder, with the configuration as it was resolved.
fn create_run_dir(config: &Config, model: &ModelConfig) -> Result<()> {
    let dir = &config.run.dir;
    std::fs::create_dir_all(dir).map_err(|error| Fault::writing(dir, &error))?;
    let mut resolved = config.clone();
    if let Ok(Value::Object(model)) = serde_json::to_value(model) {
        resolved.model = model;
    }
    durable::write_new(&dir.join("config.resolved.toml"), config::to_resolved_toml(&resolved)?.as_bytes())
}
