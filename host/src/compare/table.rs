//! The comparison on the terminal.

use super::batches;
use super::plan::Settings;
use super::ratios::Versus;
use super::result::Measure;
use super::standing::{Standing, Standings};
use super::statistics::{Mean, Ratio};
use super::summary::Summary;
use super::tuning::Tuned;
use crate::config::inline;
use crate::error::printable;
use crate::report::{duration, rounded};
use std::collections::BTreeMap;

/// Everything as lines of text.
pub fn text(summary: &Summary) -> String {
    let mut text = format!(
        "steps to a validation loss of {} at a batch of {} sequences\n\n",
        summary.target_loss, summary.batch_size
    );
    text += &aligned(&standings(summary));
    let shown = summary.shown_ratios().into_iter().filter(|versus| versus.target == summary.target_loss);
    let over_best = |versus: &&Versus| Some(versus.baseline.as_str()) == summary.best_baseline.as_deref();
    let (best, others): (Vec<&Versus>, Vec<&Versus>) = shown.partition(over_best);
    best.into_iter().for_each(|versus| text += &format!("\n{}", ratios(versus)));
    if !others.is_empty() {
        text += &format!("\ntimes as much as a contender, what others spend\n{}", aligned(&ratio_rows(&others)));
    }
    if !summary.doublings.is_empty() {
        text += &format!("\nwhat twice the batch saves\n{}", aligned(&batches::rows(summary)));
    }
    let preconditions = summary.preconditions.iter().map(|one| {
        let holds = one.holds.map_or("not known", |holds| if holds { "holds" } else { "DOES NOT HOLD" });
        format!("{holds}: {} ({})\n", printable(&one.what), printable(&one.found))
    });
    let preconditions: String = preconditions.collect();
    if !preconditions.is_empty() {
        text += &format!("\nwhat a ratio rests on\n{preconditions}");
    }
    if !summary.not_run.is_empty() {
        text += &format!("\nnot run ({}): {}\n", summary.not_run.len(), summary.not_run.join(", "));
    }
    text
}

/// The head and one row a contender.
pub fn standings(summary: &Summary) -> Vec<Vec<String>> {
    let head = ["contender", "seeds", "steps", "tokens", "gradients", "seconds", "missed", "profile", "settings"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(summary.contenders.iter().map(|standing| row(summary, standing)));
    rows
}

fn row(summary: &Summary, standing: &Standing) -> Vec<String> {
    let at = standing.at(summary.batch_size, summary.target_loss);
    let none = || "–".to_owned();
    let mean_of = |measure: Measure| {
        let runs = at.into_iter().flat_map(|at| &at.runs).filter(|run| run.crossing.is_some());
        Mean::of(&runs.filter_map(|run| run.spent.get(&measure).copied()).collect::<Vec<_>>())
    };
    // Of contenders on several devices each says its own.
    let device = |at: &Standings| match at.runs.first() {
        Some(run) if !summary.is_of_one_machine() => format!(" on {}", run.device),
        _ => String::new(),
    };
    let seconds = |at: &Standings| {
        mean_of(Measure::Seconds).map_or_else(none, |mean| format!("{}{}", duration(mean.mean), device(at)))
    };
    let spent = |measure: Measure| mean_of(measure).map_or_else(none, |mean| rounded(mean.mean));
    let settings: Vec<String> = standing
        .settings
        .iter()
        .map(|(key, value)| format!("{} {}", short(key, &standing.settings), inline(value)))
        .collect();
    vec![
        standing.name.clone(),
        standing.seeds.len().to_string(),
        at.and_then(|at| at.steps).map_or_else(none, with_interval),
        spent(Measure::AllTokens),
        spent(Measure::GradientEquivalents),
        at.filter(|at| at.is_of_one_machine()).map_or_else(none, seconds),
        at.map_or_else(none, |at| at.missed.to_string()),
        standing.profile.as_ref().map_or_else(none, |profile| format!("{:.2}", profile.score)),
        settings.join(", "),
    ]
}

/// How a contender's settings were chosen, and they.
pub fn tuning(standing: &Standing) -> String {
    let mut lines: Vec<String> =
        standing.settings.iter().map(|(key, value)| format!("{key} = {}", inline(value))).collect();
    match &standing.tuning {
        Some(tuned) => lines.push(tuned_by(tuned)),
        None if standing.is_chosen => lines.push(format!("`{}` has nothing to choose", standing.name)),
        None => {}
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What a tuning spent, its score, and what lies at an edge.
pub fn tuned_by(tuned: &Tuned) -> String {
    let (spent, beyond) = (rounded(tuned.spent), rounded(tuned.beyond_budget));
    let mut text = format!("{} trials for {spent} gradients of the main batch", tuned.trials.len());
    text += &format!(", {beyond} of them beyond the budget");
    if let Some(score) = tuned.score {
        text += &format!("; steps of the fastest trial, in the median over studies: {}", rounded(score));
    }
    if !tuned.at_edge.is_empty() {
        text += &format!("; at the edge of its grid: {}", tuned.at_edge.join(", "));
    }
    text
}

/// The shortest ending of a key that no other of these settings has.
fn short<'a>(key: &'a str, all: &Settings) -> &'a str {
    let has = |other: &str, ending: &str| {
        other.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let is_own = |ending: &&str| all.keys().filter(|other| has(other, ending)).count() == 1;
    key.rmatch_indices('.').map(|(at, _)| &key[at + 1..]).find(is_own).unwrap_or(key)
}

/// `73.2 [70.1, 76.3]`.
pub fn with_interval(mean: Mean) -> String {
    match mean.interval {
        Some([low, high]) => format!("{} [{}, {}]", rounded(mean.mean), rounded(low), rounded(high)),
        None => rounded(mean.mean),
    }
}

/// `23 %`.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// The four ways to give a ratio.
fn ratios(versus: &Versus) -> String {
    let Versus { contender, baseline, target, .. } = versus;
    let mut text = format!("`{contender}` against `{baseline}` at {target}: the baseline spends\n");
    for (what, ratio) in ratio_lines(versus) {
        text += &format!("  {what:<38}  {ratio}\n");
    }
    if let Some(fewer) = versus.fewer_steps {
        text += &format!("  {:<38}  {}\n", "steps more than the contender", with_interval(fewer));
    }
    if let Some(seeds) = versus.seeds_needed {
        text += &format!("  ({seeds} seeds like these tell the ratio in steps from 1)\n");
    }
    match rests(versus) {
        "holds" => text,
        not => text + &format!("  (a figure and no claim: what it rests on {not}, see below)\n"),
    }
}

/// Whether what a ratio rests on holds, in words.
pub fn rests(versus: &Versus) -> &'static str {
    versus.rests.map_or("is not known", |rests| if rests { "holds" } else { "does not hold" })
}

/// A head and one row a pair.
fn ratio_rows(ratios: &[&Versus]) -> Vec<Vec<String>> {
    let head = ["contender", "baseline", "steps", "steps, baseline at 2 b", "tokens", "gradients"];
    let row = |versus: &&Versus| {
        let lines = ratio_lines(versus).into_iter().map(|(_, ratio)| ratio.replace(" times", ""));
        [versus.contender.clone(), versus.baseline.clone()].into_iter().chain(lines).collect()
    };
    std::iter::once(head.map(str::to_owned).to_vec()).chain(ratios.iter().map(row)).collect()
}

/// What the ratio is in, and the ratio, four ways.
pub fn ratio_lines(versus: &Versus) -> Vec<(&'static str, String)> {
    let by = |measure: Measure| versus.by.get(&measure).map_or("not run".to_owned(), ratio);
    let twice = versus.steps_with_twice_the_batch.as_ref().map_or("not run".to_owned(), ratio);
    vec![
        ("steps", by(Measure::Steps)),
        ("steps, the baseline at twice the batch", twice),
        ("tokens", by(Measure::AllTokens)),
        ("gradient equivalents", by(Measure::GradientEquivalents)),
    ]
}

/// `3.31 times [2.9, 3.8]`, with what was censored.
pub fn ratio(ratio: &Ratio) -> String {
    let mut parts = vec![];
    parts.extend(ratio.ratio.map(|mean| format!("{} times ({})", with_interval(mean), pairs(mean.n))));
    parts.extend(ratio.at_least.iter().map(|least| format!("more than {} times in one pair", rounded(*least))));
    if ratio.never > 0 {
        parts.push(format!("the baseline diverged or failed in {}", pairs(ratio.never)));
    }
    if ratio.missed > 0 {
        parts.push(format!("the contender missed in {}", pairs(ratio.missed)));
    }
    parts.join("; ")
}

fn pairs(count: usize) -> String {
    if count == 1 { "1 pair".to_owned() } else { format!("{count} pairs") }
}

/// Columns of equal width; numbers are not told apart from texts.
fn aligned(rows: &[Vec<String>]) -> String {
    let mut widths: BTreeMap<usize, usize> = BTreeMap::new();
    for (column, cell) in rows.iter().flat_map(|row| row.iter().enumerate()) {
        let width = widths.entry(column).or_default();
        *width = (*width).max(cell.chars().count());
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let padding = widths.get(&column).copied().unwrap_or(0) - cell.chars().count();
            format!("{cell}{}", " ".repeat(padding))
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
