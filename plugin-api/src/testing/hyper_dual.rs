//! Hyper-dual numbers: exact first and second derivatives of a formula (Fike and Alonso, AIAA 2011-886).

use std::ops::{Add, AddAssign, Mul};

/// `value + a e1 + b e2 + ab e1 e2` with e1^2 = e2^2 = 0: `a` and `b` are derivatives in two directions, `ab` the mixed
/// second one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct HyperDual {
    pub value: f64,
    pub a: f64,
    pub b: f64,
    pub ab: f64,
}

impl HyperDual {
    pub fn constant(value: f64) -> Self {
        Self { value, ..Self::default() }
    }

    /// f(x) from f, f' and f'' at its value.
    fn chain(self, f: f64, first: f64, second: f64) -> Self {
        Self { value: f, a: first * self.a, b: first * self.b, ab: first * self.ab + second * self.a * self.b }
    }

    pub fn tanh(self) -> Self {
        let f = self.value.tanh();
        let first = 1.0 - f * f;
        self.chain(f, first, -2.0 * f * first)
    }
}

impl Add for HyperDual {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { value: self.value + other.value, a: self.a + other.a, b: self.b + other.b, ab: self.ab + other.ab }
    }
}

impl AddAssign for HyperDual {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul for HyperDual {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let (x, y) = (self, other);
        Self {
            value: x.value * y.value,
            a: x.value * y.a + x.a * y.value,
            b: x.value * y.b + x.b * y.value,
            ab: x.value * y.ab + x.a * y.b + x.b * y.a + x.ab * y.value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_of_a_formula_are_those_of_the_closed_form() {
        // f = x y tanh(x) at (0.7, -1.3): f_x = y (t + x t'), f_xy = t + x t', t' = 1 - t^2.
        let (x, y) = (0.7_f64, -1.3);
        let dual = HyperDual { value: x, a: 1.0, ..HyperDual::default() };
        let other = HyperDual { value: y, b: 1.0, ..HyperDual::default() };
        let f = dual * other * dual.tanh();
        let t = x.tanh();
        let slope = t + x * (1.0 - t * t);
        for (found, expected) in [(f.value, x * y * t), (f.a, y * slope), (f.b, x * t), (f.ab, slope)] {
            assert!((found - expected).abs() < 1e-15, "{f:?}");
        }
        let both = HyperDual { value: x, a: 1.0, b: 1.0, ab: 0.0 }.tanh();
        assert!((both.ab + 2.0 * t * (1.0 - t * t)).abs() < 1e-15);
    }
}
