//! Every shipped plugin with settings for a tiny run; and what holds for each of them.

use crate::built::{plugin, shipped};
use crate::corpus::Run;
use crate::skipped::skipped;

/// The device that is compared with the CPU.
const GPU: &str = "cuda:0";

/// Settings with which each shipped plugin does what is special about it within a few steps.
const SETTINGS: [(&str, &[&str]); 8] = [
    ("adam", &[]),
    ("full-gn", &["optimizer.config.inner_batch_size=2", "optimizer.config.line_search_candidates=3"]),
    ("hessian-free", &["optimizer.config.max_iterations=12"]),
    ("layerwise-gn", &["optimizer.config.inner_batch_size=2", "optimizer.config.inner=adamw"]),
    ("muon", &[]),
    ("sgd", &["optimizer.config.lr=0.1", "optimizer.config.momentum=0.9"]),
    ("shampoo", &["optimizer.config.precondition_frequency=2"]),
    ("soap", &["optimizer.config.precondition_frequency=2"]),
];

/// A tiny run of each shipped plugin, by its name.
pub fn runs() -> Vec<(&'static str, Run)> {
    assert_eq!(SETTINGS.map(|(name, _)| name.to_owned()).to_vec(), shipped(), "a row for every shipped plugin");
    let run = |(name, settings): (&'static str, &[&str])| {
        (name, settings.iter().fold(Run::of(plugin(name)), |run, setting| run.set(*setting)))
    };
    SETTINGS.into_iter().map(run).collect()
}

/// The bytes of every file of the checkpoint of step 4.
fn finished(run: Run) -> Vec<(String, Vec<u8>)> {
    let run = run.finished();
    let files = std::fs::read_dir(run.file("checkpoints/step-4")).unwrap().flatten();
    let mut names: Vec<String> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".safetensors"));
    names.sort();
    names.into_iter().map(|name| (name.clone(), run.saved(4, &name))).collect()
}

#[test]
fn equal_seeds_give_equal_bytes_with_every_plugin() {
    for ((name, one), (_, two)) in runs().into_iter().zip(runs()) {
        let (one, two) = (finished(one), finished(two));
        assert!(one.len() >= 2, "{name} saves parameters and state");
        for ((file, a), (_, b)) in one.iter().zip(&two) {
            assert!(a == b, "{name}: `{file}` differs between two runs of the same configuration");
        }
    }
}

#[test]
fn every_plugin_lowers_the_loss() {
    for (name, run) in runs() {
        let run = run.set("train.max_steps=20").set("eval.every_steps=0").finished();
        let losses = run.by_step("loss");
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(mean(&losses[15..]) < mean(&losses[..5]), "{name}: {losses:?}");
    }
}

/// In f64, so that what differs is the order of sums. Conjugate gradients, which stop by their own progress, make the most
/// of it.
#[test]
fn a_gpu_takes_the_steps_of_the_cpu_with_every_plugin() {
    for ((name, here), (_, there)) in runs().into_iter().zip(runs()) {
        let [here, there] = [(here, "cpu"), (there, GPU)]
            .map(|(run, device)| run.set("run.dtype=f64").set(format!("run.device={device}")));
        let outcome = there.train();
        if outcome.code == 69 && outcome.stderr.contains("`cuda:0` is not there") {
            return skipped("no GPU, or a libtorch without CUDA: the steps of both devices");
        }
        outcome.succeeded();
        let (here, there) = (here.finished().by_step("loss"), there.by_step("loss"));
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-8 * a.abs();
        assert!(
            here.len() == 4 && there.len() == 4 && here.iter().zip(&there).all(close),
            "{name}: {here:?} {there:?}"
        );
    }
}
