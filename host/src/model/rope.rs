//! Rotary position embedding (Su et al., arXiv 2104.09864): q and k of position `t` are rotated in two-dimensional
//! planes by `t * theta^(-2 i / head_width)`, so that their product depends on the distance of positions only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Which two dimensions of a head form plane `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rope {
    /// `2 i` and `2 i + 1`.
    Interleaved,
    /// `i` and `i + head_width / 2`.
    Half,
}

/// Tables of rotations for the first positions, in the form that a layout wants.
#[derive(Debug)]
pub enum RopeTable {
    /// Complex `cos + i sin`, `[positions, 1, head_width / 2]`.
    Interleaved(Tensor),
    /// Two real tables, `[positions, 1, head_width]` each.
    Half {
        /// Cosines, repeated for both halves.
        cos: Tensor,
        /// Sines with the sign of each half.
        sin: Tensor,
    },
}

impl RopeTable {
    /// Rotations of positions `0..positions`, computed in f64.
    pub(super) fn new(rope: Rope, positions: i64, head_width: i64, theta: f64, kind: Kind, device: Device) -> Self {
        let options = (Kind::Double, device);
        let exponents = Tensor::arange(head_width / 2, options) * (-2.0 / head_width as f64);
        let frequencies = (exponents * theta.ln()).exp();
        let angles = Tensor::arange(positions, options).outer(&frequencies).unsqueeze(1);
        let (cos, sin) = (angles.cos().to_kind(kind), angles.sin().to_kind(kind));
        match rope {
            Rope::Interleaved => Self::Interleaved(Tensor::complex(&cos, &sin)),
            Rope::Half => Self::Half { cos: Tensor::cat(&[&cos, &cos], -1), sin: Tensor::cat(&[&-&sin, &sin], -1) },
        }
    }

    /// The rotations of the first `positions` positions; shares the tables' storage.
    pub(super) fn first(&self, positions: i64) -> Self {
        match self {
            Self::Interleaved(rotation) => Self::Interleaved(rotation.narrow(0, 0, positions)),
            Self::Half { cos, sin } => {
                Self::Half { cos: cos.narrow(0, 0, positions), sin: sin.narrow(0, 0, positions) }
            }
        }
    }

    /// The same tables; they share storage.
    pub fn shallow_clone(&self) -> Self {
        match self {
            Self::Interleaved(rotation) => Self::Interleaved(rotation.shallow_clone()),
            Self::Half { cos, sin } => Self::Half { cos: cos.shallow_clone(), sin: sin.shallow_clone() },
        }
    }

    /// Rotates back, the transpose of [`RopeTable::rotate`].
    pub fn rotate_back(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Interleaved(rotation) => {
                let planes = x.unflatten(-1, [-1, 2]).view_as_complex();
                (planes * rotation.conj()).view_as_real().flatten(-2, -1)
            }
            Self::Half { cos, sin } => {
                let half = x.size().last().map_or(0, |width| width / 2);
                (x * cos) + (x * sin).roll([half], [-1])
            }
        }
    }

    /// Rotates `x [batch, positions, heads, head_width]`.
    pub fn rotate(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Interleaved(rotation) => {
                let planes = x.unflatten(-1, [-1, 2]).view_as_complex();
                (planes * rotation).view_as_real().flatten(-2, -1)
            }
            Self::Half { cos, sin } => {
                let half = x.size().last().map_or(0, |width| width / 2);
                (x * cos).addcmul(&x.roll([half], [-1]), sin)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: i64 = 6;

    fn table(rope: Rope, positions: i64) -> RopeTable {
        RopeTable::new(rope, positions, WIDTH, 1e4, Kind::Double, Device::Cpu)
    }

    fn random(seed: i64, positions: i64) -> Tensor {
        let x = Tensor::arange(2 * positions * 3 * WIDTH, (Kind::Double, Device::Cpu)) + seed;
        (x * 0.7).sin().reshape([2, positions, 3, WIDTH])
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    /// Products over the last dimension.
    fn dot(a: &Tensor, b: &Tensor) -> Tensor {
        (a * b).sum_dim_intlist([-1_i64].as_slice(), false, None::<Kind>)
    }

    #[test]
    fn interleaved_rotates_neighbours_by_the_angle_of_their_plane() {
        let x = random(0, 5);
        let y = table(Rope::Interleaved, 5).rotate(&x);
        let (position, plane) = (3_i64, 1_i64);
        let angle = position as f64 * 1e4_f64.powf(-2.0 * plane as f64 / WIDTH as f64);
        let at = |t: &Tensor, dim| t.double_value(&[1, position, 2, dim]);
        let (a, b) = (at(&x, 2), at(&x, 3));
        assert!((at(&y, 2) - (a * angle.cos() - b * angle.sin())).abs() < 1e-14);
        assert!((at(&y, 3) - (a * angle.sin() + b * angle.cos())).abs() < 1e-14);
    }

    #[test]
    fn half_is_interleaved_under_a_permutation() {
        let x = random(1, 7);
        let order = Tensor::from_slice(&[0_i64, 2, 4, 1, 3, 5]);
        let permuted = x.index_select(-1, &order);
        let half = table(Rope::Half, 7).rotate(&permuted);
        let interleaved = table(Rope::Interleaved, 7).rotate(&x).index_select(-1, &order);
        assert!(distance(&half, &interleaved) < 1e-14);
        assert!(distance(&table(Rope::Half, 7).rotate(&x), &table(Rope::Interleaved, 7).rotate(&x)) > 0.1);
    }

    #[test]
    fn products_depend_on_the_distance_of_positions_only() {
        for rope in [Rope::Interleaved, Rope::Half] {
            let q = random(2, 1).expand([2, 9, 3, WIDTH], true).contiguous();
            let k = random(5, 1).expand([2, 9, 3, WIDTH], true).contiguous();
            let table = table(rope, 9);
            let (q, k) = (table.rotate(&q), table.rotate(&k));
            let product = |i: i64, j: i64| dot(&q.select(1, i), &k.select(1, j));
            assert!(distance(&product(7, 4), &product(3, 0)) < 1e-13, "{rope:?}");
            assert!(distance(&product(7, 4), &product(7, 5)) > 1e-3, "{rope:?}");
        }
    }

    #[test]
    fn rotating_back_undoes_a_rotation() {
        for rope in [Rope::Interleaved, Rope::Half] {
            let x = random(4, 6);
            let table = table(rope, 6);
            assert!(distance(&table.rotate_back(&table.rotate(&x)), &x) < 1e-14, "{rope:?}");
        }
    }

    #[test]
    fn rotation_keeps_norms_and_the_first_position() {
        for rope in [Rope::Interleaved, Rope::Half] {
            let x = random(3, 4);
            let y = table(rope, 9).first(4).rotate(&x);
            assert!(distance(&dot(&x, &x), &dot(&y, &y)) < 1e-13);
            assert!(x.select(1, 0).equal(&y.select(1, 0)));
        }
    }
}
