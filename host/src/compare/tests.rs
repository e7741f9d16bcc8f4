//! A summary of results made by hand.

use super::plan::Plan;
use super::result::{End, Evaluation, MadeWith, Measure, RunResult};
use super::standing::Found;
use super::summary::Summary;
use super::*;
use serde_json::json;
use std::collections::BTreeMap;

fn comparison(more: &str) -> Result<Comparison, Vec<Fault>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let text = format!(
        "base = ['base.toml']\ndir = 'd'\nseeds = [1, 2]\ntarget_loss = 2.0\nother_targets = [3.0]\n\
         max_gradient_equivalents = 100\n{more}"
    );
    std::fs::write(&file, text).unwrap();
    Comparison::read(&file)
}

const TWO: &str = "[[contender]]\nname = 'a'\nbaseline = true\n[[contender]]\nname = 'b'\n";

fn plan(more: &str) -> Plan {
    Plan::without_data(comparison(more).unwrap(), 8)
}

/// A run whose loss falls from 4 by `slope` a step until it is at most 1.9, each step costing `cost` gradients.
fn run(contender: &str, seed: u64, batch_size: u64, slope: f64, cost: f64) -> RunResult {
    let evaluation = |step: u64| Evaluation {
        step,
        loss: 4.0 - slope * step as f64,
        tokens: 100 * step,
        line_search_tokens: if cost > 1.0 { 100 * step } else { 0 },
        gradient_equivalents: cost * step as f64,
        flops: cost * step as f64,
        seconds: step as f64,
    };
    let steps = (2.1 / slope).ceil() as u64;
    RunResult {
        format: 1,
        hash: "0".repeat(64),
        contender: contender.into(),
        stage: Stage::Final,
        seed,
        batch_size,
        settings: Settings::new(),
        end: End::Target,
        error: None,
        limit: 100.0,
        target: 2.0,
        made_with: MadeWith::default(),
        validation_data: None,
        validation: (1..=steps).map(evaluation).collect(),
        fine: BTreeMap::new(),
        train_loss: Some(1.8),
        epochs: 0.5,
        metrics: BTreeMap::from([("line_search_grid_end_steps".to_owned(), 1.0)]),
        resumes: 0,
    }
}

fn found(runs: Vec<RunResult>) -> Found {
    Found { runs, is_chosen: true, ..Found::default() }
}

#[test]
fn seconds_of_two_devices_are_not_compared() {
    let on = |device: &str, run: RunResult| RunResult {
        made_with: MadeWith { device: device.into(), ..MadeWith::default() },
        ..run
    };
    let baseline = vec![on("cpu", run("a", 1, 8, 0.02, 1.0)), on("cpu", run("a", 2, 8, 0.02, 1.0))];
    let contender = vec![on("cpu", run("b", 1, 8, 0.1, 4.0)), on("cuda:0", run("b", 2, 8, 0.1, 4.0))];
    let summary = Summary::of(&plan(TWO), &[found(baseline), found(contender)]);
    let versus = summary.ratios.iter().find(|versus| versus.contender == "b" && versus.target == 2.0).unwrap();
    let pairs = |measure: Measure| versus.by[&measure].ratio.unwrap().n;
    assert_eq!((pairs(Measure::Steps), pairs(Measure::Seconds)), (2, 1));
    let rows = super::table::standings(&summary);
    assert_eq!((rows[1][5].as_str(), rows[2][5].as_str()), ("1 min 40 s on cpu", "–"));
}

#[test]
fn a_curve_comes_down_to_a_target_between_two_evaluations() {
    let at = |target: f64| run("a", 1, 8, 0.1, 1.0).around(target);
    assert_eq!((at(3.85), at(4.5), at(1.0)), (vec![1, 2], vec![1], vec![]));
    // What more data say of step 2 moves the place.
    let moved = RunResult { fine: BTreeMap::from([(1, 3.9), (2, 3.88), (3, 3.7)]), ..run("a", 1, 8, 0.1, 1.0) };
    assert_eq!(moved.around(3.85), [2, 3]);
}

#[test]
fn settings_with_one_last_part_are_told_apart() {
    let settings = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), json!(0.1))).collect::<Settings>();
    let of = |keys: &[&str]| {
        let found = Found { settings: settings(keys), ..found(vec![run("a", 1, 8, 0.02, 1.0)]) };
        table::standings(&Summary::of(&plan(TWO), &[found, Found::default()]))[1][8].clone()
    };
    assert_eq!(of(&["ema.decay", "optimizer.config.lr"]), "decay 0.1, lr 0.1");
    assert_eq!(of(&["optimizer.config.adam.lr", "optimizer.config.lr"]), "adam.lr 0.1, config.lr 0.1");
    assert_eq!(of(&["decay", "ema.decay", "optimizer.lr"]), "decay 0.1, ema.decay 0.1, lr 0.1");
}

#[test]
fn steps_by_batch_size_are_of_the_seeds_that_all_sizes_have() {
    let runs = [(1, 8, 0.02), (2, 8, 0.04), (1, 16, 0.05)].map(|(seed, size, slope)| run("a", seed, size, slope, 1.0));
    let plan = plan("batch_sizes = [8, 16]\n[[contender]]\nname = 'a'\n");
    let by_size = |runs: Vec<RunResult>| {
        let steps = Summary::of(&plan, &[found(runs)]).contenders[0].by_batch_size(2.0);
        steps.into_iter().map(|(size, steps)| (size, steps.n, steps.mean.round())).collect::<Vec<_>>()
    };
    assert_eq!(by_size(runs.to_vec()), [(8, 1, 100.0), (16, 1, 40.0)]);
    let missed = RunResult { validation: runs[2].validation[..9].to_vec(), ..runs[2].clone() };
    assert_eq!(by_size(vec![runs[0].clone(), missed]), [(8, 1, 100.0)]);
    let apart = RunResult { seed: 3, ..runs[2].clone() };
    assert_eq!(by_size(vec![runs[0].clone(), runs[1].clone(), apart]), [(8, 2, 75.0), (16, 1, 40.0)]);
}

#[test]
fn a_ratio_is_given_four_ways() {
    let baseline = vec![run("a", 1, 8, 0.02, 1.0), run("a", 2, 8, 0.04, 1.0), run("a", 1, 16, 0.025, 1.0)];
    let contender = vec![run("b", 1, 8, 0.1, 4.0), run("b", 2, 8, 0.2, 4.0)];
    let summary = Summary::of(&plan(&format!("batch_sizes = [8, 16]\n{TWO}")), &[found(baseline), found(contender)]);
    assert_eq!(summary.contenders[1].seeds, [1, 2]);
    let steps = &summary.contenders[1].steps_to_target;
    assert!(
        steps.iter().zip([20.0, 10.0]).all(|(found, expected)| (found.unwrap() - expected).abs() < 1e-9),
        "{steps:?}"
    );
    let versus = summary.ratios.iter().find(|versus| versus.contender == "b" && versus.target == 2.0).unwrap();
    let mean = |ratio: &super::statistics::Ratio| ratio.ratio.unwrap().mean;
    let by = |measure: Measure| mean(&versus.by[&measure]);
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    assert!(near(by(Measure::Steps), 5.0) && near(by(Measure::Tokens), 5.0));
    assert!(near(by(Measure::AllTokens), 2.5) && near(by(Measure::GradientEquivalents), 1.25));
    assert!(near(mean(versus.steps_with_twice_the_batch.as_ref().unwrap()), 4.0), "seed 1 alone");
    let curve = &summary.curves.iter().find(|curve| curve.contender == "b").unwrap().points;
    assert!(!curve.is_empty() && curve.is_sorted_by(|a, b| a.0 > b.0), "{curve:?}");
    assert!((curve[curve.len() - 1].1 - 5.0).abs() < 0.1, "{curve:?}");
}

#[test]
fn a_run_that_missed_stays_in_the_picture() {
    let mut slow = run("a", 1, 8, 0.02, 1.0);
    slow.validation.truncate(50);
    slow.end = End::Limit;
    let mut lost = run("b", 2, 8, 0.1, 1.0);
    (lost.end, lost.error, lost.validation) = (End::Diverged, Some("loss is NaN".into()), vec![]);
    let runs = [found(vec![slow, run("a", 2, 8, 0.02, 1.0)]), found(vec![run("b", 1, 8, 0.1, 1.0), lost])];
    let summary = Summary::of(&plan(TWO), &runs);
    let at = summary.contenders[0].at(8, 2.0).unwrap();
    assert_eq!((at.missed, at.steps.unwrap().n), (1, 1));
    let versus = summary.ratios.iter().find(|versus| versus.contender == "b" && versus.target == 2.0).unwrap();
    let ratio = &versus.by[&Measure::Steps];
    assert_eq!((ratio.ratio, ratio.missed), (None, 1));
    assert!((ratio.at_least[0] - 2.5).abs() < 1e-9, "50 steps without reaching it against 20: {ratio:?}");
    assert_eq!(summary.contenders[1].steps_to_target[1], None);
    let text = table::text(&summary);
    assert!(text.contains("more than 2.5 times in one pair; the contender missed in 1 pair"), "{text}");
    let runs: Vec<Vec<RunResult>> = runs.iter().map(|found| found.runs.clone()).collect();
    assert!(page::render(&summary, &runs).unwrap().contains("more than 2.5 times"));
}

#[test]
fn challengers_are_shown_over_the_best_baseline_first() {
    let contenders = "[[contender]]\nname = 'a'\nbaseline = true\n[[contender]]\nname = 'b'\n\
        [[contender]]\nname = 'c'\nbaseline = true\n[[contender]]\nname = 'd'\n";
    let runs = [("a", 0.02), ("b", 0.1), ("c", 0.04)].map(|(name, slope)| vec![run(name, 1, 8, slope, 1.0)]);
    let found: Vec<Found> = runs.iter().cloned().chain([vec![]]).map(found).collect();
    let summary = Summary::of(&plan(contenders), &found);
    assert_eq!(summary.best_baseline.as_deref(), Some("c"));
    let shown: Vec<(&str, &str, f64)> = summary
        .shown_ratios()
        .into_iter()
        .map(|versus| (versus.contender.as_str(), versus.baseline.as_str(), versus.target))
        .collect();
    assert_eq!(shown, [("b", "c", 3.0), ("b", "c", 2.0), ("b", "a", 2.0)]);
    let text = table::text(&summary);
    assert!(text.contains("`b` against `c` at 2") && !text.contains("`b` against `a`"), "{text}");
    let page = page::render(&summary, &[&runs[..], &[vec![]]].concat()).unwrap();
    assert!(page.contains("Steps of c over steps of a contender") && page.contains("strong run-1\""), "{page}");
    // One without runs keeps nobody from a profile.
    let scores: Vec<bool> = summary.contenders.iter().map(|standing| standing.profile.is_some()).collect();
    assert_eq!(scores, [true, true, true, false]);
}

#[test]
fn baselines_alone_are_shown_over_the_best_of_them() {
    let contenders = ["a", "c"].map(|name| format!("[[contender]]\nname = '{name}'\nbaseline = true\n")).concat();
    let runs = vec![found(vec![run("a", 1, 8, 0.02, 1.0)]), found(vec![run("c", 1, 8, 0.04, 1.0)])];
    let summary = Summary::of(&plan(&contenders), &runs);
    let shown: Vec<(&str, f64)> =
        summary.shown_ratios().into_iter().map(|versus| (versus.contender.as_str(), versus.target)).collect();
    assert_eq!(shown, [("a", 3.0), ("a", 2.0), ("c", 2.0)]);
}

#[test]
fn the_best_baseline_is_chosen_by_common_seeds() {
    let contenders = ["a", "c"].map(|name| format!("[[contender]]\nname = '{name}'\nbaseline = true\n")).concat();
    // A third seed that was easy is no merit of the one that was run with it.
    let easy = vec![run("a", 1, 8, 0.02, 1.0), run("a", 2, 8, 0.02, 1.0), run("a", 3, 8, 0.1, 1.0)];
    let faster = vec![run("c", 1, 8, 0.025, 1.0), run("c", 2, 8, 0.025, 1.0)];
    let best = |runs: [&Vec<RunResult>; 2]| {
        Summary::of(&plan(&contenders), &runs.map(|runs| found(runs.clone()))).best_baseline.unwrap()
    };
    assert_eq!(best([&easy, &faster]), "c");
    assert_eq!(best([&easy[2..].to_vec(), &faster]), "a", "no common seed: by all of each");
    let missed = vec![RunResult { validation: faster[0].validation[..9].to_vec(), ..faster[0].clone() }];
    assert_eq!(best([&easy, &missed]), "a");
    assert_eq!((best([&vec![], &faster]), best([&vec![], &missed])), ("c".to_owned(), "a".to_owned()));
}

#[test]
fn finer_losses_move_the_curve() {
    let mut run = run("a", 1, 8, 0.1, 1.0);
    run.fine = BTreeMap::from([(10, 3.0 + 0.01), (19, 2.1 + 0.05), (20, 2.0 + 0.05)]);
    let curve = run.curve(Measure::Steps);
    let crossing = statistics::first_crossing(&curve, 2.0).unwrap();
    assert!((crossing.at - 20.5).abs() < 1e-9, "{crossing:?}");
    let moved: Vec<f64> = run.validation.iter().zip(&curve).map(|(at, (_, loss))| loss - at.loss).collect();
    // As at step 10 before it, in between by a line, as at step 20 after it.
    for (step, expected) in [(1, 0.01), (10, 0.01), (13, 0.01 + 0.04 / 3.0), (19, 0.05), (21, 0.05)] {
        assert!((moved[step - 1] - expected).abs() < 1e-12, "step {step}: {}", moved[step - 1]);
    }
    assert!(run.suffices(100.0, 2.0));
    let above = RunResult { fine: BTreeMap::from([(20, 2.2), (21, 2.1)]), ..run.clone() };
    assert!(!above.suffices(100.0, 2.0), "by the larger set it is not there");
    let summary = Summary::of(&plan("[[contender]]\nname = 'a'\n"), &[found(vec![run])]);
    let gap = summary.contenders[0].at[0].runs[0].gap.unwrap();
    assert!((gap - (4.0 - 2.1 + 0.05 - 1.8)).abs() < 1e-9, "{gap}");
}

#[test]
fn shipped_comparisons_are_read_with_their_bases() {
    let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    for name in ["compare-mini", "compare-mini-controls", "compare-smoke"] {
        let path = configs.join(format!("{name}.toml"));
        let comparison = Comparison::read(&path).unwrap();
        let (base, _) = file::base(&comparison, &path).unwrap();
        assert!(base["data"]["train"].is_string(), "{name}");
        assert!(comparison.contender.iter().any(|contender| contender.baseline), "{name}");
    }
}

/// Their results are shared, so what makes up a run has to be the same.
#[test]
fn the_controls_repeat_the_mini_comparison_to_the_letter() {
    let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let read = |name: &str| Comparison::read(&configs.join(name)).unwrap();
    let (mini, controls) = (read("compare-mini.toml"), read("compare-mini-controls.toml"));
    let mut shared = 0;
    for own in &controls.contender {
        let Some(other) = mini.contender(&own.name) else { continue };
        let (batch_sizes, seeds) = (own.batch_sizes.clone(), own.seeds.clone());
        assert_eq!(own, &file::Contender { batch_sizes, seeds, ..other.clone() }, "but for where it is run");
        shared += 1;
    }
    assert!(shared >= 5);
    let (contender, batch_sizes) = (controls.contender.clone(), controls.batch_sizes.clone());
    assert_eq!(controls, Comparison { contender, batch_sizes, dir: controls.dir.clone(), ..mini });
}

#[test]
fn a_result_on_other_validation_data_is_refused() {
    let mut plan = plan(TWO);
    let contender = plan.comparison.contender[0].clone();
    let spec = |plan: &Plan| plan.run(&contender, Stage::Final, 1, 8, &Settings::new());
    let folder = tempfile::tempdir().unwrap();
    let result = RunResult { hash: spec(&plan).hash, validation_data: Some(String::new()), ..run("a", 1, 8, 0.1, 1.0) };
    result.write(folder.path(), &spec(&plan)).unwrap();
    assert_eq!(RunResult::read(folder.path(), &spec(&plan)).unwrap(), Some(result));
    plan.validation = "ff".into();
    let fault = RunResult::read(folder.path(), &spec(&plan)).unwrap_err();
    assert!(fault.exit == Exit::Data && fault.to_string().contains("other validation data"), "{fault}");
}

#[test]
fn a_run_that_went_on_is_heard_as_it_was_before() {
    let mut far = run("a", 1, 8, 0.1, 2.0);
    far.fine = BTreeMap::from([(4, 3.7), (20, 2.1)]);
    let early = far.clone().up_to(10.0);
    assert_eq!((early.validation.len(), early.validation[4].gradient_equivalents), (5, 10.0));
    assert_eq!((early.end, early.fine.len(), early.limit), (End::Limit, 1, 10.0));
    assert!(early.metrics.is_empty() && early.train_loss.is_none(), "these are of its last steps");
    // What it came to later is not known here, not even that it failed.
    (far.end, far.error) = (End::Diverged, Some("not finite".into()));
    assert_eq!(far.clone().up_to(10.0).error, None);
    assert_eq!(far.clone().up_to(43.0), far, "one that ended within is as it is");
    let at_once = far.clone().up_to(42.0);
    assert_eq!((at_once.end, at_once.error, at_once.validation.len()), (End::Limit, None, 21), "it failed beyond");
}

#[test]
fn a_baseline_that_failed_would_never_come_there() {
    let mut failed = run("a", 1, 8, 0.02, 1.0);
    (failed.end, failed.error, failed.validation) = (End::Failed, Some("no".into()), vec![]);
    let mut diverged = run("a", 2, 8, 0.02, 1.0);
    diverged.validation.truncate(3);
    diverged.end = End::Diverged;
    let contender = vec![run("b", 1, 8, 0.1, 1.0), run("b", 2, 8, 0.1, 1.0)];
    let summary = Summary::of(&plan(TWO), &[found(vec![failed, diverged]), found(contender)]);
    let steps = &summary.ratios.iter().find(|versus| versus.target == 2.0).unwrap().by[&Measure::Steps];
    assert_eq!((steps.never, steps.at_least.len(), steps.ratio), (2, 0, None));
    assert!(table::text(&summary).contains("the baseline diverged or failed in 2 pairs"));
    let json = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), summary);
}

#[test]
fn a_ratio_is_a_claim_where_what_it_rests_on_holds() {
    let half = |slope: f64| vec![run("a", 1, 8, 0.02, 1.0), run("a", 1, 4, slope, 1.0)];
    let rests = |baseline: Vec<RunResult>| {
        let contender = vec![run("b", 1, 8, 0.1, 1.0)];
        let summary = Summary::of(&plan(&format!("batch_sizes = [8, 4]\n{TWO}")), &[found(baseline), found(contender)]);
        (summary.ratios[0].rests, table::text(&summary).contains("a figure and no claim"))
    };
    // What the contender does at the smaller batch is not known.
    assert_eq!((rests(half(0.0199)), rests(half(0.01))), ((None, true), (Some(false), true)));
    let baseline = [half(0.0199), vec![run("a", 1, 2, 0.01, 1.0)]].concat();
    let contender = |small: f64| vec![run("b", 1, 8, 0.1, 1.0), run("b", 1, 2, small, 1.0)];
    let tuned = |runs: Vec<RunResult>| Found { tuning: Some(Default::default()), ..found(runs) };
    let plan = plan(&format!("batch_sizes = [8, 4, 2]\n{TWO}"));
    let rests = |small: f64| {
        let summary = Summary::of(&plan, &[tuned(baseline.clone()), tuned(contender(small))]);
        (summary.ratios[0].rests, table::text(&summary).contains("a figure and no claim"))
    };
    assert_eq!((rests(0.011), rests(0.02)), ((Some(true), false), (Some(false), true)));
    let untuned = Summary::of(&plan, &[tuned(baseline.clone()), found(contender(0.011))]);
    assert_eq!(untuned.ratios[0].rests, None);
}

#[test]
fn what_is_like_a_tuned_one_is_at_no_edge_only_once_its_own_settings_are_chosen() {
    let more = "[tuning]\nseed = 0\nbudget = 9\n[[contender]]\nname = 'a'\ntune.x = [1, 2, 3]\n\
                [[contender]]\nname = 'b'\nlike = 'a'\ntune.y = [1, 2, 3]\n[[contender]]\nname = 'c'\nlike = 'a'";
    let tuned = || Found { tuning: Some(Default::default()), ..found(vec![]) };
    let summary = Summary::of(&plan(more), &[tuned(), Found::default(), found(vec![])]);
    let edges = summary.preconditions.iter().filter(|one| one.what.contains("edge"));
    assert_eq!(edges.map(|one| one.holds).collect::<Vec<_>>(), [Some(true), None, Some(true)]);
}

#[test]
fn at_a_small_batch_as_many_tokens_may_be_spent() {
    let plan = plan("batch_sizes = [8, 16, 2]\n[[contender]]\nname = 'a'\n");
    assert_eq!([8, 16, 2].map(|batch_size| plan.gradients_in_one(batch_size)), [1.0, 0.5, 4.0]);
    let limit = |batch_size| plan.limit(&plan.comparison.contender[0], batch_size);
    assert_eq!([8, 16, 2].map(limit), [100.0, 100.0, 400.0], "as many tokens, or as many steps");
}

#[test]
fn several_runs_are_certainly_below_a_target_once_they_are_far_enough() {
    let runs = vec![run("a", 1, 8, 0.1, 1.0), run("a", 2, 8, 0.1001, 1.0)];
    let summary = Summary::of(&plan("[[contender]]\nname = 'a'\n"), &[found(runs)]);
    let at = |target: f64| summary.contenders[0].at(8, target).unwrap().certain_at;
    assert_eq!((at(3.0), at(2.0)), (Some(11), Some(21)), "the step after the first below, whose mean is too near");
}

#[test]
fn contenders_that_are_no_baselines_are_compared_once() {
    let contenders =
        "[[contender]]\nname = 'a'\nbaseline = true\n[[contender]]\nname = 'b'\n[[contender]]\nname = 'c'\n";
    let runs = [("a", 0.02), ("b", 0.1), ("c", 0.05)].map(|(name, slope)| found(vec![run(name, 1, 8, slope, 1.0)]));
    let summary = Summary::of(&plan(contenders), &runs);
    let mut pairs: Vec<(&str, &str)> =
        summary.ratios.iter().map(|one| (one.contender.as_str(), one.baseline.as_str())).collect();
    pairs.dedup();
    assert_eq!(pairs, [("b", "a"), ("c", "a"), ("c", "b")]);
    let versus = summary.ratios.last().unwrap();
    assert_eq!(versus.fewer_steps.unwrap().mean, 20.0 - 40.0);
    assert!(table::text(&summary).contains("what others spend\ncontender"));
}

#[test]
fn what_twice_the_batch_saves_is_told_by_pairs() {
    let at = |batch_size: u64, slopes: [f64; 2]| {
        [run("a", 1, batch_size, slopes[0], 1.0), run("a", 2, batch_size, slopes[1], 1.0)]
    };
    // From 4 to 8 sequences the steps are halved with both seeds; 32 is not twice 8, and 2 was run with one seed.
    let runs = [at(8, [0.1, 0.2]), at(4, [0.05, 0.1]), at(32, [0.2, 0.4])].concat();
    let runs = found([runs, vec![run("a", 2, 2, 0.08, 1.0)]].concat());
    let summary = Summary::of(&plan(&format!("batch_sizes = [8, 4, 32, 2]\n{TWO}")), &[runs, found(vec![])]);
    let told: Vec<(u64, usize, f64)> =
        summary.doublings.iter().map(|one| (one.from, one.steps.n, (1e6 * one.steps.mean).round() / 1e6)).collect();
    assert_eq!(told, [(2, 1, 1.25), (4, 2, 2.0)]);
    let text = table::text(&summary);
    assert!(text.contains("a          4          8      50 % [50 %, 50 %]  2"), "{text}");
    assert!(page::render(&summary, &[vec![], vec![]]).unwrap().contains("<td>20 %</td>"));
}

#[test]
fn preconditions_are_recorded_as_far_as_they_are_known() {
    let baseline = vec![run("a", 1, 8, 0.02, 1.0), run("a", 1, 4, 0.0199, 1.0), run("a", 1, 2, 0.01, 1.0)];
    let contender = vec![run("b", 1, 8, 0.1, 4.0), run("b", 1, 2, 0.015, 4.0)];
    let of = |sizes: &str, runs: Vec<Found>| {
        let summary = Summary::of(&plan(&format!("batch_sizes = {sizes}\n{TWO}")), &runs);
        let holds = |what: &str| summary.preconditions.iter().find(|one| one.what.contains(what)).map(|one| one.holds);
        [holds("half the batch"), holds("within 1.2"), holds("smallest step size")]
    };
    let known = of("[8, 4, 2]", vec![found(baseline.clone()), found(contender.clone())]);
    assert_eq!(known, [Some(Some(true)), Some(Some(false)), Some(Some(true))]);
    // A seed that was not run at half the batch says nothing of it.
    let more = [baseline.as_slice(), &[run("a", 2, 8, 0.05, 1.0)]].concat();
    assert_eq!(of("[8, 4]", vec![found(more), found(contender.clone())])[0], Some(Some(true)));
    let unknown = of("[8, 2]", vec![found(baseline), found(contender[..1].to_vec())]);
    assert_eq!(unknown, [Some(None), Some(None), Some(Some(true))]);
}

#[test]
fn wrong_files_are_refused_with_everything_that_is_wrong() {
    let lines = |more: &str| {
        let faults = comparison(more).unwrap_err();
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for (more, expected) in [
        ("", "contender"),
        ("[[contender]]\nname = 'a/b'", "not a name: found `a/b`"),
        ("[[contender]]\nname = 'a'\nlike = 'b'", "no contender before it has this name"),
        ("[[contender]]\nname = 'a'\n[[contender]]\nname = 'a'", "is another contender's"),
        ("[[contender]]\nname = 'a'\nset.run.seed = 7", "is set by the comparison itself"),
        ("[[contender]]\nname = 'a'\ntune.'x' = [1]", "expected a section `[tuning]`"),
        ("[tuning]\nseed = 1\nbudget = 9\n[[contender]]\nname = 'a'", "is a seed of the runs that count"),
        ("[tuning]\nseed = 0\nbudget = 9\n[[contender]]\nname = 'a'\ntune.x = { low = 2, high = 1 }", "not a range"),
        ("[[contender]]\nname = 'a'\nplugin = 'adam'", "unknown key"),
        ("[[contender]]\nname = 'a'\nseeds = [3, 4, 3]", "has a number twice: found 3"),
        ("batch_sizes = [8, 4, 8]\n[[contender]]\nname = 'a'", "`batch_sizes`: has a number twice: found 8"),
    ] {
        assert!(lines(more).contains(expected), "{more}\n{}", lines(more));
    }
}

#[test]
fn a_hash_is_of_what_a_runs_course_depends_on() {
    let hash = |more: &str, settings: serde_json::Value, seed: u64| {
        let plan = plan(more);
        let settings: Settings = serde_json::from_value(settings).unwrap();
        plan.run(&plan.comparison.contender[0].clone(), Stage::Final, seed, 8, &settings).hash
    };
    let base = hash(TWO, json!({}), 1);
    assert_eq!(base, hash(&format!("workers = 2\n{TWO}"), json!({}), 1), "not of how it is made");
    assert_ne!(base, hash(&format!("fine_batches = 3\n{TWO}"), json!({}), 1));
    assert_ne!(base, hash(TWO, json!({}), 2));
    assert_ne!(base, hash(TWO, json!({ "optimizer.config.lr": 0.1 }), 1));
    assert_ne!(base, hash(&format!("[warm_up]\ntrain.max_steps = 3\n{TWO}"), json!({}), 1));
}

#[test]
fn a_contender_that_is_like_another_has_its_settings_under_its_own() {
    let more = "[tuning]\nseed = 0\nbudget = 9\n[[contender]]\nname = 'a'\nset.optimizer.plugin = 'adam'\n\
                set.optimizer.config.lr = 1.0\ntune.'optimizer.config.lr' = [1.0, 2.0]\n[[contender]]\nname = 'b'\n\
                like = 'a'\nset.ema.decay = 0.5\nset.optimizer.config.eps = 0.1";
    let plan = plan(more);
    let chosen: Settings = serde_json::from_value(json!({ "optimizer.config.lr": 2.0 })).unwrap();
    let spec = plan.run(&plan.comparison.contender[1].clone(), Stage::Final, 1, 8, &chosen);
    let config = serde_json::Value::Object(spec.config);
    assert_eq!(config["optimizer"], json!({ "plugin": "adam", "config": { "lr": 2.0, "eps": 0.1 } }));
    assert_eq!((&config["ema"]["decay"], &config["data"]["batch_size"]), (&json!(0.5), &json!(8)));
}
