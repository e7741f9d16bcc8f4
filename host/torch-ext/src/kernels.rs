//! Loops over rows that libtorch computes in many passes over memory: norms, GELU, and cotangents of logits.
//!
//! They serve dense tensors of one type, `Float` or `Double`, on the CPU. For others a call gives nothing, and the caller
//! computes the same with libtorch's operations. They build no autograd graph.
//!
//! # Panics
//! All of them do where shapes do not fit, or a target lies outside its row.

use tch::{Device, Kind, Tensor};

use crate::ffi;

/// The normal form `n = (x - m) s` of the rows of `x [N, width]`: m is the row's mean with `centred`, else 0, and
/// `s = 1 / sqrt(mean((x - m)^2) + eps)`.
#[derive(Debug)]
pub struct Normal {
    /// n, `[N, width]`.
    pub normal: Tensor,
    /// s, `[N, 1]`.
    pub scale: Tensor,
    /// Whether the mean is subtracted.
    pub centred: bool,
}

/// The weights of rows.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// The same for each.
    Uniform(f64),
    /// One a row.
    Each(&'a Tensor),
}

/// The cotangents that [`Normal::pullback`] gives of the vectors.
#[derive(Debug, Default)]
pub struct VectorCotangents {
    /// The sum over rows of `dy n`.
    pub weight: Option<Tensor>,
    /// The sum over rows of `dy`.
    pub bias: Option<Tensor>,
}

/// The rows' values of a quadratic model, `[N, 1]` each.
#[derive(Debug)]
pub struct QuadraticRows {
    /// `<p - y, v>`.
    pub linear: Tensor,
    /// `<v, H v>`.
    pub curvature: Tensor,
}

fn is_served(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && matches!(tensor.kind(), Kind::Float | Kind::Double) && tensor.dim() == 2
}

fn column(like: &Tensor) -> Tensor {
    Tensor::empty([like.size()[0], 1], (like.kind(), like.device()))
}

impl Normal {
    /// `y = w n + b` of rows x, and their normal form.
    pub fn of(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f64, centred: bool) -> Option<(Tensor, Self)> {
        if !is_served(x) {
            return None;
        }
        let (output, normal) = (x.empty_like(), Self { normal: x.empty_like(), scale: column(x), centred });
        normal.with(weight).forward(x, bias, eps, &output).then_some((output, normal))
    }

    /// The cotangent of x for that of y, `s (t - mean(t) - n mean(n t))` with `t = w dy` (the first mean with `centred`
    /// only), and those of w and b if they are wanted. With `into` the first is added to it.
    pub fn pullback(
        &self,
        dy: &Tensor,
        weight: &Tensor,
        into: Option<&Tensor>,
        wants: [bool; 2],
    ) -> Option<(Tensor, VectorCotangents)> {
        if !is_served(dy) {
            return None;
        }
        let dx = into.map_or_else(|| dy.empty_like(), Tensor::shallow_clone);
        let [weight_sum, bias_sum] = wants.map(|wanted| wanted.then(|| weight.empty_like()));
        let done = self.with(weight).pullback(dy, (&dx, into.is_some()), weight_sum.as_ref(), bias_sum.as_ref());
        done.then_some((dx, VectorCotangents { weight: weight_sum, bias: bias_sum }))
    }

    /// The tangent of y for that of x: `w n' + w' n + b'`, of the tangents that there are; b' only beside w'.
    pub fn tangent(
        &self,
        dx: &Tensor,
        weight: &Tensor,
        weight_tangent: Option<&Tensor>,
        bias_tangent: Option<&Tensor>,
    ) -> Option<Tensor> {
        if !is_served(dx) || bias_tangent.is_some() && weight_tangent.is_none() {
            return None;
        }
        let dy = dx.empty_like();
        self.with(weight).tangent(dx, weight_tangent, bias_tangent, &dy).then_some(dy)
    }

    fn with<'a>(&'a self, weight: &'a Tensor) -> ffi::Norm<'a> {
        ffi::Norm { normal: &self.normal, scale: &self.scale, weight, centred: self.centred }
    }
}

impl<'a> Weights<'a> {
    fn of(self, z: &'a Tensor) -> ffi::Rows<'a> {
        match self {
            Self::Uniform(weight) => ffi::Rows { z, weights: None, weight },
            Self::Each(weights) => ffi::Rows { z, weights: Some(weights), weight: 0.0 },
        }
    }
}

/// `z <- softmax(z)`; gives the losses `-log p_y` of targets y, `[N, 1]`.
pub fn softmax_(z: &Tensor, targets: &Tensor) -> Option<Tensor> {
    let losses = is_served(z).then(|| column(z))?;
    Weights::Uniform(0.0).of(z).softmax(targets, &losses).then_some(losses)
}

/// `z <- c (softmax(z) - y)` with the weights c of rows; gives the losses `-log p_y` of targets y, `[N, 1]`.
pub fn residual_(z: &Tensor, targets: &Tensor, weights: Weights) -> Option<Tensor> {
    let losses = is_served(z).then(|| column(z))?;
    weights.of(z).residual(targets, &losses).then_some(losses)
}

/// `v <- c (p - y + p (v - <p, v>))` for probabilities p: the gradient of the quadratic model of the rows' losses along v.
pub fn quadratic_(p: &Tensor, v: &Tensor, targets: &Tensor, weights: Weights) -> Option<QuadraticRows> {
    let [linear, curvature] = is_served(p).then(|| [column(p), column(p)])?;
    weights.of(p).quadratic(v, targets, [&linear, &curvature]).then_some(QuadraticRows { linear, curvature })
}

/// `v <- c p (v - <p, v>)`: the product with the Hessian of the rows' losses. Gives whether it was done.
pub fn curve_(p: &Tensor, v: &Tensor, weights: Weights) -> bool {
    is_served(p) && weights.of(p).curve(v)
}

/// GELU in its tanh approximation.
pub fn gelu(x: &Tensor) -> Option<Tensor> {
    let output = is_served(x).then(|| x.empty_like())?;
    ffi::gelu(x, None, &output).then_some(output)
}

/// `dy` times the derivative of [`gelu`] at x.
pub fn gelu_derivative(x: &Tensor, dy: &Tensor) -> Option<Tensor> {
    let output = is_served(x).then(|| x.empty_like())?;
    ffi::gelu(x, Some(dy), &output).then_some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [(Kind, f64); 2] = [(Kind::Double, 1e-13), (Kind::Float, 2e-6)];

    /// Numbers without a pattern, `[rows, width]`; widths that are no multiple of a vector.
    fn numbers(rows: i64, width: i64, seed: f64, kind: Kind) -> Tensor {
        let count = Tensor::arange(rows * width, (Kind::Double, Device::Cpu));
        (((count + seed) * 12.9898).sin() * 437.58).frac().view([rows, width]).g_mul_scalar_(3.0).to_kind(kind)
    }

    fn vector(width: i64, seed: f64, kind: Kind) -> Tensor {
        numbers(1, width, seed, kind).view(-1)
    }

    fn targets(rows: i64, width: i64) -> Tensor {
        (Tensor::arange(rows, (Kind::Int64, Device::Cpu)) * 7).remainder(width)
    }

    fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64) {
        assert_eq!(found.size(), expected.size());
        let scale = expected.abs().max().double_value(&[]).max(1e-300);
        let error = (found - expected).abs().max().double_value(&[]) / scale;
        assert!(error < tolerance, "error {error:.1e}");
    }

    fn sum(x: &Tensor, dim: i64) -> Tensor {
        x.sum_dim_intlist([dim].as_slice(), dim == -1, None::<Kind>)
    }

    /// The norm by libtorch's operations, as part of an autograd graph.
    fn norm(x: &Tensor, weight: &Tensor, bias: &Tensor, centred: bool) -> Tensor {
        match centred {
            true => x.layer_norm(weight.size(), Some(weight), Some(bias), 1e-5, false),
            false => x.rms_norm(weight.size(), Some(weight), 1e-5) + bias,
        }
    }

    #[test]
    fn norms_and_their_cotangents_are_those_of_autograd() {
        for ((kind, tolerance), centred) in KINDS.into_iter().flat_map(|kind| [(kind, true), (kind, false)]) {
            let (rows, width) = (70, 37);
            let [x, dy] = [1.0, 2.0].map(|seed| numbers(rows, width, seed, kind));
            let [weight, bias] = [3.0, 4.0].map(|seed| vector(width, seed, kind));
            let leaves = [&x, &weight, &bias].map(|leaf| leaf.copy().set_requires_grad(true));
            let expected = norm(&leaves[0], &leaves[1], &leaves[2], centred);
            let graph = (&expected * &dy).sum(None::<Kind>);
            let gradients = Tensor::run_backward(&[graph], &leaves, false, false);
            let (output, normal) = Normal::of(&x, &weight, Some(&bias), 1e-5, centred).unwrap();
            assert_close(&output, &expected.detach(), tolerance);
            let before = numbers(rows, width, 5.0, kind);
            let into = before.copy();
            let (added, vectors) = normal.pullback(&dy, &weight, Some(&into), [true, true]).unwrap();
            assert_close(&(added - before), &gradients[0], 10.0 * tolerance);
            assert_close(&vectors.weight.unwrap(), &gradients[1], 10.0 * tolerance);
            assert_close(&vectors.bias.unwrap(), &gradients[2], 10.0 * tolerance);
            let (alone, vectors) = normal.pullback(&dy, &weight, None, [false, false]).unwrap();
            assert_close(&alone, &gradients[0], 10.0 * tolerance);
            assert!(vectors.weight.is_none() && vectors.bias.is_none());
        }
    }

    /// `<dy, y'> = <dx*, x'> + <dw*, w'> + <db*, b'>`.
    #[test]
    fn tangents_of_norms_are_adjoint_to_their_cotangents() {
        for centred in [true, false] {
            let [x, dy, dx] = [1.0, 2.0, 3.0].map(|seed| numbers(33, 20, seed, Kind::Double));
            let [weight, dw, db] = [4.0, 5.0, 6.0].map(|seed| vector(20, seed, Kind::Double));
            let (_, normal) = Normal::of(&x, &weight, None, 1e-5, centred).unwrap();
            let (cotangent, vectors) = normal.pullback(&dy, &weight, None, [true, true]).unwrap();
            let dot = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
            let mut expected = dot(&cotangent, &dx);
            for (dw, db) in [(None, None), (Some(&dw), None), (Some(&dw), Some(&db))] {
                expected = dot(&cotangent, &dx);
                expected += dw.map_or(0.0, |dw| dot(vectors.weight.as_ref().unwrap(), dw));
                expected += db.map_or(0.0, |db| dot(vectors.bias.as_ref().unwrap(), db));
                let found = dot(&dy, &normal.tangent(&dx, &weight, dw, db).unwrap());
                assert!((found - expected).abs() < 1e-10 * expected.abs().max(1.0), "{found} {expected}");
            }
            assert!(expected.is_finite());
        }
    }

    #[test]
    fn losses_and_cotangents_of_logits_are_those_of_the_formulas() {
        for (kind, tolerance) in KINDS {
            let (rows, width) = (67, 45);
            let [z, v] = [1.0, 2.0].map(|seed| numbers(rows, width, seed, kind));
            let (y, c) = (targets(rows, width), numbers(rows, 1, 9.0, kind).abs());
            let (p, one_hot) = (z.softmax(-1, None::<Kind>), z.zeros_like().scatter_value(1, &y.view([-1, 1]), 1.0));
            let losses = -z.log_softmax(-1, None::<Kind>).gather(1, &y.view([-1, 1]), false);
            let same = z.copy();
            assert_close(&softmax_(&same, &y).unwrap(), &losses, tolerance);
            assert_close(&same, &p, tolerance);
            for (weights, numbers) in
                [(Weights::Each(&c), c.shallow_clone()), (Weights::Uniform(0.5), c.ones_like() * 0.5)]
            {
                let same = z.copy();
                assert_close(&residual_(&same, &y, weights).unwrap(), &losses, tolerance);
                assert_close(&same, &((&p - &one_hot) * &numbers), tolerance);
                let mean = sum(&(&p * &v), -1);
                let curved = &p * (&v - &mean);
                let product = v.copy();
                assert!(curve_(&p, &product, weights));
                assert_close(&product, &(&curved * &numbers), 4.0 * tolerance);
                let product = v.copy();
                let row = quadratic_(&p, &product, &y, weights).unwrap();
                assert_close(&product, &((&p - &one_hot + &curved) * &numbers), 4.0 * tolerance);
                assert_close(&row.linear, &sum(&((&p - &one_hot) * &v), -1), 4.0 * tolerance);
                assert_close(&row.curvature, &sum(&(&curved * &v), -1), 10.0 * tolerance);
            }
        }
    }

    #[test]
    fn logits_may_be_far_apart_or_not_finite() {
        let z = Tensor::from_slice(&[0.0_f32, 300.0, -300.0, f32::NAN, 1.0, 2.0, f32::INFINITY, 0.0, 0.0]).view([3, 3]);
        let losses = softmax_(&z, &Tensor::from_slice(&[0_i64, 1, 2])).unwrap();
        let losses: Vec<f32> = losses.view(-1).try_into().unwrap();
        assert_eq!(losses[0], 300.0);
        assert!(losses[1].is_nan() && !losses[2].is_finite(), "{losses:?}");
        assert!(z.get(0).allclose(&Tensor::from_slice(&[0.0_f32, 1.0, 0.0]), 1e-6, 1e-30, false));
    }

    #[test]
    fn gelu_and_its_derivative_are_libtorch_s() {
        for (kind, tolerance) in KINDS {
            let (x, dy) = (numbers(41, 19, 1.0, kind) * 4.0, numbers(41, 19, 2.0, kind));
            assert_close(&gelu(&x).unwrap(), &x.gelu("tanh"), tolerance);
            assert_close(&gelu_derivative(&x, &dy).unwrap(), &x.gelu_backward(&dy, "tanh"), 4.0 * tolerance);
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let [x, dy] = [1.0, 2.0].map(|seed| numbers(300, 64, seed, Kind::Float));
        let weight = vector(64, 3.0, Kind::Float);
        let run = |threads: i32| {
            tch::set_num_threads(threads);
            let (output, normal) = Normal::of(&x, &weight, None, 1e-6, false).unwrap();
            let (dx, vectors) = normal.pullback(&dy, &weight, None, [true, true]).unwrap();
            [output, dx, vectors.weight.unwrap(), vectors.bias.unwrap()]
        };
        let (one, two) = (run(1), run(2));
        assert!(one.iter().zip(&two).all(|(a, b)| a.equal(b)));
    }

    #[test]
    fn other_tensors_are_not_served() {
        let weight = vector(4, 1.0, Kind::Double);
        let strided = numbers(4, 6, 1.0, Kind::Double).tr();
        assert!(gelu(&strided).is_none(), "not dense");
        assert!(Normal::of(&numbers(6, 4, 1.0, Kind::Float), &weight, None, 1e-6, false).is_none(), "two types");
        assert!(softmax_(&numbers(6, 4, 1.0, Kind::Double).to_kind(Kind::Half), &targets(6, 4)).is_none());
    }

    #[test]
    #[should_panic(expected = "a target outside the vocabulary of 4")]
    fn a_target_outside_is_refused() {
        softmax_(&numbers(6, 4, 1.0, Kind::Double), &(targets(6, 4) + 1));
    }
}
