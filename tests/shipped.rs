//! Every shipped plugin with settings for a tiny run; and what holds for each of them.

use crate::built::{plugin, shipped};
use crate::corpus::Run;

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
