//! Operations against results worked out by hand, factorisations against their definitions.

use super::*;
use crate::backend::{FusedList, Program};
use crate::random::fill;
use gauntlet_plugin_abi::{DType, FusedOp, ListReduction, RandomKey, RandomKind, RawInstruction};

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
    apply_in_place(TensorOp::COPY, &mut target, &[&Array::from_vec("", &[2], vec![0.1, 5.0], DType::F32).unwrap()], &[], &[])
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

#[test]
fn matrix_products_are_batched() {
    let (a, b) = (random(&[2, 1, 3, 4], 0), random(&[5, 4, 2], 1));
    let product = one(TensorOp::MATMUL, &[&a, &b], &[], &[]);
    assert_eq!(product.shape(), [2, 5, 3, 2]);
    let expected: f64 = (0..4).map(|k| a.values()[[1, 0, 2, k]] * b.values()[[3, k, 1]]).sum();
    assert!((product.values()[[1, 3, 2, 1]] - expected).abs() < 1e-14);
    let found = message(TensorOp::MATMUL, &[&array(&[2, 3], &[0.0; 6]), &array(&[2, 3], &[0.0; 6])], &[], &[]);
    assert_eq!(found, (ErrorCode::SHAPE, "matmul: found 2 x 3 times 2 x 3, expected 3 rows on the right".into()));
    let m = array(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    check(&one(TensorOp::DIAG, &[&m], &[], &[]), &[2], &[1.0, 4.0]);
    check(&one(TensorOp::DIAG, &[&array(&[2], &[5.0, 6.0])], &[], &[]), &[2, 2], &[5.0, 0.0, 0.0, 6.0]);
    check(&one(TensorOp::TRACE, &[&m], &[], &[]), &[], &[5.0]);
    check(&one(TensorOp::TRIL, &[&m], &[], &[-1]), &[2, 2], &[0.0, 0.0, 3.0, 0.0]);
    check(&one(TensorOp::TRIU, &[&m], &[], &[0]), &[2, 2], &[1.0, 2.0, 0.0, 4.0]);
}

fn product(a: &Array, b: &Array) -> Array {
    one(TensorOp::MATMUL, &[a, b], &[], &[])
}

fn transposed(a: &Array) -> Array {
    let rank = a.shape().len() as i64;
    one(TensorOp::TRANSPOSE, &[a], &[], &[rank - 2, rank - 1])
}

fn scaled_columns(a: &Array, by: &Array) -> Array {
    let [leading @ .., n] = by.shape() else { panic!("a vector") };
    let shape: Vec<i64> = leading.iter().copied().chain([1, *n]).map(|size| size as i64).collect();
    one(TensorOp::MUL, &[a, &one(TensorOp::RESHAPE, &[by], &[], &shape)], &[], &[])
}

#[test]
fn factorisations_give_back_their_matrix() {
    for shape in [[2, 5, 3], [2, 3, 5]] {
        let a = random(&shape, 2);
        let [q, r] = <[Array; 2]>::try_from(many(TensorOp::QR, &[&a], &[], &[])).unwrap();
        assert_close(&product(&q, &r), &a);
        assert_close(&product(&transposed(&q), &q), &product(&random(&[2, 3, 3], 0), &array(&[3, 3], &[0.0; 9])).plus_eye());
        assert_close(&one(TensorOp::TRIU, &[&r], &[], &[0]), &r);
        let [u, s, vt] = <[Array; 3]>::try_from(many(TensorOp::SVD, &[&a], &[], &[])).unwrap();
        assert_close(&product(&scaled_columns(&u, &s), &vt), &a);
        assert!(s.values().outer_iter().all(|s| s[0] >= s[1] && s[1] >= s[2] && s[2] >= 0.0));
    }
    let a = random(&[2, 4, 4], 3);
    let spd = product(&a, &transposed(&a)).plus_eye();
    let [values, vectors] = <[Array; 2]>::try_from(many(TensorOp::EIGH, &[&spd], &[], &[])).unwrap();
    assert_close(&product(&scaled_columns(&vectors, &values), &transposed(&vectors)), &spd);
    assert!(values.values().outer_iter().all(|v| v[0] <= v[1] && v[2] <= v[3]));
    let lower = one(TensorOp::TRIL, &[&spd], &[], &[0]);
    assert_close(&many(TensorOp::EIGH, &[&lower], &[], &[])[0], &values);
    let l = one(TensorOp::CHOLESKY, &[&spd], &[], &[]);
    assert_close(&product(&l, &transposed(&l)), &spd);
    assert_close(&one(TensorOp::TRIL, &[&l], &[], &[0]), &l);
    assert_close(&product(&one(TensorOp::INVERSE, &[&spd], &[], &[]), &spd), &product(&spd, &array(&[4, 4], &[0.0; 16])).plus_eye());
}

impl Array {
    fn plus_eye(&self) -> Self {
        let n = self.shape()[self.shape().len() - 1];
        one(TensorOp::ADD, &[self, &one(TensorOp::EYE, &[], &[], &[i64::from(DType::F64.0), n as i64])], &[], &[])
    }
}

#[test]
fn systems_are_solved() {
    let b = random(&[2, 3, 2], 5);
    let a = product(&random(&[3, 3], 4), &array(&[3, 3], &[0.3, 0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.1])).plus_eye();
    for upper in [0, 1] {
        let triangle = one(if upper == 1 { TensorOp::TRIU } else { TensorOp::TRIL }, &[&a], &[], &[0]);
        let x = one(TensorOp::SOLVE_TRIANGULAR, &[&a, &b], &[], &[upper, 0]);
        assert_close(&product(&triangle, &x), &b);
        let strict = one(if upper == 1 { TensorOp::TRIU } else { TensorOp::TRIL }, &[&a], &[], &[2 * upper - 1]);
        let x = one(TensorOp::SOLVE_TRIANGULAR, &[&a, &b], &[], &[upper, 1]);
        assert_close(&product(&strict.plus_eye(), &x), &b);
    }
    let spd = product(&a, &transposed(&a));
    let l = one(TensorOp::CHOLESKY, &[&spd], &[], &[]);
    assert_close(&product(&spd, &one(TensorOp::CHOLESKY_SOLVE, &[&b, &l], &[], &[])), &b);
}

#[test]
fn bad_matrices_are_numerical_errors() {
    let singular = array(&[2, 2], &[1.0, 2.0, 2.0, 4.0]);
    let nan = array(&[2, 2], &[f64::NAN, 0.0, 0.0, 1.0]);
    let code = |op, a: &Array| message(op, &[a], &[], &[]).0;
    assert_eq!(code(TensorOp::INVERSE, &singular), ErrorCode::NUMERICAL);
    assert_eq!(code(TensorOp::CHOLESKY, &array(&[2, 2], &[1.0, 2.0, 2.0, 1.0])), ErrorCode::NUMERICAL);
    for op in [TensorOp::INVERSE, TensorOp::CHOLESKY, TensorOp::QR, TensorOp::EIGH, TensorOp::SVD] {
        assert_eq!(code(op, &nan), ErrorCode::NUMERICAL, "{}", op.name());
        assert_eq!(code(op, &array(&[2], &[1.0; 2])), ErrorCode::SHAPE, "{}", op.name());
    }
    for op in [TensorOp::INVERSE, TensorOp::CHOLESKY, TensorOp::EIGH] {
        assert_eq!(code(op, &array(&[2, 3], &[1.0; 6])), ErrorCode::SHAPE, "{}", op.name());
    }
    let zero_diagonal = array(&[2, 2], &[0.0, 0.0, 1.0, 1.0]);
    let found = message(TensorOp::SOLVE_TRIANGULAR, &[&zero_diagonal, &singular], &[], &[0, 0]);
    assert_eq!(found, (ErrorCode::NUMERICAL, "solve_triangular: the matrix is singular".into()));
}

fn fused(code: &[(FusedOp, u32, f64)], lists: &mut [FusedList<'_, Array>]) {
    let code: Vec<_> = code.iter().map(|(op, index, value)| RawInstruction { op: *op, index: *index, value: *value }).collect();
    run_fused(&Program::parse(&code, lists.len()).unwrap(), lists).unwrap();
}

#[test]
fn every_fused_operation_gives_what_it_says() {
    let (a, b) = (array(&[3], &[4.0, -2.0, 0.0]), array(&[3], &[0.5, 2.0, 0.0]));
    let binary: [(FusedOp, fn(f64, f64) -> f64); 10] = [
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
    let unary: [(FusedOp, fn(f64) -> f64); 7] = [
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
