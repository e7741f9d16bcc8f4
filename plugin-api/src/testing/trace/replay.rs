//! A trace replayed through an optimizer on plain Rust: gradients in, parameters compared.

use super::Trace;
use crate::error::Result;
use crate::optimizer::Optimizer;
use crate::testing::Harness;
use std::fmt;

/// Where a replay is farthest from its trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// `max |x - r| / max |r|` of one tensor after one step; NaN if any element is.
    pub error: f64,
    /// The step, from 1.
    pub step: usize,
    /// The parameter.
    pub name: String,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:e} at step {} in `{}`", self.error, self.step, self.name)
    }
}

impl Trace {
    /// Steps through the trace and gives the largest deviation of a tensor.
    ///
    /// # Errors
    ///
    /// The optimizer's own.
    pub fn replay<O: Optimizer>(&self) -> Result<Deviation> {
        let (specs, params, gradients) = (self.specs.clone(), self.params.clone(), self.gradients.clone());
        let mut harness = Harness::<O>::with_gradients(self.config.clone(), specs, params, gradients)?;
        let mut worst = Deviation { error: 0.0, step: 0, name: String::new() };
        for (index, after) in self.after.iter().enumerate() {
            harness.step()?;
            let params = harness.params();
            let mut found = params.as_slice();
            for (spec, expected) in self.specs.iter().zip(after) {
                let (tensor, rest) = found.split_at(expected.len());
                found = rest;
                let error = deviation(tensor, expected);
                if error > worst.error || (error.is_nan() && !worst.error.is_nan()) {
                    worst = Deviation { error, step: index + 1, name: spec.name.clone() };
                }
            }
        }
        Ok(worst)
    }
}

/// `max |x - r| / max |r|`.
fn deviation(found: &[f64], reference: &[f64]) -> f64 {
    let most = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(0.0, |most: f64, x| if x > most || x.is_nan() { x } else { most })
    };
    let difference = most(&mut found.iter().zip(reference).map(|(x, r)| (x - r).abs()));
    if difference == 0.0 { 0.0 } else { difference / most(&mut reference.iter().map(|r| r.abs())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deviation_is_relative_to_the_largest_number_and_shows_nan() {
        assert_eq!(deviation(&[1.0, 2.0, -3.0], &[1.0, 2.0, -4.0]), 0.25);
        assert_eq!(deviation(&[0.0, 0.0], &[0.0, 0.0]), 0.0);
        assert_eq!(deviation(&[1.0], &[0.0]), f64::INFINITY);
        assert!(deviation(&[f64::NAN, 1.0], &[1.0, 1.0]).is_nan());
    }
}
