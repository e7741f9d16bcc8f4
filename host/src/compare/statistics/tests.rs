//! Published examples, and numbers done by hand.

use super::*;
use proptest::prelude::*;

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * b.abs().max(1.0)
}

#[test]
fn a_crossing_lies_between_the_losses_around_the_target() {
    let points = [(0.0, 3.0), (5.0, 2.0), (10.0, 1.0), (15.0, 1.5), (20.0, 0.5)];
    let at = |target| first_crossing(&points, target).map(|crossing| (crossing.at, crossing.granularity));
    assert_eq!(at(1.5), Some((7.5, 5.0)), "the first time counts");
    assert_eq!(at(1.0), Some((10.0, 5.0)), "equal is reached");
    assert_eq!(at(3.0), Some((0.0, 0.0)));
    assert_eq!(
        first_crossing(&[(4.0, 1.0)], 2.0),
        Some(Crossing { at: 4.0, granularity: 4.0 }),
        "known to the first step"
    );
    assert_eq!(at(0.4), None);
    assert_eq!(first_crossing(&[], 1.0), None);
    let broken = [(0.0, f64::NAN), (1.0, 3.0), (2.0, f64::INFINITY), (3.0, 1.0)];
    assert_eq!(
        first_crossing(&broken, 2.0).map(|crossing| crossing.at),
        Some(2.0),
        "what is not finite is passed over"
    );
    assert_eq!(first_crossing(&[(1.0, f64::NEG_INFINITY)], 2.0), None);
}

#[test]
fn an_interval_is_students() {
    // Student's own quantiles: 12.706 for one degree of freedom, 2.776 for four.
    let two = Mean::of(&[1.0, 3.0]).unwrap();
    assert_eq!((two.mean, two.n), (2.0, 2));
    let [low, high] = two.interval.unwrap();
    assert!((high - 2.0 - 12.7062).abs() < 1e-3 && close(low + high, 4.0), "{low} {high}");
    let five = Mean::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let half = five.interval.unwrap()[1] - 3.0;
    assert!((half - 2.77645 * 2.5_f64.sqrt() / 5.0_f64.sqrt()).abs() < 1e-4, "{half}");
    assert_eq!(Mean::of(&[7.0]).map(|one| (one.mean, one.interval)), Some((7.0, None)));
    assert_eq!(Mean::of(&[]), None);
}

#[test]
fn a_ratio_is_paired_and_a_run_that_missed_is_censored() {
    use Spent::{Censored, Never, Reached};
    let pairs = [
        (Reached(50.0), Reached(10.0)),
        (Reached(20.0), Reached(2.0)),
        (Censored(300.0), Reached(20.0)),
        (Reached(10.0), Censored(40.0)),
        (Censored(10.0), Censored(40.0)),
        (Never, Reached(2.0)),
        (Never, Never),
    ];
    let ratio = paired_ratio(&pairs);
    assert_eq!((ratio.at_least, ratio.never, ratio.missed), (vec![15.0], 1, 3));
    let difference = paired_difference(&pairs).unwrap();
    assert!(difference.mean == 29.0 && difference.n == 2, "of 40 and 18: {difference:?}");
    assert_eq!(paired_difference(&pairs[2..]), None);
    let mean = ratio.ratio.unwrap();
    assert!(close(mean.mean, 50_f64.sqrt()) && mean.n == 2, "{mean:?}");
    let [low, high] = mean.interval.unwrap();
    assert!(close(low * high, 50.0), "an interval of logarithms: {low} {high}");
    let none = paired_ratio(&[(Censored(1.0), Censored(1.0))]);
    assert_eq!((none.ratio, none.missed), (None, 1));
}

#[test]
fn track_3_decides_as_published() {
    let with_value = |value: f64, n: usize| is_below(3.28, 3.28 - value / (n as f64).sqrt(), n, None);
    assert!(!with_value(0.0027, 9) && with_value(0.00648, 9));
    assert!(is_below(3.28, 3.2783, 8, None) && is_below(3.28, 3.2789, 20, None));
    assert!(!is_below(3.28, 3.2789, 8, None) && !is_below(3.28, 3.281, 1000, None));
    assert!(is_below(3.28, 3.276, 1, None), "exactly the limit");
    // Twice the deviation asks for twice the distance.
    assert!(!is_below(3.28, 3.2783, 8, Some(0.0026)) && is_below(3.28, 3.2766, 8, Some(0.0026)));
}

#[test]
fn more_noise_needs_more_seeds() {
    assert_eq!(seeds_needed(5.4, 0.05), Some(2));
    // t(4) 2.776 * 0.1 / sqrt(5) = 0.1242 > ln 1.13 = 0.1222; t(5) 2.571 * 0.1 / sqrt(6) = 0.1050.
    assert_eq!(seeds_needed(1.13, 0.1), Some(6));
    assert_eq!(seeds_needed(1.0, 0.1), None);
    assert_eq!(seeds_needed(1.0 / 1.13, 0.1), Some(6), "either way");
}

#[test]
fn profiles_count_what_misses_or_takes_four_times_as_infinite() {
    let spent = [
        vec![10.0, 20.0, 30.0, f64::NAN],
        vec![20.0, 10.0, f64::INFINITY, f64::INFINITY],
        vec![41.0, 40.0, 30.0, f64::INFINITY],
    ];
    let profiles = profiles(&spent);
    let at = |contender: usize, tau: f64| {
        let points = &profiles[contender].points;
        points.iter().rfind(|(at, _)| *at <= tau + 1e-12).unwrap().1
    };
    assert_eq!([at(0, 1.0), at(0, 1.99), at(0, 2.0), at(0, 4.0)], [0.5, 0.5, 0.75, 0.75]);
    assert_eq!([at(1, 1.0), at(1, 2.0), at(1, 4.0)], [0.25, 0.5, 0.5]);
    assert_eq!([at(2, 1.0), at(2, 3.99), at(2, 4.0)], [0.25, 0.25, 0.5], "4.1 times as much is a miss");
    // By hand: of 4 problems, ratios 1, 2, 1 -> (3 + 2 + 3) / 3 / 4.
    assert!(close(profiles[0].score, 8.0 / 12.0), "{}", profiles[0].score);
    assert!(close(profiles[2].score, 3.0 / 12.0), "{}", profiles[2].score);
}

proptest! {
    #[test]
    fn a_score_is_the_integral_of_its_points(ratios in proptest::collection::vec(0.5..9.0_f64, 1..9)) {
        let spent = [vec![1.0; ratios.len()], ratios];
        for Profile { points, score } in profiles(&spent) {
            let area: f64 = points.windows(2).map(|pair| (pair[1].0 - pair[0].0) * pair[0].1).sum();
            prop_assert!((area / 3.0 - score).abs() < 0.01, "{} {}", area / 3.0, score);
            prop_assert!(points.is_sorted_by(|a, b| a.1 <= b.1) && (0.0..=1.0).contains(&score));
        }
    }
}
