//! Phases, what the optimizer reports, and the last events.

use super::framed;
use crate::error::printable;
use crate::report::rounded;
use crate::watch::run::{self, Run, Values};
use crate::watch::words::Level;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

/// What tells how good the curvature is that a step was made of, in the order in which it is shown.
const CURVATURE: [&str; 6] = [
    "damping",
    "cg_residual_ratio",
    "reduction_ratio",
    "line_search_step_size",
    "inner_iterations",
    "cg_not_positive_steps",
];
/// What is shown of the others.
const ORDINARY: [&str; 4] = ["gradient_norm", "update_norm", "update_param_ratio", "update_gradient_cosine"];
/// Rows of metrics, at most.
const MOST_ROWS: usize = 8;
/// Levels of a small curve.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws the share of each phase in the present process's time.
pub fn phases(run: &Run, area: Rect, buffer: &mut Buffer) {
    let inside = framed(" time by phase ", area, buffer);
    let total: f64 = run.seconds.iter().sum();
    let space = usize::from(inside.width.saturating_sub(20));
    let line = |(name, seconds): (&&str, &f64)| {
        let share = if total > 0.0 { seconds / total } else { 0.0 };
        let bar = "█".repeat((share * space as f64).round() as usize);
        Line::from(vec![
            Span::raw(format!("{name:<11}{:>5.1} % ", 100.0 * share)),
            Span::styled(bar, Style::new().fg(Color::Blue)),
        ])
    };
    let lines: Vec<Line<'_>> = run::PHASES.iter().zip(&run.seconds).map(line).collect();
    Paragraph::new(lines).render(inside, buffer);
}

/// Names of the metrics that are shown, at most `space`: those about curvature first.
pub fn metric_rows(run: &Run, space: usize) -> Vec<&str> {
    let reported = |name: &&str| run.metrics.get_key_value(*name).map(|(name, _)| name.as_str());
    let first = CURVATURE.iter().chain(&ORDINARY);
    let mut rows: Vec<&str> = first.filter_map(reported).collect();
    let others = run.metrics.keys().map(String::as_str).filter(|name| !rows.contains(name)).collect::<Vec<_>>();
    rows.extend(others);
    rows.truncate(space.min(MOST_ROWS));
    rows
}

/// Draws what the optimizer reports: last values and how they went.
pub fn metrics(run: &Run, rows: &[&str], area: Rect, buffer: &mut Buffer) {
    if rows.is_empty() || area.is_empty() {
        return;
    }
    let about_curvature = rows.iter().any(|name| CURVATURE.contains(name));
    let what = if about_curvature { "curvature health" } else { "optimizer" };
    let calls: Vec<String> = run.calls.iter().map(|(call, count)| format!("{call} {count}")).collect();
    let calls = match calls.is_empty() {
        true => String::new(),
        false => format!("; calls of the last step: {}", printable(&calls.join(", "))),
    };
    let inside = framed(format!(" {what}{calls} "), area, buffer);
    let names: Vec<String> = rows.iter().map(|name| printable(name)).collect();
    let longest = names.iter().map(|name| Span::raw(name).width()).max().unwrap_or(0).min(32);
    let space = usize::from(inside.width).saturating_sub(longest + 12);
    let line = |(name, shown): (&&str, &String)| {
        let values = run.metrics.get(*name)?;
        let last = values.back()?.1;
        Some(Line::from(vec![
            Span::raw(format!("{shown:<longest$.longest$} {:>9}  ", rounded(last))),
            Span::styled(small_curve(values, space), Style::new().fg(Color::Magenta)),
        ]))
    };
    let lines: Vec<Line<'_>> = rows.iter().zip(&names).filter_map(line).collect();
    Paragraph::new(lines).render(inside, buffer);
}

/// The values from their least to their largest, means where they are more than the characters.
fn small_curve(values: &Values, width: usize) -> String {
    let values: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    let stretch = values.len().div_ceil(width.max(1)).max(1);
    let means: Vec<f64> = values.chunks(stretch).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    let (low, high) =
        means.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), mean| (low.min(*mean), high.max(*mean)));
    let level = |mean: &f64| {
        let share = if high > low { (mean - low) / (high - low) } else { 0.0 };
        let level = (share * (LEVELS.len() - 1) as f64).round() as usize;
        LEVELS.get(level).copied().unwrap_or(' ')
    };
    means.iter().map(level).collect()
}

/// Draws the last events, the newest at the bottom.
pub fn notes(run: &Run, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let inside = framed(" last events ", area, buffer);
    let shown = run.notes.len().saturating_sub(usize::from(inside.height));
    let line = |note: &crate::watch::words::Note| {
        let style = match note.level {
            Level::Error => Style::new().fg(Color::Red),
            Level::Warning => Style::new().fg(Color::Yellow),
            Level::Plain => Style::new(),
        };
        Line::from(vec![Span::raw(format!("{:>9}  ", clock(note.elapsed))), Span::styled(note.text.clone(), style)])
    };
    let lines: Vec<Line<'_>> = run.notes.iter().skip(shown).map(line).collect();
    Paragraph::new(lines).render(inside, buffer);
}

/// Hours, minutes and seconds since a process began.
fn clock(seconds: f64) -> String {
    let whole = seconds.clamp(0.0, 1e9) as u64;
    format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}
