//! The quickstart in small: the same commands, the same configuration, thirty steps of a smaller model.

use crate::built::{plugin, source_tree};
use crate::corpus::prepare;
use crate::program::{Outcome, gauntlet};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// `train` of the shipped configuration in a folder where `prepare` has run, made small, into `runs/NAME`.
fn train(folder: &Path, name: &str) -> Outcome {
    let config = source_tree().join("configs/quickstart.toml");
    let (dir, plugin) = (format!("run.dir=runs/{name}"), format!("optimizer.plugin={}", plugin("muon").display()));
    let sets = [
        dir.as_str(),
        plugin.as_str(),
        "data.train=shards",
        "data.validation=shards",
        "data.seq_len=32",
        "data.batch_size=8",
        "model.width=32",
        "model.num_layers=1",
        "model.num_heads=2",
        "model.mlp_width=64",
        "schedule.warmup_steps=5",
        "train.max_steps=30",
        "eval.every_steps=10",
        "eval.batches=4",
        "eval.batch_size=8",
    ];
    let mut args = vec!["train", "--config", config.to_str().unwrap()];
    sets.iter().for_each(|setting| args.extend(["--set", setting]));
    gauntlet(folder, &args)
}

fn prepared() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let said = prepare(folder.path()).succeeded();
    assert!(said.contains("train ") && said.contains(" tokens in 3 files, 1 shards"), "{said}");
    assert!(said.ends_with("wrote shards\n"), "{said}");
    folder
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn prepare_train_evaluate_generate() {
    let folder = prepared();
    let outcome = train(folder.path(), "a");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "", "standard output is for data");
    let run = folder.path().join("runs/a");

    let text = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    let steps: Vec<u64> = of("step").iter().map(|event| event["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=30).collect::<Vec<u64>>());
    let validation: Vec<f64> = of("evaluated").iter().map(|event| event["loss"].as_f64().unwrap()).collect();
    assert!(validation.len() == 3 && validation.is_sorted_by(|a, b| a > b) && validation[2] < 5.0, "{validation:?}");
    assert_eq!(of("finished")[0]["reason"], "max_steps");
    assert_eq!(of("started")[0]["plugin"], "muon");

    let checkpoint = run.join("checkpoints/step-30");
    let manifest = json(&checkpoint.join("MANIFEST.json"));
    assert_eq!((&manifest["step"], &manifest["tokenizer"]), (&Value::from(30), &Value::from("bytes")));
    for (name, file) in manifest["files"].as_object().unwrap() {
        let bytes = fs::read(checkpoint.join(name)).unwrap();
        assert_eq!(file["bytes"], bytes.len());
        assert_eq!(file["sha256"], gauntlet::plugin::image::hex_sha256(&bytes));
    }
    let resolved: toml::Table = fs::read_to_string(run.join("config.resolved.toml")).unwrap().parse().unwrap();
    assert_eq!(resolved["model"]["width"].as_integer(), Some(32));
    let shipped = fs::read_to_string(source_tree().join("configs/quickstart.toml")).unwrap();
    let shipped: toml::Table = shipped.parse().unwrap();
    assert_eq!(resolved["optimizer"]["config"], shipped["optimizer"]["config"]);

    let checkpoint = "runs/a/checkpoints/step-30";
    let said = gauntlet(folder.path(), &["eval", "--checkpoint", checkpoint, "--batches", "4", "--batch-size", "8"]);
    let expected = format!("validation loss {:.6} nats a token over 1024 tokens (step 30, params)\n", validation[2]);
    assert_eq!(said.succeeded(), expected);

    let generate = |seed: &str| {
        let args = ["generate", "--checkpoint", checkpoint, "--prompt", "**ROSALIND", "--tokens", "50", "--seed", seed];
        gauntlet(folder.path(), &args).succeeded()
    };
    let text = generate("1");
    assert!(text.starts_with("**ROSALIND") && text.chars().count() >= 40, "{text}");
    assert_eq!(generate("1"), text, "the same seed gives the same text");
    assert_ne!(generate("2"), text);
}

#[test]
fn the_same_run_twice_gives_the_same_bits() {
    let folder = prepared();
    ["a", "b"].iter().for_each(|name| drop(train(folder.path(), name).succeeded()));
    for file in ["params.safetensors", "optimizer.safetensors"] {
        let [a, b] = ["a", "b"]
            .map(|name| fs::read(folder.path().join(format!("runs/{name}/checkpoints/step-30/{file}"))).unwrap());
        assert!(a == b, "{file} differs");
    }
}

#[test]
fn an_existing_run_is_left_alone() {
    let folder = prepared();
    let run = folder.path().join("runs/a");
    fs::create_dir_all(&run).unwrap();
    let outcome = train(folder.path(), "a");
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.errors()[0].starts_with("`run.dir`: `runs/a` exists"), "{}", outcome.stderr);
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
}
