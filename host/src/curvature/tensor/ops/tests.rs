//! Every operation against values computed by hand or by its defining property, in f64.

use super::{op, op_in_place};
use gauntlet_plugin_abi::{DType, ErrorCode, TensorOp};
use tch::{Device, Kind, Tensor};

fn t(shape: &[i64], values: &[f64]) -> Tensor {
    Tensor::from_slice(values).view(shape)
}

fn run(code: TensorOp, inputs: &[&Tensor], scalars: &[f64], ints: &[i64]) -> Vec<Tensor> {
    op(Device::Cpu, code, inputs, scalars, ints).unwrap_or_else(|error| panic!("{}: {error}", code.name()))
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

fn check(code: TensorOp, inputs: &[&Tensor], scalars: &[f64], ints: &[i64], expected: &[f64]) {
    let found = values(&run(code, inputs, scalars, ints)[0]);
    assert_eq!(found, expected, "{}", code.name());
}

fn close(a: &Tensor, b: &Tensor) {
    let error = (a - b).abs().max().double_value(&[]);
    assert!(error < 1e-12, "differ by {error}");
}

#[test]
fn arithmetic_and_comparison() {
    let (a, b) = (t(&[3], &[1.0, -2.0, 4.0]), t(&[3], &[2.0, 2.0, 0.5]));
    check(TensorOp::ADD, &[&a, &b], &[], &[], &[3.0, 0.0, 4.5]);
    check(TensorOp::SUB, &[&a, &b], &[], &[], &[-1.0, -4.0, 3.5]);
    check(TensorOp::MUL, &[&a, &b], &[], &[], &[2.0, -4.0, 2.0]);
    check(TensorOp::DIV, &[&a, &b], &[], &[], &[0.5, -1.0, 8.0]);
    check(TensorOp::POW, &[&a], &[2.0], &[], &[1.0, 4.0, 16.0]);
    check(TensorOp::MAXIMUM, &[&a, &b], &[], &[], &[2.0, 2.0, 4.0]);
    check(TensorOp::MINIMUM, &[&a], &[0.0], &[], &[0.0, -2.0, 0.0]);
    for (code, expected) in [
        (TensorOp::EQ, [0.0, 0.0, 1.0]),
        (TensorOp::NE, [1.0, 1.0, 0.0]),
        (TensorOp::LT, [1.0, 1.0, 0.0]),
        (TensorOp::LE, [1.0, 1.0, 1.0]),
        (TensorOp::GT, [0.0, 0.0, 0.0]),
        (TensorOp::GE, [0.0, 0.0, 1.0]),
    ] {
        check(code, &[&a], &[4.0], &[], &expected);
        assert_eq!(run(code, &[&a], &[4.0], &[])[0].kind(), Kind::Double);
    }
    check(TensorOp::WHERE, &[&t(&[3], &[1.0, 0.0, 2.0]), &a, &b], &[], &[], &[1.0, 2.0, 4.0]);
    check(TensorOp::ADD, &[&t(&[2, 1], &[1.0, 2.0]), &t(&[2], &[10.0, 20.0])], &[], &[], &[11.0, 21.0, 12.0, 22.0]);
}

#[test]
fn unary_and_ternary() {
    let a = t(&[3], &[4.0, 0.25, 1.0]);
    check(TensorOp::NEG, &[&a], &[], &[], &[-4.0, -0.25, -1.0]);
    check(TensorOp::ABS, &[&t(&[2], &[-3.0, 2.0])], &[], &[], &[3.0, 2.0]);
    check(TensorOp::SQRT, &[&a], &[], &[], &[2.0, 0.5, 1.0]);
    check(TensorOp::RSQRT, &[&a], &[], &[], &[0.5, 2.0, 1.0]);
    check(TensorOp::EXP, &[&t(&[2], &[0.0, 1.0])], &[], &[], &[1.0, 1.0_f64.exp()]);
    check(TensorOp::LOG, &[&t(&[2], &[1.0, 2.0])], &[], &[], &[0.0, 2.0_f64.ln()]);
    check(TensorOp::SIGN, &[&t(&[3], &[-3.0, 0.0, 2.0])], &[], &[], &[-1.0, 0.0, 1.0]);
    check(TensorOp::RECIPROCAL, &[&a], &[], &[], &[0.25, 4.0, 1.0]);
    check(TensorOp::SQUARE, &[&a], &[], &[], &[16.0, 0.0625, 1.0]);
    check(TensorOp::CLAMP, &[&a], &[0.5, 2.0], &[], &[2.0, 0.5, 1.0]);
    let (b, c) = (t(&[3], &[1.0, 2.0, 3.0]), t(&[3], &[2.0, 4.0, 0.5]));
    check(TensorOp::LERP, &[&a, &b], &[0.5], &[], &[2.5, 1.125, 2.0]);
    check(TensorOp::ADDCMUL, &[&a, &b, &c], &[2.0], &[], &[8.0, 16.25, 4.0]);
    check(TensorOp::ADDCDIV, &[&a, &b, &c], &[2.0], &[], &[5.0, 1.25, 13.0]);
    check(TensorOp::AXPY, &[&a, &b], &[-1.0], &[], &[3.0, -1.75, -2.0]);
    check(TensorOp::IS_FINITE, &[&t(&[3], &[1.0, f64::NAN, f64::INFINITY])], &[], &[], &[1.0, 0.0, 0.0]);
}

#[test]
fn reductions_and_shapes() {
    let a = t(&[2, 3], &[3.0, 4.0, 0.0, 1.0, 2.0, 2.0]);
    check(TensorOp::SUM, &[&a], &[], &[0], &[12.0]);
    check(TensorOp::SUM, &[&a], &[], &[0, 1], &[7.0, 5.0]);
    check(TensorOp::MEAN, &[&a], &[], &[0, 0], &[2.0, 3.0, 1.0]);
    check(TensorOp::MAX, &[&a], &[], &[0, 1], &[4.0, 2.0]);
    check(TensorOp::MIN, &[&a], &[], &[0], &[0.0]);
    check(TensorOp::NORM, &[&a], &[], &[0, 1], &[5.0, 3.0]);
    assert_eq!(run(TensorOp::SUM, &[&a], &[], &[1, 1])[0].size(), [2, 1]);
    check(TensorOp::TRANSPOSE, &[&a], &[], &[0, 1], &[3.0, 1.0, 4.0, 2.0, 0.0, 2.0]);
    assert_eq!(run(TensorOp::RESHAPE, &[&a], &[], &[3, -1])[0].size(), [3, 2]);
    check(TensorOp::SLICE, &[&a], &[], &[1, 1, 3], &[4.0, 0.0, 2.0, 2.0]);
    check(TensorOp::CAT, &[&a, &a], &[], &[1], &[3.0, 4.0, 0.0, 3.0, 4.0, 0.0, 1.0, 2.0, 2.0, 1.0, 2.0, 2.0]);
    assert_eq!(run(TensorOp::STACK, &[&a, &a], &[], &[2])[0].size(), [2, 3, 2]);
    let indices = Tensor::from_slice(&[2_i64, 0]);
    check(TensorOp::INDEX_SELECT, &[&a, &indices], &[], &[1], &[0.0, 3.0, 2.0, 1.0]);
    check(TensorOp::GATHER, &[&a, &Tensor::from_slice(&[2_i64, 0]).view([2, 1])], &[], &[1], &[0.0, 1.0]);
    let sorted = run(TensorOp::SORT, &[&a], &[], &[1, 1]);
    assert_eq!(
        (values(&sorted[0]), values(&sorted[1])),
        (vec![4.0, 3.0, 0.0, 2.0, 2.0, 1.0], vec![1.0, 0.0, 2.0, 1.0, 2.0, 0.0])
    );
    check(TensorOp::ARGSORT, &[&a], &[], &[1, 0], &[2.0, 0.0, 1.0, 0.0, 1.0, 2.0]);
    check(TensorOp::BROADCAST_TO, &[&t(&[1, 2], &[1.0, 2.0])], &[], &[2, 2], &[1.0, 2.0, 1.0, 2.0]);
    check(TensorOp::FULL, &[], &[7.0], &[i64::from(DType::F64.0), 2], &[7.0, 7.0]);
    check(TensorOp::EYE, &[], &[], &[i64::from(DType::F32.0), 2], &[1.0, 0.0, 0.0, 1.0]);
    assert_eq!(run(TensorOp::CAST, &[&a], &[], &[i64::from(DType::F32.0)])[0].kind(), Kind::Float);
}

#[test]
fn triangles_and_diagonals() {
    let a = t(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    check(TensorOp::DIAG, &[&a], &[], &[], &[1.0, 4.0]);
    check(TensorOp::DIAG, &[&t(&[2], &[5.0, 6.0])], &[], &[], &[5.0, 0.0, 0.0, 6.0]);
    check(TensorOp::TRACE, &[&a], &[], &[], &[5.0]);
    check(TensorOp::TRIL, &[&a], &[], &[0], &[1.0, 0.0, 3.0, 4.0]);
    check(TensorOp::TRIU, &[&a], &[], &[1], &[0.0, 2.0, 0.0, 0.0]);
    check(TensorOp::MATMUL, &[&a, &a], &[], &[], &[7.0, 10.0, 15.0, 22.0]);
}

#[test]
fn factorisations_multiply_back_in_a_batch() {
    let a = Tensor::randn([2, 5, 3], (Kind::Double, Device::Cpu));
    let qr = run(TensorOp::QR, &[&a], &[], &[]);
    close(&qr[0].matmul(&qr[1]), &a);
    let svd = run(TensorOp::SVD, &[&a], &[], &[]);
    close(&(&svd[0] * svd[1].unsqueeze(-2)).matmul(&svd[2]), &a);
    let spd = a.transpose(1, 2).matmul(&a) + Tensor::eye(3, (Kind::Double, Device::Cpu));
    let eigh = run(TensorOp::EIGH, &[&spd], &[], &[]);
    close(&(&eigh[1] * eigh[0].unsqueeze(-2)).matmul(&eigh[1].transpose(1, 2)), &spd);
    let l = &run(TensorOp::CHOLESKY, &[&spd], &[], &[])[0];
    close(&l.matmul(&l.transpose(1, 2)), &spd);
    close(
        &spd.matmul(&run(TensorOp::INVERSE, &[&spd], &[], &[])[0]),
        &Tensor::eye(3, (Kind::Double, Device::Cpu)).expand([2, 3, 3], false),
    );
    let b = Tensor::randn([2, 3, 2], (Kind::Double, Device::Cpu));
    close(&spd.matmul(&run(TensorOp::CHOLESKY_SOLVE, &[&b, l], &[], &[])[0]), &b);
    close(&l.matmul(&run(TensorOp::SOLVE_TRIANGULAR, &[l, &b], &[], &[0, 0])[0]), &b);
}

#[test]
fn results_own_their_storage() {
    let mut a = t(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let views: Vec<Tensor> = [
        (TensorOp::TRANSPOSE, vec![0, 1]),
        (TensorOp::RESHAPE, vec![4]),
        (TensorOp::SLICE, vec![0, 0, 2]),
        (TensorOp::BROADCAST_TO, vec![2, 2]),
        (TensorOp::CAST, vec![i64::from(DType::F64.0)]),
        (TensorOp::COPY, vec![]),
        (TensorOp::DIAG, vec![]),
    ]
    .into_iter()
    .map(|(code, ints)| run(code, &[&a], &[], &ints).remove(0))
    .collect();
    let before: Vec<_> = views.iter().map(values).collect();
    let _ = a.fill_(9.0);
    assert_eq!(views.iter().map(values).collect::<Vec<_>>(), before);
}

/// A transposed matrix keeps the order of its elements in memory, and nobody notices.
#[test]
fn what_follows_a_transpose_sees_rows_and_columns() {
    let a = Tensor::randn([2, 3, 5], (Kind::Double, Device::Cpu));
    let transposed = || run(TensorOp::TRANSPOSE, &[&a], &[], &[1, 2]).remove(0);
    let dense = a.transpose(1, 2).contiguous();
    assert!(!transposed().is_contiguous());
    let twice = run(TensorOp::TRANSPOSE, &[&transposed()], &[], &[2, 1]).remove(0);
    assert!(twice.is_contiguous() && twice == a);
    for (code, ints) in [
        (TensorOp::RESHAPE, vec![6, 5]),
        (TensorOp::SLICE, vec![1, 1, 3]),
        (TensorOp::TRANSPOSE, vec![0, 1]),
        (TensorOp::COPY, vec![]),
    ] {
        let found = run(code, &[&transposed()], &[], &ints).remove(0);
        assert_eq!(values(&found), values(&run(code, &[&dense], &[], &ints)[0]), "{}", code.name());
        assert!(found.is_contiguous(), "{}", code.name());
    }
    close(&run(TensorOp::MATMUL, &[&transposed(), &a], &[], &[])[0], &dense.matmul(&a));
    let mut target = transposed();
    op_in_place(TensorOp::ADD, &mut target, &[&dense], &[], &[]).unwrap();
    assert_eq!(values(&target), values(&(&dense * 2.0)));
}

#[test]
fn in_place_keeps_the_target_and_its_type() {
    let mut a = t(&[2], &[1.0, 2.0]).to_kind(Kind::Float);
    op_in_place(TensorOp::MUL, &mut a, &[], &[3.0], &[]).unwrap();
    let next = a.to_kind(Kind::Double) + 1.0;
    op_in_place(TensorOp::COPY, &mut a, &[&next], &[], &[]).unwrap();
    assert_eq!((values(&a), a.kind()), (vec![4.0, 7.0], Kind::Float));
    op_in_place(TensorOp::FILL, &mut a, &[], &[5.0], &[]).unwrap();
    assert_eq!(values(&a), [5.0, 5.0]);
    let wide = t(&[2, 2], &[0.0; 4]).to_kind(Kind::Float);
    assert_eq!(op_in_place(TensorOp::ADD, &mut a, &[&wide], &[], &[]).unwrap_err().code, ErrorCode::SHAPE);
    assert_eq!(op_in_place(TensorOp::MATMUL, &mut a, &[&wide], &[], &[]).unwrap_err().code, ErrorCode::UNSUPPORTED);
}

#[test]
fn every_known_operation_is_answered_and_no_other() {
    let a = t(&[2, 2], &[2.0, 0.5, 0.5, 1.0]);
    for (code, name) in TensorOp::ALL {
        if *code == TensorOp::FILL {
            continue;
        }
        let outcome = op(Device::Cpu, *code, &[&a, &a, &a], &[1.0, 2.0], &[1, 0, 1]);
        assert!(!outcome.is_err_and(|error| error.code == ErrorCode::UNSUPPORTED), "{name}");
    }
    let error = op(Device::Cpu, TensorOp(9999), &[&a], &[], &[]).unwrap_err();
    assert_eq!(error.to_string(), "tensor operation TensorOp 9999: not supported by this host");
}

#[test]
fn what_does_not_fit_is_an_error_of_its_kind() {
    let code = |code, inputs: &[&Tensor], ints: &[i64]| op(Device::Cpu, code, inputs, &[], ints).unwrap_err().code;
    let (a, b) = (t(&[2, 3], &[0.0; 6]), t(&[2, 2], &[0.0; 4]));
    assert_eq!(code(TensorOp::ADD, &[&a, &b], &[]), ErrorCode::SHAPE);
    assert_eq!(code(TensorOp::MATMUL, &[&a, &b], &[]), ErrorCode::SHAPE);
    assert_eq!(code(TensorOp::ADD, &[&b, &b.to_kind(Kind::Float)], &[]), ErrorCode::DTYPE);
    assert_eq!(code(TensorOp::INVERSE, &[&a], &[]), ErrorCode::SHAPE);
    assert_eq!(code(TensorOp::INVERSE, &[&b], &[]), ErrorCode::NUMERICAL);
    assert_eq!(code(TensorOp::CHOLESKY, &[&(&b - 1.0)], &[]), ErrorCode::NUMERICAL);
    assert_eq!(code(TensorOp::EIGH, &[&(&b + f64::NAN)], &[]), ErrorCode::NUMERICAL);
    assert_eq!(code(TensorOp::SLICE, &[&a], &[1, 2, 5]), ErrorCode::ARGUMENT);
    assert_eq!(code(TensorOp::SUM, &[&a], &[0, 7]), ErrorCode::ARGUMENT);
    assert_eq!(code(TensorOp::INDEX_SELECT, &[&a, &Tensor::from_slice(&[3_i64])], &[1]), ErrorCode::ARGUMENT);
    assert_eq!(code(TensorOp::ADD, &[], &[]), ErrorCode::ARGUMENT);
}
