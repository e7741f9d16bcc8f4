//! Fused programs where the fast path does not reach (a GPU, strided tensors, other types): operation by operation, over
//! many small tensors at once, since on a GPU each operation costs as much as a million elements.

use gauntlet_plugin_abi::FusedOp;
use gauntlet_plugin_api::backend::{FusedList, Operand, Program, Statement};
use gauntlet_plugin_api::{Error, Result};
use std::ops::Range;
use tch::{Kind, Tensor};

/// Elements that are joined at most: what is joined is copied.
const JOINED: usize = 1 << 22;

/// Runs the program on each position of the lists; results are written after all have been computed.
pub(super) fn run(program: &Program, lists: &mut [FusedList<'_, Tensor>]) -> Result<()> {
    let program = program.with_registers_reused();
    let lists: Vec<Vec<&Tensor>> = lists.iter().map(each).collect();
    groups(&lists).into_iter().try_for_each(|group| {
        let parts: Vec<&[&Tensor]> = lists.iter().map(|list| &list[group.clone()]).collect();
        let elements: Vec<Tensor> = parts.iter().map(|part| joined(part)).collect();
        let mut registers: Vec<Option<Tensor>> = (0..program.registers).map(|_| None).collect();
        for statement in &program.statements {
            let result = evaluate(statement, &elements, &registers)?;
            registers[statement.register] = Some(result);
        }
        let results = program.stores.iter().map(|(list, operand)| {
            let result = value(operand, &elements, &registers)?.expand(elements[*list].size(), false);
            Ok((*list, result.copy()))
        });
        for (list, result) in results.collect::<Result<Vec<_>>>()? {
            write(parts[list], &result);
        }
        Ok(())
    })
}

/// The tensors of a list.
fn each<'a>(list: &'a FusedList<'_, Tensor>) -> Vec<&'a Tensor> {
    match list {
        FusedList::Write(tensors) => tensors.iter().collect(),
        FusedList::Read(tensors) => tensors.clone(),
    }
}

/// Neighbouring positions whose tensors are joined: small ones, with the same types in every list.
fn groups(lists: &[Vec<&Tensor>]) -> Vec<Range<usize>> {
    let length = lists.first().map_or(0, Vec::len);
    let size = |at: usize| lists[0][at].numel();
    let alike = |at: usize| lists.iter().all(|list| list[at].kind() == list[at - 1].kind());
    let mut groups: Vec<Range<usize>> = vec![];
    let mut elements = 0;
    for at in 0..length {
        elements += size(at);
        match groups.last_mut() {
            Some(group) if elements <= JOINED && alike(at) => group.end = at + 1,
            _ => {
                groups.push(at..at + 1);
                elements = size(at);
            }
        }
    }
    groups
}

/// The elements of several tensors one after another; one alone stays as it is.
fn joined(tensors: &[&Tensor]) -> Tensor {
    match tensors {
        [one] => one.shallow_clone(),
        many => Tensor::cat(&many.iter().map(|tensor| tensor.reshape([-1])).collect::<Vec<_>>(), 0),
    }
}

/// Writes to each tensor its part of what was joined.
fn write(tensors: &[&Tensor], result: &Tensor) {
    if let [one] = tensors {
        one.shallow_clone().copy_(result);
        return;
    }
    let mut first = 0;
    for tensor in tensors {
        let length = tensor.numel() as i64;
        tensor.shallow_clone().copy_(&result.narrow(0, first, length).view_as(tensor));
        first += length;
    }
}

fn value(operand: &Operand, elements: &[Tensor], registers: &[Option<Tensor>]) -> Result<Tensor> {
    match operand {
        Operand::List(list) => Ok(elements[*list].shallow_clone()),
        // One number on the CPU: libtorch takes it along into the operation, without a tensor on the device.
        Operand::Const(number) => Ok(Tensor::from(*number).to_kind(elements[0].kind())),
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
    use super::super::fused::in_place;
    use super::super::vector::Width;
    use super::*;
    use gauntlet_plugin_abi::RawInstruction;
    use gauntlet_plugin_api::backend::Program;
    use tch::Device;

    fn program(text: &[(FusedOp, u32, f64)], lists: usize) -> Program {
        let instruction =
            |(op, index, value): &(FusedOp, u32, f64)| RawInstruction { op: *op, index: *index, value: *value };
        Program::parse(&text.iter().map(instruction).collect::<Vec<_>>(), lists).unwrap()
    }

    /// The first lists after a program, of which the first `written` are written: dense or strided, by one path.
    fn after(
        lists: &[Tensor],
        written: usize,
        layout: impl Fn(&Tensor) -> Tensor,
        run: impl Fn(&mut [FusedList<'_, Tensor>]),
    ) -> Vec<Tensor> {
        let lists: Vec<Tensor> = lists.iter().map(layout).collect();
        let write = |tensor: &Tensor| FusedList::Write(vec![tensor.shallow_clone()]);
        let (write, read) = (lists[..written].iter().map(write), lists[written..].iter());
        run(&mut write.chain(read.map(|tensor| FusedList::Read(vec![tensor]))).collect::<Vec<_>>());
        lists
    }

    /// Runs a program on every path and compares the results bit by bit, on a shape that is no whole number of anything
    /// that the paths divide it into.
    ///
    /// libtorch's square root is not correctly rounded: `ulps` is how far its results may be from those of the fast path,
    /// which are the same with every vector.
    fn agree(program: &Program, shape: [i64; 2], (lists, written): (usize, usize), ulps: f64) {
        let strided = |x: &Tensor| x.transpose(0, 1).contiguous().transpose(0, 1);
        for kind in [Kind::Float, Kind::Double] {
            let values: Vec<Tensor> = (0..lists).map(|_| Tensor::randn(shape, (kind, Device::Cpu))).collect();
            assert!(!strided(&values[0]).is_contiguous());
            let reference = after(&values, written, strided, |lists| super::super::fused(program, lists).unwrap());
            assert!((0..written).all(|list| !reference[list].equal(&values[list])), "the program changes nothing");
            let fast = [Width::Sse2, Width::Avx2].map(|width| {
                after(&values, written, Tensor::copy, |lists| {
                    let here = in_place::<f32>(width, program, lists).unwrap();
                    assert!(here || in_place::<f64>(width, program, lists).unwrap(), "not on the fast path");
                })
            });
            // NaN (0 / 0) is as good as NaN.
            let tolerance = ulps * if kind == Kind::Float { f64::from(f32::EPSILON) } else { f64::EPSILON };
            for ((narrow, wide), reference) in fast[0].iter().zip(&fast[1]).zip(&reference) {
                assert!(narrow.allclose(wide, 0.0, 0.0, true), "widths differ in {kind:?}: {program:?}");
                assert!(wide.allclose(reference, tolerance, 0.0, true), "libtorch differs in {kind:?}: {program:?}");
            }
        }
    }

    const LOAD: FusedOp = FusedOp::LOAD;
    const NUMBER: FusedOp = FusedOp::CONST;

    fn op(op: FusedOp) -> (FusedOp, u32, f64) {
        (op, 0, 0.0)
    }

    /// Every operation that rounds correctly, with elements and with numbers on either side, alone and after another.
    #[test]
    fn all_paths_agree_bit_for_bit() {
        let two = [FusedOp::ADD, FusedOp::SUB, FusedOp::MUL, FusedOp::DIV, FusedOp::MAX, FusedOp::MIN, FusedOp::LT];
        let one = [FusedOp::NEG, FusedOp::ABS, FusedOp::SIGN, FusedOp::RECIPROCAL];
        let a = [(LOAD, 0, 0.0)];
        let b = [(LOAD, 1, 0.0)];
        let x = [(NUMBER, 0, 0.3)];
        let store = [(FusedOp::STORE, 0, 0.0)];
        for second in two.into_iter().chain([FusedOp::LE, FusedOp::EQ]) {
            for first in two {
                for (p, q, r) in [(&a, &b, &b), (&a, &x, &b), (&x, &a, &b), (&a, &b, &x)] {
                    let inner = [&p[..], q, &[op(first)]].concat();
                    check(&[&inner[..], r, &[op(second)], &store].concat(), 0.0);
                    check(&[&r[..], &inner, &[op(second)], &store].concat(), 0.0);
                }
            }
            for first in one {
                check(&[&a[..], &[op(first)], &b, &[op(second)], &store].concat(), 0.0);
            }
        }
        let root = [&a[..], &[op(FusedOp::ABS), op(FusedOp::SQRT)]].concat();
        for second in [FusedOp::MUL, FusedOp::DIV] {
            check(&[&root[..], &b, &[op(second)], &store].concat(), 2.0);
            check(&[&b[..], &root, &[op(second)], &store].concat(), 2.0);
        }
    }

    fn check(text: &[(FusedOp, u32, f64)], ulps: f64) {
        agree(&program(text, 2), [7, 131], (2, 1), ulps);
    }

    #[test]
    fn all_paths_agree_on_selection_and_temporaries() {
        let text = [
            (LOAD, 0, 0.0),
            (NUMBER, 0, 0.3),
            (LOAD, 1, 0.0),
            op(FusedOp::MUL),
            op(FusedOp::ADD),
            op(FusedOp::SET),
            op(FusedOp::GET),
            op(FusedOp::ABS),
            op(FusedOp::SQRT),
            op(FusedOp::GET),
            (LOAD, 1, 0.0),
            op(FusedOp::LE),
            op(FusedOp::GET),
            op(FusedOp::SELECT),
            (FusedOp::STORE, 0, 0.0),
        ];
        // SELECT pops (condition, a, b) in the order pushed.
        agree(&program(&text, 2), [37, 1001], (2, 1), 0.0);
    }

    #[test]
    fn lists_are_read_before_any_is_written() {
        let swap = [(LOAD, 0, 0.0), (FusedOp::STORE, 1, 0.0), (LOAD, 1, 0.0), (FusedOp::STORE, 0, 0.0)];
        agree(&program(&swap, 2), [37, 1001], (2, 2), 0.0);
    }

    /// Small tensors are joined and large ones not, in one call, whatever their layout; each gets its own result.
    #[test]
    fn many_tensors_are_what_each_is_alone() {
        let text = [(LOAD, 0, 0.0), (LOAD, 1, 0.0), op(FusedOp::MUL), (NUMBER, 0, 0.3), op(FusedOp::ADD)];
        let program = program(&[&text[..], &[(FusedOp::STORE, 0, 0.0)]].concat(), 2);
        let shapes = [[3, 5], [1, 1], [0, 4], [2, JOINED as i64 / 2], [7, 2], [4, 3]];
        let random = |shape: &[i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let mut written: Vec<Tensor> = shapes.iter().map(random).collect();
        let mut read: Vec<Tensor> = shapes.iter().map(|[rows, cols]| random(&[*cols, *rows]).tr()).collect();
        // Another type at the end of both lists.
        written.push(Tensor::from_slice(&[0.5, 0.25]));
        read.push(Tensor::from_slice(&[2.0, 3.0]));
        let expected: Vec<Tensor> = written.iter().zip(&read).map(|(a, b)| a * b + 0.3).collect();
        let lists: Vec<Vec<&Tensor>> = vec![written.iter().collect(), read.iter().collect()];
        assert_eq!(groups(&lists), [0..3, 3..4, 4..6, 6..7]);
        let handles = written.iter().map(Tensor::shallow_clone).collect();
        run(&program, &mut [FusedList::Write(handles), FusedList::Read(read.iter().collect())]).unwrap();
        for (found, expected) in written.iter().zip(&expected) {
            assert!(found.equal(expected), "{:?}", found.size());
        }
    }
}
