//! Models and data of the bench, and their files for the other sides.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use gauntlet::curvature::LanguageModel;
use gauntlet::data::{Dataset, Order, Split, Stream};
use gauntlet::model::{Mlp, ModelConfig, Transformer, init_params, param_specs};
use gauntlet_plugin_api::{Part, Position, Purpose};
use tch::{Device, Kind, Tensor};

use crate::drive::Arguments;

/// A model, its parameters, and a data set of as many sequences as a batch.
pub struct Inputs {
    pub model: Arc<Transformer>,
    pub params: Vec<Tensor>,
    pub data: Arc<Dataset>,
    pub sequences: u64,
}

/// 5.2 million parameters with the options of the study's models.
pub fn small() -> ModelConfig {
    ModelConfig {
        vocab_size: 4096,
        width: 256,
        num_layers: 4,
        num_heads: 4,
        mlp_width: 1024,
        mlp: Mlp::Gelu,
        qk_norm: true,
        ..ModelConfig::default()
    }
}

/// The study's smaller model.
pub fn paper_45m() -> Result<ModelConfig> {
    ModelConfig::preset("paper-45m").context("no preset `paper-45m`")
}

impl Inputs {
    /// A model with its initial parameters in f32, and `sequences` sequences of `seq_len` random tokens.
    pub fn new(config: ModelConfig, sequences: u64, seq_len: usize, arguments: &Arguments) -> Result<Self> {
        let params = init_params(&config, 1, Kind::Float, Device::Cpu);
        // Other sides have files of their own: a data set notices a file that is written again.
        let shard = arguments.folder.join(format!("tokens-{}.bin", arguments.side));
        write_shard(&shard, config.vocab_size as u64, sequences * seq_len as u64 + 1)?;
        let data = Dataset::open(&[shard], Split::Train, seq_len, config.vocab_size, Order::Sequential)?;
        let model = Arc::new(Transformer::new(config, Device::Cpu, Kind::Float)?);
        Ok(Self { model, params, data: Arc::new(data), sequences })
    }

    /// The model on its data, as a run would have it.
    pub fn problem(&self) -> LanguageModel {
        LanguageModel::new(self.model.clone(), self.data.clone(), 0, 1 << 30)
    }

    /// All sequences.
    pub fn batch(&self) -> Position {
        let parts = vec![Part { purpose: Purpose::STEP.0, first: 0, count: self.sequences }];
        Position { parts, sequences: self.sequences, tokens: self.sequences * self.data.seq_len() as u64 }
    }

    /// The tokens `[sequences, T + 1]`.
    pub fn tokens(&self) -> Result<Tensor> {
        let ids = self.data.read(Stream::Main, 0, self.sequences as usize)?;
        Ok(Tensor::from_slice(&ids).view([self.sequences as i64, -1]))
    }

    /// Writes parameters under their names, and the tokens, to `inputs.safetensors`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let specs = param_specs(self.model.config());
        let tokens = self.tokens()?;
        let named = specs.iter().map(|spec| spec.name.as_str()).zip(&self.params);
        let all: Vec<(&str, &Tensor)> = named.chain([("tokens", &tokens)]).collect();
        Ok(Tensor::write_safetensors(&all, folder.join("inputs.safetensors"))?)
    }
}

/// A shard of pseudo-random tokens in llm.c's layout (16 bits).
pub fn write_shard(path: &Path, vocabulary: u64, count: u64) -> Result<()> {
    let header = [20_240_520, 1, count as i32];
    let mut bytes: Vec<u8> = header.into_iter().chain([0; 253]).flat_map(i32::to_le_bytes).collect();
    let mut state = 1u64;
    for _ in 0..count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((((state >> 33) % vocabulary) as u16).to_le_bytes());
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
}
