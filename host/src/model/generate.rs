//! Text from a model, one token at a time.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardUniform};
use tch::{Kind, Tensor};

use super::attention::Attention;
use super::params::Weights;
use super::random;
use super::transformer::Transformer;
use crate::error::{Exit, Fault, Result};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token each time.
    pub temperature: f64,
    /// Choose among this many most likely tokens only.
    pub top_k: Option<usize>,
    /// Decides the choices together with the position of each new token.
    pub seed: u64,
}

/// Continues `prompt` by `count` tokens and returns the new ones; the model sees the last `context` tokens.
///
/// # Errors
/// For an empty prompt, a token outside the vocabulary, a `context` or `top_k` of 0, a temperature that is negative or
/// not finite, and logits that are not finite.
pub fn generate(
    model: &Transformer,
    params: &[Tensor],
    prompt: &[u32],
    count: usize,
    context: usize,
    sampling: &Sampling,
) -> Result<Vec<u32>> {
    check(model, prompt, context, sampling)?;
    let _no_grad = tch::no_grad_guard();
    let mut tokens = prompt.to_vec();
    for step in 0..count {
        let window = &tokens[tokens.len().saturating_sub(context)..];
        let logits = last_logits(model, params, window)?;
        tokens.push(sampling.choose(&logits, random::stream(sampling.seed, "model.generate", step as u64)));
    }
    Ok(tokens.split_off(prompt.len()))
}

fn check(model: &Transformer, prompt: &[u32], context: usize, sampling: &Sampling) -> Result<()> {
    let vocab_size = model.config().vocab_size;
    let usage = |what: &str, found: String, expected: String| {
        Err(Fault::new(Exit::Usage, what).found(found).expected(expected))
    };
    if prompt.is_empty() {
        return usage("prompt", "no token".into(), "at least one".into());
    }
    if let Some(token) = prompt.iter().find(|&&token| token as usize >= vocab_size) {
        return usage("prompt", format!("token {token}"), format!("tokens below {vocab_size}"));
    }
    if !(sampling.temperature.is_finite() && sampling.temperature >= 0.0) {
        return usage("temperature", sampling.temperature.to_string(), "a number that is not negative".into());
    }
    if context == 0 || sampling.top_k == Some(0) {
        return usage(if context == 0 { "context" } else { "top_k" }, "0".into(), "at least 1".into());
    }
    Ok(())
}

/// Scores of the token after `window`.
fn last_logits(model: &Transformer, params: &[Tensor], window: &[u32]) -> Result<Vec<f64>> {
    let window: Vec<i64> = window.iter().map(|&token| i64::from(token)).collect();
    let tokens = Tensor::from_slice(&window).unsqueeze(0).to_device(model.device());
    let hidden = model.hidden(params, &tokens, Attention::Fused).select(1, -1);
    let head = Weights::bind(model.config(), params).head;
    let logits = hidden.linear(head, None::<&Tensor>).to_kind(Kind::Double);
    let mut values = vec![0.0_f64; logits.numel()];
    logits.copy_data(&mut values, logits.numel());
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Fault::new(Exit::NonFinite, "logits of the model").found(value).expected("finite numbers")),
        None => Ok(values),
    }
}

impl Sampling {
    /// A token by these rules; `logits` are finite and there is at least one.
    fn choose(&self, logits: &[f64], mut rng: ChaCha8Rng) -> u32 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a])); // stable: equal logits keep the order of tokens
        if self.temperature == 0.0 {
            return order[0] as u32;
        }
        order.truncate(self.top_k.unwrap_or(order.len()));
        let weights = order.iter().map(|&token| ((logits[token] - logits[order[0]]) / self.temperature).exp());
        let cumulative: Vec<f64> = weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let uniform: f64 = StandardUniform.sample(&mut rng);
        let target = uniform * cumulative.last().copied().unwrap_or(1.0);
        let index = cumulative.partition_point(|&sum| sum <= target).min(order.len() - 1);
        order[index] as u32
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ModelConfig, init_params};
    use super::*;
    use tch::Device;

    fn setup() -> (Transformer, Vec<Tensor>) {
        let config = ModelConfig { vocab_size: 13, width: 8, num_heads: 2, mlp_width: 8, ..ModelConfig::default() };
        let params = init_params(&config, 1, Kind::Float, Device::Cpu);
        (Transformer::new(config, Device::Cpu, Kind::Float).unwrap(), params)
    }

    fn sampling(temperature: f64, top_k: Option<usize>, seed: u64) -> Sampling {
        Sampling { temperature, top_k, seed }
    }

    #[test]
    fn frequencies_follow_the_softmax_at_the_temperature() {
        let logits = [0.0, 2.0 * 3_f64.ln(), f64::MIN, 0.0];
        let mut counts = [0_u32; 4];
        for step in 0..5000 {
            counts[sampling(2.0, None, 5).choose(&logits, random::stream(5, "test", step)) as usize] += 1;
        }
        let expected = [1000.0, 3000.0, 0.0, 1000.0]; // weights 1, 3, 0, 1
        counts
            .iter()
            .zip(expected)
            .for_each(|(&count, mean)| assert!((f64::from(count) - mean).abs() < 180.0, "{counts:?}"));
    }

    #[test]
    fn top_k_and_greedy_keep_to_the_most_likely() {
        let logits = [1.0, 3.0, 2.0, 3.0];
        for step in 0..200 {
            let rng = || random::stream(0, "test", step);
            assert!([1, 3].contains(&sampling(5.0, Some(2), 0).choose(&logits, rng())));
            assert_eq!(sampling(0.0, None, 0).choose(&logits, rng()), 1);
        }
    }

    #[test]
    fn greedy_tokens_are_the_argmax_of_the_logits_in_the_window() {
        let (model, params) = setup();
        let new = generate(&model, &params, &[1, 2, 3], 6, 4, &sampling(0.0, None, 0)).unwrap();
        let mut tokens = vec![1_i64, 2, 3];
        for &token in &new {
            let window = Tensor::from_slice(&tokens[tokens.len().saturating_sub(4)..]).unsqueeze(0);
            let logits = model.logits(&params, &window, Attention::Fused).select(1, -1);
            assert_eq!(logits.argmax(-1, false).int64_value(&[0]), i64::from(token));
            tokens.push(i64::from(token));
        }
        assert_eq!(new.len(), 6);
    }

    #[test]
    fn a_seed_decides_and_a_longer_text_continues_a_shorter_one() {
        let (model, params) = setup();
        let text = |count, seed| generate(&model, &params, &[4], count, 8, &sampling(1.0, None, seed)).unwrap();
        assert_eq!(text(20, 1)[..10], text(10, 1));
        assert_ne!(text(20, 1), text(20, 2));
    }

    #[test]
    fn bad_requests_are_errors() {
        let (model, params) = setup();
        let refusal = |prompt: &[u32], context, how: Sampling| {
            generate(&model, &params, prompt, 1, context, &how).unwrap_err().to_string()
        };
        assert_eq!(refusal(&[], 4, sampling(1.0, None, 0)), "prompt: found no token, expected at least one");
        assert_eq!(refusal(&[13], 4, sampling(1.0, None, 0)), "prompt: found token 13, expected tokens below 13");
        assert_eq!(refusal(&[1], 0, sampling(1.0, None, 0)), "context: found 0, expected at least 1");
        assert_eq!(refusal(&[1], 4, sampling(1.0, Some(0), 0)), "top_k: found 0, expected at least 1");
        assert!(refusal(&[1], 4, sampling(f64::NAN, None, 0)).starts_with("temperature: found NaN"));
        let broken: Vec<Tensor> = params.iter().map(|p| p * f64::NAN).collect();
        let fault = generate(&model, &broken, &[1], 1, 4, &sampling(1.0, None, 0)).unwrap_err();
        assert_eq!(fault.exit, Exit::NonFinite);
    }
}
