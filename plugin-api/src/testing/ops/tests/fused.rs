//! Fused programs against each operation's own formula.

use super::*;
use crate::backend::{FusedList, Program};
use gauntlet_plugin_abi::{FusedOp, RawInstruction};

type Unary = fn(f64) -> f64;
type Binary = fn(f64, f64) -> f64;

fn fused(code: &[(FusedOp, u32, f64)], lists: &mut [FusedList<'_, Array>]) {
    let code: Vec<_> =
        code.iter().map(|(op, index, value)| RawInstruction { op: *op, index: *index, value: *value }).collect();
    run_fused(&Program::parse(&code, lists.len()).unwrap(), lists).unwrap();
}

#[test]
fn every_fused_operation_gives_what_it_says() {
    let (a, b) = (array(&[3], &[4.0, -2.0, 0.0]), array(&[3], &[0.5, 2.0, 0.0]));
    let binary: [(FusedOp, Binary); 10] = [
        (FusedOp::ADD, |a, b| a + b),
        (FusedOp::SUB, |a, b| a - b),
        (FusedOp::MUL, |a, b| a * b),
        (FusedOp::DIV, |a, b| a / b),
        (FusedOp::MAX, f64::max),
        (FusedOp::MIN, f64::min),
        (FusedOp::POW, f64::powf),
        (FusedOp::LT, |a, b| f64::from(a < b)),
        (FusedOp::LE, |a, b| f64::from(a <= b)),
        (FusedOp::EQ, |a, b| f64::from(a == b)),
    ];
    for (op, expected) in binary {
        let code = [(FusedOp::LOAD, 0, 0.0), (FusedOp::LOAD, 1, 0.0), (op, 0, 0.0), (FusedOp::STORE, 0, 0.0)];
        let mut lists = [FusedList::Write(vec![a.clone()]), FusedList::Read(vec![&b])];
        fused(&code, &mut lists);
        let FusedList::Write(written) = &lists[0] else { panic!("written") };
        let expected: Vec<f64> = a.values().iter().zip(b.values()).map(|(a, b)| expected(*a, *b)).collect();
        check(&written[0], &[3], &expected);
    }
    let unary: [(FusedOp, Unary); 7] = [
        (FusedOp::NEG, |a| -a),
        (FusedOp::ABS, f64::abs),
        (FusedOp::SQRT, f64::sqrt),
        (FusedOp::SIGN, |a| if a == 0.0 { 0.0 } else { a.signum() }),
        (FusedOp::EXP, f64::exp),
        (FusedOp::LOG, f64::ln),
        (FusedOp::RECIPROCAL, f64::recip),
    ];
    for (op, expected) in unary {
        let mut lists = [FusedList::Write(vec![a.clone()])];
        fused(&[(FusedOp::LOAD, 0, 0.0), (op, 0, 0.0), (FusedOp::STORE, 0, 0.0)], &mut lists);
        let FusedList::Write(written) = &lists[0] else { panic!("written") };
        let expected: Vec<f64> = a.values().iter().map(|a| expected(*a)).collect();
        assert_eq!(written[0].to_bytes(), array(&[3], &expected).to_bytes(), "{}", op.name());
    }
}

#[test]
fn a_fused_program_reads_old_values_and_rounds_f32() {
    let (a, b) = (array(&[2], &[1.0, 2.0]), array(&[2], &[3.0, 4.0]));
    let swap = [(FusedOp::LOAD, 0, 0.0), (FusedOp::LOAD, 1, 0.0), (FusedOp::STORE, 0, 0.0), (FusedOp::STORE, 1, 0.0)];
    let mut lists = [FusedList::Write(vec![a]), FusedList::Write(vec![b])];
    fused(&swap, &mut lists);
    let [FusedList::Write(a), FusedList::Write(b)] = &lists else { panic!("written") };
    assert_eq!((a[0].to_vec(), b[0].to_vec()), (vec![3.0, 4.0], vec![1.0, 2.0]));

    let select = [
        (FusedOp::LOAD, 0, 0.0),
        (FusedOp::CONST, 0, 0.1),
        (FusedOp::LOAD, 0, 0.0),
        (FusedOp::SELECT, 0, 0.0),
        (FusedOp::STORE, 0, 0.0),
    ];
    let single = Array::from_vec("", &[2], vec![2.0, 0.0], DType::F32).unwrap();
    let mut lists = [FusedList::Write(vec![single])];
    fused(&select, &mut lists);
    let FusedList::Write(written) = &lists[0] else { panic!("written") };
    assert_eq!(written[0].to_vec(), [f64::from(0.1_f32), 0.0]);
}
