//! What is measured: subjects, their sides, and the keys that compare them.

use std::collections::BTreeMap;

use super::statistics::median;

/// What a side runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The bench example of the host's package.
    Host,
    /// A program under bench/.
    Python(&'static str),
}

/// One side of a subject.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Its name, also the last argument of its program.
    pub name: &'static str,
    /// What it runs.
    pub program: Program,
}

/// A quantity of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of(pub &'static str, pub &'static str);

/// What a quantity is divided by.
#[derive(Clone, Copy, Debug)]
pub enum Against {
    /// A quantity of the same round.
    One(Of),
    /// The one of several with the smallest median, of the same round.
    Least(&'static [Of]),
    /// A number.
    Number(f64),
}

/// A ratio that the bench states.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its numerator.
    pub of: Of,
    /// Its denominator.
    pub against: Against,
    /// What it may be at most; nothing for a ratio that is stated only.
    pub limit: Option<f64>,
}

/// Sides that run in turn.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its name, also the first argument of its programs.
    pub name: &'static str,
    /// Its sides; the first writes the inputs.
    pub sides: &'static [Side],
    /// What is compared.
    pub keys: &'static [Key],
}

/// Values of all rounds by side and quantity.
pub type Rounds = BTreeMap<(String, String), Vec<f64>>;

impl Key {
    /// The ratio of each round.
    pub fn ratios(&self, rounds: &Rounds) -> Option<Vec<f64>> {
        let of = find(rounds, self.of)?;
        Some(match self.against {
            Against::Number(number) => of.iter().map(|value| value / number).collect(),
            Against::One(other) => pairs(of, find(rounds, other)?),
            Against::Least(others) => {
                let others = others.iter().map(|other| find(rounds, *other)).collect::<Option<Vec<_>>>()?;
                let least = others.into_iter().min_by(|a, b| median(a).total_cmp(&median(b)))?;
                pairs(of, least)
            }
        })
    }
}

fn find(rounds: &Rounds, Of(side, quantity): Of) -> Option<&[f64]> {
    rounds.get(&(side.to_owned(), quantity.to_owned())).map(Vec::as_slice)
}

fn pairs(of: &[f64], against: &[f64]) -> Vec<f64> {
    of.iter().zip(against).map(|(value, other)| value / other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Of = Of("a", "seconds");
    const SLOW: Of = Of("b", "seconds");

    fn rounds() -> Rounds {
        let values = |side: &str, values: [f64; 3]| ((side.to_owned(), "seconds".to_owned()), values.to_vec());
        BTreeMap::from([values("a", [1.0, 2.0, 9.0]), values("b", [4.0, 4.0, 4.0]), values("c", [2.0, 1.0, 3.0])])
    }

    fn key(of: Of, against: Against) -> Key {
        Key { name: "key", of, against, limit: None }
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        assert_eq!(key(FAST, Against::One(SLOW)).ratios(&rounds()).unwrap(), [0.25, 0.5, 2.25]);
        assert_eq!(key(SLOW, Against::Number(8.0)).ratios(&rounds()).unwrap(), [0.5; 3]);
    }

    #[test]
    fn the_least_is_one_side_for_all_rounds() {
        let others = &[FAST, SLOW];
        let ratios = key(Of("c", "seconds"), Against::Least(others)).ratios(&rounds()).unwrap();
        assert_eq!(ratios, [2.0, 0.5, 1.0 / 3.0]);
    }

    #[test]
    fn a_quantity_that_no_round_gave_is_none() {
        assert_eq!(key(Of("a", "bytes"), Against::Number(1.0)).ratios(&rounds()), None);
        assert_eq!(key(FAST, Against::One(Of("d", "seconds"))).ratios(&rounds()), None);
    }
}
