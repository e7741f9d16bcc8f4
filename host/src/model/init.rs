//! Initial parameters: normal matrices of a configured scale, ones for norms, zeros for offsets.

use gauntlet_plugin_api::spec::{ParamSpec, Role};
use rand_distr::{Distribution, StandardNormal};
use tch::{Device, Kind, Tensor};

use super::params::param_specs;
use super::random;
use super::spec::ModelConfig;

/// Parameters in the order of [`param_specs`], drawn in f64 and cast to `kind`.
///
/// They depend on the configuration and the seed alone: each parameter has a random stream of its own, so neither
/// threads, device nor libtorch's generator matter.
pub fn init_params(config: &ModelConfig, seed: u64, kind: Kind, device: Device) -> Vec<Tensor> {
    let specs = param_specs(config);
    let draw = |(index, spec): (usize, &ParamSpec)| {
        let shape: Vec<i64> = spec.shape.iter().map(|&size| size as i64).collect();
        let tensor = match spec.role {
            Role::Norm => Tensor::ones(&shape, (Kind::Double, Device::Cpu)),
            Role::Bias => Tensor::zeros(&shape, (Kind::Double, Device::Cpu)),
            _ => normal(seed, index as u64, std(config, spec), spec.numel()).reshape(&shape),
        };
        tensor.to_device(device).to_kind(kind)
    };
    specs.iter().enumerate().map(draw).collect()
}

/// Standard deviation of a matrix at the start.
fn std(config: &ModelConfig, spec: &ParamSpec) -> f64 {
    let kernel = config.kernel_std.unwrap_or_else(|| (spec.fan_in as f64).sqrt().recip());
    let writes_to_residual = spec.name.ends_with("attn.o.weight") || spec.name.ends_with("mlp.down.weight");
    match spec.role {
        Role::Embedding => config.embedding_std,
        Role::Head => config.head_std.unwrap_or(kernel),
        _ if writes_to_residual && config.depth_scaled_init => kernel / (2.0 * config.num_layers as f64).sqrt(),
        _ => kernel,
    }
}

fn normal(seed: u64, index: u64, std: f64, count: usize) -> Tensor {
    let mut rng = random::stream(seed, "model.init", index);
    let values: Vec<f64> = StandardNormal.sample_iter(&mut rng).take(count).map(|x: f64| std * x).collect();
    Tensor::from_slice(&values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &ModelConfig, params: &[Tensor], name: &str) -> Tensor {
        let index = param_specs(config).iter().position(|spec| spec.name == name).unwrap();
        params[index].shallow_clone()
    }

    /// Mean and standard deviation lie within five standard errors of a normal sample.
    fn assert_normal(tensor: &Tensor, std: f64) {
        let count = tensor.numel() as f64;
        let (mean, found) = (tensor.mean(Kind::Double).double_value(&[]), tensor.std(true).double_value(&[]));
        assert!(mean.abs() < 5.0 * std / count.sqrt(), "mean {mean}");
        assert!((found / std - 1.0).abs() < 5.0 / (2.0 * count).sqrt(), "std {found}, expected {std}");
    }

    #[test]
    fn shapes_and_kinds_are_those_of_the_specs() {
        let config = ModelConfig { num_kv_heads: Some(1), ..ModelConfig::default() };
        let params = init_params(&config, 1, Kind::Float, Device::Cpu);
        for (spec, tensor) in param_specs(&config).iter().zip(&params) {
            assert_eq!(tensor.size(), spec.shape.iter().map(|&size| size as i64).collect::<Vec<_>>(), "{}", spec.name);
            assert_eq!((tensor.kind(), tensor.requires_grad()), (Kind::Float, false));
        }
    }

    #[test]
    fn statistics_follow_the_configuration() {
        let config =
            ModelConfig { head_std: Some(0.02), depth_scaled_init: true, qk_norm: true, ..ModelConfig::default() };
        let params = init_params(&config, 7, Kind::Double, Device::Cpu);
        let kernel = 160_f64.sqrt().recip();
        assert_normal(&find(&config, &params, "embed.weight"), 1.0);
        assert_normal(&find(&config, &params, "head.weight"), 0.02);
        assert_normal(&find(&config, &params, "blocks.1.attn.q.weight"), kernel);
        assert_normal(&find(&config, &params, "blocks.1.attn.o.weight"), kernel / 6_f64.sqrt());
        let down = (config.mlp_width as f64).sqrt().recip() / 6_f64.sqrt();
        assert_normal(&find(&config, &params, "blocks.2.mlp.down.weight"), down);
        assert_eq!(find(&config, &params, "norm.weight").mean(Kind::Double).double_value(&[]), 1.0);
        assert_eq!(find(&config, &params, "blocks.0.attn.q_norm.bias").abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn a_seed_decides_alone() {
        let config = ModelConfig::default();
        let draw = |seed| init_params(&config, seed, Kind::Float, Device::Cpu);
        let (first, again, other) = (draw(3), draw(3), draw(4));
        assert!(first.iter().zip(&again).all(|(a, b)| a.equal(b)));
        assert!(!first[0].equal(&other[0]));
        let q = find(&config, &first, "blocks.0.attn.q.weight");
        assert!(!q.equal(&find(&config, &first, "blocks.0.attn.v.weight")));
        // Recorded once: another generator or order of draws would change every run.
        let double = init_params(&config, 3, Kind::Double, Device::Cpu);
        assert_eq!(
            [0, 1, 2].map(|i| double[0].double_value(&[0, i])),
            [-1.1232424729931934, -3.063420165570797, 0.29239025564263454]
        );
    }
}
