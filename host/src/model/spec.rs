//! What a model is: its sizes and options, presets, and the check of a configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rope::Rope;
use crate::error::{Exit, Fault};

/// The form of the feed-forward part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mlp {
    /// `down(gelu(up(x)))`, GELU in its tanh approximation.
    Gelu,
    /// `down(silu(gate(x)) * up(x))` (Shazeer, arXiv 2002.05202).
    Swiglu,
}

/// Sizes, options and initialisation of a model; the section `[model]` of a run.
///
/// The default is the preset `tiny` without its `head_std`: an option that a preset leaves out has to stay absent when
/// the configuration is written and read again, so the default sets none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Number of tokens that the model knows; 256 for bytes.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of transformer blocks.
    pub num_layers: usize,
    /// Number of attention heads; divides `width` into heads of even size.
    pub num_heads: usize,
    /// Number of heads of keys and values (grouped-query attention); as many as `num_heads` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_kv_heads: Option<usize>,
    /// Width of the hidden layer of the MLP.
    pub mlp_width: usize,
    /// Form of the MLP.
    pub mlp: Mlp,
    /// Which dimensions of a head rotary embeddings rotate together.
    pub rope: Rope,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square (or variance) under the root of a normalisation.
    pub norm_eps: f64,
    /// LayerNorm with scale and offset on q and k, over their whole width, before heads and rotation.
    pub qk_norm: bool,
    /// The head uses the embedding matrix.
    pub tied_head: bool,
    /// Standard deviation of the token embedding.
    pub embedding_std: f64,
    /// Standard deviation of the matrices; `1 / sqrt(fan_in)` of each when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_std: Option<f64>,
    /// Standard deviation of an untied head; as for the other matrices when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_std: Option<f64>,
    /// Divide the matrices that write to the residual stream by `sqrt(2 num_layers)` at the start.
    pub depth_scaled_init: bool,
}

/// Names that [`ModelConfig::preset`] knows.
pub const PRESETS: [&str; 3] = ["tiny", "paper-45m", "paper-150m"];

/// A value of a [`ModelConfig`] that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key inside `[model]`.
    pub key: &'static str,
    /// Its value.
    pub found: String,
    /// What it has to be.
    pub expected: String,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            vocab_size: 256,
            width: 160,
            num_layers: 3,
            num_heads: 4,
            num_kv_heads: None,
            mlp_width: 432,
            mlp: Mlp::Swiglu,
            rope: Rope::Interleaved,
            rope_theta: 1e4,
            norm_eps: 1e-6,
            qk_norm: false,
            tied_head: false,
            embedding_std: 1.0,
            kernel_std: None,
            head_std: None,
            depth_scaled_init: false,
        }
    }
}

impl ModelConfig {
    /// The configuration of that name: `tiny` (bytes, about a million parameters), or the two models of the
    /// Gauss-Newton study (arXiv 2510.09378), `paper-45m` and `paper-150m`. `None` for another name.
    pub fn preset(name: &str) -> Option<Self> {
        let study = |width, mlp_width, num_layers, num_heads| Self {
            vocab_size: 32_000,
            width,
            num_layers,
            num_heads,
            num_kv_heads: None,
            mlp_width,
            mlp: Mlp::Gelu,
            rope: Rope::Interleaved,
            rope_theta: 1e4,
            norm_eps: 1e-6,
            qk_norm: true,
            tied_head: false,
            embedding_std: 1.0,
            kernel_std: None,
            head_std: None,
            depth_scaled_init: false,
        };
        match name {
            "tiny" => Some(Self { head_std: Some(0.02), ..Self::default() }),
            "paper-45m" => Some(study(512, 2048, 4, 8)),
            "paper-150m" => Some(study(768, 3072, 12, 16)),
            _ => None,
        }
    }

    /// Heads of keys and values.
    pub fn kv_heads(&self) -> usize {
        self.num_kv_heads.unwrap_or(self.num_heads)
    }

    /// Width of one head; meaningful for a configuration without [violations](Self::validate).
    pub fn head_width(&self) -> usize {
        self.width / self.num_heads
    }

    /// Every value that cannot be; empty for a good configuration.
    pub fn validate(&self) -> Vec<Violation> {
        let mut violations = self.validate_sizes();
        if violations.is_empty() {
            violations.extend(self.validate_heads());
        }
        violations.extend(self.validate_reals());
        violations
    }

    /// The first violation as an error of the configuration.
    ///
    /// # Errors
    /// When [`validate`](Self::validate) finds any.
    pub fn check(&self) -> Result<(), Fault> {
        match self.validate().into_iter().next() {
            None => Ok(()),
            Some(Violation { key, found, expected }) => {
                Err(Fault::new(Exit::Usage, format!("`model.{key}`")).found(found).expected(expected))
            }
        }
    }

    /// Sizes that are zero, or so large that counts of elements would overflow.
    fn validate_sizes(&self) -> Vec<Violation> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("width", self.width, 1 << 20),
            ("num_layers", self.num_layers, 1 << 12),
            ("num_heads", self.num_heads, 1 << 20),
            ("num_kv_heads", self.kv_heads(), 1 << 20),
            ("mlp_width", self.mlp_width, 1 << 20),
        ];
        let bad = sizes.into_iter().filter(|(_, size, limit)| !(1..=*limit).contains(size));
        bad.map(|(key, size, limit)| Violation::new(key, size, format!("1 to {limit}"))).collect()
    }

    /// Heads that do not divide; sizes are positive here.
    fn validate_heads(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        if !self.width.is_multiple_of(self.num_heads) || !self.head_width().is_multiple_of(2) {
            let expected = format!("a divisor of width {} into heads of even width", self.width);
            violations.push(Violation::new("num_heads", self.num_heads, expected));
        }
        if !self.num_heads.is_multiple_of(self.kv_heads()) {
            let expected = format!("a divisor of num_heads {}", self.num_heads);
            violations.push(Violation::new("num_kv_heads", self.kv_heads(), expected));
        }
        violations
    }

    fn validate_reals(&self) -> Vec<Violation> {
        let positive = [("rope_theta", self.rope_theta), ("norm_eps", self.norm_eps)];
        let deviations =
            [("embedding_std", Some(self.embedding_std)), ("kernel_std", self.kernel_std), ("head_std", self.head_std)];
        let positive = positive.into_iter().filter(|(_, x)| !(x.is_finite() && *x > 0.0));
        let deviations = deviations.into_iter().filter_map(|(key, x)| Some((key, x?)));
        let deviations = deviations.filter(|(_, x)| !(x.is_finite() && *x >= 0.0));
        let positive = positive.map(|(key, x)| Violation::new(key, x, "a positive number"));
        positive.chain(deviations.map(|(key, x)| Violation::new(key, x, "a number that is not negative"))).collect()
    }
}

impl Violation {
    fn new(key: &'static str, found: impl ToString, expected: impl Into<String>) -> Self {
        Self { key, found: found.to_string(), expected: expected.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl Fn(&mut ModelConfig)) -> Vec<&'static str> {
        let mut config = ModelConfig::default();
        change(&mut config);
        config.validate().into_iter().map(|violation| violation.key).collect()
    }

    #[test]
    fn presets_are_valid_and_others_unknown() {
        PRESETS.iter().for_each(|name| assert_eq!(ModelConfig::preset(name).unwrap().validate(), []));
        assert_eq!(ModelConfig::preset("huge"), None);
    }

    #[test]
    fn every_bad_value_is_named() {
        assert_eq!(keys(|c| c.vocab_size = 0), ["vocab_size"]);
        assert_eq!(keys(|c| c.num_heads = 0), ["num_heads", "num_kv_heads"]);
        assert_eq!(keys(|c| c.width = usize::MAX), ["width"]);
        assert_eq!(keys(|c| c.num_heads = 3), ["num_heads"]);
        assert_eq!(keys(|c| c.num_heads = 160), ["num_heads"]); // heads of width 1 cannot be rotated
        assert_eq!(keys(|c| c.num_kv_heads = Some(3)), ["num_kv_heads"]);
        assert_eq!(keys(|c| c.num_kv_heads = Some(10)), ["num_kv_heads"]);
        assert_eq!(keys(|c| c.rope_theta = f64::NAN), ["rope_theta"]);
        assert_eq!(keys(|c| c.norm_eps = 0.0), ["norm_eps"]);
        assert_eq!(keys(|c| c.head_std = Some(-1.0)), ["head_std"]);
        assert_eq!(keys(|c| c.head_std = Some(0.0)), [""; 0]);
    }

    #[test]
    fn a_check_is_one_line_with_the_key() {
        let config = ModelConfig { num_heads: 3, ..ModelConfig::default() };
        let line = "`model.num_heads`: found 3, expected a divisor of width 160 into heads of even width";
        assert_eq!(config.check().unwrap_err().to_string(), line);
    }

    #[test]
    fn toml_round_trip_and_unknown_keys() {
        let grouped = ModelConfig { num_kv_heads: Some(1), kernel_std: Some(0.1), ..ModelConfig::default() };
        for config in PRESETS.iter().filter_map(|name| ModelConfig::preset(name)).chain([grouped]) {
            assert_eq!(toml::from_str::<ModelConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
        }
        assert_eq!(toml::from_str::<ModelConfig>("mlp = \"gelu\"").unwrap().mlp, Mlp::Gelu);
        assert!(toml::from_str::<ModelConfig>("widht = 3").is_err());
    }
}
