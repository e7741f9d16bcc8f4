//! The page: a table of the runs, their training losses, and their validation losses over four measures of cost.

use super::chart::{Chart, Curve, Size, Stroke};
use super::history::{History, Loss};
use super::numbers::{duration, rounded};
use super::series::{Axis, average_length, averaged, points, thinned};
use crate::error::{Result, printable};
use crate::events::Started;

/// Colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008), without the yellow, which is
/// lost on white; `currentColor` stands for their black.
const COLORS: [&str; 7] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "currentColor", "#E69F00", "#56B4E9"];
/// Dashes in units of the drawing; with the colours they make 35 different lines.
const DASHES: [&str; 5] = ["none", "26 10", "7 8", "26 8 7 8", "46 14"];

const STYLE: &str = include_str!("style.css");

/// The whole page about these runs.
///
/// # Errors
///
/// [`Exit::Internal`](crate::error::Exit::Internal) when a plot cannot be drawn.
pub fn render(runs: &[History]) -> Result<String> {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    let title = format!("Report: {}", names.join(", "));
    let mut page = table(runs);
    page += &notes(runs);
    let most = runs.iter().map(first_loss).fold(f64::NAN, f64::max);
    let top = if most.is_nan() { f64::INFINITY } else { most + 0.1 * most.abs() };
    page += "<h2>Training loss</h2>\n";
    page += &train_figure(runs, top)?;
    page += "<h2>Validation loss</h2>\n";
    page += &validation_figures(runs, top)?;
    page += EXPLANATIONS;
    Ok(document(&title, &page, runs.len()))
}

/// A whole page that needs no script and no network, with the styles of so many curves.
pub fn document(title: &str, body: &str, curves: usize) -> String {
    let (title, styles) = (escaped(title), run_styles(curves));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{styles}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\
         </main>\n</body>\n</html>\n"
    )
}

const EXPLANATIONS: &str = "<h2>What is shown</h2>\n<p>Losses are means in nats a token. An axis ends a little above the \
largest first loss; a curve that runs along the upper edge has diverged. A gradient equivalent is the floating-point \
operations of one gradient of the global batch; all losses, gradients and curvature products of a run count. Wall time \
leaves out the time between the processes of a resumed run, and work that was lost and done again. Tokens a second are \
tokens drawn by the seconds within steps, so evaluations and checkpoints do not count.</p>\n";

/// The largest of a run's first losses, if it has any.
fn first_loss(run: &History) -> f64 {
    let first = |losses: &[Loss]| losses.iter().find_map(|at| at.loss).unwrap_or(f64::NAN);
    first(&run.train).max(first(&run.validation))
}

/// Colour and dashes of each run.
fn run_styles(runs: usize) -> String {
    let style = |run: usize| {
        let (color, dash) = (COLORS[run % COLORS.len()], DASHES[run % DASHES.len()]);
        format!(".run-{run} {{ --color: {color}; --dash: {dash}; }}\n")
    };
    (0..runs).map(style).collect()
}

/// The unit in which wall times are plotted.
struct TimeUnit {
    name: &'static str,
    seconds: f64,
}

impl TimeUnit {
    fn of(runs: &[History]) -> Self {
        let longest = runs.iter().map(|run| run.seconds).fold(0.0, f64::max);
        match longest {
            seconds if seconds < 300.0 => Self { name: "s", seconds: 1.0 },
            seconds if seconds < 4.0 * 3600.0 => Self { name: "min", seconds: 60.0 },
            _ => Self { name: "h", seconds: 3600.0 },
        }
    }
}

fn train_figure(runs: &[History], top: f64) -> Result<String> {
    let length = average_length(runs);
    let mut curves = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let raw = points(&run.train, Axis::Steps);
        let average = thinned(averaged(&raw, length));
        if length > 1.0 && runs.len() <= COLORS.len() {
            curves.push(Curve { index, stroke: Stroke::Pale, points: thinned(raw) });
        }
        curves.push(Curve { index, stroke: Stroke::Strong, points: average });
    }
    curves.sort_by_key(|curve| curve.stroke == Stroke::Strong);
    let words = match length > 1.0 {
        true => format!("Averaged over about {length} steps; pale: each step."),
        false => "Each step.".to_owned(),
    };
    let (x, y) = ("finished steps".into(), "training loss (nats a token)".into());
    let chart = Chart { size: Size::Whole, x, left: 0.0, x_words: rounded, y, y_words: rounded, top, curves };
    figure(runs, &chart, &format!("Training loss by step. {words}"))
}

fn validation_figures(runs: &[History], top: f64) -> Result<String> {
    if runs.iter().all(|run| run.validation.is_empty()) {
        return Ok("<p>None is recorded.</p>\n".into());
    }
    let time = TimeUnit::of(runs);
    let axes = [
        (Axis::Steps, "by step", "finished steps".to_owned(), 1.0),
        (Axis::Tokens, "by tokens", "tokens drawn, for steps and line searches".to_owned(), 1.0),
        (Axis::GradientEquivalents, "by computation", "gradient equivalents".to_owned(), 1.0),
        (Axis::Seconds, "by wall time", format!("wall time ({})", time.name), time.seconds),
    ];
    let figures = axes.map(|(axis, title, x, unit)| validation_figure(runs, axis, title, x, unit, top));
    let figures: String = figures.into_iter().collect::<Result<_>>()?;
    Ok(format!("<div class=\"figures\">\n{figures}</div>\n"))
}

fn validation_figure(runs: &[History], axis: Axis, title: &str, x: String, unit: f64, top: f64) -> Result<String> {
    let curve = |(index, run): (usize, &History)| {
        let points = points(&run.validation, axis).into_iter().map(|(x, y)| (x / unit, y)).collect();
        Curve { index, stroke: Stroke::Strong, points: thinned(points) }
    };
    let curves = runs.iter().enumerate().map(curve).collect();
    let y = "validation loss (nats a token)".into();
    let chart = Chart { size: Size::Half, x, left: 0.0, x_words: rounded, y, y_words: rounded, top, curves };
    figure(runs, &chart, &format!("Validation loss {title}."))
}

/// A plot with its legend; a sentence where there is nothing to plot.
fn figure(runs: &[History], chart: &Chart, caption: &str) -> Result<String> {
    figure_of(&runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>(), chart, caption)
}

/// A plot of curves with these names, by their index.
pub fn figure_of(names: &[&str], chart: &Chart, caption: &str) -> Result<String> {
    let drawn = |index: usize| {
        let of_run = |curve: &&Curve| curve.index == index && curve.stroke == Stroke::Strong;
        chart.curves.iter().filter(of_run).any(|curve| !curve.points.is_empty())
    };
    let shown: Vec<usize> = (0..names.len()).filter(|index| drawn(*index)).collect();
    let caption_text = escaped(caption);
    if shown.is_empty() {
        return Ok(format!("<figure><figcaption>{caption_text} None is recorded.</figcaption></figure>\n"));
    }
    let entry = |index: &usize| format!("<li>{}<bdi>{}</bdi></li>", swatch(*index), escaped(names[*index]));
    let legend = match names.len() {
        1 => String::new(),
        _ => format!("<ul class=\"legend\">{}</ul>\n", shown.iter().map(entry).collect::<String>()),
    };
    let svg = chart.svg(caption)?;
    Ok(format!(
        "<figure>\n<figcaption>{caption_text}</figcaption>\n{legend}<div class=\"plot\">{svg}</div>\n</figure>\n"
    ))
}

/// A short piece of a run's line.
pub fn swatch(index: usize) -> String {
    let class = Curve::class(Stroke::Strong, index);
    format!(
        "<svg class=\"swatch\" viewBox=\"0 0 100 20\" aria-hidden=\"true\"><line class=\"stroke {class}\" x1=\"0\" \
         y1=\"10\" x2=\"100\" y2=\"10\" stroke-width=\"6\"/></svg>"
    )
}

/// The table of the runs.
fn table(runs: &[History]) -> String {
    let texts = ["run", "plugin", "model", "device"].map(|head| (head, ""));
    let numbers = ["steps", "tokens", "train loss", "validation loss", "best", "wall time", "tokens/s"];
    let heads = texts.into_iter().chain(numbers.map(|head| (head, " class=\"number\""))).chain([("end", "")]);
    let heads: String = heads.map(|(head, class)| format!("<th scope=\"col\"{class}>{head}</th>")).collect();
    let length = average_length(runs);
    let average = if length > 1.0 { format!(", averaged over about {length} steps") } else { String::new() };
    let rows: String = runs.iter().enumerate().map(|(index, run)| row(index, run, length)).collect();
    format!(
        "<div class=\"table\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n\
         <p class=\"note\">The training loss is the last one{average}.</p>\n"
    )
}

fn row(index: usize, run: &History, average_length: f64) -> String {
    let started = |text: &dyn Fn(&Started) -> String| run.started.as_ref().map(text);
    let cost = run.cost();
    let train = averaged(&points(&run.train, Axis::Steps), average_length).last().map(|point| point.1);
    let validation: Vec<f64> = run.validation.iter().filter_map(|at| at.loss).collect();
    let best = validation.iter().copied().reduce(f64::min);
    let speed = Some(cost.tokens as f64 / cost.step_seconds).filter(|speed| speed.is_finite());
    let loss = |loss: Option<f64>| loss.map(|loss| if loss < 1000.0 { format!("{loss:.4}") } else { rounded(loss) });
    let model = |run: &Started| format!("{}, {} parameters", run.model, rounded(run.num_params as f64));
    let threads = |count: usize| if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") };
    let device = |run: &Started| format!("{}, {}", run.device, threads(run.threads));
    let texts = [started(&|run| run.plugin.clone()), started(&model), started(&device)];
    let numbers = [
        Some(cost.step.to_string()),
        Some(rounded(cost.tokens as f64)),
        loss(train),
        loss(validation.last().copied()),
        loss(best),
        Some(duration(run.seconds)),
        speed.map(rounded),
    ];
    let cell = |text: &Option<String>, class: &str| {
        format!("<td{class}>{}</td>", text.as_deref().map_or("–".to_owned(), escaped))
    };
    let texts: String = texts.iter().map(|text| cell(text, "")).collect();
    let numbers: String = numbers.iter().map(|text| cell(text, " class=\"number\"")).collect();
    let (name, end) = (name(run), cell(&Some(end(run)), ""));
    format!("<tr><th scope=\"row\">{}{name}</th>{texts}{numbers}{end}</tr>\n", swatch(index))
}

fn end(run: &History) -> String {
    match &run.finished {
        None => "none recorded: it runs, or was killed".into(),
        Some(finished) if finished.exit_code == 0 => finished.reason.clone(),
        Some(finished) => format!("{} (exit code {})", finished.reason, finished.exit_code),
    }
}

/// What else is worth knowing of each run.
fn notes(runs: &[History]) -> String {
    let note = |run: &History| {
        let counts = [
            ("resumes", run.resumes),
            ("skipped steps", run.skipped.len() as u64),
            ("rejected updates", run.rejected.len() as u64),
            ("lines of the record that are no events", run.unreadable),
        ];
        let counts = counts.iter().filter(|(_, count)| *count > 0);
        let counts = counts.map(|(what, count)| format!("{what}: {count}"));
        let error = run.finished.as_ref().and_then(|finished| finished.error.as_ref());
        let parts: Vec<String> = counts.chain(error.map(|error| format!("error: {error}"))).collect();
        let text = escaped(&parts.join("; "));
        (!parts.is_empty()).then(|| format!("<li>{}. {text}</li>\n", name(run)))
    };
    let notes: String = runs.iter().filter_map(note).collect();
    if notes.is_empty() { notes } else { format!("<ul class=\"notes\">\n{notes}</ul>\n") }
}

/// A run's name, kept apart from the direction in which the text around it is written.
fn name(run: &History) -> String {
    format!("<bdi>{}</bdi>", escaped(&run.name))
}

/// Any text as text of HTML: nothing in it is markup, and control characters are shown.
pub fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for c in printable(text).chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            other => safe.push(other),
        }
    }
    safe
}
