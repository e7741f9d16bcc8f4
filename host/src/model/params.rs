//! The parameters of a model: their names, shapes and roles, and the binding of a list of tensors to their places.

use gauntlet_plugin_api::spec::{ParamSpec, Role, SubBlocks};
use tch::Tensor;

use super::spec::{Mlp, ModelConfig};

/// The parameters of a model in their order, which is that of the forward pass; shapes are `[out, in]`.
pub fn param_specs(config: &ModelConfig) -> Vec<ParamSpec> {
    let vocabulary = [config.vocab_size, config.width];
    let mut embedding = ParamSpec::new("embed.weight", &vocabulary, Role::Embedding);
    embedding.uses = if config.tied_head { 2 } else { 1 };
    let mut specs = vec![embedding];
    for layer_idx in 0..config.num_layers {
        specs.extend(block_specs(config, layer_idx).into_iter().map(|spec| spec.in_layer(layer_idx)));
    }
    specs.push(ParamSpec::new("norm.weight", &[config.width], Role::Norm));
    if !config.tied_head {
        specs.push(ParamSpec::new("head.weight", &vocabulary, Role::Head));
    }
    specs
}

/// Number of elements of all parameters.
pub fn num_params(config: &ModelConfig) -> usize {
    param_specs(config).iter().map(ParamSpec::numel).sum()
}

fn block_specs(config: &ModelConfig, layer_idx: usize) -> Vec<ParamSpec> {
    let width = config.width;
    let kv_width = config.kv_heads() * config.head_width();
    let name = |rest: &str| format!("blocks.{layer_idx}.{rest}");
    let vector = |rest: &str, length: usize, role| ParamSpec::new(name(rest), &[length], role);
    let matrix = |rest: &str, out: usize, input: usize| ParamSpec::new(name(rest), &[out, input], Role::Hidden);
    let heads = |spec: ParamSpec, dim, count| ParamSpec { sub_blocks: Some(SubBlocks { dim, count }), ..spec };
    let mut specs = vec![
        vector("norm1.weight", width, Role::Norm),
        heads(matrix("attn.q.weight", width, width), 0, config.num_heads),
        heads(matrix("attn.k.weight", kv_width, width), 0, config.kv_heads()),
        heads(matrix("attn.v.weight", kv_width, width), 0, config.kv_heads()),
        heads(matrix("attn.o.weight", width, width), 1, config.num_heads),
    ];
    if config.qk_norm {
        for (side, length) in [("q", width), ("k", kv_width)] {
            specs.push(vector(&format!("attn.{side}_norm.weight"), length, Role::Norm));
            specs.push(vector(&format!("attn.{side}_norm.bias"), length, Role::Bias));
        }
    }
    specs.push(vector("norm2.weight", width, Role::Norm));
    specs.push(matrix("mlp.up.weight", config.mlp_width, width));
    if config.mlp == Mlp::Swiglu {
        specs.push(matrix("mlp.gate.weight", config.mlp_width, width));
    }
    specs.push(matrix("mlp.down.weight", width, config.mlp_width));
    specs
}

/// Scale and offset of a LayerNorm.
#[derive(Clone, Copy, Debug)]
pub struct NormPlaces<T> {
    /// Scale.
    pub weight: T,
    /// Offset.
    pub bias: T,
}

/// One thing for each parameter of one transformer block.
#[derive(Clone, Copy, Debug)]
pub struct BlockPlaces<T> {
    /// Scale of the RMSNorm before attention `[width]`.
    pub norm1: T,
    /// Queries `[width, width]`.
    pub q: T,
    /// Keys `[kv_width, width]`.
    pub k: T,
    /// Values `[kv_width, width]`.
    pub v: T,
    /// Output of attention `[width, width]`.
    pub o: T,
    /// LayerNorms of q and k, with `qk_norm`.
    pub qk_norm: Option<[NormPlaces<T>; 2]>,
    /// Scale of the RMSNorm before the MLP `[width]`.
    pub norm2: T,
    /// First matrix of the MLP `[mlp_width, width]`.
    pub up: T,
    /// Gate of the MLP `[mlp_width, width]`, with SwiGLU.
    pub gate: Option<T>,
    /// Last matrix of the MLP `[width, mlp_width]`.
    pub down: T,
}

/// One thing for each parameter of a model: tensors to compute with, indices to look up with.
#[derive(Clone, Debug)]
pub struct Places<T> {
    /// Token embedding `[vocab_size, width]`.
    pub embed: T,
    /// The transformer blocks.
    pub blocks: Vec<BlockPlaces<T>>,
    /// Scale of the final RMSNorm `[width]`.
    pub norm: T,
    /// Output head `[vocab_size, width]`; the embedding itself when tied.
    pub head: T,
}

/// The parameters of a model in their places.
pub type Weights<'a> = Places<&'a Tensor>;
/// The parameters of one transformer block in their places.
pub type BlockWeights<'a> = BlockPlaces<&'a Tensor>;
/// Scale and offset of a LayerNorm.
pub type NormWeights<'a> = NormPlaces<&'a Tensor>;

impl<T: Copy> Places<T> {
    /// Binds a list in the order of [`param_specs`] to its places.
    ///
    /// # Panics
    /// When there is more or less than the model has parameters.
    pub fn bind(config: &ModelConfig, list: impl IntoIterator<Item = T>) -> Self {
        let mut cursor = Cursor(list.into_iter());
        let embed = cursor.take();
        let blocks = (0..config.num_layers).map(|_| cursor.block(config)).collect();
        let norm = cursor.take();
        let head = if config.tied_head { embed } else { cursor.take() };
        assert!(cursor.0.next().is_none(), "more than the model has parameters");
        Self { embed, blocks, norm, head }
    }
}

/// Hands out a list in the order of the parameters.
struct Cursor<I>(I);

impl<I: Iterator> Cursor<I> {
    fn take(&mut self) -> I::Item {
        self.0.next().expect("as many as the model has parameters")
    }

    fn norm(&mut self) -> NormPlaces<I::Item> {
        NormPlaces { weight: self.take(), bias: self.take() }
    }

    fn block(&mut self, config: &ModelConfig) -> BlockPlaces<I::Item> {
        BlockPlaces {
            norm1: self.take(),
            q: self.take(),
            k: self.take(),
            v: self.take(),
            o: self.take(),
            qk_norm: config.qk_norm.then(|| [self.norm(), self.norm()]),
            norm2: self.take(),
            up: self.take(),
            gate: (config.mlp == Mlp::Swiglu).then(|| self.take()),
            down: self.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_option() -> ModelConfig {
        ModelConfig { num_kv_heads: Some(2), width: 8, qk_norm: true, ..ModelConfig::default() }
    }

    #[test]
    fn the_study_s_models_have_their_parameter_counts() {
        assert_eq!(num_params(&ModelConfig::preset("paper-45m").unwrap()), 45_363_712);
        assert_eq!(num_params(&ModelConfig::preset("paper-150m").unwrap()), 134_142_720);
        assert!((900_000..1_100_000).contains(&num_params(&ModelConfig::preset("tiny").unwrap())));
    }

    #[test]
    fn names_are_unique_and_bind_to_their_places() {
        let config = every_option();
        let specs = param_specs(&config);
        let tensors: Vec<Tensor> = (0..specs.len() as i64).map(Tensor::from).collect();
        let weights = Weights::bind(&config, &tensors);
        let name = |tensor: &Tensor| specs[tensor.int64_value(&[]) as usize].name.clone();
        let block = &weights.blocks[1];
        let [q_norm, k_norm] = block.qk_norm.unwrap();
        let places = [
            (weights.embed, "embed.weight"),
            (block.norm1, "blocks.1.norm1.weight"),
            (block.q, "blocks.1.attn.q.weight"),
            (block.k, "blocks.1.attn.k.weight"),
            (block.v, "blocks.1.attn.v.weight"),
            (block.o, "blocks.1.attn.o.weight"),
            (q_norm.weight, "blocks.1.attn.q_norm.weight"),
            (q_norm.bias, "blocks.1.attn.q_norm.bias"),
            (k_norm.weight, "blocks.1.attn.k_norm.weight"),
            (k_norm.bias, "blocks.1.attn.k_norm.bias"),
            (block.norm2, "blocks.1.norm2.weight"),
            (block.up, "blocks.1.mlp.up.weight"),
            (block.gate.unwrap(), "blocks.1.mlp.gate.weight"),
            (block.down, "blocks.1.mlp.down.weight"),
            (weights.norm, "norm.weight"),
            (weights.head, "head.weight"),
        ];
        places.iter().for_each(|(tensor, expected)| assert_eq!(name(tensor), *expected));
        let unique: std::collections::BTreeSet<_> = specs.iter().map(|spec| &spec.name).collect();
        assert_eq!(unique.len(), specs.len());
    }

    #[test]
    fn specs_carry_role_layer_fans_and_heads() {
        let config = every_option();
        let specs = param_specs(&config);
        let find = |name: &str| specs.iter().find(|spec| spec.name == name).unwrap();
        let k = find("blocks.2.attn.k.weight");
        assert_eq!((k.role, k.layer_idx, k.fan_in, k.fan_out), (Role::Hidden, Some(2), 8, 4));
        assert_eq!(k.sub_blocks, Some(SubBlocks { dim: 0, count: 2 }));
        assert_eq!(find("blocks.0.attn.o.weight").sub_blocks, Some(SubBlocks { dim: 1, count: 4 }));
        assert_eq!(find("blocks.0.attn.k_norm.bias").role, Role::Bias);
        assert_eq!((find("norm.weight").role, find("norm.weight").layer_idx), (Role::Norm, None));
        assert_eq!((find("head.weight").role, find("embed.weight").uses), (Role::Head, 1));
    }

    #[test]
    fn a_tied_head_is_one_embedding_used_twice() {
        let specs = param_specs(&ModelConfig { tied_head: true, ..every_option() });
        assert!(specs.iter().all(|spec| spec.role != Role::Head));
        assert_eq!((specs[0].role, specs[0].uses), (Role::Embedding, 2));
    }
}
