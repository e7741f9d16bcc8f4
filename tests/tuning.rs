//! How comparisons and sweeps choose settings, over real runs.

use crate::built::plugin;
use crate::comparison::Comparison;
use crate::program::gauntlet;
use serde_json::Value;

#[test]
fn the_settings_of_a_small_batch_are_chosen_over_as_many_tokens() {
    let more = "[[contender]]\nname = 'small'\nbatch_sizes = [2]\nset.optimizer.plugin = 'SGD'\n\
                tune.'optimizer.config.lr' = [1e-9, 2e-9]\n";
    let comparison = Comparison::with(&more.replace("SGD", &plugin("sgd").display().to_string()));
    let ended = comparison.compare(&["--only", "small", "--seed", "1"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let contenders = comparison.json()["contenders"].clone();
    let trial = &contenders[2]["tuning"]["trials"][0];
    // By halving, 18 are 6 for each of two trials, and 6 more for one: 24 gradients of 2 sequences are 12 of the base's 4.
    assert_eq!((&trial["steps"], &trial["spent"]), (&Value::Null, &Value::from(12.0)), "{trial}");
    assert_eq!(contenders[2]["at"][0]["runs"][0]["spent"]["steps"], 48.0);
}

#[test]
fn one_that_is_like_another_takes_its_chosen_settings_or_none() {
    let comparison = Comparison::with(
        "[[contender]]\nname = 'late'\nlike = 'adam'\ntune.'optimizer.config.betas' = [[0.9, 0.95], [0.8, 0.95]]\n",
    );
    // Nothing is known of `adam`, and so nothing of what is like it.
    let reported = comparison.compare(&["--report"]).succeeded();
    assert!(reported.contains("late (its settings are not chosen)"), "{reported}");
    let ended = comparison.compare(&["--only", "late", "--seed", "2"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let names: Vec<String> = comparison.results().into_keys().collect();
    let count = |part: &str| names.iter().filter(|name| name.starts_with(part)).count();
    assert!(count("adam-trial-") >= 2 && count("late-trial-") == 2, "{names:?}");
    assert_eq!((count("adam-final-"), count("late-final-s2-"), count("late-final-")), (0, 1, 1), "{names:?}");
    let contenders = comparison.json()["contenders"].clone();
    let lr = |at: usize| contenders[at]["settings"]["optimizer.config.lr"].as_f64().unwrap();
    assert_eq!(lr(2), lr(1));
    assert!(contenders[2]["settings"]["optimizer.config.betas"].is_array());
}

#[test]
fn one_that_is_like_another_needs_no_value_that_the_other_chooses() {
    let more = "[[contender]]\nname = 'late'\nlike = 'sgd'\ntune.'optimizer.config.momentum' = [0.5, 0.9]\n";
    let comparison = Comparison::with(more);
    let ended = comparison.compare(&["--only", "late", "--seed", "1"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(comparison.json()["contenders"][2]["settings"]["optimizer.config.momentum"].is_number());
}

#[test]
fn a_sweep_chooses_for_one_contender_and_a_comparison_takes_it_over() {
    let comparison = Comparison::new();
    let swept = gauntlet(comparison.path(), &["sweep", "c.toml", "--contender", "adam"]);
    assert_eq!(swept.code, 0, "{}", swept.stderr);
    let said: Vec<&str> = swept.stdout.lines().collect();
    assert!(said[0].starts_with("optimizer.config.lr = 0.") && said[1].contains(" trials for "), "{said:?}");
    let trials = comparison.results().len();
    assert!(comparison.results().keys().all(|name| name.starts_with("adam-trial") || name.starts_with("warm-up")));
    let compared = comparison.compare(&["--only", "adam"]);
    assert!(!compared.stderr.contains("adam-trial"), "{}", compared.stderr);
    assert!(comparison.results().len() > trials);
}
