//! Keys of sampled labels: one uniform number for each token of a batch, a function of (seed, stream, step, token).

use gauntlet_plugin_abi::RandomKey;
use gauntlet_plugin_api::Labels;
use gauntlet_plugin_api::random::{purpose_number, stream};
use rand_chacha::rand_core::Rng as _;

/// Where each sequence of a batch lies in its stream.
#[derive(Clone, Debug, Default)]
pub struct LabelDraws {
    /// The step, which is part of every key.
    pub step: u64,
    /// Predicted tokens of a sequence.
    pub seq_len: u64,
    /// For each micro-batch: the number of the stream and the index in it of each sequence.
    pub sequences: Vec<Vec<(u32, u64)>>,
}

impl LabelDraws {
    /// One number on [0, 1) for each row of a micro-batch; none for the data's labels.
    pub fn uniforms(&self, labels: Labels, micro_batch: usize) -> Option<Vec<f64>> {
        let Labels::Sampled(seed) = labels else { return None };
        let of_sequence = |(number, sequence): &(u32, u64)| {
            let purpose = purpose_number(&format!("labels.{number}"));
            let tokens = sequence * self.seq_len..(sequence + 1) * self.seq_len;
            tokens.map(move |draw| uniform(&RandomKey { seed, purpose, step: self.step, draw })).collect::<Vec<_>>()
        };
        Some(self.sequences.get(micro_batch)?.iter().flat_map(of_sequence).collect())
    }
}

fn uniform(key: &RandomKey) -> f64 {
    (stream(key).next_u64() >> 11) as f64 * f64::EPSILON / 2.0
}
