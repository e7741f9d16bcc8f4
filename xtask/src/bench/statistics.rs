//! Medians and their intervals: what a bench says of a handful of noisy rounds.

/// Resamples of a bootstrap.
const RESAMPLES: usize = 10_000;

/// A median with half the width of its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// Half the width of the percentile bootstrap's 95 % interval of the median.
    pub half_interval: f64,
}

impl Estimate {
    /// The median of `values` and its interval. The same values give the same interval: the resampling has a fixed seed.
    ///
    /// # Panics
    /// Without values.
    pub fn of(values: &[f64]) -> Self {
        let mut random = SplitMix(values.len() as u64);
        let mut resample = vec![0.0; values.len()];
        let mut medians: Vec<f64> = Vec::with_capacity(RESAMPLES);
        for _ in 0..RESAMPLES {
            resample.iter_mut().for_each(|value| *value = values[random.below(values.len())]);
            medians.push(median(&resample));
        }
        let half_interval = (quantile(&medians, 0.975) - quantile(&medians, 0.025)) / 2.0;
        Self { median: median(values), half_interval }
    }

    /// Whether the value may be at most `limit`: the median less its half-interval is within it.
    pub fn holds(self, limit: f64) -> bool {
        self.median - self.half_interval <= limit
    }
}

/// The middle value, or the mean of the two middle ones.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The distance of the quartiles.
pub fn spread(values: &[f64]) -> f64 {
    quantile(values, 0.75) - quantile(values, 0.25)
}

/// The value below which a share `at` of the values lies, interpolated between neighbours.
fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = at * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The generator SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `count`.
    fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quartiles_are_those_of_sorted_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert_eq!(spread(&[5.0, 1.0, 4.0, 2.0, 3.0]), 2.0);
        assert_eq!(quantile(&[0.0, 10.0], 0.3), 3.0);
    }

    #[test]
    fn splitmix_gives_its_published_first_values() {
        let mut random = SplitMix(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        assert!((0..1000).all(|_| random.below(3) < 3));
    }

    #[test]
    fn equal_values_have_no_interval_and_the_same_values_the_same_one() {
        assert_eq!(Estimate::of(&[2.0; 15]), Estimate { median: 2.0, half_interval: 0.0 });
        let values: Vec<f64> = (0..15).map(|i| f64::from(i * i % 7)).collect();
        assert_eq!(Estimate::of(&values), Estimate::of(&values));
    }

    /// For 101 draws of a normal distribution the median's standard error is 1.2533 / sqrt(101) = 0.1247, so half the
    /// 95 % interval is about 0.244.
    #[test]
    fn the_interval_is_about_that_of_the_theory() {
        let mut random = SplitMix(3);
        let mut uniform = || (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        let mut half = 0.0;
        for _ in 0..20 {
            let draws: Vec<f64> = (0..101).map(|_| (0..12).map(|_| uniform()).sum::<f64>() - 6.0).collect();
            half += Estimate::of(&draws).half_interval / 20.0;
        }
        assert!((half - 0.244).abs() < 0.05, "{half}");
    }

    #[test]
    fn a_limit_holds_within_the_interval() {
        let estimate = Estimate { median: 1.02, half_interval: 0.03 };
        assert!(estimate.holds(1.0) && estimate.holds(0.99));
        assert!(!estimate.holds(0.98));
    }
}
