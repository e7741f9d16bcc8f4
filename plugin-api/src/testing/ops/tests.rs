//! Operations against results worked out by hand.

mod fused;
mod linear_algebra;

use super::*;
use crate::random::fill;
use gauntlet_plugin_abi::{DType, ListReduction, RandomKey, RandomKind};

fn array(shape: &[usize], values: &[f64]) -> Array {
    Array::from_vec("", shape, values.to_vec(), DType::F64).unwrap()
}

fn indices(values: &[f64]) -> Array {
    Array::from_vec("", &[values.len()], values.to_vec(), DType::I64).unwrap()
}

fn random(shape: &[usize], draw: u64) -> Array {
    let key = RandomKey { seed: 3, purpose: 0, step: 0, draw };
    array(shape, &fill(RandomKind::NORMAL, &key, shape.iter().product()).unwrap())
}

fn many(op: TensorOp, inputs: &[&Array], scalars: &[f64], ints: &[i64]) -> Vec<Array> {
    apply(op, inputs, scalars, ints).unwrap_or_else(|error| panic!("{error}"))
}

fn one(op: TensorOp, inputs: &[&Array], scalars: &[f64], ints: &[i64]) -> Array {
    let mut results = many(op, inputs, scalars, ints);
    assert_eq!(results.len(), 1, "{}", op.name());
    results.remove(0)
}

fn message(op: TensorOp, inputs: &[&Array], scalars: &[f64], ints: &[i64]) -> (ErrorCode, String) {
    let error = apply(op, inputs, scalars, ints).unwrap_err();
    (error.code, error.to_string())
}

#[track_caller]
fn check(found: &Array, shape: &[usize], values: &[f64]) {
    assert_eq!(found.shape(), shape);
    assert_close(found, &array(shape, values));
}

#[track_caller]
fn assert_close(found: &Array, expected: &Array) {
    assert_eq!(found.shape(), expected.shape());
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * (1.0 + b.abs()) || a.to_bits() == b.to_bits();
    assert!(found.values().iter().zip(expected.values()).all(near), "{found:?} instead of {expected:?}");
}

#[test]
fn elementwise_operations_give_what_they_say() {
    let (a, b) = (array(&[2], &[4.0, -2.0]), array(&[2], &[0.5, 2.0]));
    for (op, expected) in [
        (TensorOp::ADD, [4.5, 0.0]),
        (TensorOp::SUB, [3.5, -4.0]),
        (TensorOp::MUL, [2.0, -4.0]),
        (TensorOp::DIV, [8.0, -1.0]),
        (TensorOp::POW, [2.0, 4.0]),
        (TensorOp::MAXIMUM, [4.0, 2.0]),
        (TensorOp::MINIMUM, [0.5, -2.0]),
        (TensorOp::EQ, [0.0, 0.0]),
        (TensorOp::NE, [1.0, 1.0]),
        (TensorOp::LT, [0.0, 1.0]),
        (TensorOp::LE, [0.0, 1.0]),
        (TensorOp::GT, [1.0, 0.0]),
        (TensorOp::GE, [1.0, 0.0]),
    ] {
        check(&one(op, &[&a, &b], &[], &[]), &[2], &expected);
    }
    for (op, expected) in [
        (TensorOp::COPY, [4.0, -2.0]),
        (TensorOp::NEG, [-4.0, 2.0]),
        (TensorOp::ABS, [4.0, 2.0]),
        (TensorOp::SIGN, [1.0, -1.0]),
        (TensorOp::RECIPROCAL, [0.25, -0.5]),
        (TensorOp::SQUARE, [16.0, 4.0]),
        (TensorOp::EXP, [4.0_f64.exp(), (-2.0_f64).exp()]),
        (TensorOp::IS_FINITE, [1.0, 1.0]),
    ] {
        check(&one(op, &[&a], &[], &[]), &[2], &expected);
    }
    let positive = array(&[1], &[9.0]);
    check(&one(TensorOp::SQRT, &[&positive], &[], &[]), &[1], &[3.0]);
    check(&one(TensorOp::RSQRT, &[&positive], &[], &[]), &[1], &[1.0 / 3.0]);
    check(&one(TensorOp::LOG, &[&positive], &[], &[]), &[1], &[9.0_f64.ln()]);
    check(&one(TensorOp::SUB, &[&a], &[1.0], &[]), &[2], &[3.0, -3.0]);
    check(&one(TensorOp::CLAMP, &[&a], &[-1.0, 3.0], &[]), &[2], &[3.0, -1.0]);
    check(&one(TensorOp::LERP, &[&a, &b], &[0.25], &[]), &[2], &[3.125, -1.0]);
    check(&one(TensorOp::AXPY, &[&a, &b], &[2.0], &[]), &[2], &[5.0, 2.0]);
    check(&one(TensorOp::ADDCMUL, &[&a, &b, &b], &[2.0], &[]), &[2], &[4.5, 6.0]);
    check(&one(TensorOp::ADDCDIV, &[&a, &b, &b], &[2.0], &[]), &[2], &[6.0, 0.0]);
    check(&one(TensorOp::WHERE, &[&array(&[2], &[0.0, 3.0]), &a, &b], &[], &[]), &[2], &[0.5, -2.0]);
}

#[test]
fn not_a_number_is_never_hidden() {
    let (nan, one_) = (array(&[1], &[f64::NAN]), array(&[1], &[1.0]));
    for op in [TensorOp::MAXIMUM, TensorOp::MINIMUM] {
        for inputs in [[&nan, &one_], [&one_, &nan]] {
            assert!(one(op, &inputs, &[], &[]).to_vec()[0].is_nan(), "{}", op.name());
        }
    }
    assert!(one(TensorOp::SIGN, &[&nan], &[], &[]).to_vec()[0].is_nan());
    assert!(one(TensorOp::CLAMP, &[&nan], &[0.0, 1.0], &[]).to_vec()[0].is_nan());
    assert!(one(TensorOp::MAX, &[&array(&[2], &[f64::NAN, 1.0])], &[], &[0]).to_vec()[0].is_nan());
    check(&one(TensorOp::IS_FINITE, &[&nan], &[], &[]), &[1], &[0.0]);
    let lists = [&array(&[2], &[f64::NAN, -3.0]), &array(&[2], &[1.0, -3.0])];
    assert!(reduce_lists(ListReduction::MAX_ABS, &lists, &[]).unwrap()[0].is_nan());
    assert_eq!(reduce_lists(ListReduction::MAX_ABS, &lists, &[]).unwrap()[1], 3.0);
    assert_eq!(reduce_lists(ListReduction::NON_FINITE, &lists, &[]).unwrap(), [1.0, 0.0]);
    assert_eq!(reduce_lists(ListReduction::SQUARED_NORM, &lists[1..], &[]).unwrap(), [10.0]);
    assert_eq!(reduce_lists(ListReduction::SUM, &lists[1..], &[]).unwrap(), [-2.0]);
    assert_eq!(reduce_lists(ListReduction::DOT, &lists[1..], &[&array(&[2], &[2.0, 1.0])]).unwrap(), [-1.0]);
}

#[test]
fn shapes_broadcast_or_are_refused() {
    let (matrix, row) = (array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), array(&[3], &[1.0, 0.0, -1.0]));
    check(&one(TensorOp::MUL, &[&matrix, &row], &[], &[]), &[2, 3], &[1.0, 0.0, -3.0, 4.0, 0.0, -6.0]);
    let column = array(&[2, 1], &[10.0, 20.0]);
    check(&one(TensorOp::ADD, &[&column, &row], &[], &[]), &[2, 3], &[11.0, 10.0, 9.0, 21.0, 20.0, 19.0]);
    let found = message(TensorOp::ADD, &[&matrix, &array(&[2], &[0.0; 2])], &[], &[]);
    assert_eq!(found, (ErrorCode::SHAPE, "add: shapes [2, 3] and [2] do not broadcast".into()));
    let found = message(TensorOp::ADD, &[&row, &indices(&[1.0; 3])], &[], &[]);
    assert_eq!(found, (ErrorCode::DTYPE, "add: f64 and i64 differ".into()));
    assert_eq!(message(TensorOp(7777), &[], &[], &[]).0, ErrorCode::UNSUPPORTED);
    assert!(message(TensorOp(7777), &[], &[], &[]).1.starts_with("TensorOp 7777"));
}

#[test]
fn operations_in_place_write_the_target_and_keep_its_shape() {
    let mut target = array(&[2], &[1.0, 2.0]);
    let x = array(&[2], &[3.0, -1.0]);
    apply_in_place(TensorOp::AXPY, &mut target, &[&x], &[2.0], &[]).unwrap();
    check(&target, &[2], &[7.0, 0.0]);
    apply_in_place(
        TensorOp::COPY,
        &mut target,
        &[&Array::from_vec("", &[2], vec![0.1, 5.0], DType::F32).unwrap()],
        &[],
        &[],
    )
    .unwrap();
    check(&target, &[2], &[f64::from(0.1_f32), 5.0]);
    apply_in_place(TensorOp::FILL, &mut target, &[], &[4.0], &[]).unwrap();
    apply_in_place(TensorOp::SQRT, &mut target, &[], &[], &[]).unwrap();
    check(&target, &[2], &[2.0, 2.0]);
    let wide = array(&[2, 2], &[0.0; 4]);
    let error = apply_in_place(TensorOp::ADD, &mut target, &[&wide], &[], &[]).unwrap_err();
    assert_eq!(error.to_string(), "add: found shape [2, 2], expected [2]");
    let error = apply_in_place(TensorOp::LT, &mut target, &[], &[1.0], &[]).unwrap_err();
    assert_eq!((error.code, error.at.as_str()), (ErrorCode::UNSUPPORTED, "lt in place"));
}

#[test]
fn reductions_take_dimensions() {
    let a = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    check(&one(TensorOp::SUM, &[&a], &[], &[0]), &[], &[21.0]);
    check(&one(TensorOp::SUM, &[&a], &[], &[1, 1]), &[2, 1], &[6.0, 15.0]);
    check(&one(TensorOp::MEAN, &[&a], &[], &[0, 0]), &[3], &[2.5, 3.5, 4.5]);
    check(&one(TensorOp::MAX, &[&a], &[], &[0, 1]), &[2], &[3.0, 6.0]);
    check(&one(TensorOp::MIN, &[&a], &[], &[1]), &[1, 1], &[1.0]);
    check(&one(TensorOp::NORM, &[&a], &[], &[0, 1, 0]), &[], &[91.0_f64.sqrt()]);
    assert_eq!(message(TensorOp::SUM, &[&a], &[], &[0, 2]).1, "sum: found dimension 2, expected one of 2");
    assert_eq!(message(TensorOp::MAX, &[&array(&[0], &[])], &[], &[0]).0, ErrorCode::SHAPE);
}

#[test]
fn elements_move_where_they_should() {
    let a = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    check(&one(TensorOp::TRANSPOSE, &[&a], &[], &[0, 1]), &[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    check(&one(TensorOp::RESHAPE, &[&a], &[], &[3, -1]), &[3, 2], &a.to_vec());
    assert_eq!(message(TensorOp::RESHAPE, &[&a], &[], &[4, -1]).0, ErrorCode::SHAPE);
    check(&one(TensorOp::SLICE, &[&a], &[], &[1, 1, 3]), &[2, 2], &[2.0, 3.0, 5.0, 6.0]);
    check(&one(TensorOp::CAT, &[&a, &a], &[], &[0]), &[4, 3], &[a.to_vec(), a.to_vec()].concat());
    check(&one(TensorOp::STACK, &[&a, &a], &[], &[1]), &[2, 2, 3], &[1., 2., 3., 1., 2., 3., 4., 5., 6., 4., 5., 6.]);
    check(&one(TensorOp::INDEX_SELECT, &[&a, &indices(&[2.0, 0.0])], &[], &[1]), &[2, 2], &[3.0, 1.0, 6.0, 4.0]);
    let chosen = Array::from_vec("", &[2, 1], vec![2.0, 0.0], DType::I64).unwrap();
    check(&one(TensorOp::GATHER, &[&a, &chosen], &[], &[1]), &[2, 1], &[3.0, 4.0]);
    assert_eq!(message(TensorOp::INDEX_SELECT, &[&a, &indices(&[3.0])], &[], &[1]).0, ErrorCode::ARGUMENT);
    assert_eq!(message(TensorOp::INDEX_SELECT, &[&a, &array(&[1], &[0.0])], &[], &[1]).0, ErrorCode::DTYPE);
    check(&one(TensorOp::BROADCAST_TO, &[&array(&[1, 2], &[7.0, 8.0])], &[], &[2, 2]), &[2, 2], &[7., 8., 7., 8.]);
    check(&one(TensorOp::FULL, &[], &[2.5], &[i64::from(DType::F64.0), 1, 2]), &[1, 2], &[2.5; 2]);
    check(&one(TensorOp::EYE, &[], &[], &[i64::from(DType::F64.0), 2]), &[2, 2], &[1.0, 0.0, 0.0, 1.0]);
    let whole = one(TensorOp::CAST, &[&array(&[2], &[-1.7, 2.2])], &[], &[i64::from(DType::I64.0)]);
    assert_eq!((whole.dtype(), whole.to_vec()), (DType::I64, vec![-1.0, 2.0]));
}

#[test]
fn sorting_is_stable_in_both_directions() {
    let a = array(&[5], &[2.0, 1.0, 2.0, f64::NAN, 1.0]);
    let sorted = many(TensorOp::SORT, &[&a], &[], &[0, 0]);
    check(&sorted[0], &[5], &[1.0, 1.0, 2.0, 2.0, f64::NAN]);
    assert_eq!((sorted[1].dtype(), sorted[1].to_vec()), (DType::I64, vec![1.0, 4.0, 0.0, 2.0, 3.0]));
    let descending = one(TensorOp::ARGSORT, &[&a], &[], &[0, 1]);
    assert_eq!(descending.to_vec(), [3.0, 0.0, 2.0, 1.0, 4.0]);
    let rows = array(&[2, 2], &[4.0, 3.0, 1.0, 2.0]);
    check(&many(TensorOp::SORT, &[&rows], &[], &[0, 0])[0], &[2, 2], &[1.0, 2.0, 4.0, 3.0]);
}
