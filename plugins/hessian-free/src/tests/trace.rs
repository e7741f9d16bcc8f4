//! Runs against tests/data/hessian-free/trace.py: losses, damping, iterations, the way back, step sizes,
//! parameters.

use super::{HessianFree, close, metric};
use gauntlet_plugin_api::testing::{Harness, Problem};
use safetensors::SafeTensors;
use serde_json::Value;

const TRACE: &[u8] = include_bytes!("../../../../tests/data/hessian-free/trace.safetensors");
const TOLERANCE: f64 = 1e-8;

/// Rows of a tensor of the trace, of f64 or i64.
fn rows(name: &str) -> Vec<Vec<f64>> {
    let trace = SafeTensors::deserialize(TRACE).unwrap();
    let tensor = trace.tensor(name).unwrap();
    let number = |x: &[u8; 8]| match tensor.dtype() {
        safetensors::Dtype::F64 => f64::from_le_bytes(*x),
        _ => i64::from_le_bytes(*x) as f64,
    };
    let numbers: Vec<f64> = tensor.data().as_chunks::<8>().0.iter().map(number).collect();
    let width = tensor.shape()[1..].iter().product();
    numbers.chunks(width).map(<[f64]>::to_vec).collect()
}

fn problem() -> Problem {
    let numbers: Vec<usize> = rows("tokens").concat().into_iter().map(|x| x as usize).collect();
    let tokens = numbers.as_chunks::<2>().0.to_vec();
    let mut params = rows("params").concat();
    let sizes: Vec<usize> = Problem::two_layer().specs().iter().map(|spec| spec.numel()).collect();
    let params = sizes.iter().map(|size| params.drain(..size).collect()).collect();
    Problem::two_layer_of([tokens.clone(), tokens], params).unwrap().batch_size(8)
}

#[test]
fn every_number_is_that_of_the_reference() {
    let (_, metadata) = SafeTensors::read_metadata(TRACE).unwrap();
    let cases: Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["cases"]).unwrap();
    let mut steps = 0;
    for (name, config) in cases.as_object().unwrap() {
        let mut harness = Harness::<HessianFree>::new(config.clone(), problem()).unwrap();
        for (numbers, params) in rows(&format!("{name}.numbers")).iter().zip(rows(&format!("{name}.params"))) {
            let result = harness.step().unwrap();
            let [loss, damping, iterations, chosen, change, predicted, size] = numbers[..] else { panic!("7 numbers") };
            for (what, expected) in [
                ("damping", damping),
                ("inner_iterations", iterations),
                ("cg_chosen_iteration", chosen),
                ("loss_change", change),
                ("model_change", predicted),
                ("line_search_step_size", size),
            ] {
                close(&[metric(&result, what)], &[expected], TOLERANCE);
            }
            close(&[result.loss], &[loss], TOLERANCE);
            close(&harness.params(), &params, TOLERANCE);
            steps += 1;
        }
    }
    assert_eq!(steps, 33);
}
