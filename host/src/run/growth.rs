//! A process that grows without end: said while there is still memory.

use std::time::{Duration, Instant};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(30);
/// So many looks in a row each see more than the one before. What libtorch keeps to use again stops growing long before.
const LOOKS: usize = 20;
/// Growth over these looks that is worth a word, in bytes and as a part of what there was.
const LEAST: u64 = 64 << 20;
const PART: u64 = 10;

/// The resident memory of the process from look to look.
#[derive(Debug, Default)]
pub struct Growth {
    looked: Option<Instant>,
    /// What was seen since it last did not grow, and when.
    seen: Vec<(Instant, u64)>,
    said: bool,
}

impl Growth {
    /// Looks, where the last look is long enough ago; gives a warning, once in a run.
    pub fn look(&mut self, resident: impl FnOnce() -> Option<u64>) -> Option<String> {
        if self.said || self.looked.is_some_and(|looked| looked.elapsed() < EVERY) {
            return None;
        }
        self.looked = Some(Instant::now());
        self.note(resident()?)
    }

    fn note(&mut self, resident: u64) -> Option<String> {
        if self.seen.last().is_some_and(|(_, last)| resident <= *last) {
            self.seen.clear();
        }
        self.seen.push((Instant::now(), resident));
        if self.seen.len() > LOOKS + 1 {
            self.seen.remove(0);
        }
        let (since, first) = self.seen[0];
        let grown = resident - first;
        if self.seen.len() <= LOOKS || grown < LEAST.max(first / PART) {
            return None;
        }
        self.said = true;
        let (mib, minutes) = (grown >> 20, since.elapsed().as_secs_f64() / 60.0);
        Some(format!(
            "the process has grown at {LOOKS} looks in a row, in {minutes:.0} minutes by {mib} MiB to {} MiB; hint: a plugin \
             may keep what it no longer needs; `gauntlet plugins check` looks for a leak",
            resident >> 20
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sizes: impl IntoIterator<Item = u64>) -> Vec<usize> {
        let mut growth = Growth::default();
        let sizes = sizes.into_iter().enumerate();
        sizes.filter_map(|(at, mib)| growth.look_now(mib << 20).map(|_| at)).collect()
    }

    impl Growth {
        fn look_now(&mut self, resident: u64) -> Option<String> {
            self.looked = None;
            self.look(|| Some(resident))
        }
    }

    #[test]
    fn growth_without_end_is_said_once() {
        assert_eq!(said((0..200).map(|at| 1000 + 10 * at)), [LOOKS]);
    }

    #[test]
    fn what_stops_shrinks_or_is_little_is_not_said() {
        assert!(said((0..200).map(|at| 1000 + 10 * at.min(LOOKS as u64 - 1))).is_empty(), "it stops");
        assert!(said((0..200).map(|at| 1000 + 10 * (at % LOOKS as u64))).is_empty(), "it falls again");
        assert!(said((0..200).map(|at| 1000 + at)).is_empty(), "little of what there was");
    }

    #[test]
    fn looks_have_a_distance() {
        let mut growth = Growth::default();
        assert!(growth.look(|| Some(1)).is_none());
        growth.look(|| panic!("too early"));
    }
}
