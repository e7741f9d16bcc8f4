//! `plugins replay`, `plugins check` and `train --dry-run`: what they find, and what they say of bad input.

use crate::built::{fixture, plugin, source_tree};
use crate::corpus::Run;
use crate::program::{Outcome, gauntlet};
use safetensors::tensor::{Dtype, View};
use safetensors::{SafeTensors, serialize_to_file};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A tensor that a test may change.
#[derive(Clone)]
struct Values(Vec<usize>, Vec<u8>);

impl View for &Values {
    fn dtype(&self) -> Dtype {
        Dtype::F64
    }

    fn shape(&self) -> &[usize] {
        &self.0
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.1.as_slice().into()
    }

    fn data_len(&self) -> usize {
        self.1.len()
    }
}

type Tensors = BTreeMap<String, Values>;
type Metadata = HashMap<String, String>;

/// Replays the trace of AdamW after a change, in a folder of its own.
fn replay_changed(change: impl FnOnce(&mut Tensors, &mut Metadata)) -> (Outcome, String) {
    let bytes = std::fs::read(source_tree().join("tests/data/traces/adamw.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut metadata = header.metadata().clone().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView)| {
        (name, Values(view.shape().to_vec(), view.data().to_vec()))
    };
    let mut tensors: Tensors = file.tensors().into_iter().map(tensor).collect();
    change(&mut tensors, &mut metadata);
    let folder = tempfile::tempdir().unwrap();
    serialize_to_file(&tensors, Some(metadata), &folder.path().join("t.st")).unwrap();
    let adam = plugin("adam").to_str().unwrap();
    let outcome =
        gauntlet(folder.path(), &["plugins", "replay", "--plugin", adam, "--trace", "t.st", "--rtol", "1e-12"]);
    let errors = outcome.errors().join("\n");
    (outcome, errors)
}

fn refused(change: impl FnOnce(&mut Tensors, &mut Metadata), expected: &str) {
    let (outcome, errors) = replay_changed(change);
    assert_eq!((outcome.code, errors.as_str()), (65, expected));
}

#[test]
fn a_replay_shows_the_largest_error_of_each_step_and_holds() {
    let (outcome, errors) = replay_changed(|_, _| ());
    assert_eq!((outcome.code, errors.as_str()), (0, ""));
    assert_eq!(outcome.stdout.lines().filter(|line| line.ends_with(".weight")).count(), 20, "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with(", at most 1e-12 as asked\n"), "{}", outcome.stdout);
}

#[test]
fn a_replay_that_differs_ends_with_3_and_names_the_place() {
    let (outcome, errors) = replay_changed(|tensors, _| {
        let values = &mut tensors.get_mut("after/7/head.weight").unwrap().1;
        values[..8].copy_from_slice(&f64::NAN.to_le_bytes());
    });
    assert_eq!(outcome.code, 3);
    assert!(
        errors.contains("differs from the reference at step 7 in `head.weight`: found relative error NaN"),
        "{errors}"
    );
}

#[test]
fn traces_that_are_no_traces() {
    refused(|tensors, _| drop(tensors.remove("grad/3/head.weight")), "`t.st`: holds no tensor `grad/3/head.weight`");
    refused(
        |tensors, _| drop(tensors.insert("grad/21/head.weight".into(), Values(vec![1], vec![0; 8]))),
        "`t.st`: holds a tensor `grad/21/head.weight` that is of no parameter and step of its metadata: expected 6 \
         parameters and 20 steps",
    );
    refused(
        |tensors, _| tensors.get_mut("after/1/head.weight").unwrap().0 = vec![6, 11],
        "`t.st`: tensor `after/1/head.weight` has another shape than its parameter: found [6, 11], expected [11, 6]",
    );
    refused(
        |_, metadata| drop(metadata.insert("dtype".into(), "bfloat16".into())),
        "`t.st`: `dtype` of its metadata is not supported: found `bfloat16`, expected `float64` or `float32`",
    );
    refused(
        |_, metadata| drop(metadata.insert("steps".into(), "-1".into())),
        "`t.st`: `steps` of its metadata is not a number of steps: found `-1`, expected an integer >= 1",
    );
    refused(
        |_, metadata| drop(metadata.remove("params")),
        "`t.st`: its metadata have no `params`: expected `optimizer`, `config`, `params`, `reference`, `steps` and `dtype`",
    );
}

fn check(file: &Path, args: &[&str]) -> Outcome {
    gauntlet(Path::new("/"), &[&["plugins", "check", file.to_str().unwrap()], args].concat())
}

#[test]
fn the_shipped_plugins_hold_every_check() {
    for name in ["sgd", "adam"] {
        let stdout = check(plugin(name), &[]).succeeded();
        assert!(stdout.ends_with("\n15 of 15 checks hold\n"), "{stdout}");
    }
}

#[test]
fn a_check_that_does_not_hold_ends_with_3() {
    let outcome = check(fixture("misbehaving"), &["--config", "mode=undeclared-metric"]);
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("FAILED   metrics: `undeclared` is reported"), "{}", outcome.stdout);
    let needy = check(fixture("needy"), &[]);
    assert_eq!(needy.code, 3);
    assert!(needy.stdout.contains("does not offer visit_layer_io, Capability 4242"), "{}", needy.stdout);
}

#[test]
fn what_is_no_plugin_is_refused_by_the_check_too() {
    let outcome = check(fixture("rootless"), &[]);
    assert_eq!((outcome.code, outcome.errors().len()), (80, 1), "{}", outcome.stderr);
}

/// The cells of a parameter's row in a dry run's table.
fn row(stdout: &str, name: &str) -> Vec<String> {
    let line = stdout.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{stdout}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

#[test]
fn a_dry_run_shows_rules_and_memory_and_writes_nothing() {
    let run = Run::of(plugin("adam")).set("optimizer.config.groups=[{ roles = ['norm'], set = { lr = 0.1 } }]");
    let stdout = run.dry_run().succeeded();
    let row = |name: &str| row(&stdout, name);
    assert_eq!(row("head.weight"), ["head.weight", "256x16", "head", "adamw", "16.0 KiB", "32.0 KiB"]);
    assert_eq!(row("norm.weight"), ["norm.weight", "16", "norm", "adamw, groups[0]", "64 B", "128 B"]);
    assert!(stdout.ends_with("nothing was trained or written\n"), "{stdout}");
    assert!(!run.file("").exists());
    let refused = Run::of(fixture("needy")).dry_run();
    assert_eq!((refused.code, refused.errors().len()), (80, 1), "{}", refused.stderr);
}

/// The number behind a word of a line of the plan.
fn planned(stdout: &str, line: &str, at: usize) -> f64 {
    let line = stdout.lines().find(|text| text.trim_start().starts_with(line)).unwrap_or_else(|| panic!("{stdout}"));
    let mut numbers = line.split([' ', '(', ',', ';']).filter_map(|word| word.parse().ok());
    numbers.nth(at).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_plan_tells_what_a_step_takes_without_the_data() {
    // The optimizer takes batches of 4 and 8 only; 32 is what the line through them gives.
    let settings = ["data.batch_size=32", "optimizer.config={inner_batch_size = 4, line_search_batches = 3}"];
    let run = settings.iter().fold(Run::of(plugin("full-gn")), |run, setting| run.set(*setting));
    let steps = run.finished().events("step");
    let step = |key: &str| steps[1][key].as_f64().unwrap() - steps[0][key].as_f64().unwrap();
    let absent = settings.iter().fold(Run::of(plugin("full-gn")), |run, setting| run.set(*setting));
    let absent = absent.set("data.train=absent").set("data.validation=absent").set("run.init_from=absent");
    let plan = absent.train_with(&["--plan"]).succeeded();
    for line in ["data        not there", "validation  not there", "begins at   absent: not there"] {
        assert!(plan.contains(line), "{plan}");
    }
    for (line, at, key, tolerance) in [
        ("operations", 0, "flops", 0.02),
        ("operations", 1, "gradient_equivalents", 0.02),
        ("tokens", 0, "tokens", 1e-9),
        ("tokens", 1, "line_search_tokens", 1e-9),
    ] {
        let (planned, real) = (planned(&plan, line, at), step(key));
        assert!((planned / real - 1.0).abs() < tolerance, "{key}: {planned} planned, {real} in a run\n{plan}");
    }
    assert!(plan.contains(" of the plugin's own") && !absent.file("").exists(), "{plan}");
}

#[test]
fn a_dry_run_shows_what_each_shipped_plugin_does_to_which_parameter() {
    let rules = |plugin_name: &str, settings: &[&str]| {
        let run = settings.iter().fold(Run::of(plugin(plugin_name)), |run, setting| run.set(*setting));
        let stdout = run.dry_run().succeeded();
        ["embed.weight", "blocks.0.mlp.down.weight", "norm.weight"].map(|name| row(&stdout, name)[3].clone())
    };
    let half = "optimizer.config.inner_batch_size=2";
    assert_eq!(rules("sgd", &["optimizer.config.lr=0.1"]), ["sgd"; 3]);
    assert_eq!(rules("muon", &[]), ["adamw", "muon", "adamw"]);
    let optax = "optimizer.config.variant=optax";
    assert_eq!(rules("muon", &[optax]), ["adamw", "muon", "adamw, nesterov"]);
    assert_eq!(rules("soap", &[]), ["soap", "soap", "adam"]);
    let narrow = "optimizer.config.max_precond_dim=16";
    assert_eq!(rules("soap", &[narrow]), ["soap, right side", "soap, left side", "adam"]);
    assert_eq!(rules("shampoo", &[narrow]), ["shampoo, 16 blocks", "shampoo, 2 blocks", "shampoo, diagonal"]);
    assert_eq!(rules("full-gn", &[half]), ["adamw", "muon", "adamw"]);
    assert_eq!(rules("layerwise-gn", &[half]), ["adamw, block 0", "muon, block 1", "adamw, block 1"]);
    assert_eq!(rules("full-gn", &[half, "optimizer.config.inner=cg"]), ["cg"; 3]);
    assert_eq!(rules("hessian-free", &[]), ["cg"; 3]);
}
