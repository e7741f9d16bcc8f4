//! A fixed synthetic data set. Every token is a function of (seed, stream, sequence, token), so any batch can be read
//! again, and streams have no sequence in common.

use super::problem::{Model, Problem};
use crate::batch::{Part, Position};
use crate::error::{Error, Result};
use crate::random::{fill, purpose_number, stream};
use gauntlet_plugin_abi::{ErrorCode, Purpose, RandomKey, RandomKind};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;

/// More sequences than this in one batch are refused.
const MAX_SEQUENCES: u64 = 1 << 16;

/// What the model shall give.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// One of the classes.
    Class(usize),
    /// Numbers, for the squared loss.
    Values(Vec<f64>),
}

/// One predicted token.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub features: Vec<f64>,
    pub target: Target,
    /// Number of the stream's [`Purpose`], and the token's index in the stream.
    pub stream: u32,
    pub token: u64,
}

/// How many sequences were drawn from each stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursors {
    step: u64,
    line_search: u64,
}

impl Cursors {
    pub fn get(&self, purpose: Purpose) -> u64 {
        if purpose == Purpose::LINE_SEARCH { self.line_search } else { self.step }
    }

    /// The next `count` sequences of a stream.
    pub fn draw(&mut self, purpose: Purpose, count: u64, seq_len: u64) -> Result<Position> {
        let cursor = match purpose {
            Purpose::STEP => &mut self.step,
            Purpose::LINE_SEARCH => &mut self.line_search,
            other => return Err(Error::unsupported(format!("batches for {}", other.name()))),
        };
        check_count(count)?;
        let part = Part { purpose: purpose.0, first: *cursor, count };
        *cursor += count;
        Ok(Position { parts: vec![part], sequences: count, tokens: count * seq_len })
    }
}

/// The tokens of a batch, sequence after sequence.
pub(super) fn cases(problem: &Problem, batch: &Position) -> Result<Vec<Case>> {
    check_count(batch.sequences)?;
    let mut cases = vec![];
    for part in &batch.parts {
        if part.purpose != Purpose::STEP.0 && part.purpose != Purpose::LINE_SEARCH.0 {
            return Err(Error::unsupported(format!("batches for {}", Purpose(part.purpose).name())));
        }
        for sequence in part.first..part.first + part.count {
            cases.extend((0..problem.seq_len).map(|t| case(problem, part.purpose, sequence, t)));
        }
    }
    Ok(cases)
}

fn check_count(count: u64) -> Result<()> {
    match count <= MAX_SEQUENCES {
        true => Ok(()),
        false => {
            let message = format!("found {count} sequences, expected at most {MAX_SEQUENCES}");
            Err(Error::new(ErrorCode::DATA, "batch", message))
        }
    }
}

fn case(problem: &Problem, purpose: u32, sequence: u64, t: u64) -> Case {
    let token = (sequence % problem.sequences) * problem.seq_len + t;
    let key = |what: &str, draw: u64| RandomKey {
        seed: problem.seed,
        purpose: purpose_number(what),
        step: u64::from(purpose),
        draw,
    };
    let (inputs, outputs) = (problem.inputs(), problem.outputs());
    if let Some(given) = &problem.given {
        let stream = &given.tokens[usize::from(purpose == Purpose::LINE_SEARCH.0)];
        let token = sequence * problem.seq_len + t;
        let [word, class] = stream[(token % stream.len() as u64) as usize];
        let features = (0..inputs).map(|i| f64::from(u8::from(i == word))).collect();
        return Case { features, target: Target::Class(class), stream: purpose, token };
    }
    let features: Vec<f64> = match problem.model {
        Model::TwoLayer => {
            let word = (stream(&key("data.word", token)).next_u64() % inputs as u64) as usize;
            (0..inputs).map(|i| f64::from(u8::from(i == word))).collect()
        }
        _ => normal(&key("data.features", token), inputs).into_iter().map(|x| 0.5 * x).collect(),
    };
    let teacher = normal(&RandomKey { step: 0, ..key("data.teacher", 0) }, outputs * inputs);
    let clean: Vec<f64> = teacher.chunks(inputs.max(1)).map(|row| dot(row, &features)).collect();
    let target = match problem.model {
        Model::Squared => {
            let noise = normal(&key("data.noise", token), outputs);
            Target::Values(clean.iter().zip(noise).map(|(x, noise)| x + 0.1 * noise).collect())
        }
        _ => Target::Class(draw_class(&softmax(&clean), &mut stream(&key("data.class", token)))),
    };
    Case { features, target, stream: purpose, token: sequence * problem.seq_len + t }
}

/// Standard normal numbers behind a key.
pub(super) fn normal(key: &RandomKey, count: usize) -> Vec<f64> {
    fill(RandomKind::NORMAL, key, count).unwrap_or_default()
}

/// A class drawn from probabilities.
pub(super) fn draw_class(probabilities: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let mut left = (rng.next_u64() >> 11) as f64 * f64::EPSILON / 2.0;
    let last = probabilities.len().saturating_sub(1);
    let class = probabilities.iter().position(|p| {
        left -= p;
        left < 0.0
    });
    class.unwrap_or(last)
}

/// Probabilities of logits, computed against overflow.
pub(super) fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = logits.iter().map(|z| (z - largest).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_gives_the_same_data_again_and_streams_share_none() {
        let problem = Problem::softmax_regression();
        let mut cursors = Cursors::default();
        let first = cursors.draw(Purpose::STEP, 3, problem.seq_len).unwrap();
        let search = cursors.draw(Purpose::LINE_SEARCH, 3, problem.seq_len).unwrap();
        assert_eq!((cursors.get(Purpose::STEP), cursors.get(Purpose::LINE_SEARCH)), (3, 3));
        let features = |position: &Position| -> Vec<Vec<f64>> {
            cases(&problem, position).unwrap().into_iter().map(|case| case.features).collect()
        };
        assert_eq!(features(&first).len() as u64, first.tokens);
        assert_eq!(features(&first), features(&first));
        assert!(features(&first).iter().all(|x| !features(&search).contains(x)));
        let epoch_later = Part { first: problem.sequences, ..first.parts[0] };
        let later = Position { parts: vec![epoch_later], ..first.clone() };
        assert_eq!(features(&later), features(&first), "the set is finite");
    }

    #[test]
    fn given_tokens_stand_in_for_the_made_up_ones() {
        let tokens = [vec![[1, 4], [0, 2], [3, 3]], vec![[2, 0], [2, 1], [4, 2]]];
        let sizes = [15, 3, 12, 4, 20];
        let params: Vec<Vec<f64>> = sizes.iter().map(|size| vec![0.5; *size]).collect();
        let problem = Problem::two_layer_of(tokens.clone(), params.clone()).unwrap();
        assert_eq!(problem.initial(), params);
        for (purpose, stream) in [Purpose::STEP, Purpose::LINE_SEARCH].into_iter().zip(&tokens) {
            let two = Cursors::default().draw(purpose, 2, problem.seq_len).unwrap();
            for (case, [word, class]) in cases(&problem, &two).unwrap().iter().zip(stream.iter().cycle()) {
                assert_eq!((case.features[*word], &case.target), (1.0, &Target::Class(*class)));
            }
        }
        assert!(Problem::two_layer_of([vec![[1, 5]; 3], tokens[1].clone()], params.clone()).is_err(), "class 5");
        assert!(Problem::two_layer_of([vec![[1, 4]; 4], tokens[1].clone()], params).is_err(), "a part of a sequence");
        assert!(Problem::two_layer_of(tokens, vec![]).is_err(), "no parameters");
    }

    #[test]
    fn huge_and_unknown_batches_are_refused() {
        let problem = Problem::squared();
        let huge = Cursors::default().draw(Purpose::STEP, u64::MAX, problem.seq_len).unwrap_err();
        assert_eq!(huge.code, ErrorCode::DATA);
        let unknown = Position { parts: vec![Part { purpose: 9, first: 0, count: 1 }], sequences: 1, tokens: 3 };
        assert_eq!(cases(&problem, &unknown).unwrap_err().code, ErrorCode::UNSUPPORTED);
    }

    #[test]
    fn classes_are_drawn_with_their_probabilities() {
        let key = |draw| RandomKey { seed: 1, purpose: 2, step: 3, draw };
        let mut counts = [0.0_f64; 3];
        (0..20_000).for_each(|draw| counts[draw_class(&[0.2, 0.5, 0.3], &mut stream(&key(draw)))] += 1.0 / 20_000.0);
        for (found, expected) in counts.iter().zip([0.2, 0.5, 0.3]) {
            assert!((found - expected).abs() < 0.02, "{counts:?}");
        }
    }
}
