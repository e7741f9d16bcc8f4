//! The same products from dense matrices, built by brute force: a Jacobian of one reverse pass a logit, a Hessian of one
//! a parameter. Nothing here uses the passes under test.

use crate::model::{Attention, Transformer};
use tch::{Kind, Tensor};

/// A model at parameters on tokens `[m, T + 1]`, all of it dense and flat.
pub struct Dense {
    /// z0, `[N, V]`.
    pub logits: Tensor,
    /// `[N V, P]`.
    pub jacobian: Tensor,
    /// The targets, `[N]`.
    pub targets: Tensor,
    /// `w_t / W`, `[N, 1]`.
    pub weights: Tensor,
    shapes: Vec<Vec<i64>>,
}

impl Dense {
    pub fn new(model: &Transformer, params: &[Tensor], tokens: &Tensor, weights: Option<Tensor>) -> Self {
        let leaves: Vec<Tensor> = params.iter().map(|param| param.copy().set_requires_grad(true)).collect();
        let length = tokens.size()[1] - 1;
        let logits = model.logits(&leaves, &tokens.narrow(1, 0, length), Attention::Math).flatten(0, 1);
        let outputs = logits.view(-1);
        let row = |i: i64| {
            let gradient = Tensor::run_backward(&[outputs.get(i)], &leaves, true, false);
            flat(&gradient.iter().collect::<Vec<_>>())
        };
        let jacobian = Tensor::stack(&(0..outputs.numel() as i64).map(row).collect::<Vec<_>>(), 0);
        let rows = logits.size()[0];
        let uniform = Tensor::full([rows, 1], 1.0 / rows as f64, (Kind::Double, tch::Device::Cpu));
        Self {
            logits: logits.detach(),
            jacobian,
            targets: tokens.narrow(1, 1, length).contiguous().view(-1),
            weights: weights.unwrap_or(uniform),
            shapes: params.iter().map(Tensor::size).collect(),
        }
    }

    pub fn probabilities(&self) -> Tensor {
        self.logits.softmax(-1, None::<Kind>)
    }

    /// Mean loss at logits z.
    pub fn loss(&self, z: &Tensor) -> f64 {
        let losses = z.log_softmax(-1, None::<Kind>).gather(1, &self.targets.view([-1, 1]), false).neg();
        (losses * &self.weights).sum(Kind::Double).double_value(&[])
    }

    /// dL/dz at logits z, `[N, V]`.
    pub fn output_gradient(&self, z: &Tensor) -> Tensor {
        self.residual(z, &self.targets) * &self.weights
    }

    /// `softmax(z) - y`.
    pub fn residual(&self, z: &Tensor, labels: &Tensor) -> Tensor {
        let one_hot = labels.view(-1).one_hot(z.size()[1]).to_kind(z.kind());
        z.softmax(-1, None::<Kind>) - one_hot
    }

    /// The Hessian of the loss in the logits, `[N V, N V]`: a block `w (diag(p) - p p^T)` for each row.
    pub fn output_hessian(&self) -> Tensor {
        let p = self.probabilities();
        let blocks = p.diag_embed(0, -2, -1) - p.unsqueeze(2).matmul(&p.unsqueeze(1));
        let blocks = blocks * self.weights.unsqueeze(2);
        let rows: Vec<Tensor> = (0..p.size()[0]).map(|row| blocks.get(row)).collect();
        Tensor::block_diag(&rows)
    }

    /// J^T H J, `[P, P]`.
    pub fn ggn(&self) -> Tensor {
        self.jacobian.tr().mm(&self.output_hessian()).mm(&self.jacobian)
    }

    /// J v for a flat v, `[N, V]`.
    pub fn jvp(&self, v: &Tensor) -> Tensor {
        self.jacobian.mv(v).view_as(&self.logits)
    }

    /// J^T u for `u [N, V]`, flat.
    pub fn vjp(&self, u: &Tensor) -> Tensor {
        self.jacobian.tr().mv(&u.contiguous().view(-1))
    }

    /// A flat vector as one tensor a parameter.
    pub fn unflatten(&self, v: &Tensor) -> Vec<Tensor> {
        let mut first = 0;
        let part = |shape: &Vec<i64>| {
            let count = shape.iter().product::<i64>();
            first += count;
            v.narrow(0, first - count, count).view(shape.as_slice())
        };
        self.shapes.iter().map(part).collect()
    }
}

/// One vector of all tensors.
pub fn flat(tensors: &[&Tensor]) -> Tensor {
    Tensor::cat(&tensors.iter().map(|tensor| tensor.contiguous().view(-1)).collect::<Vec<_>>(), 0)
}

/// The Hessian of the mean loss, `[P, P]`, one reverse pass a parameter.
pub fn hessian(model: &Transformer, params: &[Tensor], tokens: &Tensor) -> Tensor {
    let leaves: Vec<Tensor> = params.iter().map(|param| param.copy().set_requires_grad(true)).collect();
    let loss = model.loss(&leaves, tokens, Attention::Math);
    let gradient = Tensor::run_backward(&[loss], &leaves, true, true);
    let gradient = flat(&gradient.iter().collect::<Vec<_>>());
    let row = |i: i64| {
        let second = Tensor::run_backward(&[gradient.get(i)], &leaves, true, false);
        flat(&second.iter().collect::<Vec<_>>())
    };
    Tensor::stack(&(0..gradient.numel() as i64).map(row).collect::<Vec<_>>(), 0)
}
