//! Conjugate gradients inside Gauss-Newton against exact solutions.

use super::*;

fn cg(config: Value) -> Value {
    json!({ "inner": { "cg": config }, "inner_batch_size": 16, "line_search": false })
}

fn to_the_end(damping: f64) -> Value {
    json!({ "damping": damping, "max_iterations": 300, "progress_tolerance": 0.0, "residual_tolerance": 1e-13, "backtracking": false })
}

#[test]
fn least_squares_are_solved_in_one_step() {
    fn solves<K: Kind>(config: Value) {
        let mut harness = run::<Gn<K>>(cg(config), Problem::squared());
        let first = harness.gradient_norm().unwrap();
        let result = harness.step().unwrap();
        let last = harness.gradient_norm().unwrap();
        assert!(first > 0.1 && last < 1e-12, "from {first} to {last}");
        let iterations = metric(&result, "inner_iterations").unwrap();
        assert!(iterations <= 8.0, "8 unknowns took {iterations}");
        // The model is the loss: its value at the solution is the loss there.
        let value = |name: &str| metric(&result, name).unwrap();
        close(&[value("inner_value_first"), value("inner_value_last")], &[result.loss, harness.loss().unwrap()], 1e-12);
    }
    for preconditioner in [false, true] {
        let config = with(to_the_end(0.0), json!({ "preconditioner": preconditioner }));
        solves::<Full>(config.clone());
        solves::<Layerwise>(config);
    }
}

/// Iteratively reweighted least squares with damping on softmax regression, by dense algebra: the step solves
/// (sum_t (diag p_t - p_t p_t^T) (x) x_t x_t^T / T + lambda I) d = -g.
struct Irls(f64);

#[derive(Deserialize, Serialize, JsonSchema)]
struct IrlsConfig {
    damping: f64,
}

impl Optimizer for Irls {
    const NAME: &'static str = "irls";
    type Config = IrlsConfig;

    fn new(config: IrlsConfig, _: &Setup) -> Result<Self> {
        Ok(Self(config.damping))
    }

    fn state_bytes(_: &IrlsConfig, _: &Params) -> u64 {
        0
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let batch = ctx.next_batch()?;
        let (loss, gradient) = ctx.loss_and_gradient(ctx.params(), &batch)?;
        let flat = |params: &Params| -> Result<Vec<f64>> {
            Ok(params.iter().map(|(_, tensor)| tensor.to_vec()).collect::<Result<Vec<_>>>()?.concat())
        };
        let (gradient, theta) = (flat(&gradient)?, flat(ctx.params())?);
        // The model is linear, so its Jacobian times the parameters are the logits.
        let local = ctx.linearize(ctx.params(), &batch, &Structure::Full)?;
        let z = local.jvp(ctx.params())?.to_vec()?;
        let columns = (0..theta.len())
            .map(|k| local.jvp(&unflat(ctx.params(), |i| f64::from(u8::from(i == k)))?)?.to_vec())
            .collect::<Result<Vec<_>>>()?;
        drop(local);
        let tokens = z.len() / 3;
        let mut matrix = vec![vec![0.0; theta.len()]; theta.len()];
        for (t, z) in z.chunks(3).enumerate() {
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            let p = |c: usize| z[c].exp() / sum;
            for (a, b) in (0..theta.len()).flat_map(|a| (0..theta.len()).map(move |b| (a, b))) {
                let (ja, jb) = (&columns[a][3 * t..3 * t + 3], &columns[b][3 * t..3 * t + 3]);
                let mean = |j: &[f64]| (0..3).map(|c| p(c) * j[c]).sum::<f64>();
                let product: f64 = (0..3).map(|c| p(c) * ja[c] * jb[c]).sum();
                matrix[a][b] += (product - mean(ja) * mean(jb)) / tokens as f64;
            }
        }
        (0..theta.len()).for_each(|k| matrix[k][k] += self.0);
        let step = solved(matrix, gradient.iter().map(|g| -g).collect());
        let step = unflat(ctx.params(), |i| step[i])?;
        ctx.params_mut().axpy_(1.0, &step)?;
        Ok(StepReport::new(loss))
    }

    fn save(&self, _: &mut StateWriter) -> Result<()> {
        Ok(())
    }

    fn load(&mut self, _: &StateReader) -> Result<()> {
        Ok(())
    }
}

/// A list like the parameters with the number of each place.
fn unflat(like: &Params, number: impl Fn(usize) -> f64) -> Result<Params> {
    let mut at = 0;
    like.try_map(|tensor| {
        let shape = tensor.shape()?;
        let count: usize = shape.iter().product();
        at += count;
        tensor.with_values(&shape, &(at - count..at).map(&number).collect::<Vec<_>>())
    })
}

/// The solution of a linear system, by elimination with pivots.
fn solved(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for k in 0..n {
        let pivot = (k..n).max_by(|i, j| a[*i][k].abs().total_cmp(&a[*j][k].abs())).unwrap();
        a.swap(k, pivot);
        b.swap(k, pivot);
        for i in k + 1..n {
            let factor = a[i][k] / a[k][k];
            (k..n).for_each(|j| a[i][j] -= factor * a[k][j]);
            b[i] -= factor * b[k];
        }
    }
    for k in (0..n).rev() {
        let rest: f64 = (k + 1..n).map(|j| a[k][j] * b[j]).sum();
        b[k] = (b[k] - rest) / a[k][k];
    }
    b
}

#[test]
fn a_damped_step_on_softmax_regression_is_that_of_reweighted_least_squares() {
    for damping in [0.001, 0.3] {
        let problem = || Problem::softmax_regression().batch_size(8);
        let mut irls = run::<Irls>(json!({ "damping": damping }), problem());
        let config = with(cg(to_the_end(damping)), json!({ "inner_batch_size": 4 }));
        let mut gn = run::<Gn<Full>>(config, problem());
        for _ in 0..4 {
            irls.step().unwrap();
            gn.step().unwrap();
            close(&gn.params(), &irls.params(), 1e-8);
        }
    }
}

/// Each block of the layerwise solution is what the block alone gives, all others held at theta.
#[test]
fn layerwise_conjugate_gradients_solve_each_block_alone() {
    let problem = || Problem::two_layer().batch_size(8);
    let config = with(cg(to_the_end(0.1)), json!({ "inner_batch_size": 8 }));
    let mut harness = run::<Gn<Layerwise>>(config.clone(), problem());
    let before = harness.params();
    let result = harness.step().unwrap();
    assert!(metric(&result, "cg_residual_ratio").unwrap() <= 1e-13);
    let layerwise: Vec<f64> = harness.params().iter().zip(&before).map(|(a, b)| a - b).collect();
    let mut harness = run::<Gn<Full>>(config, problem());
    harness.step().unwrap();
    let full: Vec<f64> = harness.params().iter().zip(&before).map(|(a, b)| a - b).collect();
    assert!(distance(&layerwise, &full) > 0.01);
    // With damping far above the curvature both are the gradient step.
    let config = with(cg(to_the_end(1e6)), json!({ "inner_batch_size": 8 }));
    let step = |found: Vec<f64>| found.iter().zip(&before).map(|(a, b)| a - b).collect::<Vec<_>>();
    let mut one = run::<Gn<Layerwise>>(config.clone(), problem());
    let mut other = run::<Gn<Full>>(config, problem());
    one.step().unwrap();
    other.step().unwrap();
    close(&step(one.params()), &step(other.params()), 1e-4);
}

/// A stream that repeats one sequence of three tokens.
pub fn one_sequence() -> Problem {
    let sequence = vec![[0, 1], [2, 3], [4, 4]];
    let sizes = [15, 3, 12, 4, 20].into_iter().enumerate();
    let params = sizes.map(|(k, n)| (0..n).map(|i| f64::from((k + 3 * i) as u32).sin()).collect()).collect();
    Problem::two_layer_of([sequence.clone(), sequence], params).unwrap()
}

/// Many inner steps on the same data reach the solution of conjugate gradients, and the model's value falls on the way.
#[test]
fn inner_steps_on_fixed_data_approach_the_exact_solution() {
    let exact = with(cg(to_the_end(0.1)), json!({ "inner_batch_size": 1 }));
    let mut exact = run::<Gn<Full>>(exact, one_sequence().batch_size(1));
    exact.step().unwrap();
    let config = json!({ "inner": sgd(0.1, 0.9), "inner_batch_size": 1, "tikhonov": 0.1, "line_search": false });
    let mut inner = run::<Gn<Full>>(config, one_sequence().batch_size(1500));
    let result = inner.step().unwrap();
    close(&inner.params(), &exact.params(), 1e-9);
    let (first, last) = (metric(&result, "inner_value_first").unwrap(), metric(&result, "inner_value_last").unwrap());
    assert!(last < first - 0.1, "from {first} to {last}");
    assert!(metric(&result, "inner_gradient_norm_last").unwrap() < 1e-9, "the relative residual of the system");
}
