//! The published study: what docs/reproduction/README.md says of steps and ratios is what `comparison.json` holds.

use crate::built::source_tree;
use serde_json::Value;
use std::fs;

fn published(name: &str) -> String {
    fs::read_to_string(source_tree().join("docs/reproduction").join(name)).unwrap()
}

/// The page without its line breaks, so that a figure may stand on either side of one.
fn page() -> String {
    published("README.md").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn comparison(name: &str) -> Value {
    serde_json::from_str(&published(name)).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A mean and its interval as the page writes them: `22.3 [21.3, 23.3]`.
fn written(estimate: &Value, decimals: usize) -> Option<String> {
    let (mean, interval) = (estimate["mean"].as_f64()?, list(&estimate["interval"]));
    let [low, high] = [interval.first()?.as_f64()?, interval.get(1)?.as_f64()?];
    Some(format!("{mean:.decimals$} [{low:.decimals$}, {high:.decimals$}]"))
}

/// Of every contender of `comparison` that reached its target in all runs at its main batch: name and steps, as written.
fn steps_to_target(comparison: &Value) -> Vec<(String, String)> {
    let at_target = |at: &&Value| {
        at["target"] == comparison["target_loss"] && at["batch_size"] == comparison["batch_size"] && at["missed"] == 0
    };
    let of = |contender: &Value| {
        let at = list(&contender["at"]).iter().find(at_target)?;
        Some((contender["name"].as_str()?.to_owned(), written(&at["steps"], 1)?))
    };
    list(&comparison["contenders"]).iter().filter_map(of).collect()
}

#[test]
fn the_studys_page_gives_the_steps_of_its_comparisons() {
    let page = page();
    for name in ["comparison.json", "controls.json"] {
        let steps = steps_to_target(&comparison(name));
        assert!(steps.len() >= 5, "{name} holds finished contenders: {steps:?}");
        for (contender, written) in steps {
            assert!(page.contains(&written), "{name}: {contender} needs {written} steps, which the page does not say");
        }
    }
}

#[test]
fn the_studys_page_gives_the_ratios_over_the_best_baseline() {
    let (page, comparison) = (page(), comparison("comparison.json"));
    let contenders = list(&comparison["contenders"]).iter();
    let baselines: Vec<&Value> = contenders.filter(|one| one["baseline"] == true).map(|one| &one["name"]).collect();
    let over_best = list(&comparison["ratios"]).iter().filter(|ratio| {
        ratio["baseline"] == comparison["best_baseline"]
            && ratio["target"] == comparison["target_loss"]
            && !baselines.contains(&&ratio["contender"])
    });
    let mut found = 0;
    for ratio in over_best {
        for by in ["steps", "all_tokens", "gradient_equivalents"] {
            let written = written(&ratio["by"][by]["ratio"], 2).unwrap();
            assert!(page.contains(&written), "{} by {by}: {written}, which the page does not say", ratio["contender"]);
            found += 1;
        }
    }
    assert!(found >= 3, "ratios over the best baseline");
}
