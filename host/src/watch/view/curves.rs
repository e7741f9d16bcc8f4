//! The loss curve and the throughput.

use super::framed;
use crate::report::{self, Points, average_length, averaged, points, rounded, thinned};
use crate::watch::run::Run;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Paragraph, Sparkline, Widget};

/// Colour of the training loss.
const TRAIN: Color = Color::Cyan;
/// Colour of the validation loss.
const VALIDATION: Color = Color::Yellow;
/// Part of the range of losses that is left free above and below.
const AIR: f64 = 0.04;

/// Draws both losses over the finished steps.
pub fn loss_chart(run: &Run, area: Rect, buffer: &mut Buffer) {
    let history = &run.history;
    let length = average_length(std::slice::from_ref(history));
    let train = thinned(averaged(&points(&history.train, report::Axis::Steps), length));
    let validation = points(&history.validation, report::Axis::Steps);
    let words = if length > 1.0 { format!(", averaged over {length:.0} steps") } else { String::new() };
    let title = vec![
        Span::raw(" loss, nats a token: "),
        Span::styled(format!("⠒ training{words}"), Style::new().fg(TRAIN)),
        Span::raw("  "),
        Span::styled("• validation ", Style::new().fg(VALIDATION)),
    ];
    let inside = framed(Line::from(title), area, buffer);
    let Some([low, high]) = range(&train, &validation) else {
        return Paragraph::new("none recorded").render(inside, buffer);
    };
    let cut = |points: &[(f64, f64)]| -> Points { points.iter().map(|&(x, y)| (x, y.min(high))).collect() };
    let (train, validation) = (cut(&train), cut(&validation));
    let last = train.iter().chain(&validation).map(|point| point.0).fold(1.0, f64::max);
    let line = Dataset::default().data(&train).marker(Marker::Braille).graph_type(GraphType::Line).style(TRAIN);
    let dots = Dataset::default().data(&validation).marker(Marker::Dot).style(VALIDATION);
    let steps = Axis::default().bounds([0.0, last]).labels([0.0, last / 2.0, last].map(rounded));
    let losses = Axis::default().bounds([low, high]).labels([low, (low + high) / 2.0, high].map(label));
    Chart::new(vec![line, dots]).x_axis(steps).y_axis(losses).legend_position(None).render(inside, buffer);
}

/// A loss beside its axis.
fn label(loss: f64) -> String {
    if loss.abs() < 100.0 { format!("{loss:.3}") } else { rounded(loss) }
}

/// Around all losses, up to a little above the largest first one: a loss that is larger has diverged.
fn range(train: &[(f64, f64)], validation: &[(f64, f64)]) -> Option<[f64; 2]> {
    let first = [train, validation].into_iter().filter_map(|points| points.first()).map(|point| point.1);
    let first = first.fold(f64::NEG_INFINITY, f64::max);
    let top = first + 0.1 * first.abs();
    let losses = || train.iter().chain(validation).map(|point| point.1.min(top));
    let (low, high) = (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
    let air = if high > low { AIR * (high - low) } else { 0.05 * high.abs().max(1.0) };
    (low <= high).then_some([low - air, high + air])
}

/// Draws tokens a second over the whole run, from 0.
pub fn throughput(run: &Run, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let speeds = run.speeds(usize::from(area.width.saturating_sub(2)));
    let most = speeds.iter().copied().fold(0.0, f64::max);
    let inside = framed(format!(" tokens/s, 0 to {} ", rounded(most)), area, buffer);
    // Eighths of a character are all that can be told apart.
    let heights: Vec<u64> = speeds.iter().map(|speed| (1e3 * speed / most.max(f64::MIN_POSITIVE)) as u64).collect();
    Sparkline::default().data(&heights).max(1000).style(Style::new().fg(Color::Green)).render(inside, buffer);
}
