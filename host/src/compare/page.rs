//! `comparison.html`: the comparison with its plots, on one page that needs no script and no network.

use super::batches;
use super::ratios::Versus;
use super::result::{Measure, RunResult};
use super::standing::Standing;
use super::summary::Summary;
use super::table;
use crate::error::Result;
use crate::report::{Chart, Curve, Points, Size, Stroke, document, escaped, figure_of, rounded, swatch, thinned};

/// The page. `runs` are those of each contender, in the order of the summary's contenders.
///
/// # Errors
///
/// [`Exit::Internal`](crate::error::Exit::Internal) when a plot cannot be drawn.
pub fn render(summary: &Summary, runs: &[Vec<RunResult>]) -> Result<String> {
    let names: Vec<&str> = summary.contenders.iter().map(|standing| standing.name.as_str()).collect();
    let mut body = intro(summary);
    body += &standings(summary);
    body += &ratios(summary);
    body += &format!("<h2>Ratio by target</h2>\n{}", ratio_curves(summary, &names)?);
    body += "<h2>Validation loss</h2>\n<div class=\"figures\">\n";
    let comparable = |measure: &&Measure| **measure != Measure::Seconds || summary.is_of_one_machine();
    for measure in summary.axes.iter().filter(comparable) {
        body += &losses(summary, runs, *measure, &names)?;
    }
    body += "</div>\n<h2>Batch size and profiles</h2>\n<div class=\"figures\">\n";
    body += &batch_sizes(summary, &names)?;
    body += &profiles(summary, &names)?;
    body += "</div>\n";
    body += &doublings(summary);
    body += &preconditions(summary);
    body += &tunings(summary);
    body += &not_run(summary);
    Ok(document("Comparison", &body, names.len()))
}

fn intro(summary: &Summary) -> String {
    let targets: Vec<String> = summary.targets.iter().map(f64::to_string).collect();
    format!(
        "<p>Steps to a validation loss of <strong>{}</strong> nats a token at a batch of {} sequences; also at {}. A number in \
         brackets is a 95 % interval by Student's t over seeds; of a ratio, from the mean of the logarithms of pairs with \
         one seed. A run that missed counts as such and is not left out.</p>\n",
        summary.target_loss,
        summary.batch_size,
        escaped(&targets.join(", "))
    )
}

fn standings(summary: &Summary) -> String {
    let rows = table::standings(summary);
    let head: String = rows[0].iter().map(|cell| format!("<th scope=\"col\">{}</th>", escaped(cell))).collect();
    let row = |(index, cells): (usize, &Vec<String>)| {
        let name = format!("<th scope=\"row\">{}{}</th>", swatch(index), escaped(&cells[0]));
        let cells: String = cells[1..].iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
        format!("<tr>{name}{cells}</tr>\n")
    };
    let body: String = rows[1..].iter().enumerate().map(row).collect();
    format!("<div class=\"table\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n")
}

fn ratios(summary: &Summary) -> String {
    let head = ["contender", "baseline", "target", "steps", "steps, the baseline at twice the batch", "tokens"];
    let head = head.into_iter().chain(["gradient equivalents", "what it rests on"]).map(str::to_owned).collect();
    let row = |versus: &Versus| {
        let names = [versus.contender.clone(), versus.baseline.clone(), versus.target.to_string()];
        let ratios = table::ratio_lines(versus).into_iter().map(|(_, ratio)| ratio);
        names.into_iter().chain(ratios).chain([table::rests(versus).to_owned()]).collect()
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(summary.shown_ratios().into_iter().map(row)).collect();
    match rows.len() {
        1 => "<h2>Ratios</h2>\n<p>No contender and baseline have a seed in common.</p>\n".into(),
        _ => format!(
            "<h2>Ratios</h2>\n<p>How many times as much the baseline spends to reach the target; over the best one at every target, over \
             the others, and of those that are no baselines among themselves, at the main one. Where what a ratio rests on \
             (below) does not hold or is not known, it is a figure and no claim. <code>comparison.json</code> has all.</p>\n{}",
            plain_table(&rows)
        ),
    }
}

/// A head and rows of plain cells.
fn plain_table(rows: &[Vec<String>]) -> String {
    let cells = |row: &[String], open: &str, close: &str| -> String {
        let cells: String = row.iter().map(|text| format!("<{open}>{}</{close}>", escaped(text))).collect();
        format!("<tr>{cells}</tr>")
    };
    let (head, body) = rows.split_first().map_or_else(Default::default, |(head, body)| {
        let body: String = body.iter().map(|row| cells(row, "td", "td") + "\n").collect();
        (cells(head, "th scope=\"col\"", "th"), body)
    });
    format!("<div class=\"table\"><table>\n<thead>{head}</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n")
}

fn ratio_curves(summary: &Summary, names: &[&str]) -> Result<String> {
    let Some(best) = &summary.best_baseline else { return Ok(String::new()) };
    let shown =
        summary.curves.iter().filter(|curve| curve.baseline == *best && summary.is_challenger(&curve.contender));
    let curves = shown.filter_map(|curve| {
        let index = names.iter().position(|name| *name == curve.contender)?;
        // The axis runs from left to right as training goes, to lower losses.
        let points = curve.points.iter().map(|(loss, ratio)| (-loss, *ratio)).collect();
        Some(Curve { index, stroke: Stroke::Strong, points })
    });
    let curves: Vec<Curve> = curves.collect();
    let left = curves.iter().filter_map(|curve| curve.points.first()).map(|at| at.0).fold(0.0, f64::min);
    let chart = Chart {
        size: Size::Whole,
        x: "validation loss to reach (nats a token)".into(),
        left,
        x_words: |x| rounded(-x),
        y: "steps, times as many".into(),
        y_words: rounded,
        top: f64::INFINITY,
        curves,
    };
    figure_of(
        names,
        &chart,
        &format!("Steps of {best} over steps of a contender, by the loss to reach. Geometric mean over seeds."),
    )
}

fn losses(summary: &Summary, runs: &[Vec<RunResult>], measure: Measure, names: &[&str]) -> Result<String> {
    let mut curves = vec![];
    let mut first_losses = vec![];
    for (index, runs) in runs.iter().enumerate() {
        let main = runs.iter().filter(|run| run.batch_size == summary.batch_size);
        for (place, run) in main.enumerate() {
            let stroke = if place == 0 { Stroke::Strong } else { Stroke::Pale };
            let points: Points = run.curve(measure).into_iter().filter(|at| at.1.is_finite()).collect();
            first_losses.extend(points.first().map(|at| at.1));
            curves.push(Curve { index, stroke, points: thinned(points) });
        }
    }
    curves.sort_by_key(|curve| curve.stroke == Stroke::Strong);
    let top = first_losses.into_iter().fold(summary.target_loss, f64::max);
    let (x, y) = (measure.words().to_owned(), "validation loss (nats a token)".to_owned());
    let chart = Chart { size: Size::Half, x, left: 0.0, x_words: rounded, y, y_words: rounded, top, curves };
    figure_of(names, &chart, &format!("Validation loss by {}. One seed strong, the others pale.", measure.words()))
}

/// Steps against batch size, both by powers of two; a bar is the interval over seeds.
fn batch_sizes(summary: &Summary, names: &[&str]) -> Result<String> {
    let mut curves = vec![];
    for (index, standing) in summary.contenders.iter().enumerate() {
        let mut points = vec![];
        for (batch_size, steps) in standing.by_batch_size(summary.target_loss) {
            let x = (batch_size as f64).log2();
            points.push((x, steps.mean.log2()));
            if let Some([low, high]) = steps.interval {
                let bar = vec![(x, low.max(steps.mean / 1e3).log2()), (x, high.log2())];
                curves.push(Curve { index, stroke: Stroke::Pale, points: bar });
            }
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        curves.push(Curve { index, stroke: Stroke::Strong, points });
    }
    let left = curves.iter().flat_map(|curve| &curve.points).map(|at| at.0).fold(f64::INFINITY, f64::min);
    let chart = Chart {
        size: Size::Half,
        x: "sequences of a batch".into(),
        left: if left.is_finite() { left - 0.1 } else { 0.0 },
        x_words: |x| rounded(x.exp2()),
        y: "steps to the target".into(),
        y_words: |y| rounded(y.exp2()),
        top: f64::INFINITY,
        curves,
    };
    figure_of(
        names,
        &chart,
        "Steps to the target by batch size, of the seeds that a contender was run with at all of its sizes. It is drawn where \
         all of these reached the target.",
    )
}

fn profiles(summary: &Summary, names: &[&str]) -> Result<String> {
    let curve = |(index, standing): (usize, &Standing)| {
        let points = standing.profile.as_ref().map(|profile| profile.points.clone()).unwrap_or_default();
        Curve { index, stroke: Stroke::Strong, points }
    };
    let curves = summary.contenders.iter().enumerate().map(curve).collect();
    let (x, y) = ("tau".to_owned(), "share of targets and seeds".to_owned());
    let chart =
        Chart { size: Size::Half, x, left: 1.0, x_words: rounded, y, y_words: rounded, top: f64::INFINITY, curves };
    figure_of(
        names,
        &chart,
        "Share of targets and seeds that a contender reached within tau times the steps of the best.",
    )
}

fn doublings(summary: &Summary) -> String {
    match summary.doublings.is_empty() {
        true => String::new(),
        false => format!(
            "<h2>What twice the batch saves</h2>\n<p>Steps to the target, by pairs with one seed. Beyond the critical batch size it \
             is little.</p>\n{}",
            plain_table(&batches::rows(summary))
        ),
    }
}

fn preconditions(summary: &Summary) -> String {
    let row = |one: &super::preconditions::Precondition| {
        let holds = one.holds.map_or("not known", |holds| if holds { "holds" } else { "does not hold" });
        vec![one.what.clone(), holds.to_owned(), one.found.clone()]
    };
    let head = ["what", "holds", "found"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(summary.preconditions.iter().map(row)).collect();
    format!("<h2>What the ratios rest on</h2>\n{}", plain_table(&rows))
}

fn tunings(summary: &Summary) -> String {
    let tuned = summary.contenders.iter().filter_map(|standing| Some((standing, standing.tuning.as_ref()?)));
    let item = |(standing, tuning): (&Standing, &super::tuning::Tuned)| {
        format!("<li><bdi>{}</bdi>: {}</li>\n", escaped(&standing.name), escaped(&table::tuned_by(tuning)))
    };
    let items: String = tuned.map(item).collect();
    if items.is_empty() { items } else { format!("<h2>Tuning</h2>\n<ul class=\"notes\">\n{items}</ul>\n") }
}

fn not_run(summary: &Summary) -> String {
    let items: String = summary.not_run.iter().map(|name| format!("<li>{}</li>\n", escaped(name))).collect();
    if items.is_empty() { items } else { format!("<h2>Not run</h2>\n<ul class=\"notes\">\n{items}</ul>\n") }
}
