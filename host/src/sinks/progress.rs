//! The run on the terminal: a bar with loss, tokens a second and time left; plain lines where it is not a terminal.

use crate::error::printable;
use crate::events::{Event, Finished, Started, Step};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Least time between plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Steps over which speed is averaged.
const SPEED_WINDOW: usize = 20;

/// The terminal's view of a run, on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    max_steps: Option<u64>,
    recent: VecDeque<(Instant, u64, u64)>,
    loss: Option<f64>,
    validation: Option<f64>,
    last_plain: Option<Instant>,
}

impl Progress {
    /// A view for this process's standard error.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::no_length);
        Self { bar, max_steps: None, recent: VecDeque::new(), loss: None, validation: None, last_plain: None }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Started(started) => self.start(started),
            Event::Resumed { checkpoint, .. } if checkpoint.is_empty() => {
                self.line("no checkpoint: begins at the start")
            }
            Event::Resumed { step, checkpoint, tokens, .. } => {
                self.line(&format!("resumed after step {step} from {}", printable(checkpoint)));
                self.recent = VecDeque::from([(Instant::now(), *step, *tokens)]);
            }
            Event::Initialized { step, checkpoint, tokens, .. } => {
                self.line(&format!("begins with the parameters of {} (step {step})", printable(checkpoint)));
                self.recent = VecDeque::from([(Instant::now(), 0, *tokens)]);
            }
            Event::Step(step) => self.step(step),
            Event::Evaluated(evaluated) => {
                self.validation = Some(evaluated.loss);
                self.line(&format!(
                    "step {}  validation loss {:.4} ({})",
                    evaluated.step, evaluated.loss, evaluated.at
                ));
            }
            Event::Skipped { step, reason, .. } => {
                self.line(&format!("step {} skipped: {}", step + 1, printable(reason)))
            }
            Event::Log { level, message } => self.line(&format!("{level}: {}", printable(message))),
            // What failed is the error that the run ends with.
            Event::Evaluating { .. } | Event::Checkpointing { .. } | Event::CheckpointFailed { .. } => {}
            Event::CheckpointStaged { .. } | Event::StepFailed { .. } => {}
            Event::NonFinite { .. } => {}
            Event::Checkpoint { path, bytes, .. } => {
                self.line(&format!("checkpoint {} ({:.1} MB)", printable(path), *bytes as f64 / 1e6));
            }
            Event::Finished(finished) => self.finish(finished),
        }
    }

    fn start(&mut self, started: &Started) {
        self.max_steps = started.max_steps;
        self.line(&format!(
            "{} parameters, plugin `{}`, {} tokens a step, {} ({} threads)",
            grouped(started.num_params),
            printable(&started.plugin),
            grouped(started.tokens_per_step),
            started.device,
            started.threads
        ));
        if let (Some(bar), Some(steps)) = (&self.bar, started.max_steps) {
            bar.set_length(steps);
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        } else if let Some(bar) = &self.bar {
            let style = ProgressStyle::with_template("{spinner} step {pos} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        }
        self.recent.push_back((Instant::now(), 0, 0));
    }

    fn step(&mut self, step: &Step) {
        self.loss = step.loss.or(self.loss);
        self.recent.push_back((Instant::now(), step.step, step.tokens));
        if self.recent.len() > SPEED_WINDOW {
            self.recent.pop_front();
        }
        let message = self.message(step.step);
        if let Some(bar) = &self.bar {
            bar.set_position(step.step);
            bar.set_message(message);
        } else if self.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL) {
            self.last_plain = Some(Instant::now());
            let of = self.max_steps.map(|steps| format!("/{steps}")).unwrap_or_default();
            say(&format!("step {}{of} {message}", step.step));
        }
    }

    /// `loss 1.9012  val 1.8000  15.2k tokens/s  2 minutes left`.
    fn message(&self, step: u64) -> String {
        let mut parts = vec![];
        parts.extend(self.loss.map(|loss| format!("loss {loss:.4}")));
        parts.extend(self.validation.map(|loss| format!("val {loss:.4}")));
        let ends = self.recent.front().zip(self.recent.back());
        if let Some(((start, first, tokens), (end, last, tokens_now))) = ends.filter(|(first, last)| last.1 > first.1) {
            let seconds = (*end - *start).as_secs_f64().max(1e-9);
            parts.push(format!("{:.1}k tokens/s", (tokens_now - tokens) as f64 / seconds / 1e3));
            if let Some(left) = self.max_steps.map(|steps| steps.saturating_sub(step)) {
                let each = seconds / (last - first) as f64;
                parts.push(format!("{} left", HumanDuration(Duration::from_secs_f64(each * left as f64))));
            }
        }
        parts.join("  ")
    }

    fn finish(&mut self, finished: &Finished) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let loss = finished.validation_loss.map(|loss| format!(", validation loss {loss:.4}")).unwrap_or_default();
        let took = HumanDuration(Duration::from_secs_f64(finished.seconds));
        say(&format!("finished: {} steps in {took}{loss} ({})", finished.step, finished.reason));
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a line to standard error. Whether anyone still reads it is not the run's affair: a terminal that is gone or a
/// pipe that is closed must not end it.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_in_threes() {
        assert_eq!([7, 999, 1000, 45_363_712].map(grouped), ["7", "999", "1,000", "45,363,712"]);
    }
}
