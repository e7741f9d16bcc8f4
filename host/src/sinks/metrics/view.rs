//! What each event of a run changes in the metrics.

use super::registry::Registry;
use super::table::{self, Entry};
use crate::error::Exit;
use crate::events::{Evaluated, Event, Finished, Started, Step};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Weight of the old value in the averages of loss and pace.
const SMOOTHING: f64 = 0.98;

/// The metrics as the events so far made them.
pub struct View {
    registry: Arc<Registry>,
    max_steps: Option<u64>,
    epoch_tokens: u64,
    /// Sums of the run at its last event that told them.
    totals: Totals,
    last_step: Instant,
    /// Average seconds from one step's end to the next.
    pace: Option<f64>,
    loss: Losses,
    best: Option<f64>,
    /// The last validation loss, and how many in a row rose.
    validation: (Option<f64>, u64),
    /// Peak learning rate.
    lr: Option<f64>,
    /// Floating-point operations a second that the machine is said to do.
    peak_flops: Option<f64>,
}

/// Training losses so far: their average, the average square of their distance from it, and how many.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    average: Option<f64>,
    variance: f64,
    count: u64,
}

/// Losses before which none counts as a spike.
const SETTLING: u64 = 50;
/// Deviations from the average beyond which a loss is a spike.
const SPIKE: f64 = 6.0;

impl Losses {
    /// Takes in a loss; whether it is a spike.
    fn take(&mut self, loss: f64) -> bool {
        let distance = loss - self.average.unwrap_or(loss);
        let spike = self.count >= SETTLING && distance > SPIKE * self.variance.sqrt() && distance > 0.0;
        averaged(&mut self.average, loss);
        self.variance = SMOOTHING * self.variance + (1.0 - SMOOTHING) * distance * distance;
        self.count += 1;
        spike
    }
}

/// Sums over all processes of a run.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    step: u64,
    tokens: u64,
    line_search_tokens: u64,
    flops: f64,
}

impl View {
    /// Metrics before the first event; `peak_flops` is what the machine is said to do in a second.
    pub fn new(registry: Arc<Registry>, peak_flops: Option<f64>) -> Self {
        registry.set(&table::START_TIMESTAMP, &[], now());
        let view = Self {
            registry,
            max_steps: None,
            epoch_tokens: 0,
            totals: Totals::default(),
            last_step: Instant::now(),
            pace: None,
            loss: Losses::default(),
            best: None,
            validation: (None, 0),
            lr: None,
            peak_flops,
        };
        view.state("starting");
        view
    }

    /// Takes in one event.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Started(started) => self.started(started),
            Event::Resumed { checkpoint, .. } if checkpoint.is_empty() => {}
            Event::Resumed { step, tokens, line_search_tokens, flops, .. } => {
                self.registry.add(&table::RESUMES, &[], 1);
                self.set(&table::CHECKPOINT_STEPS, *step as f64);
                let (tokens, line_search_tokens) = (*tokens, *line_search_tokens);
                self.reached(Totals { step: *step, tokens, line_search_tokens, flops: *flops });
            }
            Event::Initialized { tokens, line_search_tokens, .. } => {
                let (tokens, line_search_tokens) = (*tokens, *line_search_tokens);
                self.reached(Totals { tokens, line_search_tokens, ..Totals::default() });
            }
            Event::Step(step) => self.step(step),
            Event::Evaluating { .. } => self.state("evaluating"),
            Event::Evaluated(evaluated) => self.evaluated(evaluated),
            Event::NonFinite { place, .. } => self.count_known(&table::NONFINITE, place),
            Event::Skipped { exit_code, .. } => {
                let reason = if *exit_code == Exit::NonFinite as u8 { "nonfinite" } else { "plugin" };
                self.registry.add(&table::SKIPPED, &[reason], 1);
                self.failed(*exit_code);
            }
            Event::Log { level, .. } => self.count_known(&table::LOG_LINES, level),
            Event::Checkpointing { .. } => self.state("checkpointing"),
            // It is counted by what became of it.
            Event::StepFailed { .. } => {}
            Event::CheckpointStaged { .. } => self.state("training"),
            Event::CheckpointFailed { .. } => self.registry.add(&table::CHECKPOINTS, &["failed"], 1),
            Event::Checkpoint { step, bytes, held_seconds, .. } => {
                self.registry.add(&table::CHECKPOINTS, &["committed"], 1);
                self.registry.observe(&table::PHASE_DURATION, &["checkpoint"], *held_seconds);
                self.set(&table::CHECKPOINT_TIMESTAMP, now());
                self.set(&table::CHECKPOINT_STEPS, *step as f64);
                self.set(&table::CHECKPOINT_SIZE, *bytes as f64);
            }
            Event::Finished(finished) => self.finished(finished),
        }
    }

    fn started(&mut self, started: &Started) {
        let Started { version, commit, libtorch, plugin, plugin_sha256, model, data, device, seed, timing, .. } =
            started;
        self.registry.set(&table::BUILD_INFO, &[version, commit, libtorch], 1.0);
        let (sha256, data, seed) = (first_digits(plugin_sha256), first_digits(data), seed.to_string());
        self.registry.set(&table::RUN_INFO, &[plugin, sha256, model, data, device, &seed, timing], 1.0);
        self.set(&table::PARAMETERS, started.num_params as f64);
        self.set(&table::STATE_BYTES, started.state_bytes as f64);
        self.set(&table::BATCH_TOKENS, started.tokens_per_step as f64);
        (self.max_steps, self.epoch_tokens, self.lr) = (started.max_steps, started.epoch_tokens, started.lr);
        if let Some(steps) = started.max_steps {
            self.set(&table::TARGET_STEPS, steps as f64);
        }
        if let Some(seconds) = started.checkpoint_seconds {
            self.set(&table::CHECKPOINT_INTERVAL, seconds);
        }
        if let Some(steps) = started.checkpoint_steps {
            self.set(&table::CHECKPOINT_INTERVAL_STEPS, steps as f64);
        }
        self.reached(Totals::default());
        self.last_step = Instant::now();
        self.state("training");
    }

    fn step(&mut self, step: &Step) {
        let Step { step: number, tokens, line_search_tokens, flops, .. } = *step;
        let (before, now_at) = (self.totals, Totals { step: number, tokens, line_search_tokens, flops });
        let registry = &self.registry;
        registry.add(&table::STEPS, &[], now_at.step.saturating_sub(before.step));
        registry.add(&table::TOKENS, &["step"], tokens.saturating_sub(before.tokens));
        registry.add(&table::TOKENS, &["line_search"], line_search_tokens.saturating_sub(before.line_search_tokens));
        registry.add(&table::FLOPS, &[], (flops - before.flops).max(0.0) as u64);
        registry.add(&table::REJECTED, &[], u64::from(step.rejected.is_some()));
        registry.observe(&table::STEP_DURATION, &[], step.seconds);
        registry.observe(&table::PHASE_DURATION, &["data"], step.data_seconds);
        registry.observe(&table::PHASE_DURATION, &["model"], (step.call_seconds - step.data_seconds).max(0.0));
        registry.observe(&table::PHASE_DURATION, &["optimizer"], (step.seconds - step.call_seconds).max(0.0));
        step.metrics.iter().for_each(|(name, value)| registry.set_optimizer(name, *value));
        step.calls.iter().for_each(|(call, count)| add_known(registry, &table::CALLS, call, *count));
        self.set(&table::LAST_STEP_TIMESTAMP, now());
        self.set(&table::RUN_GRADIENT_EQUIVALENTS, step.gradient_equivalents);
        self.set(&table::SCHEDULE, step.schedule);
        self.set(&table::TOKENS_PER_SECOND, tokens.saturating_sub(before.tokens) as f64 / step.seconds);
        self.set(&table::TRAIN_LOSS, step.loss.unwrap_or(f64::NAN));
        self.learning(step);
        if let Some(peak) = self.peak_flops {
            self.set(&table::MFU, (flops - before.flops) / step.seconds / peak);
        }
        self.reached(now_at);
        self.time_left();
    }

    fn learning(&mut self, step: &Step) {
        if let Some(loss) = step.loss {
            let spike = self.loss.take(loss);
            self.registry.add(&table::LOSS_SPIKES, &[], u64::from(spike));
            self.set(&table::TRAIN_LOSS_EMA, self.loss.average.unwrap_or(loss));
        }
        if let Some(norm) = step.param_norm {
            self.set(&table::PARAM_NORM, norm);
        }
        if let Some(lr) = self.lr {
            self.set(&table::LEARNING_RATE, lr * step.schedule);
        }
    }

    /// Where the run stands.
    fn reached(&mut self, at: Totals) {
        self.totals = at;
        self.set(&table::RUN_STEPS, at.step as f64);
        self.registry.set(&table::RUN_TOKENS, &["step"], at.tokens as f64);
        self.registry.set(&table::RUN_TOKENS, &["line_search"], at.line_search_tokens as f64);
        self.set(&table::RUN_FLOPS, at.flops);
        if self.epoch_tokens > 0 {
            self.set(&table::EPOCHS, at.tokens as f64 / self.epoch_tokens as f64);
        }
    }

    fn time_left(&mut self) {
        let elapsed = std::mem::replace(&mut self.last_step, Instant::now()).elapsed().as_secs_f64();
        let pace = averaged(&mut self.pace, elapsed);
        if let Some(steps) = self.max_steps {
            self.set(&table::ETA, steps.saturating_sub(self.totals.step) as f64 * pace);
        }
    }

    fn evaluated(&mut self, evaluated: &Evaluated) {
        self.registry.add(&table::EVALUATIONS, &[], 1);
        self.registry.observe(&table::PHASE_DURATION, &["eval"], evaluated.seconds);
        let best = self.best.map_or(evaluated.loss, |best| best.min(evaluated.loss));
        self.best = Some(best);
        let (before, rising) = self.validation;
        let rising = if before.is_some_and(|before| evaluated.loss > before) { rising + 1 } else { 0 };
        self.validation = (Some(evaluated.loss), rising);
        self.set(&table::RISING_EVALUATIONS, rising as f64);
        self.set(&table::VAL_LOSS, evaluated.loss);
        self.set(&table::BEST_VAL_LOSS, best);
        if let Some(bits) = evaluated.bits_per_byte {
            self.set(&table::BITS_PER_BYTE, bits);
        }
        self.state("training");
    }

    fn finished(&mut self, finished: &Finished) {
        self.failed(finished.exit_code);
        self.state(match finished.reason.as_str() {
            "error" => "failed",
            "stopped" => "stopped",
            _ => "finished",
        });
    }

    /// Counts a step that failed by an error of the plugin; other endings count nothing here.
    fn failed(&self, exit_code: u8) {
        if exit_code == Exit::Plugin as u8 {
            self.registry.add(&table::PLUGIN_ERRORS, &[], 1);
        }
    }

    /// One more of a counter under this value of its label; values that the table does not know are left out.
    fn count_known(&self, entry: &Entry, value: &str) {
        add_known(&self.registry, entry, value, 1);
    }

    fn state(&self, now: &str) {
        for state in table::STATE.labels.iter().flat_map(|(_, states)| *states) {
            self.registry.set(&table::STATE, &[state], if *state == now { 1.0 } else { 0.0 });
        }
    }

    fn set(&self, entry: &Entry, value: f64) {
        self.registry.set(entry, &[], value);
    }
}

fn add_known(registry: &Registry, entry: &Entry, value: &str, count: u64) {
    if entry.labels.iter().any(|(_, values)| values.contains(&value)) {
        registry.add(entry, &[value], count);
    }
}

/// The average with one more value.
fn averaged(average: &mut Option<f64>, value: f64) -> f64 {
    *average.insert(average.map_or(value, |old| SMOOTHING * old + (1.0 - SMOOTHING) * value))
}

fn first_digits(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
