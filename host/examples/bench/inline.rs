//! AdamW written in the host: the statements of the fused program, without a plugin and its boundary.

use anyhow::Result;
use gauntlet::curvature::tensor;
use gauntlet_plugin_abi::{FusedOp, RawInstruction};
use gauntlet_plugin_api::backend::{FusedList, Program};
use tch::Tensor;

const LR: f64 = 1e-4;
const BETAS: [f64; 2] = [0.9, 0.95];
const EPS: f64 = 1e-8;
const WEIGHT_DECAY: f64 = 0.1;

/// Moments, and the number of steps.
pub struct InlineAdamW {
    first_moment: Vec<Tensor>,
    second_moment: Vec<Tensor>,
    t: i32,
}

impl InlineAdamW {
    /// Moments of zero.
    pub fn new(params: &[Tensor]) -> Self {
        let zeros = || params.iter().map(Tensor::zeros_like).collect();
        Self { first_moment: zeros(), second_moment: zeros(), t: 0 }
    }

    /// One step.
    pub fn step(&mut self, params: &mut Vec<Tensor>, gradient: &[Tensor]) -> Result<()> {
        self.t += 1;
        let program = Program::parse(&code(self.t), 4)?;
        let [w, m, v] = [&mut *params, &mut self.first_moment, &mut self.second_moment].map(std::mem::take);
        let [w, m, v] = [w, m, v].map(FusedList::Write);
        let mut lists = [w, m, v, FusedList::Read(gradient.iter().collect())];
        tensor::fused(&program, &mut lists)?;
        let [w, m, v, _] = lists.map(|list| if let FusedList::Write(tensors) = list { tensors } else { vec![] });
        (*params, self.first_moment, self.second_moment) = (w, m, v);
        Ok(())
    }
}

/// Postfix code over the lists w, m, v, g at step t.
fn code(t: i32) -> Vec<RawInstruction> {
    use FusedOp as Op;
    let [w, m, v, g] = [0, 1, 2, 3];
    let [b1, b2] = BETAS;
    let (correction1, correction2) = (1.0 - b1.powi(t), (1.0 - b2.powi(t)).sqrt());
    let load = |list| (Op::LOAD, list, 0.0);
    let number = |value| (Op::CONST, 0, value);
    let op = |op| (op, 0, 0.0);
    let first_moment = [load(m), number(1.0 - b1), load(g), load(m), op(Op::SUB), op(Op::MUL), op(Op::ADD)];
    let decayed = [number(b2), load(v), op(Op::MUL)];
    let square = [number(1.0 - b2), load(g), op(Op::MUL), load(g), op(Op::MUL), op(Op::ADD)];
    let kept = [number(1.0 - LR * WEIGHT_DECAY), load(w), op(Op::MUL)];
    let numerator = [number(LR / correction1), (Op::GET, 0, 0.0), op(Op::MUL)];
    let root = [(Op::GET, 1, 0.0), op(Op::SQRT), number(correction2), op(Op::DIV), number(EPS), op(Op::ADD)];
    let moments = first_moment.into_iter().chain([(Op::SET, 0, 0.0)]).chain(decayed).chain(square);
    let update = kept.into_iter().chain(numerator).chain(root).chain([op(Op::DIV), op(Op::SUB), (Op::STORE, w, 0.0)]);
    let stores = [(Op::GET, 0, 0.0), (Op::STORE, m, 0.0), (Op::GET, 1, 0.0), (Op::STORE, v, 0.0)];
    let all = moments.chain([(Op::SET, 1, 0.0)]).chain(update).chain(stores);
    all.map(|(op, index, value)| RawInstruction { op, index, value }).collect()
}
