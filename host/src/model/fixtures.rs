//! Models, parameters and tokens for tests.

use tch::{Device, Kind, Tensor};

use super::{Mlp, ModelConfig, Rope, Transformer, init_params};

pub(crate) const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Every combination of MLP, rotation, q/k norm, grouped heads and tied head, in a size for tests.
pub(crate) fn every_option() -> Vec<ModelConfig> {
    let mut configs = Vec::new();
    for bits in 0..32 {
        let bit = |index: i32| bits >> index & 1 == 1;
        configs.push(ModelConfig {
            vocab_size: 11,
            width: 16,
            num_layers: 2,
            num_heads: 4,
            mlp_width: 12,
            mlp: if bit(0) { Mlp::Swiglu } else { Mlp::Gelu },
            rope: if bit(1) { Rope::Half } else { Rope::Interleaved },
            qk_norm: bit(2),
            num_kv_heads: bit(3).then_some(2),
            tied_head: bit(4),
            ..ModelConfig::default()
        });
    }
    configs
}

/// Normal numbers in the shapes of the parameters.
pub(crate) fn directions(config: &ModelConfig, seed: u64) -> Vec<Tensor> {
    let spread = ModelConfig { embedding_std: 1.0, kernel_std: Some(1.0), head_std: Some(1.0), ..config.clone() };
    let matrices = init_params(&spread, seed, Kind::Double, Device::Cpu);
    let fill = |(index, tensor): (usize, Tensor)| match tensor.dim() {
        1 => {
            let count = Tensor::arange(tensor.numel() as i64, DOUBLE);
            (count * 1.7 + (seed as f64 + index as f64)).sin()
        }
        _ => tensor,
    };
    matrices.into_iter().enumerate().map(fill).collect()
}

/// Parameters away from any initialisation: norms are not ones, offsets not zeros.
pub(crate) fn random_params(config: &ModelConfig) -> Vec<Tensor> {
    let initial = init_params(config, 5, Kind::Double, Device::Cpu);
    initial.iter().zip(directions(config, 6)).map(|(p, d)| p + d * 0.2).collect()
}

pub(crate) fn tokens(batch: i64, length: i64) -> Tensor {
    let count = Tensor::arange(batch * length, (Kind::Int64, Device::Cpu));
    (&count * &count * 3 + &count).remainder(11).reshape([batch, length])
}

/// A model on one thread: its matrices are too small to share, and waiting threads slow down other tests.
pub(crate) fn model(config: &ModelConfig) -> Transformer {
    tch::set_num_threads(1);
    Transformer::new(config.clone(), Device::Cpu, Kind::Double).unwrap()
}
