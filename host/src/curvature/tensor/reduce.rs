//! One number a tensor, accumulated in f64 in an order that depends on nothing but the tensor's size.

use super::memory::{Element, elements};
use super::vector::{Vectorized, Width};
use gauntlet_plugin_abi::ListReduction;
use gauntlet_plugin_api::{Error, Result};
use gauntlet_torch_ext::parallel_map;
use tch::{Device, Kind, Tensor};

/// Elements that are summed by one thread, in order.
const CHUNK: usize = 16_384;
/// Sums that run side by side within a chunk.
const LANES: usize = 16;

/// One number for each tensor of `a` (and its partner in `b` for an inner product).
///
/// # Errors
///
/// A reduction that is unknown, by name.
pub fn reduce(kind: ListReduction, a: &[&Tensor], b: &[&Tensor]) -> Result<Vec<f64>> {
    let known = ListReduction::ALL.iter().any(|(code, _)| *code == kind);
    if !known {
        return Err(Error::unsupported(format!("list reduction {}", kind.name())));
    }
    let partner = |index: usize| if kind == ListReduction::DOT { b[index] } else { a[index] };
    let pairs: Vec<(&Tensor, &Tensor)> = (0..a.len()).map(|index| (a[index], partner(index))).collect();
    let dense: Vec<Option<Vec<Piece>>> = pairs.iter().map(|(a, b)| pieces(a, b)).collect();
    let away: Vec<_> = pairs.iter().zip(&dense).filter(|(_, dense)| dense.is_none()).map(|(pair, _)| *pair).collect();
    let mut numbers = tch::no_grad(|| elsewhere(kind, &away)).into_iter();
    let mut next = || numbers.next().map(Piece::Known).into_iter().collect();
    let pieces: Vec<Vec<Piece>> = dense.into_iter().map(|dense| dense.unwrap_or_else(&mut next)).collect();
    let counts: Vec<usize> = pieces.iter().map(Vec::len).collect();
    let width = Width::widest();
    let parts = parallel_map(pieces.into_iter().flatten().collect(), |piece| piece.reduce(width, kind));
    let mut parts = parts.into_iter();
    Ok(counts.into_iter().map(|count| combined(kind, parts.by_ref().take(count))).collect())
}

/// A part of a tensor that one thread reduces, and its partner's.
enum Piece<'a> {
    Single(&'a [f32], &'a [f32]),
    Double(&'a [f64], &'a [f64]),
    /// What libtorch gave for tensors that are not dense floats on the CPU.
    Known(f64),
}

/// The pieces of dense floats on the CPU.
fn pieces<'a>(a: &'a Tensor, b: &'a Tensor) -> Option<Vec<Piece<'a>>> {
    if let (Some(a), Some(b)) = (elements(a), elements(b)) {
        return Some(a.chunks(CHUNK).zip(b.chunks(CHUNK)).map(|(a, b)| Piece::Single(a, b)).collect());
    }
    let (a, b) = (elements(a)?, elements(b)?);
    Some(a.chunks(CHUNK).zip(b.chunks(CHUNK)).map(|(a, b)| Piece::Double(a, b)).collect())
}

impl Piece<'_> {
    fn reduce(self, width: Width, kind: ListReduction) -> f64 {
        match self {
            Self::Single(a, b) => width.run(Chunk { kind, a, b, wide: f64::from }),
            Self::Double(a, b) => width.run(Chunk { kind, a, b, wide: |x| x }),
            Self::Known(result) => result,
        }
    }
}

/// What the parts of a tensor give, in their order.
fn combined(kind: ListReduction, parts: impl Iterator<Item = f64>) -> f64 {
    match kind {
        ListReduction::MAX_ABS => parts.fold(0.0, larger),
        _ => parts.sum(),
    }
}

/// One chunk. Lanes are summed apart, so that the width of vectors changes no result.
struct Chunk<'a, T, F> {
    kind: ListReduction,
    a: &'a [T],
    b: &'a [T],
    wide: F,
}

impl<T: Element, F: Fn(T) -> f64> Vectorized for Chunk<'_, T, F> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Self { kind, a, b, wide } = self;
        match kind {
            ListReduction::DOT => lanes(a, b, |sum, x, y| sum + wide(x) * wide(y)),
            ListReduction::SQUARED_NORM => lanes(a, b, |sum, x, _| sum + wide(x) * wide(x)),
            ListReduction::SUM => lanes(a, b, |sum, x, _| sum + wide(x)),
            ListReduction::MAX_ABS => a.iter().fold(0.0, |max, x| larger(max, wide(*x).abs())),
            _ => a.iter().filter(|x| !wide(**x).is_finite()).count() as f64,
        }
    }
}

/// A sum in `LANES` parts, which the compiler can keep in vectors.
#[inline(always)]
fn lanes<T: Element>(a: &[T], b: &[T], add: impl Fn(f64, T, T) -> f64) -> f64 {
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            sums[lane] = add(sums[lane], a[lane], b[lane]);
        }
    }
    let rest = rest_a.iter().zip(rest_b).fold(0.0, |sum, (a, b)| add(sum, *a, *b));
    sums.iter().sum::<f64>() + rest
}

/// The larger of both; NaN if either is.
#[inline(always)]
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// By libtorch, for tensors that are not dense floats on the CPU. The numbers come over together: one alone would wait for
/// all work that is queued on a GPU.
fn elsewhere(kind: ListReduction, pairs: &[(&Tensor, &Tensor)]) -> Vec<f64> {
    let Some((first, _)) = pairs.first() else { return vec![] };
    let device = first.device();
    let numbers: Vec<Tensor> = pairs.iter().map(|(a, b)| by_libtorch(kind, a, b).to_device(device)).collect();
    let numbers = Tensor::stack(&numbers, 0).to_device(Device::Cpu);
    (0..pairs.len() as i64).map(|at| numbers.double_value(&[at])).collect()
}

/// One number, as a tensor where its inputs are.
fn by_libtorch(kind: ListReduction, a: &Tensor, b: &Tensor) -> Tensor {
    let wide = |x: &Tensor| x.to_kind(Kind::Double);
    match kind {
        ListReduction::DOT => (wide(a) * wide(b)).sum(Kind::Double),
        ListReduction::SQUARED_NORM => wide(a).square().sum(Kind::Double),
        ListReduction::SUM => a.sum(Kind::Double),
        ListReduction::MAX_ABS if a.numel() == 0 => Tensor::zeros([], (Kind::Double, a.device())),
        ListReduction::MAX_ABS => wide(&a.abs().max()),
        _ => wide(&a.isfinite().logical_not().sum(Kind::Int64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: ListReduction, n: usize, expected: impl Fn(&[f64], &[f64]) -> f64) {
        let a: Vec<f64> = (0..n).map(|i| ((i * 37 % 101) as f64 - 50.0) / 7.0).collect();
        let b: Vec<f64> = (0..n).map(|i| ((i * 53 % 97) as f64 - 40.0) / 9.0).collect();
        let (ta, tb) = (Tensor::from_slice(&a), Tensor::from_slice(&b));
        let partner = if kind == ListReduction::DOT { vec![&tb] } else { vec![] };
        let found = reduce(kind, &[&ta], &partner).unwrap()[0];
        let expected = expected(&a, &b);
        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{kind:?} {n}: {found} {expected}");
    }

    #[test]
    fn reductions_agree_with_plain_sums() {
        for n in [0, 1, 7, 8, 9, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            check(ListReduction::DOT, n, |a, b| a.iter().zip(b).map(|(a, b)| a * b).sum());
            check(ListReduction::SQUARED_NORM, n, |a, _| a.iter().map(|a| a * a).sum());
            check(ListReduction::SUM, n, |a, _| a.iter().sum());
            check(ListReduction::MAX_ABS, n, |a, _| a.iter().fold(0.0, |m: f64, a| m.max(a.abs())));
            check(ListReduction::NON_FINITE, n, |_, _| 0.0);
        }
    }

    #[test]
    fn nan_and_infinity_are_counted_and_seen() {
        let mut values = vec![1.0_f32; 40_000];
        (values[3], values[39_999]) = (f32::NAN, f32::INFINITY);
        let tensor = Tensor::from_slice(&values);
        assert_eq!(reduce(ListReduction::NON_FINITE, &[&tensor], &[]).unwrap(), [2.0]);
        assert!(reduce(ListReduction::MAX_ABS, &[&tensor], &[]).unwrap()[0].is_nan());
        assert!(reduce(ListReduction(77), &[&tensor], &[]).unwrap_err().message.contains("not supported"));
    }

    #[test]
    fn sums_of_f32_are_accumulated_in_f64() {
        let tensor = Tensor::full([1 << 20], 1.0 + f64::from(f32::EPSILON), (Kind::Float, Device::Cpu));
        let expected = (1.0 + f64::from(f32::EPSILON)) * f64::from(1 << 20);
        assert_eq!(reduce(ListReduction::SUM, &[&tensor], &[]).unwrap(), [expected]);
    }

    #[test]
    fn a_strided_tensor_is_reduced_by_its_own_elements() {
        let tensor = Tensor::from_slice(&[1.0_f64, 2.0, 3.0, 4.0]).view([2, 2]).select(1, 0);
        assert_eq!(reduce(ListReduction::SUM, &[&tensor], &[]).unwrap(), [4.0]);
        // Dense and strided ones keep their places.
        let dense = Tensor::from_slice(&[1.0_f32, -8.0]);
        let found = |kind| reduce(kind, &[&dense, &tensor, &dense, &tensor], &[]).unwrap();
        assert_eq!(found(ListReduction::SUM), [-7.0, 4.0, -7.0, 4.0]);
        assert_eq!(found(ListReduction::MAX_ABS), [8.0, 3.0, 8.0, 3.0]);
        assert_eq!(found(ListReduction::SQUARED_NORM), [65.0, 10.0, 65.0, 10.0]);
        assert_eq!(found(ListReduction::NON_FINITE), [0.0; 4]);
        let empty = Tensor::zeros([3, 0], (Kind::Int64, Device::Cpu));
        assert_eq!(reduce(ListReduction::MAX_ABS, &[&empty, &tensor], &[]).unwrap(), [0.0, 3.0]);
    }
}
