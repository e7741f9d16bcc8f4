//! Causal attention at a point, by rows: o = softmax(q k^T) v with q scaled beforehand.
//!
//! With the probabilities P, the scores' tangent S' and A = P * S' the tangent is o' = A v + P v' - o rowsum(A). Short
//! sequences keep P; longer ones recompute it from the rows' log-sums, chunk by chunk up to the diagonal, so that no
//! `[T, T]` matrix of all heads is ever held.

use super::linear::Flops;
use super::norm::Normed;
use super::sink::Sink;
use super::{Anchor, Shape, Tangents};
use crate::model::{BlockPlaces, NormPlaces};
use tch::{Kind, Tensor};

/// Rows of the score matrix that are computed at once.
const ROWS: i64 = 128;

/// How many numbers a row keeps of each head for its probabilities.
pub fn kept_scores(length: i64) -> usize {
    if length <= ROWS { length as usize } else { 1 }
}

/// Attention's values for inputs `[N, width]`.
#[derive(Debug)]
pub struct Attention {
    shape: Shape,
    /// LayerNorms of q and k, with `qk_norm`.
    norms: Option<[Normed; 2]>,
    /// `[batch heads, T, head_width]`, rotated; q divided by the root of `head_width`.
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// o in the same form.
    out: Tensor,
    weights: Weights,
    /// o as the output matrix reads it, `[N, width]`.
    merged: Tensor,
}

/// What gives the probabilities of a chunk of rows.
#[derive(Debug)]
enum Weights {
    /// P, `[batch heads, T, T]`.
    Kept(Tensor),
    /// The logarithm of each row's sum, `[batch heads, T, 1]`.
    LogSums(Tensor),
}

impl Attention {
    /// The values at the anchor; the output `[N, width]` is added to `residual`.
    pub fn forward(anchor: &Anchor, at: &BlockPlaces<usize>, shape: &Shape, x: &Tensor, residual: &mut Tensor) -> Self {
        let project = |param: usize| anchor.flops.forward(x, anchor.param(param), None);
        let (q, k, v) = (project(at.q), project(at.k), project(at.v));
        let normed = |x: &Tensor, at: NormPlaces<usize>| {
            Normed::layer(x, anchor.param(at.weight), anchor.param(at.bias), anchor.config().norm_eps)
        };
        let norms = at.qk_norm.map(|[q_at, k_at]| [normed(&q, q_at), normed(&k, k_at)]);
        let (q, k) = match &norms {
            Some([q, k]) => (q.output.shallow_clone(), k.output.shallow_clone()),
            None => (q, k),
        };
        let shape = shape.clone();
        let (q, k, v) = (shape.split_q(&q), shape.split_rotated(&k), shape.split(&v));
        let (out, weights) = attend(&anchor.flops, &shape, &q, &k, &v);
        let merged = shape.merge(&out, shape.heads);
        *residual = anchor.flops.forward(&merged, anchor.param(at.o), Some(residual));
        Self { shape, norms, q, k, v, out, weights, merged }
    }

    /// The tangent of the output for that of the input `x`.
    pub fn tangent(
        &self,
        anchor: &Anchor,
        at: &BlockPlaces<usize>,
        x: &Tensor,
        dx: Option<&Tensor>,
        tangents: &Tangents,
    ) -> Option<Tensor> {
        let linear = |param: usize| anchor.flops.tangent(x, dx, anchor.param(param), tangents.of(param));
        let (mut q, mut k, v) = (linear(at.q), linear(at.k), linear(at.v));
        if let (Some([q_norm, k_norm]), Some([q_at, k_at])) = (&self.norms, at.qk_norm) {
            let through = |norm: &Normed, at: NormPlaces<usize>, dx: Option<&Tensor>| {
                norm.tangent(dx, anchor.param(at.weight), tangents.of(at.weight), tangents.of(at.bias))
            };
            (q, k) = (through(q_norm, q_at, q.as_ref()), through(k_norm, k_at, k.as_ref()));
        }
        let shape = &self.shape;
        let q = q.map(|q| shape.split_q(&q));
        let k = k.map(|k| shape.split_rotated(&k));
        let v = v.map(|v| shape.split(&v));
        let out = self.out_tangent(&anchor.flops, q.as_ref(), k.as_ref(), v.as_ref());
        let merged = out.map(|out| shape.merge(&out, shape.heads));
        anchor.flops.tangent(&self.merged, merged.as_ref(), anchor.param(at.o), tangents.of(at.o))
    }

    /// The tangent of o.
    fn out_tangent(&self, flops: &Flops, q: Option<&Tensor>, k: Option<&Tensor>, v: Option<&Tensor>) -> Option<Tensor> {
        if q.is_none() && k.is_none() && v.is_none() {
            return None;
        }
        let rows = self.shape.chunks().map(|(first, count)| {
            let (at, upto) = (Rows { first, count }, first + count);
            let p = self.probabilities(flops, at);
            let scores =
                [q.map(|q| (at.of(q), upto_rows(&self.k, upto))), k.map(|k| (at.of(&self.q), upto_rows(k, upto)))];
            let scores = scores.into_iter().flatten().fold(None, |sum: Option<Tensor>, (q, k)| {
                self.count(flops, at, 1);
                Some(multiply(sum, &q, &k.transpose(1, 2)))
            });
            let mut moved = v.map(|v| {
                self.count(flops, at, 1);
                p.bmm(&upto_rows(v, upto))
            });
            if let Some(mut scores) = scores {
                self.count(flops, at, 1);
                let a = scores.g_mul_(&p);
                let mut along = multiply(moved.take(), &a, &upto_rows(&self.v, upto));
                moved = Some(along.addcmul_(&at.of(&self.out), &last_sum(&a).neg()));
            }
            moved
        });
        joined(rows.flatten().collect())
    }

    /// The cotangent of the input `x` for that of the output.
    pub fn pullback(
        &self,
        anchor: &Anchor,
        at: &BlockPlaces<usize>,
        x: &Tensor,
        dy: &Tensor,
        sink: &mut dyn Sink,
    ) -> Tensor {
        let shape = &self.shape;
        anchor.linear_cotangent(at.o, &self.merged, dy, sink);
        let merged = anchor.flops.pullback(None, dy, anchor.param(at.o));
        let [q, k, v] = self.out_pullback(&anchor.flops, &shape.split_heads(&merged, shape.heads));
        let mut q = shape.merge_q(&q);
        let mut k = shape.merge_rotated(&k);
        let v = shape.merge(&v, shape.kv_heads);
        if let (Some([q_norm, k_norm]), Some([q_at, k_at])) = (&self.norms, at.qk_norm) {
            q = anchor.norm_pullback(q_norm, q_at.weight, Some(q_at.bias), &q, None, sink);
            k = anchor.norm_pullback(k_norm, k_at.weight, Some(k_at.bias), &k, None, sink);
        }
        [(at.q, &q), (at.k, &k), (at.v, &v)]
            .into_iter()
            .fold(None, |sum, (param, dy)| {
                anchor.linear_cotangent(param, x, dy, sink);
                Some(anchor.flops.pullback(sum, dy, anchor.param(param)))
            })
            .unwrap_or_else(|| x.zeros_like())
    }

    /// The cotangents of q, k and v for that of o.
    fn out_pullback(&self, flops: &Flops, dy: &Tensor) -> [Tensor; 3] {
        let (mut q, mut k, mut v) = (vec![], None, None);
        let along = last_sum(&(dy * &self.out)).neg();
        for (first, count) in self.shape.chunks().rev() {
            let (at, upto) = (Rows { first, count }, first + count);
            let (p, dy) = (self.probabilities(flops, at), at.of(dy));
            self.count(flops, at, 4);
            accumulate(&mut v, upto, &p, &dy);
            let mut scores = dy.bmm(&upto_rows(&self.v, upto).transpose(1, 2));
            let scores = scores.g_add_(&at.of(&along)).g_mul_(&p);
            q.push(scores.bmm(&upto_rows(&self.k, upto)));
            accumulate(&mut k, upto, &scores, &at.of(&self.q));
        }
        q.reverse();
        [joined(q), k, v].map(|cotangent| cotangent.unwrap_or_else(|| self.q.zeros_like()))
    }

    /// The probabilities of rows, `[batch heads, count, first + count]`.
    fn probabilities(&self, flops: &Flops, rows: Rows) -> Tensor {
        match &self.weights {
            Weights::Kept(p) => rows.of(p),
            Weights::LogSums(sums) => {
                let mut scores = scores(flops, &self.shape, &self.q, &self.k, rows);
                scores.g_sub_(&rows.of(sums)).exp_()
            }
        }
    }

    /// Counts products as if nothing were masked, as others count attention.
    fn count(&self, flops: &Flops, rows: Rows, products: i64) {
        let Shape { batch, heads, length, head_width, .. } = self.shape;
        flops.count(products * batch * heads, rows.count, head_width, length);
    }
}

/// Consecutive rows of every head.
#[derive(Clone, Copy)]
struct Rows {
    first: i64,
    count: i64,
}

impl Rows {
    fn of(self, x: &Tensor) -> Tensor {
        x.narrow(1, self.first, self.count)
    }
}

/// o and what gives the probabilities.
fn attend(flops: &Flops, shape: &Shape, q: &Tensor, k: &Tensor, v: &Tensor) -> (Tensor, Weights) {
    let (mut outs, mut sums, mut kept) = (vec![], vec![], None);
    let chunks = shape.chunks();
    let keep = chunks.len() == 1;
    for (first, count) in chunks {
        let rows = Rows { first, count };
        let mut scores = scores(flops, shape, q, k, rows);
        let p = if keep {
            scores.softmax(-1, None)
        } else {
            let sum = scores.logsumexp([-1_i64].as_slice(), true);
            let p = scores.g_sub_(&sum).exp_();
            sums.push(sum);
            p
        };
        flops.count(shape.batch * shape.heads, count, shape.head_width, shape.length);
        outs.push(p.bmm(&upto_rows(v, first + count)));
        kept = Some(p);
    }
    let out = joined(outs).unwrap_or_else(|| q.zeros_like());
    match kept {
        Some(p) if keep => (out, Weights::Kept(p)),
        _ => (out, Weights::LogSums(Tensor::cat(&sums, 1))),
    }
}

/// The masked scores of rows, `[batch heads, count, first + count]`.
fn scores(flops: &Flops, shape: &Shape, q: &Tensor, k: &Tensor, rows: Rows) -> Tensor {
    flops.count(shape.batch * shape.heads, rows.count, shape.head_width, shape.length);
    let upto = rows.first + rows.count;
    let mask = shape.mask.narrow(0, rows.first, rows.count).narrow(1, 0, upto);
    mask.unsqueeze(0).baddbmm(&rows.of(q), &upto_rows(k, upto).transpose(1, 2), 1, 1)
}

fn upto_rows(x: &Tensor, upto: i64) -> Tensor {
    x.narrow(1, 0, upto)
}

/// `a b`, added to `sum` if there is one.
fn multiply(sum: Option<Tensor>, a: &Tensor, b: &Tensor) -> Tensor {
    match sum {
        None => a.bmm(b),
        Some(mut sum) => sum.baddbmm_(a, b),
    }
}

/// Adds `a^T b` to the first `upto` rows of a sum; the first call has the most rows.
fn accumulate(sum: &mut Option<Tensor>, upto: i64, a: &Tensor, b: &Tensor) {
    match sum {
        None => *sum = Some(a.transpose(1, 2).bmm(b)),
        Some(sum) => drop(upto_rows(sum, upto).baddbmm_(&a.transpose(1, 2), b)),
    }
}

fn joined(mut chunks: Vec<Tensor>) -> Option<Tensor> {
    if chunks.len() > 1 { Some(Tensor::cat(&chunks, 1)) } else { chunks.pop() }
}

/// The sum over the last dimension, which stays.
fn last_sum(x: &Tensor) -> Tensor {
    x.sum_dim_intlist([-1_i64].as_slice(), true, None::<Kind>)
}

impl Shape {
    /// First row and number of rows of each chunk.
    fn chunks(&self) -> impl DoubleEndedIterator<Item = (i64, i64)> + ExactSizeIterator + use<> {
        let length = self.length;
        (0..(length + ROWS - 1) / ROWS)
            .map(move |i| (i * ROWS, ROWS.min(length - i * ROWS)))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// q `[N, width]` rotated, scaled and by head.
    fn split_q(&self, q: &Tensor) -> Tensor {
        let q = self.tables.rotate(&self.by_position(q, self.heads)).g_mul_scalar_(self.scale());
        self.heads_first(&q)
    }

    /// k `[N, kv_width]` rotated and by head, repeated for the heads that share it.
    fn split_rotated(&self, k: &Tensor) -> Tensor {
        self.heads_first(&self.repeat(self.tables.rotate(&self.by_position(k, self.kv_heads))))
    }

    /// v `[N, kv_width]` by head, repeated for the heads that share it.
    fn split(&self, v: &Tensor) -> Tensor {
        self.heads_first(&self.repeat(self.by_position(v, self.kv_heads)))
    }

    /// `[N, heads head_width]` by head.
    fn split_heads(&self, x: &Tensor, heads: i64) -> Tensor {
        self.heads_first(&self.by_position(x, heads))
    }

    /// The transpose of [`Shape::split_q`].
    fn merge_q(&self, q: &Tensor) -> Tensor {
        let q = self.tables.rotate_back(&self.positions_first(q)).g_mul_scalar_(self.scale());
        q.view([self.batch * self.length, -1])
    }

    /// The transpose of [`Shape::split_rotated`].
    fn merge_rotated(&self, k: &Tensor) -> Tensor {
        let k = self.tables.rotate_back(&self.shared(self.positions_first(k), self.kv_heads).contiguous());
        k.reshape([self.batch * self.length, -1])
    }

    /// The transpose of [`Shape::split`] or, with all heads, of [`Shape::split_heads`].
    fn merge(&self, x: &Tensor, heads: i64) -> Tensor {
        self.shared(self.positions_first(x), heads).reshape([self.batch * self.length, -1])
    }

    fn scale(&self) -> f64 {
        (self.head_width as f64).sqrt().recip()
    }

    /// `[batch, T, heads, head_width]`.
    fn by_position(&self, x: &Tensor, heads: i64) -> Tensor {
        x.view([self.batch, self.length, heads, self.head_width])
    }

    /// `[batch heads, T, head_width]` from `[batch, T, heads, head_width]`.
    fn heads_first(&self, x: &Tensor) -> Tensor {
        x.transpose(1, 2).contiguous().view([-1, self.length, self.head_width])
    }

    /// `[batch, T, heads, head_width]` from `[batch heads, T, head_width]`.
    fn positions_first(&self, x: &Tensor) -> Tensor {
        x.view([self.batch, self.heads, self.length, self.head_width]).transpose(1, 2).contiguous()
    }

    fn repeat(&self, x: Tensor) -> Tensor {
        match self.heads / self.kv_heads {
            1 => x,
            repeats => x.repeat_interleave_self_int(repeats, 2, None::<i64>),
        }
    }

    /// The sum over the heads that share one, in `[batch, T, heads, head_width]`.
    fn shared(&self, x: Tensor, heads: i64) -> Tensor {
        match self.heads / heads {
            1 => x,
            repeats => x.unflatten(2, [heads, repeats]).sum_dim_intlist([3_i64].as_slice(), false, None::<Kind>),
        }
    }
}
