//! What the commands of `curvature` read: a checkpoint's parameters, tokens, a vector.

use crate::config::{Device as DeviceChoice, Dtype};
use crate::curvature::{LabelDraws, Linearization, Tokens, automatic_micro_batch};
use crate::error::{Exit, Fault, Result};
use crate::model::{Transformer, param_specs};
use crate::run;
use crate::sinks::checkpoint::Checkpoint;
use crate::tensor_file;
use clap::ValueEnum;
use gauntlet_plugin_api::{Blocks, ParamSpec};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Which parameters of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum At {
    /// Those that the optimizer moves.
    Params,
    /// Their moving average.
    Ema,
    /// Those that the plugin evaluates at.
    Plugin,
}

/// Element type of the computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DtypeChoice {
    /// 32 bits.
    F32,
    /// 64 bits.
    F64,
}

/// Where and how to compute.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a checkpoint: `RUN/checkpoints/step-N`.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// File with one int64 tensor `tokens` [batch, T + 1].
    #[arg(long, value_name = "FILE")]
    pub tokens: PathBuf,
    /// Which of the checkpoint's parameters.
    #[arg(long, value_enum, default_value = "params")]
    at: At,
    /// Element type of the computation.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: DtypeChoice,
    /// Sequences computed at once; 0 to choose by memory.
    #[arg(long, default_value_t = 0)]
    micro_batch_size: usize,
    /// `auto`, `cpu` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads; 0 for all cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// A model at a checkpoint's parameters.
pub struct Anchor {
    pub model: Arc<Transformer>,
    pub params: Vec<Tensor>,
    pub specs: Vec<ParamSpec>,
    pub step: u64,
    micro_batch_size: usize,
}

impl Anchor {
    pub fn open(args: &Args) -> Result<Self> {
        run::set_up_libtorch(args.threads);
        let checkpoint = Checkpoint::open(&args.checkpoint)?;
        let kind = run::kind(match args.dtype {
            DtypeChoice::F32 => Dtype::F32,
            DtypeChoice::F64 => Dtype::F64,
        });
        let model = Transformer::new(checkpoint.manifest.model.clone(), run::device(args.device)?, kind)?;
        let specs = param_specs(model.config());
        let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
        let list = match args.at {
            At::Params => "params",
            At::Ema => "ema",
            At::Plugin => "plugin",
        };
        if !checkpoint.has(list) {
            let what = format!("`{}` holds no such parameters", args.checkpoint.display());
            return Err(Fault::new(Exit::Usage, what).found(format!("`--at {list}`")).hint("leave out `--at`"));
        }
        let params = checkpoint.tensors(list, &names, model.device())?;
        let params = params.into_iter().map(|param| param.to_kind(kind)).collect();
        let (step, micro_batch_size) = (checkpoint.manifest.step, args.micro_batch_size);
        Ok(Self { model: Arc::new(model), params, specs, step, micro_batch_size })
    }

    /// The model linearized on sequences `tokens [batch, T + 1]`.
    pub fn linearize(&self, tokens: &Tensor, blocks: &Blocks) -> Linearization {
        let [batch, length] = [tokens.size()[0], tokens.size()[1] - 1];
        let most = match self.micro_batch_size {
            0 => automatic_micro_batch(self.model.config(), length as usize),
            chosen => chosen,
        } as i64;
        let starts = (0..batch).step_by(most as usize);
        let micro_batches = starts.clone().map(|first| tokens.narrow(0, first, most.min(batch - first))).collect();
        let sequences = starts.map(|first| (first..batch.min(first + most)).map(|index| (0, index as u64)).collect());
        let draws = LabelDraws { step: 0, seq_len: length as u64, sequences: sequences.collect() };
        let params: Vec<&Tensor> = self.params.iter().collect();
        let tokens = Tokens { micro_batches, draws };
        Linearization::new(self.model.clone(), &params, tokens, blocks.clone(), 1 << 30)
    }

    /// The tokens of a file: one int64 tensor `tokens [batch, T + 1]`, each below the vocabulary.
    pub fn tokens(&self, path: &Path) -> Result<Tensor> {
        let bad = |what: &str| Fault::new(Exit::Data, format!("`{}`: {what}", path.display()));
        let mut tensors = tensor_file::read(path)?;
        let names = listed(tensors.keys().map(String::as_str));
        let tokens = tensors.remove("tokens").filter(|_| tensors.is_empty());
        let tokens = tokens.ok_or_else(|| bad("tensors").found(names).expected("one, `tokens`"))?;
        let shape = tokens.size();
        if tokens.kind() != Kind::Int64 || shape.len() != 2 || shape[0] < 1 || shape[1] < 2 {
            let found = format!("{shape:?} of {:?}", tokens.kind());
            return Err(bad("tensor `tokens`").found(found).expected("[batch, T + 1] of Int64"));
        }
        let vocab_size = self.model.config().vocab_size as i64;
        let outside = |token: i64| !(0..vocab_size).contains(&token);
        let bounds = [tokens.min().int64_value(&[]), tokens.max().int64_value(&[])];
        if let Some(token) = bounds.into_iter().find(|token| outside(*token)) {
            return Err(bad("token").found(token).expected(format!("0 to {}", vocab_size - 1)));
        }
        Ok(tokens.to_device(self.model.device()))
    }

    /// The vector of a file: one tensor a parameter under its name and in its shape, finite.
    pub fn vector(&self, path: &Path) -> Result<Vec<Tensor>> {
        let bad = |what: String| Fault::new(Exit::Data, format!("`{}`: {what}", path.display()));
        let mut tensors = tensor_file::read(path)?;
        let known = |name: &String| self.specs.iter().any(|spec| spec.name == *name);
        let extra: Vec<String> = tensors.keys().filter(|name| !known(name)).cloned().collect();
        if !extra.is_empty() {
            let what = bad("tensors that are no parameters".into()).found(listed(extra.iter().map(String::as_str)));
            return Err(what.hint("use the names in the checkpoint's `params.safetensors`"));
        }
        let missing = self.specs.iter().filter(|spec| !tensors.contains_key(&spec.name));
        let missing: Vec<&str> = missing.map(|spec| spec.name.as_str()).collect();
        if !missing.is_empty() {
            let missing = bad("tensors".into()).found(format!("no {}", listed(missing.into_iter())));
            return Err(missing.expected("one a parameter"));
        }
        let take = |spec: &ParamSpec| {
            let tensor = tensors.remove(&spec.name).unwrap_or_else(|| Tensor::from(0.0));
            let expected: Vec<i64> = spec.shape.iter().map(|size| *size as i64).collect();
            if tensor.size() != expected || !tensor.is_floating_point() {
                let found = format!("{:?} of {:?}", tensor.size(), tensor.kind());
                return Err(bad(format!("tensor `{}`", spec.name))
                    .found(found)
                    .expected(format!("{expected:?} of floats")));
            }
            if tensor.isfinite().all().int64_value(&[]) == 0 {
                return Err(bad(format!("tensor `{}`", spec.name))
                    .found("a value that is not finite")
                    .expected("finite numbers"));
            }
            Ok(tensor.to_kind(self.model.kind()).to_device(self.model.device()))
        };
        self.specs.iter().map(take).collect()
    }
}

/// Names in backticks, the first few of many.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => "none".into(),
        1..=5 => names.join(", "),
        count => format!("{} and {} more", names[..5].join(", "), count - 5),
    }
}
