//! The header: which run it is, how far it has come, how well it does, and what went wrong.

use super::View;
use crate::error::printable;
use crate::events::Started;
use crate::report::{duration, rounded};
use crate::watch::run::{Run, State};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Widget};

/// Characters of the bar.
const BAR: usize = 24;
/// A record that has not changed for so many seconds is said to be old.
const OLD: u64 = 5;

/// Draws the header.
pub fn render(view: &View<'_>, area: Rect, buffer: &mut Buffer) {
    let name = Line::styled(format!(" {} ", printable(&view.run.history.name)), Modifier::BOLD);
    let state = Style::new().fg(color(view.state)).add_modifier(Modifier::BOLD);
    let state = Line::styled(format!(" {} ", view.state.name()), state).right_aligned();
    let mut block = Block::bordered().title(name).title(state);
    if view.keys {
        block = block.title_bottom(Line::raw(" q quits; the run goes on ").right_aligned());
    }
    let lines = [identity(view.run), progress(view), losses(view.run), troubles(view)];
    let lines: Vec<Line<'_>> = lines.into_iter().map(Line::raw).collect();
    Paragraph::new(lines).block(block).render(area, buffer);
}

fn color(state: State) -> Color {
    match state {
        State::Failed | State::Lost => Color::Red,
        State::Stopped | State::Waiting | State::Starting => Color::Yellow,
        _ => Color::Green,
    }
}

/// `plugin muon, model tiny, 1.012M parameters, cpu, 2 threads, 512 tokens a step`.
fn identity(run: &Run) -> String {
    let Some(Started { plugin, model, num_params, device, threads, tokens_per_step, .. }) = &run.history.started else {
        return "nothing is recorded yet".into();
    };
    let (params, tokens) = (rounded(*num_params as f64), rounded(*tokens_per_step as f64));
    let threads = if *threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    printable(&format!(
        "plugin {plugin}, model {model}, {params} parameters, {device}, {threads}, {tokens} tokens a step"
    ))
}

/// `step 800 of 1600  [bar]  50 %  1 min 20 s left  5.95k tokens/s`.
fn progress(view: &View<'_>) -> String {
    let (run, step) = (view.run, view.run.history.cost().step);
    let mut parts = match run.max_steps() {
        Some(most) => {
            let share = (step as f64 / most.max(1) as f64).min(1.0);
            vec![format!("step {step} of {most}"), bar(share), format!("{:.0} %", 100.0 * share)]
        }
        None => vec![format!("step {step}")],
    };
    if view.state.is_alive() {
        parts.extend(run.seconds_left().map(|left| format!("{} left", duration(left))));
    }
    parts.extend(run.pace().map(|pace| format!("{} tokens/s", rounded(pace.tokens_per_second))));
    parts.push(format!("ran {}", duration(run.history.seconds)));
    parts.join("  ")
}

fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR as f64).floor() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

/// The last losses, and the best of the validation.
fn losses(run: &Run) -> String {
    let history = &run.history;
    let mut parts = vec![];
    parts.extend(history.train.iter().rev().find_map(|at| at.loss).map(|loss| format!("train loss {}", number(loss))));
    if let Some(loss) = history.validation.last().and_then(|at| at.loss) {
        parts.push(format!("validation {}", number(loss)));
        let best = history.validation.iter().filter_map(|at| Some((at.loss?, at.cost.step)));
        let best = best.min_by(|a, b| a.0.total_cmp(&b.0));
        let best = best.map(|(loss, step)| format!("best {} at step {step}", number(loss)));
        parts.extend(best);
    }
    let lr = history.started.as_ref().and_then(|started| started.lr);
    let lr = lr.zip(run.schedule).map(|(lr, schedule)| format!("lr {}", rounded(lr * schedule)));
    parts.extend(lr);
    if parts.is_empty() { "no loss yet".into() } else { parts.join("  ") }
}

fn number(loss: f64) -> String {
    if loss.abs() < 1000.0 { format!("{loss:.4}") } else { rounded(loss) }
}

/// The error that ended the run, or else what is to be counted, or how old the record is.
fn troubles(view: &View<'_>) -> String {
    let history = &view.run.history;
    if let Some(finished) = history.finished.as_ref().filter(|finished| finished.exit_code != 0) {
        let error = finished.error.as_deref().unwrap_or(&finished.reason);
        return printable(&format!("exit code {}: {error}", finished.exit_code));
    }
    let mut parts = vec![];
    if let Some(age) = view.age.map(|age| age.as_secs()).filter(|age| *age >= OLD && view.state.is_alive()) {
        parts.push(format!("last event {} ago", duration(age as f64)));
    }
    let counts = [
        ("resumes", history.resumes),
        ("skipped steps", history.skipped.len() as u64),
        ("rejected updates", history.rejected.len() as u64),
        ("values not finite", view.run.nonfinite),
        ("lines that are no events", history.unreadable),
    ];
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    parts.extend(counts.map(|(what, count)| format!("{what} {count}")));
    parts.join("  ")
}
