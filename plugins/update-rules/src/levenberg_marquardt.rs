//! The Levenberg-Marquardt rule of Martens (ICML 2010, section 4.1) for the damping of a quadratic model.

/// The change of the loss by the change that the model predicts. Where the loss rose it is minus infinity.
pub fn reduction_ratio(change: f64, predicted: f64) -> f64 {
    if change > 0.0 { f64::NEG_INFINITY } else { change / predicted }
}

/// The next damping: 3/2 of it where the ratio is below 1/4 or no number, 2/3 of it where it is above 3/4.
pub fn next_damping(damping: f64, ratio: f64) -> f64 {
    if ratio.is_nan() || ratio < 0.25 {
        damping * 1.5
    } else if ratio > 0.75 {
        damping * 2.0 / 3.0
    } else {
        damping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damping_changes_beyond_a_quarter_and_three_quarters() {
        for (ratio, expected) in [(0.25, 3.0), (0.75, 3.0), (0.5, 3.0), (0.25 - 1e-12, 4.5), (0.75 + 1e-12, 2.0)] {
            assert_eq!(next_damping(3.0, ratio), expected, "{ratio}");
        }
        assert_eq!(next_damping(3.0, f64::NAN), 4.5);
        assert_eq!(next_damping(3.0, f64::NEG_INFINITY), 4.5);
    }

    #[test]
    fn a_loss_that_rose_never_counts_as_predicted() {
        assert_eq!(reduction_ratio(-0.5, -1.0), 0.5);
        assert_eq!(reduction_ratio(0.5, 1.0), f64::NEG_INFINITY, "the model predicted a rise too");
        assert!(reduction_ratio(f64::NAN, -1.0).is_nan());
    }
}
