//! What each product does with the logits z, their tangents z' and the probabilities p of a chunk of rows: the loss's
//! gradient `p - y` and its Hessian `H v = p * (v - <p, v>)` in closed form, and the sums that go with them.

use super::passes::{Needs, RowWeights, Rows, Rule, Scores};
use gauntlet_torch_ext::kernels;
use tch::{Kind, Tensor};

/// The mean loss, and nothing to pull back.
#[derive(Debug, Default)]
pub struct Loss {
    /// Sum of the weighted losses.
    pub value: f64,
}

impl Rule for Loss {
    fn needs(&self) -> Needs {
        Needs::Losses
    }

    fn rows(&mut self, rows: &Rows, scores: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
        self.value += anchor_loss(rows, scores);
        tangents.into_iter().map(|_| None).collect()
    }
}

/// The loss of each row, and nothing to pull back.
#[derive(Debug, Default)]
pub struct RowLosses {
    /// One number a row.
    pub rows: Vec<f64>,
}

impl Rule for RowLosses {
    fn needs(&self) -> Needs {
        Needs::Losses
    }

    fn rows(&mut self, _: &Rows, scores: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
        self.rows.extend(numbers(scores.losses.as_ref().expect("asked for")));
        tangents.into_iter().map(|_| None).collect()
    }
}

/// Whose labels the loss has.
#[derive(Debug)]
pub enum Targets<'a> {
    /// The data's.
    Data,
    /// Drawn from p with uniform numbers, one a row of the micro-batch.
    Sampled(&'a [f64]),
}

impl Targets<'_> {
    /// Labels `[n, 1]` of a chunk.
    fn of(&self, rows: &Rows, p: &Tensor) -> Tensor {
        match self {
            Self::Data => rows.targets.shallow_clone(),
            Self::Sampled(uniforms) => {
                let first = rows.first as usize;
                sample(p, &uniforms[first..first + p.size()[0] as usize])
            }
        }
    }
}

/// `p - y`: the gradient.
#[derive(Debug)]
pub struct Residual<'a> {
    /// Whose labels.
    pub targets: Targets<'a>,
    /// Other weights of the rows than those of the mean.
    pub weights: Option<RowWeights>,
    /// Sum of the weighted losses.
    pub loss: f64,
}

impl Residual<'_> {
    /// The losses, and `w (p - y)` for the data's labels, in place of the logits.
    fn of_data(rows: &Rows, logits: &Tensor, weights: &RowWeights) -> (Tensor, Tensor) {
        let count = logits.size()[0];
        let of_rows = weights.rows(rows.first, count);
        if let Some(losses) = kernels::residual_(logits, &rows.targets, of_rows.kernel()) {
            return (losses, logits.shallow_clone());
        }
        let mut log_probabilities = logits.log_softmax(-1, None::<Kind>);
        let losses = log_probabilities.gather(1, &rows.targets, false).neg();
        let u = subtract_labels(log_probabilities.exp_(), &rows.targets);
        (losses, weights.apply(rows.first, u))
    }
}

impl Rule for Residual<'_> {
    fn needs(&self) -> Needs {
        match self.targets {
            Targets::Data => Needs::Raw,
            Targets::Sampled(_) => Needs::Probabilities,
        }
    }

    fn rows(&mut self, rows: &Rows, scores: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
        let weights = self.weights.as_ref().unwrap_or(&rows.batch.weights);
        let (losses, u) = match (&self.targets, &scores.logits) {
            (Targets::Data, Some(logits)) => Self::of_data(rows, logits, weights),
            _ => {
                let p = probabilities(scores);
                let labels = self.targets.of(rows, p);
                (-p.gather(1, &labels, false).log(), weights.apply(rows.first, residual(p, &labels)))
            }
        };
        self.loss += weights.sum(rows.first, &losses);
        tangents.iter().map(|_| Some(u.shallow_clone())).collect()
    }
}

/// `H z'`: the Gauss-Newton product.
#[derive(Debug)]
pub struct Ggn;

impl Rule for Ggn {
    fn needs(&self) -> Needs {
        Needs::Probabilities
    }

    fn rows(&mut self, rows: &Rows, scores: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
        let p = probabilities(scores);
        let weights = rows.weights(p);
        let product = |v: Tensor| {
            if kernels::curve_(p, &v, weights.kernel()) {
                return v;
            }
            let mut centred = less_mean(p, v).0;
            rows.batch.weights.apply(rows.first, centred.g_mul_(p))
        };
        tangents.into_iter().map(|v| v.map(product)).collect()
    }
}

/// `p - y + H z'`, with the terms of the quadratic model.
#[derive(Debug, Default)]
pub struct Quadratic {
    /// Sum of the weighted losses at the anchor.
    pub anchor_loss: f64,
    /// <g0, z'> of each block.
    pub linear: Vec<f64>,
    /// 1/2 <z', H z'> of each block.
    pub curvature: Vec<f64>,
}

impl Quadratic {
    /// `w (p - y + H v)` and the rows' terms `<p - y, v>` and `<v, H v>`.
    fn of_block(rows: &Rows, p: &Tensor, v: Tensor) -> (Tensor, kernels::QuadraticRows) {
        if let Some(terms) = kernels::quadratic_(p, &v, &rows.targets, rows.weights(p).kernel()) {
            return (v, terms);
        }
        let of_target = v.gather(1, &rows.targets, false);
        let (centred, mean) = less_mean(p, v);
        let curved = &centred * p;
        let terms = kernels::QuadraticRows { linear: mean - of_target, curvature: row_dot(&centred, &curved) };
        (rows.batch.weights.apply(rows.first, residual(p, &rows.targets).g_add_(&curved)), terms)
    }
}

impl Rule for Quadratic {
    fn needs(&self) -> Needs {
        Needs::Losses
    }

    fn rows(&mut self, rows: &Rows, scores: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
        let p = probabilities(scores);
        let weights = &rows.batch.weights;
        self.anchor_loss += anchor_loss(rows, scores);
        self.linear.resize(tangents.len(), 0.0);
        self.curvature.resize(tangents.len(), 0.0);
        let mut output = |(block, v): (usize, Option<Tensor>)| {
            let Some(v) = v else { return Some(weights.apply(rows.first, residual(p, &rows.targets))) };
            let (output, terms) = Self::of_block(rows, p, v);
            self.linear[block] += weights.sum(rows.first, &terms.linear);
            self.curvature[block] += 0.5 * weights.sum(rows.first, &terms.curvature);
            Some(output)
        };
        tangents.into_iter().enumerate().map(&mut output).collect()
    }
}

/// `softmax(z + z') - y`, with the losses there.
#[derive(Debug, Default)]
pub struct ProxLinear {
    /// Sum of the weighted losses at the anchor.
    pub anchor_loss: f64,
    /// Sum of the weighted losses at z + z' of each block.
    pub values: Vec<f64>,
}

impl Rule for ProxLinear {
    fn needs(&self) -> Needs {
        Needs::Logits
    }

    fn rows(&mut self, rows: &Rows, scores: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
        let weights = &rows.batch.weights;
        self.anchor_loss += anchor_loss(rows, scores);
        self.values.resize(tangents.len(), 0.0);
        let logits = scores.logits.as_ref().expect("asked for");
        let mut output = |(block, v): (usize, Option<Tensor>)| {
            let moved = v.map_or_else(|| logits.shallow_clone(), |mut v| v.g_add_(logits));
            let mut log_probabilities = moved.log_softmax(-1, None::<Kind>);
            let losses = log_probabilities.gather(1, &rows.targets, false).neg();
            self.values[block] += weights.sum(rows.first, &losses);
            Some(weights.apply(rows.first, subtract_labels(log_probabilities.exp_(), &rows.targets)))
        };
        tangents.into_iter().enumerate().map(&mut output).collect()
    }
}

/// `(p - y) <p - y, z'>`: the product with the Fisher matrix of these labels.
#[derive(Debug)]
pub struct Fisher<'a> {
    /// Whose labels.
    pub targets: Targets<'a>,
}

impl Rule for Fisher<'_> {
    fn needs(&self) -> Needs {
        Needs::Probabilities
    }

    fn rows(&mut self, rows: &Rows, scores: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
        let p = probabilities(scores);
        let labels = self.targets.of(rows, p);
        let residual = residual(p, &labels);
        let product = |v: Tensor| rows.batch.weights.apply(rows.first, &residual * row_dot(&residual, &v));
        tangents.into_iter().map(|v| v.map(product)).collect()
    }
}

/// z' itself: the Jacobian product.
#[derive(Debug)]
pub struct Jvp {
    /// Chunks `[n, vocab_size]` in order.
    pub rows: Vec<Tensor>,
}

impl Rule for Jvp {
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    fn rows(&mut self, _: &Rows, _: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
        self.rows.extend(tangents.into_iter().flatten());
        vec![None]
    }
}

/// Given cotangents of the logits, one row a row of the micro-batch.
#[derive(Debug)]
pub struct Cotangent {
    /// `[N, vocab_size]`.
    pub output: Tensor,
}

impl Rule for Cotangent {
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    fn rows(&mut self, rows: &Rows, _: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
        let chunk = self.output.narrow(0, rows.first, rows.targets.size()[0]);
        tangents.iter().map(|_| Some(chunk.shallow_clone())).collect()
    }
}

/// `<p - y, z'>` of each row: derivatives of the losses along a direction.
#[derive(Debug, Default)]
pub struct Directional {
    /// One number a row.
    pub rows: Vec<f64>,
}

impl Rule for Directional {
    fn needs(&self) -> Needs {
        Needs::Probabilities
    }

    fn rows(&mut self, rows: &Rows, scores: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
        let residual = residual(probabilities(scores), &rows.targets);
        for v in tangents.iter().flatten() {
            self.rows.extend(numbers(&row_dot(&residual, v)));
        }
        vec![None]
    }
}

/// The elements of `[n, 1]`.
fn numbers(column: &Tensor) -> Vec<f64> {
    Vec::try_from(column.view(-1).to_kind(Kind::Double)).expect("one number a row")
}

fn probabilities(scores: &Scores) -> &Tensor {
    scores.probabilities.as_ref().expect("asked for")
}

fn anchor_loss(rows: &Rows, scores: &Scores) -> f64 {
    rows.batch.weights.sum(rows.first, scores.losses.as_ref().expect("asked for"))
}

/// `p - y`.
fn residual(p: &Tensor, labels: &Tensor) -> Tensor {
    subtract_labels(p.copy(), labels)
}

fn subtract_labels(mut p: Tensor, labels: &Tensor) -> Tensor {
    p.scatter_add_(1, labels, &Tensor::full(labels.size(), -1.0, (p.kind(), p.device())))
}

/// `v - <p, v>`, and `<p, v>`.
fn less_mean(p: &Tensor, mut v: Tensor) -> (Tensor, Tensor) {
    let mean = row_dot(p, &v);
    (v.g_sub_(&mean), mean)
}

/// The inner product of each row, `[n, 1]`.
fn row_dot(a: &Tensor, b: &Tensor) -> Tensor {
    (a * b).sum_dim_intlist([-1_i64].as_slice(), true, None::<Kind>)
}

/// Draws a label a row: the first whose cumulative probability exceeds the row's uniform number.
fn sample(p: &Tensor, uniforms: &[f64]) -> Tensor {
    let cumulative = p.to_kind(Kind::Double).cumsum(-1, None::<Kind>);
    let uniforms = Tensor::from_slice(uniforms).to_device(p.device()).view([-1, 1]);
    let below = cumulative.le_tensor(&uniforms).to_kind(Kind::Int64);
    let labels = below.sum_dim_intlist([-1_i64].as_slice(), true, Kind::Int64);
    labels.clamp_max(p.size()[1] - 1)
}
