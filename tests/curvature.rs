//! `gauntlet curvature` through the whole program: products agree with each other, and bad files are refused in a line.

use crate::built::plugin;
use crate::corpus::Run;
use crate::program::{Outcome, gauntlet};
use gauntlet::tensor_file;
use insta::assert_snapshot;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

const CHECKPOINT: &str = "run/checkpoints/step-4";

type Vector = BTreeMap<String, Tensor>;

/// A finished run with `tokens.safetensors` of two sequences of 8 tokens beside it.
fn run() -> Run {
    let run = Run::of(plugin("adam")).finished();
    let tokens = Tensor::arange(18, (Kind::Int64, tch::Device::Cpu)).view([2, 9]) * 13;
    write(&run, "tokens.safetensors", &[("tokens", tokens.remainder(251))]);
    run
}

fn write(run: &Run, name: &str, tensors: &[(&str, Tensor)]) {
    let named: Vec<(String, Tensor)> =
        tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.shallow_clone())).collect();
    tensor_file::write(&run.folder.path().join(name), &named, &BTreeMap::new()).unwrap();
}

/// A vector in the shapes of the checkpoint's parameters.
fn vector(run: &Run, seed: f64) -> Vector {
    let params = tensor_file::read(&run.file("checkpoints/step-4/params.safetensors")).unwrap();
    let number = |shape: &Tensor| {
        let count = Tensor::arange(shape.numel() as i64, (Kind::Double, tch::Device::Cpu));
        (count * 0.7 + seed).sin().view_as(shape) * 0.1
    };
    params.iter().map(|(name, param)| (name.clone(), number(param))).collect()
}

fn write_vector(run: &Run, name: &str, vector: &Vector) {
    let named: Vec<(&str, Tensor)> = vector.iter().map(|(name, t)| (name.as_str(), t.shallow_clone())).collect();
    write(run, name, &named);
}

fn product(run: &Run, args: &[&str]) -> Outcome {
    let fixed = ["curvature", "product", "--checkpoint", CHECKPOINT, "--tokens", "tokens.safetensors"];
    let out = ["--out", "out.safetensors", "--threads", "1"];
    gauntlet(run.folder.path(), &[&fixed[..], args, &out[..]].concat())
}

/// The product and its numbers, in f64.
fn computed(run: &Run, args: &[&str]) -> (Vector, BTreeMap<String, f64>) {
    product(run, &[args, &["--dtype", "f64"]].concat()).succeeded();
    let path = run.folder.path().join("out.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    let numbers = metadata.into_iter().filter_map(|(key, value)| Some((key, value.parse().ok()?))).collect();
    (tensor_file::read(&path).unwrap(), numbers)
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().map(|(name, tensor)| (tensor * &b[name]).sum(Kind::Double).double_value(&[])).sum()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-10 * a.abs().max(b.abs())
}

#[test]
fn products_agree_with_each_other() {
    let run = run();
    let (u, v) = (vector(&run, 0.0), vector(&run, 2.0));
    write_vector(&run, "u.safetensors", &u);
    write_vector(&run, "v.safetensors", &v);
    let with = |kind: &str, file: &str| computed(&run, &["--kind", kind, "--vector", file]);
    let (gu, numbers) = with("ggn", "u.safetensors");
    let (gv, _) = with("ggn", "v.safetensors");
    assert!(close(dot(&v, &gu), dot(&u, &gv)), "symmetric");
    assert!(close(numbers["value"], dot(&u, &gu)) && numbers["value"] > 0.0);
    let (gradient, at) = computed(&run, &["--kind", "gradient"]);
    assert!(close(at["loss"], numbers["loss"]));
    let (quadratic, values) = with("quadratic", "u.safetensors");
    assert!(close(dot(&quadratic, &v), dot(&gradient, &v) + dot(&gu, &v)), "J^T (g0 + H J u)");
    assert!(close(values["linear"], dot(&gradient, &u)) && close(values["curvature"], 0.5 * dot(&u, &gu)));
    assert!(close(values["value"], values["loss"] + values["linear"] + values["curvature"]));
    let (hu, _) = with("hessian", "u.safetensors");
    let (hv, _) = with("hessian", "v.safetensors");
    assert!(close(dot(&v, &hu), dot(&u, &hv)) && !close(dot(&v, &hu), dot(&v, &gu)));
    let fisher = |seed: &str| {
        let args = ["--kind", "fisher", "--labels", "sampled", "--seed", seed, "--vector", "u.safetensors"];
        computed(&run, &args).1["value"]
    };
    assert!(fisher("1") == fisher("1") && fisher("1") != fisher("2"));
    let layerwise = ["--kind", "prox-linear", "--structure", "layerwise", "--vector", "u.safetensors"];
    let (layers, values) = computed(&run, &layerwise);
    let (whole, whole_values) = with("prox-linear", "u.safetensors");
    assert!(!close(dot(&layers, &v), dot(&whole, &v)) && !close(values["value"], whole_values["value"]));
}

#[test]
fn equal_calls_write_equal_bytes() {
    let run = run();
    write_vector(&run, "u.safetensors", &vector(&run, 0.0));
    let bytes = || {
        product(&run, &["--kind", "quadratic", "--vector", "u.safetensors"]).succeeded();
        std::fs::read(run.folder.path().join("out.safetensors")).unwrap()
    };
    assert!(bytes() == bytes());
}

#[test]
fn bad_vectors_and_tokens_are_refused_in_one_line() {
    let run = run();
    let whole = vector(&run, 0.0);
    let changed = |change: &dyn Fn(&mut Vector)| {
        let mut vector: Vector = whole.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        change(&mut vector);
        write_vector(&run, "v.safetensors", &vector);
        refusal(&run, &["--kind", "ggn", "--vector", "v.safetensors"])
    };
    let set = |vector: &mut Vector, name: &str, tensor: Tensor| drop(vector.insert(name.to_owned(), tensor));
    let mut said = vec![
        changed(&|vector| drop(vector.remove("norm.weight"))),
        changed(&|vector| set(vector, "blocks.9.q", Tensor::from_slice(&[1.0_f64]))),
        changed(&|vector| set(vector, "norm.weight", Tensor::zeros([15], (Kind::Double, tch::Device::Cpu)))),
        changed(&|vector| set(vector, "norm.weight", Tensor::zeros([16], (Kind::Int64, tch::Device::Cpu)))),
        changed(&|vector| set(vector, "norm.weight", Tensor::full([16], f64::NAN, (Kind::Double, tch::Device::Cpu)))),
        refusal(&run, &["--kind", "ggn", "--vector", "missing.safetensors"]),
        refusal(&run, &["--kind", "gradient", "--vector", "v.safetensors"]),
        refusal(&run, &["--kind", "gradient", "--at", "ema"]),
    ];
    write_vector(&run, "v.safetensors", &whole);
    said.push(refusal(&run, &["--kind", "ggn", "--vector", "v.safetensors", "--labels", "sampled"]));
    std::fs::write(run.folder.path().join("v.safetensors"), "text").unwrap();
    said.push(refusal(&run, &["--kind", "ggn", "--vector", "v.safetensors"]));
    let tokens = [
        ("tokens", Tensor::from_slice(&[1_i64, 2, 256]).view([1, 3])),
        ("tokens", Tensor::from_slice(&[1_i64, -2, 25]).view([1, 3])),
        ("tokens", Tensor::from_slice(&[1_i64, 2, 3])),
        ("tokens", Tensor::from_slice(&[1.0_f64, 2.0, 3.0]).view([1, 3])),
        ("words", Tensor::from_slice(&[1_i64, 2, 3]).view([1, 3])),
    ];
    for tensor in tokens {
        write(&run, "tokens.safetensors", &[tensor]);
        said.push(refusal(&run, &["--kind", "gradient"]));
    }
    assert_snapshot!(said.concat(), @"
    65: error: `v.safetensors`: tensors: found no `norm.weight`, expected one a parameter
    65: error: `v.safetensors`: tensors that are no parameters: found `blocks.9.q`; hint: use the names in the checkpoint's `params.safetensors`
    65: error: `v.safetensors`: tensor `norm.weight`: found [15] of Double, expected [16] of floats
    65: error: `v.safetensors`: tensor `norm.weight`: found [16] of Int64, expected [16] of floats
    65: error: `v.safetensors`: tensor `norm.weight`: found a value that is not finite, expected finite numbers
    66: error: cannot read `missing.safetensors`: no such file or directory
    2: error: `--kind gradient` takes no `--vector`
    2: error: `run/checkpoints/step-4` holds no such parameters: found `--at ema`; hint: leave out `--at`
    2: error: `--labels sampled` belongs to `--kind fisher` and `--kind gradient`: found `--kind ggn`
    65: error: `v.safetensors`: not a safetensors file: found header too small
    65: error: `tokens.safetensors`: token: found 256, expected 0 to 255
    65: error: `tokens.safetensors`: token: found -2, expected 0 to 255
    65: error: `tokens.safetensors`: tensor `tokens`: found [3] of Int64, expected [batch, T + 1] of Int64
    65: error: `tokens.safetensors`: tensor `tokens`: found [1, 3] of Double, expected [batch, T + 1] of Int64
    65: error: `tokens.safetensors`: tensors: found `words`, expected one, `tokens`
    ");
    assert!(!run.folder.path().join("out.safetensors").exists());
}

fn refusal(run: &Run, args: &[&str]) -> String {
    product(run, args).refusal(run.folder.path())
}

#[test]
fn a_vector_is_asked_for_where_one_is_needed() {
    let run = run();
    let outcome = product(&run, &["--kind", "ggn"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("--vector <FILE>"), "{}", outcome.stderr);
}

#[test]
fn the_spectrum_is_printed_written_and_drawn() {
    let run = run();
    let spectrum = |args: &[&str]| {
        let fixed = ["curvature", "spectrum", "--checkpoint", CHECKPOINT, "--tokens", "tokens.safetensors"];
        let rest = ["--dtype", "f64", "--threads", "1", "--json", "s.json", "--svg", "s.svg", "--probes", "4"];
        gauntlet(run.folder.path(), &[&fixed[..], args, &rest[..]].concat())
    };
    let said = spectrum(&["--eigenvalues", "3", "--iterations", "60"]).succeeded();
    assert!(said.starts_with("Gauss-Newton matrix, whole model, step 4\n"), "{said}");
    assert_eq!(said.lines().count(), 9, "{said}");
    let file = |name: &str| std::fs::read_to_string(run.folder.path().join(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&file("s.json")).unwrap();
    let values: Vec<f64> = (0..3).map(|i| json["eigenvalues"][i]["value"].as_f64().unwrap()).collect();
    assert!(values[0] >= values[1] && values[1] >= values[2] && values[2] > 0.0, "{values:?}");
    assert!(json["eigenvalues"][0]["residual"].as_f64().unwrap() < 1e-4 * values[0]);
    assert!(json["trace"]["mean"].as_f64().unwrap() >= values[0]);
    assert!(file("s.svg").starts_with("<svg") && file("s.svg").contains("rank"));
    let block = spectrum(&["--kind", "hessian", "--layer", "0", "--eigenvalues", "2"]).succeeded();
    assert!(block.starts_with("Hessian, block 0, step 4\n"), "{block}");
    let refused = spectrum(&["--layer", "7"]);
    assert_eq!(refused.code, 2);
    assert_eq!(refused.errors(), ["`--layer`: found `7`, expected `embedding`, `head`, or 0 to 0"]);
}
