//! Matrix products by hand, factorisations against their definitions.

use super::*;

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
        assert_close(
            &product(&transposed(&q), &q),
            &product(&random(&[2, 3, 3], 0), &array(&[3, 3], &[0.0; 9])).plus_eye(),
        );
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
    assert_close(
        &product(&one(TensorOp::INVERSE, &[&spd], &[], &[]), &spd),
        &product(&spd, &array(&[4, 4], &[0.0; 16])).plus_eye(),
    );
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
