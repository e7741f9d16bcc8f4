//! Conjugate gradients on matrices of a test's own.

use super::*;
use crate::probe::{numbers, on};
use gauntlet_plugin_api::{DType, ParamSpec, Role};

const STOP: Stop = Stop { max_iterations: 200, progress: 0.0, residual: 0.0 };

/// Two vectors of 4 and 3 elements: the right-hand side.
fn right_hand_side() -> Vec<(ParamSpec, Vec<f64>)> {
    let mut random = numbers(5);
    let spec = |name: &str, n: usize| ParamSpec::new(name, &[n], Role::Hidden);
    vec![(spec("a", 4), (0..4).map(|_| random()).collect()), (spec("b", 3), (0..3).map(|_| random()).collect())]
}

/// A symmetric matrix A A^T + shift I, `n` by `n`.
fn matrix(n: usize, seed: u64, shift: f64) -> Vec<Vec<f64>> {
    let mut random = numbers(seed);
    let a: Vec<Vec<f64>> = (0..n).map(|_| (0..n).map(|_| random()).collect()).collect();
    let entry = |i: usize, j: usize| (0..n).map(|k| a[i][k] * a[j][k]).sum::<f64>() + if i == j { shift } else { 0.0 };
    (0..n).map(|i| (0..n).map(|j| entry(i, j)).collect()).collect()
}

fn flat(params: &Params) -> Result<Vec<f64>> {
    Ok(params.iter().map(|(_, tensor)| tensor.to_vec()).collect::<Result<Vec<_>>>()?.concat())
}

/// `matrix` times a list of vectors.
fn times(matrix: &[Vec<f64>], v: &Params) -> Result<Params> {
    let x = flat(v)?;
    let mut rows = matrix.iter().map(|row| row.iter().zip(&x).map(|(a, x)| a * x).sum::<f64>());
    v.try_map(|tensor| {
        let shape = tensor.shape()?;
        tensor.with_values(&shape, &rows.by_ref().take(shape[0]).collect::<Vec<_>>())
    })
}

/// What a test sees of a run to the end.
#[derive(Debug)]
struct Run {
    x: Vec<f64>,
    states: Vec<Block>,
    lengths: Vec<usize>,
    values: Vec<Vec<f64>>,
    iterates: Vec<Vec<f64>>,
    products: usize,
    residual_ratio: f64,
}

fn run(
    stop: Stop,
    partition: &'static [&'static [&'static str]],
    start: f64,
    matrix: Vec<Vec<f64>>,
    preconditioned: bool,
) -> Run {
    let on_host = move |ctx: &mut gauntlet_plugin_api::StepContext| {
        let names = |block: &&[&str]| block.iter().map(|name| name.to_string()).collect();
        let blocks = ctx.blocks(&Structure::Partition(partition.iter().map(names).collect()))?;
        let b = ctx.params().try_clone()?;
        let mut x = b.try_clone()?;
        x.scale_(start)?;
        let mut diagonal = (0..).map(|i| matrix[i][i]);
        let preconditioner = preconditioned.then(|| {
            b.try_map(|t| t.with_values(&t.shape()?, &diagonal.by_ref().take(t.shape()?[0]).collect::<Vec<_>>()))
        });
        let mut products = 0;
        let mut product = |v: &Params| {
            products += 1;
            times(&matrix, v)
        };
        let mut cg = Cg::start(stop, blocks, b, x, preconditioner.transpose()?, &mut product)?;
        while !cg.is_done() {
            cg.iterate(&mut product)?;
        }
        Ok(Run {
            x: flat(&cg.x)?,
            states: cg.states.clone(),
            lengths: cg.values.iter().map(Vec::len).collect(),
            iterates: cg.iterates.iter().map(flat).collect::<Result<_>>()?,
            residual_ratio: cg.residual_ratio()?,
            values: cg.values,
            products,
        })
    };
    on(DType::F64, right_hand_side(), on_host).unwrap()
}

#[test]
fn n_unknowns_take_n_iterations() {
    for preconditioned in [false, true] {
        for start in [0.0, 0.5] {
            let stop = Stop { residual: 1e-10, ..STOP };
            let run = run(stop, &[&["a", "b"]], start, matrix(7, 11, 0.1), preconditioned);
            assert!(run.lengths[0] <= 7 && run.residual_ratio <= 1e-10, "{run:?}");
            assert_eq!(run.products, run.lengths[0] + usize::from(start != 0.0));
            let b: Vec<f64> = right_hand_side().into_iter().flat_map(|(_, b)| b).collect();
            let of = |row: &Vec<f64>| row.iter().zip(&run.x).map(|(a, x)| a * x).sum::<f64>();
            for (row, b) in matrix(7, 11, 0.1).iter().zip(&b) {
                assert!((of(row) - b).abs() < 1e-9);
            }
            let quadratic: f64 = run.x.iter().zip(&b).map(|(x, b)| -0.5 * x * b).sum();
            assert!((run.values[0].last().unwrap() - quadratic).abs() < 1e-12, "1/2 x^T B x - b^T x at B x = b");
            assert!(run.values[0].is_sorted_by(|a, b| a >= b), "{:?}", run.values);
        }
    }
}

/// A block-diagonal matrix, its blocks together and each alone.
#[test]
fn each_block_goes_its_own_way_bit_for_bit() {
    let (a, b) = (matrix(4, 3, 0.01), matrix(3, 4, 2.0));
    let blocks = |keep_a: f64, keep_b: f64| {
        let entry = |i: usize, j: usize| match (i < 4, j < 4) {
            (true, true) => keep_a * a[i][j],
            (false, false) => keep_b * b[i - 4][j - 4],
            _ => 0.0,
        };
        (0..7).map(|i| (0..7).map(|j| entry(i, j)).collect()).collect::<Vec<Vec<f64>>>()
    };
    let stop = Stop { residual: 1e-9, ..STOP };
    let partition: &[&[&str]] = &[&["a"], &["b"]];
    let both = run(stop, partition, 0.0, blocks(1.0, 1.0), false);
    assert!(both.lengths[0] > both.lengths[1], "{both:?}");
    assert_eq!(both.states, [Block::Stopped; 2]);
    let (only_a, only_b) =
        (run(stop, partition, 0.0, blocks(1.0, 0.0), false), run(stop, partition, 0.0, blocks(0.0, 1.0), false));
    assert_eq!((&both.x[..4], &both.x[4..]), (&only_a.x[..4], &only_b.x[4..]));
    assert_eq!((&both.values[0], &both.values[1]), (&only_a.values[0], &only_b.values[1]));
    assert_eq!(only_a.states, [Block::Stopped, Block::NotPositive], "zero curvature is not positive");
}

#[test]
fn an_indefinite_matrix_stops_its_block_at_the_last_iterate() {
    let mut indefinite = matrix(7, 11, 1.0);
    (4..7).for_each(|i| indefinite[i] = (0..7).map(|j| if i == j { -1.0 } else { 0.0 }).collect());
    (0..4).for_each(|i| (4..7).for_each(|j| indefinite[i][j] = 0.0));
    let run = run(Stop { residual: 1e-10, ..STOP }, &[&["a"], &["b"]], 0.0, indefinite, false);
    assert_eq!(run.states, [Block::Stopped, Block::NotPositive]);
    assert_eq!((run.lengths[1], &run.x[4..]), (0, &[0.0; 3][..]));
    assert!(run.x[..4].iter().all(|x| *x != 0.0));
}

#[test]
fn a_product_that_is_not_finite_is_an_error() {
    let error = on(DType::F64, right_hand_side(), |ctx| {
        let (b, blocks) = (ctx.params().try_clone()?, ctx.blocks(&Structure::Full)?);
        let mut nan = |v: &Params| {
            let mut product = v.try_clone()?;
            product.fill_(f64::NAN)?;
            Ok(product)
        };
        let x = b.zeros_like()?;
        Cg::start(STOP, blocks, b, x, None, &mut nan)?.iterate(&mut nan)
    });
    assert_eq!(error.unwrap_err().to_string(), "conjugate gradients: p^T B p is NaN, expected a finite number");
}

/// A large ill-conditioned system that does not end: which iterates are kept, and when the residual is fresh.
#[test]
fn iterates_are_kept_at_powers_of_1_3_and_the_residual_is_renewed_every_tenth() {
    assert_eq!((0..10).map(kept).collect::<Vec<_>>(), [5, 7, 9, 11, 15, 19, 25, 32, 41, 54]);
    let hilbert = |i: usize, j: usize| 1.0 / (i + j + 1) as f64;
    let hilbert: Vec<Vec<f64>> = (0..7).map(|i| (0..7).map(|j| hilbert(i, j)).collect()).collect();
    let run = run(Stop { max_iterations: 31, ..STOP }, &[&["a", "b"]], 0.0, hilbert, false);
    assert_eq!((run.iterates.len(), run.products), (7, 31 + 3));
    assert_eq!((Cg::lists(31, false), Cg::lists(32, true)), (4 + 7, 5 + 8));
}

#[test]
fn progress_is_measured_over_at_least_ten_iterations() {
    let stop = Stop { progress: 5e-4, ..STOP };
    // phi_i = -1 + 0.9^i: the progress over k = 10 falls below 0.005 between i = 49 and 50.
    let values: Vec<f64> = (1..=200).map(|i| -1.0 + 0.9_f64.powi(i)).collect();
    let ends: Vec<usize> = (1..=200).filter(|i| stop.progress_ended(&values[..*i])).collect();
    let progress = |i: usize, k: usize| (values[i - 1] - values[i - 1 - k]) / values[i - 1];
    assert_eq!(ends[0], (11..).find(|i| progress(*i, 10) < 0.005).unwrap());
    assert!(!stop.progress_ended(&[-1.0; 10]) && stop.progress_ended(&[-1.0; 11]), "i > k");
    assert!(!stop.progress_ended(&[1.0; 30]), "a value above 0 is no progress to compare with");
    assert!(!STOP.progress_ended(&[-1.0; 100]), "0 is off");
    // k = ceil(i / 10) beyond 100 iterations: at i = 105, k = 11.
    let mut values = vec![-1.0; 105];
    values[93] = -0.5;
    assert!(!stop.progress_ended(&values) && stop.progress_ended(&values[..104]), "phi_(105 - 11) is the 94th");
}

/// Losses by block and iterate: the way back ends where the loss rises, and passes what is no number.
#[test]
fn each_block_goes_back_while_its_loss_does_not_rise() {
    let chosen = on(DType::F64, right_hand_side(), |ctx| {
        let blocks = ctx.blocks(&Structure::Partition(vec![vec!["a".into()], vec!["b".into()]]))?;
        let number = |value: f64| {
            let mut list = ctx.params().zeros_like()?;
            list.fill_(value)?;
            Ok(list)
        };
        let zeros = || ctx.params().zeros_like();
        let mut cg = Cg::start(STOP, blocks, zeros()?, zeros()?, None, &mut |v| v.try_clone())?;
        cg.x = number(9.0)?;
        cg.iterates = (0..4).map(|j| number(f64::from(j))).collect::<Result<_>>()?;
        // Block a made 12 iterations (5, 7, 9, 11 are kept), block b 9: its last is the third kept one.
        cg.values = vec![vec![0.0; 12], vec![0.0; 9]];
        let mut backtrack = Backtrack::default();
        let mut asked = vec![];
        let losses = [(9.0, 1.0), (3.0, 1.0), (2.0, 0.5), (1.0, 0.6), (9.0, f64::NAN), (1.0, 3.0), (0.0, 4.0)];
        for (value, loss) in losses {
            let trial = flat(&backtrack.trial(&cg)?.ok_or_else(|| Error::plugin("no trial"))?)?;
            asked.push((value, trial));
            backtrack.tell(&cg, loss);
        }
        assert!(backtrack.trial(&cg)?.is_none());
        for (at, (value, trial)) in asked.iter().enumerate() {
            let of_a = at < 4;
            let expected: Vec<f64> = (0..7).map(|i| if (i < 4) == of_a { *value } else { 0.0 }).collect();
            assert_eq!(*trial, expected, "trial {at}");
        }
        flat(&backtrack.step(&cg)?)
    });
    assert_eq!(chosen.unwrap(), [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0]);
}
