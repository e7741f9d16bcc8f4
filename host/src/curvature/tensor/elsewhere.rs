//! Fused programs where the fast path does not reach (a GPU, strided tensors, other types): operation by operation.

use gauntlet_plugin_abi::FusedOp;
use gauntlet_plugin_api::backend::{FusedList, Operand, Program, Statement};
use gauntlet_plugin_api::{Error, Result};
use tch::{Kind, Tensor};

/// Runs the program on each position of the lists; results are written after all have been computed.
pub(super) fn run(program: &Program, lists: &mut [FusedList<'_, Tensor>]) -> Result<()> {
    let length = lists.first().map_or(0, |list| each(list).len());
    for position in 0..length {
        let elements: Vec<Tensor> = lists.iter().map(|list| each(list)[position].shallow_clone()).collect();
        let mut registers: Vec<Option<Tensor>> = (0..program.registers).map(|_| None).collect();
        for statement in &program.statements {
            let result = evaluate(statement, &elements, &registers)?;
            registers[statement.register] = Some(result);
        }
        let results =
            program.stores.iter().map(|(list, operand)| Ok((*list, value(operand, &elements, &registers)?.copy())));
        for (list, result) in results.collect::<Result<Vec<_>>>()? {
            elements[list].shallow_clone().copy_(&result);
        }
    }
    Ok(())
}

/// The tensors of a list.
pub(super) fn each<'a>(list: &'a FusedList<'_, Tensor>) -> Vec<&'a Tensor> {
    match list {
        FusedList::Write(tensors) => tensors.iter().collect(),
        FusedList::Read(tensors) => tensors.clone(),
    }
}

fn value(operand: &Operand, elements: &[Tensor], registers: &[Option<Tensor>]) -> Result<Tensor> {
    match operand {
        Operand::List(list) => Ok(elements[*list].shallow_clone()),
        Operand::Const(number) => {
            let like = &elements[0];
            Ok(Tensor::full(like.size(), *number, (like.kind(), like.device())))
        }
        Operand::Register(register) => {
            let unset = || Error::argument("fused", format!("register {register} is not set"));
            registers[*register].as_ref().map(Tensor::shallow_clone).ok_or_else(unset)
        }
    }
}

fn evaluate(statement: &Statement, elements: &[Tensor], registers: &[Option<Tensor>]) -> Result<Tensor> {
    let operands = statement.operands.iter().map(|operand| value(operand, elements, registers));
    let operands = operands.collect::<Result<Vec<_>>>()?;
    let number = |mask: Tensor, like: &Tensor| mask.to_kind(like.kind());
    Ok(match (statement.op, operands.as_slice()) {
        (FusedOp::ADD, [a, b]) => a + b,
        (FusedOp::SUB, [a, b]) => a - b,
        (FusedOp::MUL, [a, b]) => a * b,
        (FusedOp::DIV, [a, b]) => a / b,
        (FusedOp::MAX, [a, b]) => a.maximum(b),
        (FusedOp::MIN, [a, b]) => a.minimum(b),
        (FusedOp::POW, [a, b]) => a.pow(b),
        (FusedOp::LT, [a, b]) => number(a.lt_tensor(b), a),
        (FusedOp::LE, [a, b]) => number(a.le_tensor(b), a),
        (FusedOp::EQ, [a, b]) => number(a.eq_tensor(b), a),
        (FusedOp::SELECT, [condition, a, b]) => a.where_self(&condition.ne(0.0).to_kind(Kind::Bool), b),
        (FusedOp::NEG, [a]) => a.neg(),
        (FusedOp::ABS, [a]) => a.abs(),
        (FusedOp::SQRT, [a]) => a.sqrt(),
        (FusedOp::SIGN, [a]) => a.sign(),
        (FusedOp::EXP, [a]) => a.exp(),
        (FusedOp::LOG, [a]) => a.log(),
        (FusedOp::RECIPROCAL, [a]) => a.reciprocal(),
        (other, _) => return Err(Error::unsupported(format!("fused operation {}", other.name()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gauntlet_plugin_abi::RawInstruction;
    use tch::Device;

    /// The same program by both paths, on dense and on strided tensors.
    #[test]
    fn both_paths_agree_bit_for_bit() {
        let code = |text: &[(FusedOp, u32, f64)]| {
            text.iter()
                .map(|(op, index, value)| RawInstruction { op: *op, index: *index, value: *value })
                .collect::<Vec<_>>()
        };
        let program = code(&[
            (FusedOp::LOAD, 0, 0.0),
            (FusedOp::CONST, 0, 0.3),
            (FusedOp::LOAD, 1, 0.0),
            (FusedOp::MUL, 0, 0.0),
            (FusedOp::ADD, 0, 0.0),
            (FusedOp::SET, 0, 0.0),
            (FusedOp::GET, 0, 0.0),
            (FusedOp::ABS, 0, 0.0),
            (FusedOp::SQRT, 0, 0.0),
            (FusedOp::GET, 0, 0.0),
            (FusedOp::LOAD, 1, 0.0),
            (FusedOp::LE, 0, 0.0),
            (FusedOp::GET, 0, 0.0),
            (FusedOp::SELECT, 0, 0.0),
            (FusedOp::STORE, 0, 0.0),
        ]);
        // SELECT pops (condition, a, b) in the order pushed.
        let program = Program::parse(&program, 2).unwrap();
        for kind in [Kind::Float, Kind::Double] {
            let (w, g) =
                (Tensor::randn([37, 1001], (kind, Device::Cpu)), Tensor::randn([37, 1001], (kind, Device::Cpu)));
            let fast = vec![w.copy()];
            let mut lists = [FusedList::Write(fast), FusedList::Read(vec![&g])];
            crate::curvature::tensor::fused(&program, &mut lists).unwrap();
            let [FusedList::Write(fast), _] = lists else { unreachable!("the first list is written") };
            let strided = |x: &Tensor| x.transpose(0, 1).contiguous().transpose(0, 1);
            let (slow, slow_g) = (strided(&w), strided(&g));
            assert!(!slow.is_contiguous());
            let mut lists = [FusedList::Write(vec![slow]), FusedList::Read(vec![&slow_g])];
            crate::curvature::tensor::fused(&program, &mut lists).unwrap();
            let [FusedList::Write(slow), _] = lists else { unreachable!("the first list is written") };
            assert!(fast[0].equal(&slow[0]));
        }
    }
}
