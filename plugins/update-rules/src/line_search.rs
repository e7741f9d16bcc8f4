//! Line searches along an update: the grid 2^(-i/2) on mean losses of several batches (arXiv 2510.09378), and shrinking
//! until the loss falls enough (Armijo 1966; Martens, ICML 2010).

use gauntlet_plugin_api::{Metric, Result, StateReader, StateWriter};

/// What came out.
pub const STEP_SIZE: Metric = Metric::new("line_search_step_size", "", "Step size that the line search chose");

/// Losses at step size 0 and at 2^(-i/2) for i = 0, 1, ..., summed over batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    at_zero: f64,
    sums: Vec<f64>,
    batches: u64,
}

/// Step size number `i`.
pub fn step_size(i: usize) -> f64 {
    0.5_f64.powf(i as f64 / 2.0)
}

impl Grid {
    /// A grid of so many step sizes, 0 not among them.
    pub fn new(candidates: usize) -> Self {
        Self { at_zero: 0.0, sums: vec![0.0; candidates], batches: 0 }
    }

    /// Adds the losses of one batch.
    pub fn add(&mut self, mut loss_at: impl FnMut(f64) -> Result<f64>) -> Result<()> {
        self.at_zero += loss_at(0.0)?;
        for (i, sum) in self.sums.iter_mut().enumerate() {
            *sum += loss_at(step_size(i))?;
        }
        self.batches += 1;
        Ok(())
    }

    /// Batches so far.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Mean loss at step size 0.
    pub fn loss_at_zero(&self) -> f64 {
        self.at_zero / self.batches as f64
    }

    /// Mean loss at step size number `i`.
    pub fn loss(&self, i: usize) -> f64 {
        self.sums[i] / self.batches as f64
    }

    /// Whether step size number `i` is the last one.
    pub fn is_last(&self, i: usize) -> bool {
        i + 1 == self.sums.len()
    }

    /// The step size with the least mean loss, the largest of equal ones. `None` where no loss is finite.
    pub fn best(&self) -> Option<usize> {
        let finite = (0..self.sums.len()).filter(|i| self.sums[*i].is_finite());
        finite.reduce(|best, i| if self.sums[i] < self.sums[best] { i } else { best })
    }

    /// Saves the losses; `prefix` stands before the entries' names.
    pub fn save(&self, state: &mut StateWriter, prefix: &str) -> Result<()> {
        state.f64(&format!("{prefix}loss_at_zero"), self.at_zero)?;
        state.f64s(&format!("{prefix}losses"), &self.sums)?;
        state.u64(&format!("{prefix}batches"), self.batches)
    }

    /// Restores what [`Grid::save`] took.
    pub fn load(state: &StateReader, prefix: &str) -> Result<Self> {
        Ok(Self {
            at_zero: state.f64(&format!("{prefix}loss_at_zero"))?,
            sums: state.f64s(&format!("{prefix}losses"))?,
            batches: state.u64(&format!("{prefix}batches"))?,
        })
    }
}

/// Shrinks of [`Shrinking`] at most.
const MAX_SHRINKS: u64 = 60;

/// A step size that shrinks by 0.8 until the loss is at most f0 + 0.01 size slope.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shrinking {
    /// The loss at step size 0.
    pub loss: f64,
    /// Derivative of the loss along the update at step size 0.
    pub slope: f64,
    /// Shrinks so far.
    pub shrinks: u64,
}

/// What a loss means for [`Shrinking`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The loss fell enough.
    Accept,
    /// The next step size is to be tried.
    Shrink,
    /// It was shrunk 60 times.
    Reject,
}

impl Shrinking {
    /// The step size to try.
    pub fn size(&self) -> f64 {
        0.8_f64.powi(self.shrinks as i32)
    }

    /// Judges the loss at the present step size.
    pub fn tell(&mut self, loss: f64) -> Verdict {
        if loss <= self.loss + 0.01 * self.size() * self.slope {
            return Verdict::Accept;
        }
        self.shrinks += 1;
        if self.shrinks >= MAX_SHRINKS { Verdict::Reject } else { Verdict::Shrink }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(losses: &[&[f64]]) -> Grid {
        let mut grid = Grid::new(losses[0].len());
        for batch in losses {
            let mut given = std::iter::once(&0.7).chain(batch.iter());
            grid.add(|_| Ok(*given.next().unwrap())).unwrap();
        }
        grid
    }

    #[test]
    fn sizes_halve_every_second_time() {
        let sizes: Vec<f64> = (0..5).map(step_size).collect();
        assert_eq!((sizes[0], sizes[2], sizes[4]), (1.0, 0.5, 0.25));
        assert!((sizes[1] - 0.5_f64.sqrt()).abs() < 1e-16 && (step_size(9) - 0.0442).abs() < 1e-4);
        let mut asked = vec![];
        let note = |size| {
            asked.push(size);
            Ok(0.0)
        };
        Grid::new(3).add(note).unwrap();
        assert_eq!(asked, [0.0, sizes[0], sizes[1], sizes[2]]);
    }

    #[test]
    fn the_least_mean_loss_wins_and_the_largest_size_of_equal_ones() {
        let grid = grid(&[&[3.0, 1.0, 2.0], &[1.0, 3.0, 1.0]]);
        assert_eq!((grid.best(), grid.loss(2), grid.loss_at_zero()), (Some(2), 1.5, 0.7));
        assert!(grid.is_last(2) && !grid.is_last(1));
        assert_eq!(self::grid(&[&[2.0, 1.0, 1.0]]).best(), Some(1));
    }

    #[test]
    fn what_is_not_a_number_is_never_chosen() {
        assert_eq!(grid(&[&[f64::NAN, 3.0, f64::INFINITY]]).best(), Some(1));
        assert_eq!(grid(&[&[1.0, 3.0], &[f64::NAN, 3.0]]).best(), Some(1), "one batch is enough");
        assert_eq!(grid(&[&[f64::NAN, f64::INFINITY]]).best(), None);
    }

    #[test]
    fn shrinking_accepts_by_the_slope_and_gives_up_after_60() {
        let mut search = Shrinking { loss: 1.0, slope: -10.0, shrinks: 0 };
        assert_eq!(search.tell(0.95), Verdict::Shrink, "0.9 is the bound");
        assert_eq!(search.tell(0.92), Verdict::Accept, "1 - 0.01 * 0.8 * 10 = 0.92");
        let mut search = Shrinking { shrinks: 0, ..search };
        let shrinks = (0..60).take_while(|_| search.tell(f64::NAN) == Verdict::Shrink).count();
        assert_eq!((shrinks, search.shrinks), (59, 60));
    }
}
