//! A frame: header, curves, phases, what the optimizer reports, last events. What does not fit is left out, the least
//! important first; sizes are in characters.

mod curves;
mod header;
mod panels;

use super::follow::Follower;
use super::run::{Run, State};
use curves::{loss_chart, throughput};
use panels::{metric_rows, metrics, notes, phases};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Widget};
use std::time::Duration;

/// Lines of a frame of plain text, without those of what the optimizer reports.
const PLAIN_HEIGHT: u16 = 34;
/// Lines of the header with its border.
const HEADER: u16 = 6;
/// Narrower frames show one column.
const TWO_COLUMNS: u16 = 70;
/// Smaller frames show the header alone.
const LEAST_BODY: u16 = 8;
/// Lines of the phases with their border.
const PHASES: u16 = 7;

/// What a frame shows.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The run.
    pub run: &'a Run,
    /// What it does.
    pub state: State,
    /// Time since its record changed.
    pub age: Option<Duration>,
    /// Whether keys are heard, so that the frame says which.
    pub keys: bool,
}

impl<'a> View<'a> {
    /// Of what was followed so far.
    pub fn of(follower: &'a Follower) -> Self {
        Self { run: follower.run(), state: follower.state(), age: follower.age(), keys: false }
    }

    /// The frame as lines of plain text.
    pub fn plain(&self, width: u16) -> String {
        let height = PLAIN_HEIGHT + panel_height(metric_rows(self.run, usize::MAX).len());
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        self.render(area, &mut buffer);
        text(&buffer)
    }

    fn render_body(&self, area: Rect, buffer: &mut Buffer) {
        let metric_space = match area.height {
            0..16 => 0,
            16..24 => 3,
            _ => usize::MAX,
        };
        let note_lines = match area.height {
            0..18 => 0,
            18..28 => 4,
            _ => 8,
        };
        let rows = metric_rows(self.run, metric_space);
        let heights = [
            Constraint::Min(LEAST_BODY),
            Constraint::Length(panel_height(rows.len())),
            Constraint::Length(panel_height(note_lines)),
        ];
        let [middle, metrics_area, notes_area] = Layout::vertical(heights).areas(area);
        if middle.width < TWO_COLUMNS {
            loss_chart(self.run, middle, buffer);
        } else {
            let widths = [Constraint::Fill(5), Constraint::Fill(3)];
            let [left, right] = Layout::horizontal(widths).areas(middle);
            // A throughput of less than two lines says nothing.
            let phase_lines = if right.height < PHASES + 4 { right.height } else { PHASES };
            let [above, below] = Layout::vertical([Constraint::Fill(1), Constraint::Length(phase_lines)]).areas(right);
            loss_chart(self.run, left, buffer);
            throughput(self.run, above, buffer);
            phases(self.run, below, buffer);
        }
        metrics(self.run, &rows, metrics_area, buffer);
        notes(self.run, notes_area, buffer);
    }
}

impl Widget for &View<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        if area.height < HEADER + LEAST_BODY {
            return header::render(self, area, buffer);
        }
        let [top, body] = Layout::vertical([Constraint::Length(HEADER), Constraint::Fill(1)]).areas(area);
        header::render(self, top, buffer);
        self.render_body(body, buffer);
    }
}

/// Lines of a panel with its border; one without content is not there.
fn panel_height(lines: usize) -> u16 {
    match u16::try_from(lines) {
        Ok(0) => 0,
        Ok(lines) => lines.saturating_add(2),
        Err(_) => u16::MAX,
    }
}

/// A border with a title; gives the space inside.
fn framed<'a>(title: impl Into<Line<'a>>, area: Rect, buffer: &mut Buffer) -> Rect {
    let block = Block::bordered().title(title);
    let inside = block.inner(area);
    block.render(area, buffer);
    inside
}

/// What stands in the buffer, without the spaces at the lines' ends and without colours.
fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut x = buffer.area.left();
        while let Some(cell) = buffer.cell((x, y)) {
            text += cell.symbol();
            // A wide character covers the cells behind it.
            x = x.saturating_add(u16::try_from(Span::raw(cell.symbol()).width()).unwrap_or(1).max(1));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}
