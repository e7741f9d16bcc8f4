//! The MLP of a block at a point: `down(gelu(up(x)))`, or `down(silu(gate(x)) * up(x))`.

use super::linear::{Flops, add};
use super::sink::Sink;
use super::{Anchor, Tangents};
use crate::model::BlockPlaces;
use gauntlet_torch_ext::kernels;
use tch::Tensor;

/// The MLP's values for inputs `[N, width]`.
#[derive(Debug)]
pub struct Mlp {
    /// `up(x)`, `[N, mlp_width]`.
    up: Tensor,
    /// `gate(x)`, with SwiGLU.
    gate: Option<Tensor>,
    /// What `down` reads.
    hidden: Tensor,
}

impl Mlp {
    /// The values at the anchor; the output `[N, width]` is added to `residual`.
    pub fn forward(anchor: &Anchor, at: &BlockPlaces<usize>, x: &Tensor, residual: &mut Tensor) -> Self {
        let up = anchor.flops.forward(x, anchor.param(at.up), None);
        let gate = at.gate.map(|gate| anchor.flops.forward(x, anchor.param(gate), None));
        let hidden = match &gate {
            Some(gate) => gate.silu().g_mul_(&up),
            None => kernels::gelu(&up).unwrap_or_else(|| up.gelu("tanh")),
        };
        *residual = anchor.flops.forward(&hidden, anchor.param(at.down), Some(residual));
        Self { up, gate, hidden }
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
        let up = linear(at.up);
        let hidden = match (&self.gate, at.gate) {
            (Some(gate), Some(param)) => {
                let moved_gate = linear(param).map(|moved| gate.silu_backward(&moved).g_mul_(&self.up));
                add(moved_gate, up.map(|mut up| up.g_mul_(&gate.silu())))
            }
            _ => up.map(|up| gelu_derivative(&self.up, &up)),
        };
        anchor.flops.tangent(&self.hidden, hidden.as_ref(), anchor.param(at.down), tangents.of(at.down))
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
        let flops: &Flops = &anchor.flops;
        anchor.linear_cotangent(at.down, &self.hidden, dy, sink);
        let mut hidden = flops.pullback(None, dy, anchor.param(at.down));
        let (up, gate) = match (&self.gate, at.gate) {
            (Some(gate), Some(param)) => {
                let gate_cotangent = gate.silu_backward(&(&hidden * &self.up));
                (hidden.g_mul_(&gate.silu()), Some((param, gate_cotangent)))
            }
            _ => (gelu_derivative(&self.up, &hidden), None),
        };
        anchor.linear_cotangent(at.up, x, &up, sink);
        let mut input = flops.pullback(None, &up, anchor.param(at.up));
        if let Some((param, gate)) = gate {
            anchor.linear_cotangent(param, x, &gate, sink);
            input = flops.pullback(Some(input), &gate, anchor.param(param));
        }
        input
    }
}

/// `along` times the derivative of GELU at x.
fn gelu_derivative(x: &Tensor, along: &Tensor) -> Tensor {
    kernels::gelu_derivative(x, along).unwrap_or_else(|| x.gelu_backward(along, "tanh"))
}
