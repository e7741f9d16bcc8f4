//! What `gauntlet config` prints and finds; docs/configuration.md; every key under wrong values.

use super::*;
use crate::config::reference;
use crate::config::{describe, known_keys};
use crate::error::Fault;
use crate::model::PRESETS;
use serde_json::json;
use std::path::Path;

const LEAST: &str = "[data]\ntrain = \"shards\"\n[optimizer]\nplugin = \"nowhere-found\"\n[train]\nmax_steps = 10\n";

/// A folder with a file of this text, and the layers of it and of these `--set`.
fn layers(text: &str, sets: &[&str]) -> (tempfile::TempDir, Layers) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(&path, text).unwrap();
    let set = sets.iter().map(|set| (*set).to_owned()).collect();
    (folder, Layers { config: vec![path], set })
}

fn loaded(text: &str, sets: &[&str]) -> Loaded {
    let (_folder, layers) = layers(text, sets);
    config::load(&layers.config, &layers.set, []).unwrap()
}

fn found(text: &str, sets: &[&str]) -> Vec<String> {
    let (folder, layers) = layers(text, sets);
    let faults = problems(&layers, &[]);
    assert!(faults.iter().all(|fault| fault.exit == Exit::Usage), "{faults:?}");
    let shown = |fault: &Fault| fault.to_string().replace(&format!("{}/", folder.path().display()), "");
    faults.iter().map(shown).collect()
}

#[test]
fn what_is_shown_loads_to_the_same_run() {
    let sets = ["model.num_layers=2", "optimizer.config={lr = 1e-3, groups = [{roles = ['norm']}]}", "eval.batches=2"];
    for preset in PRESETS {
        let loaded = loaded(LEAST, &[&sets[..], &[&format!("model.preset={preset}")]].concat());
        let (resolved, _) = resolved(&loaded).unwrap();
        let model = ModelConfig::resolve(&resolved.model, &Origins::default()).unwrap();
        assert_eq!(model, ModelConfig { num_layers: 2, ..ModelConfig::preset(preset).unwrap() });
        for origin in [false, true] {
            let text = show(&loaded, origin).unwrap();
            assert_eq!(self::loaded(&text, &[]).config, resolved, "{text}");
        }
    }
}

#[test]
fn every_value_names_its_layer() {
    let env = [("GAUNTLET_RUN__SEED".to_owned(), "7".to_owned())];
    let (folder, layers) = layers(LEAST, &["model.width=64", "model.preset=paper-45m"]);
    let loaded = config::load(&layers.config, &layers.set, env).unwrap();
    let text = show(&loaded, true).unwrap().replace(&format!("{}/", folder.path().display()), "");
    for line in [
        "data.train = \"shards\"  # run.toml",
        "run.seed = 7  # environment `GAUNTLET_RUN__SEED`",
        "model.width = 64  # --set model.width=64",
        "model.preset = \"paper-45m\"  # --set model.preset=paper-45m",
        "model.vocab_size = 32000  # preset `paper-45m`",
        "eval.batches = 8  # default",
        "optimizer.config = {}  # default",
    ] {
        assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
    }
    let model = "model.preset = \"tiny\"  # default";
    let text = show(&self::loaded(LEAST, &[]), true).unwrap();
    assert!(text.lines().any(|found| found == model), "{text}");
}

#[test]
fn a_check_finds_the_problems_of_every_owner_at_once() {
    let text = LEAST.replace("max_steps = 10", "max_step = 10").replace("[train]", "[model]\nwidht = 8\n[train]");
    let faults = found(&text, &["run.threads=-1"]);
    assert_eq!(faults.len(), 4, "{faults:?}");
    for part in [
        "--set run.threads=-1: `run.threads`: out of range: found -1",
        "run.toml: `train.max_step`: unknown key; hint: did you mean `train.max_steps`?",
        "run.toml: `model.widht`: unknown key; hint: did you mean `model.width`?",
        "plugin `nowhere-found`: no such file: found no `libnowhere_found.so` in",
    ] {
        assert!(faults.iter().any(|fault| fault.contains(part)), "no `{part}` in {faults:?}");
    }
    let heads = found(LEAST, &["model.num_heads=3"]);
    assert!(heads[0].contains("`model.num_heads`: cannot be: found 3, expected a divisor of width 160"), "{heads:?}");
    let wrong = found(LEAST, &["model=3", "optimizer.config=3", "plugins.search_path=['here']", "optimizer.plugin="]);
    assert_eq!(wrong.len(), 4, "each is said once: {wrong:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_missing() {
    let layers = Layers { config: vec!["/nowhere/run.toml".into()], set: vec![] };
    let faults = problems(&layers, &[]);
    assert_eq!((faults.len(), faults[0].exit), (1, Exit::Missing));
}

#[test]
fn the_schema_knows_the_models_keys() {
    let (whole, model) = (schema(), schemars::schema_for!(ModelSection).to_value());
    let keys = known_keys(&whole, "");
    for key in known_keys(&model, "model") {
        assert!(keys.contains(&key), "{key}");
    }
    let names = |schema: &Value| schema["$defs"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (own, of_model) = (names(&config::schema()), names(&model));
    assert_eq!(of_model.iter().filter(|name| own.contains(name)).count(), 0, "one definition would replace another");
    assert_eq!(names(&whole).len(), own.len() + of_model.len());
    let default = |key: &str| whole["properties"]["model"]["properties"][key]["default"].clone();
    assert_eq!((default("preset"), default("head_std")), (json!("tiny"), json!(0.02)));
    let value = serde_json::to_value(&loaded(LEAST, &[]).config).unwrap();
    assert_eq!(validate(&whole, &value, ""), []);
    let wrong = validate(&whole, &json!({ "data": { "train": "x" }, "optimizer": { "plugin": "x" }, "model": 3 }), "");
    assert_eq!(wrong.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), ["model"]);
}

/// The values of the presets, a row a key.
fn presets() -> String {
    let presets = PRESETS.map(|name| serde_json::to_value(ModelConfig::preset(name).unwrap()).unwrap());
    let all = presets.iter().filter_map(Value::as_object).flat_map(Map::keys);
    let all: std::collections::BTreeSet<&String> = all.collect();
    let cell = |preset: &Value, key: &str| preset.get(key).map_or("none".to_owned(), |value| format!("`{value}`"));
    let row = |key: &&String| {
        let cells = presets.iter().map(|preset| cell(preset, key)).collect::<Vec<_>>().join(" | ");
        format!("| `model.{key}` | {cells} |\n")
    };
    let heads = PRESETS.map(|name| format!("`{name}`")).join(" | ");
    let rows: String = all.iter().map(row).collect();
    let rule = "---|".repeat(PRESETS.len());
    format!("\nKeys that are not set have the value of the preset:\n\n| key | {heads} |\n|---|{rule}\n{rows}")
}

#[test]
fn the_page_about_the_configuration_is_current() {
    let plugin = "\n`gauntlet plugins inspect NAME` lists the keys of `[optimizer.config]` for a plugin.\n";
    let page = reference::render(&schema(), &[("model", presets()), ("optimizer", plugin.to_owned())]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("GAUNTLET_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(committed.lines()).find(|(made, found)| made != found);
    assert!(committed == page, "run this test with GAUNTLET_BLESS=1; first difference: {differs:?}");
}

/// A value of each type, none of which is among the choices of any key.
fn one_of_each_type() -> [(&'static str, Value); 5] {
    [
        ("`true`", json!(true)),
        ("a number", json!(1.5)),
        ("a string", json!("no such choice")),
        ("a list", json!([])),
        ("a table", json!({})),
    ]
}

#[test]
fn every_key_refuses_what_it_does_not_expect_and_says_what_it_does() {
    let schema = schema();
    let keys = describe::keys(&schema);
    assert!(keys.len() > 45, "{}", keys.len());
    for key in keys {
        for (name, value) in one_of_each_type() {
            if key.expected.split(" or ").any(|expected| expected.starts_with(name)) {
                continue;
            }
            let table = key.key.rsplit('.').fold(value.clone(), |value, name| json!({ name: value }));
            let problems = validate(&schema, &table, "");
            let found: Vec<_> = problems.iter().filter(|problem| problem.what != "missing").collect();
            assert!(found.len() == 1 && found[0].key == key.key, "{} = {value}: {problems:?}", key.key);
            assert_eq!(found[0].expected.as_ref(), Some(&key.expected), "{} = {value}", key.key);
        }
    }
}

#[test]
fn every_number_refuses_what_lies_beyond_its_bounds() {
    let schema = schema();
    let mut refused = 0;
    for key in describe::keys(&schema) {
        let bounds = key.expected.split_once(" >").map(|(_, bounds)| format!(">{bounds}")).unwrap_or_default();
        for bound in bounds.split(" and ").filter(|bound| !bound.is_empty()) {
            let (sign, number) = bound.split_once(' ').unwrap();
            let number: f64 = number.parse().unwrap();
            let outside = match sign {
                ">" | "<" => number,
                ">=" => number - 1.0,
                _ => number.next_up() + 1.0,
            };
            // Whole numbers are integers, also beyond 64 bits.
            let value: Value = serde_json::from_str(&format!("{outside:.0}")).unwrap();
            let table = key.key.rsplit('.').fold(value.clone(), |value, name| json!({ name: value }));
            let problems = validate(&schema, &table, "");
            let found = problems.iter().find(|problem| problem.key == key.key);
            assert!(found.is_some_and(|problem| problem.what == "out of range"), "{} = {value}: {problems:?}", key.key);
            refused += 1;
        }
    }
    assert!(refused > 30, "{refused}");
}

#[test]
fn a_typo_of_every_key_of_the_model_gets_the_right_suggestion() {
    let keys = known_keys(&schema(), "").into_iter().filter(|key| key.starts_with("model."));
    let names: Vec<String> = keys.map(|key| key["model.".len()..].to_owned()).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let doubled = format!("{}{name}", &name[..1]);
        let section: Map<String, Value> = [(doubled.clone(), json!(1))].into_iter().collect();
        let faults = ModelConfig::resolve(&section, &Origins::default()).unwrap_err();
        let line = format!("configuration: `model.{doubled}`: unknown key; hint: did you mean `model.{name}`?");
        assert_eq!(faults.iter().map(Fault::to_string).collect::<Vec<_>>(), [line]);
    }
}
