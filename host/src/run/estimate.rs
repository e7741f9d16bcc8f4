//! What a step of a run will take, from steps that are small enough to be made on the spot.
//!
//! - **Operations**: the plugin makes some steps on a model whose sizes are all reduced by the same factor, with the
//!   smallest batch that it takes and with four times that. A first step may be another than the rest, and full
//!   Gauss-Newton saves a tangent pass where its last step size was 1, so the dearest of the later ones counts. Both sizes
//!   make a line, which gives the operations of the whole batch in units of its gradient, and the data drawn. What depends
//!   on the data, as the iterations of conjugate gradients do, is as it was on the small model.
//! - **Rate**: a gradient of the model itself, on one sequence; on a GPU, which one sequence does not fill, on as many as
//!   `train.micro_batch_size` says.
//! - **The plugin's own time**: two steps on the model itself with the smallest batch and short sequences, without the
//!   time of the calls, by the parts of a step, whose number the line gives. What it does only every some steps is not in
//!   it, and where it takes no small batch it is not measured.

use super::prepare::{self, Prepared};
use crate::config::{Config, Loaded, Paths, ShardPath};
use crate::error::{Exit, Fault, Result};
use crate::events::{Event, Step};
use crate::model::ModelConfig;
use crate::trainer::Progress;
use gauntlet_plugin_abi::Purpose;
use gauntlet_plugin_api::{Part, Position};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tch::Device;

/// Tokens of a step in which the plugin's own time is measured, about.
const SHORT_STEP: u64 = 256;
/// Sequences of the largest batch with which small steps are made.
const MOST_SEQUENCES: u64 = 1 << 12;
/// Steps on the small model, and units of the smallest batch in its larger one.
const STEPS: usize = 4;
const UNITS: f64 = 4.0;
/// A rate is measured for at least so long, so that no single hiccup makes it.
const RATE_TIME: Duration = Duration::from_secs(1);
/// Tokens in the file that stands in for data.
const STAND_IN_TOKENS: u32 = 1 << 16;

/// What a step takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Operations in units of one gradient of the batch.
    pub gradient_equivalents: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Tokens drawn to solve.
    pub tokens: f64,
    /// Tokens drawn for the line search.
    pub line_search_tokens: f64,
    /// Operations a second of a gradient.
    pub rate: f64,
    /// Sequences of that gradient.
    pub rate_sequences: u64,
    /// Seconds of calls, at that rate.
    pub call_seconds: f64,
    /// Seconds of the plugin between its calls, where they could be measured.
    pub own_seconds: Option<f64>,
}

impl Estimate {
    /// Seconds of a step.
    pub fn seconds(&self) -> f64 {
        self.call_seconds + self.own_seconds.unwrap_or(0.0)
    }

    /// Measures. The configuration's data need not be there.
    ///
    /// # Errors
    ///
    /// What keeps the plugin from small steps of this configuration.
    pub(super) fn measure(stand_in: &StandIn) -> Result<Self, Vec<Fault>> {
        let loaded = stand_in.loaded;
        let model = ModelConfig::resolve(&loaded.config.model, &loaded.origins)?;
        let batch_size = loaded.config.data.batch_size as u64;
        let (smallest, one) = stand_in.smallest_batch(&model, batch_size)?;
        let larger = (UNITS as u64) * smallest;
        let many = if smallest == batch_size { one } else { stand_in.reduced(&model, larger).dearest_step(STEPS)? };
        let whole = Line { one, many }.at(batch_size as f64 / smallest as f64);
        let own = match 2 * smallest <= SHORT_STEP {
            true => Some(stand_in.whole(smallest, short_length(loaded, smallest)).dearest_step(2)?),
            false => None,
        };
        let rate_sequences = match prepare::device(loaded.config.run.device).map_err(|fault| vec![fault])? {
            Device::Cuda(_) => loaded.config.train.micro_batch_size.max(1),
            _ => 1,
        };
        let at_once = |config: &mut Config| config.train.micro_batch_size = rate_sequences;
        let rate_sequences = rate_sequences as u64;
        let (flops_of_gradient, rate) =
            stand_in.with(smallest, loaded.config.data.seq_len, at_once).rate(rate_sequences)?;
        let flops = whole.gradients * flops_of_gradient * batch_size as f64;
        let seq_len = loaded.config.data.seq_len as f64;
        Ok(Self {
            gradient_equivalents: whole.gradients,
            flops,
            tokens: whole.sequences * seq_len,
            line_search_tokens: whole.line_search_sequences * seq_len,
            rate,
            rate_sequences,
            call_seconds: flops / rate,
            own_seconds: own.map(|own| own.own_seconds * whole.parts / own.parts),
        })
    }
}

/// Tokens of a sequence with which a step of the smallest batch is short.
fn short_length(loaded: &Loaded, sequences: u64) -> usize {
    ((SHORT_STEP / sequences.max(1)) as usize).clamp(2, loaded.config.data.seq_len.max(2))
}

/// A step as it was made.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Made {
    /// Operations in units of one gradient of the batch.
    gradients: f64,
    sequences: f64,
    line_search_sequences: f64,
    /// Calls of the plugin's `step`.
    parts: f64,
    own_seconds: f64,
}

/// What a step takes against the size of its batch, in units of the smallest: at one and at [`UNITS`].
struct Line {
    one: Made,
    many: Made,
}

impl Line {
    fn at(&self, units: f64) -> Made {
        let Self { one, many } = self;
        let at = |one: f64, many: f64| one + (units - 1.0) * (many - one) / (UNITS - 1.0);
        Made {
            // These are relative to the batch, and what is linear in it is their product with it.
            gradients: at(one.gradients, UNITS * many.gradients) / units,
            sequences: at(one.sequences, many.sequences),
            line_search_sequences: at(one.line_search_sequences, many.line_search_sequences),
            parts: at(one.parts, many.parts),
            own_seconds: at(one.own_seconds, many.own_seconds),
        }
    }
}

/// A run with tokens that stand in for its data.
pub(super) struct StandIn<'a> {
    loaded: &'a Loaded,
    folder: tempfile::TempDir,
}

/// A small run.
struct Small(Loaded);

impl<'a> StandIn<'a> {
    pub fn new(loaded: &'a Loaded) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|error| Fault::writing(&std::env::temp_dir(), &error))?;
        let stand_in = Self { loaded, folder };
        write_tokens(&stand_in.file(), 2)?;
        Ok(stand_in)
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("stand-in.bin")
    }

    /// The configuration with a stand-in for what it names and is not there, and the keys of that.
    pub fn instead_of_absent(&self) -> (Loaded, Vec<&'static str>) {
        let mut loaded = self.loaded.clone();
        let config = &mut loaded.config;
        let lacks = |paths: &Paths| paths.as_slice().iter().any(|path| !path.path().exists());
        let mut absent = vec![];
        if lacks(&config.data.train) {
            absent.push("data.train");
            config.data.train = Paths::One(ShardPath::Plain(self.file()));
        }
        if lacks(&config.data.validation) {
            absent.push("data.validation");
            config.data.validation = Paths::default();
        }
        if config.run.init_from.as_ref().is_some_and(|path| !path.exists()) {
            absent.push("run.init_from");
            config.run.init_from = None;
        }
        (loaded, absent)
    }

    fn with(&self, batch_size: u64, seq_len: usize, change: impl FnOnce(&mut Config)) -> Small {
        let mut loaded = self.loaded.clone();
        let config = &mut loaded.config;
        config.data.train = Paths::One(ShardPath::Plain(self.file()));
        config.data.validation = Paths::default();
        config.run.init_from = None;
        config.data.batch_size = batch_size as usize;
        config.data.seq_len = seq_len;
        config.train.micro_batch_size = 0;
        change(config);
        Small(loaded)
    }

    /// The model itself.
    fn whole(&self, batch_size: u64, seq_len: usize) -> Small {
        self.with(batch_size, seq_len, |_| ())
    }

    /// A model all of whose sizes are smaller by the same factor, so that each part keeps its share of the operations.
    fn reduced(&self, model: &ModelConfig, batch_size: u64) -> Small {
        let width = 2 * model.num_heads;
        let reduced = |size: usize, least: usize| (size * width).div_ceil(model.width).max(least);
        let seq_len = reduced(self.loaded.config.data.seq_len, 2);
        let sizes = [
            ("width", width),
            ("mlp_width", reduced(model.mlp_width, 1)),
            ("vocab_size", reduced(model.vocab_size, 2)),
        ];
        self.with(batch_size, seq_len, |config| {
            sizes.iter().for_each(|(key, size)| drop(config.model.insert((*key).into(), json!(size))));
        })
    }

    /// The smallest batch that divides the configured one and that the plugin takes, with a step of it.
    ///
    /// # Errors
    ///
    /// There is none that is small enough.
    fn smallest_batch(&self, model: &ModelConfig, batch_size: u64) -> Result<(u64, Made), Vec<Fault>> {
        let mut refused = vec![];
        for smallest in (1..=batch_size.min(MOST_SEQUENCES)).filter(|size| batch_size.is_multiple_of(*size)) {
            match self.reduced(model, smallest).prepared() {
                Ok(prepared) => return Ok((smallest, dearest_step(prepared, STEPS)?)),
                Err(faults) if faults.iter().all(|fault| fault.exit == Exit::Usage) => refused = faults,
                Err(faults) => return Err(faults),
            }
        }
        if batch_size > MOST_SEQUENCES {
            let what =
                format!("no estimate: the plugin takes no part of the batch of at most {MOST_SEQUENCES} sequences");
            refused.push(Fault::new(Exit::Usage, what).hint("`--dry-run` shows the rest"));
        }
        Err(refused)
    }
}

impl Small {
    fn prepared(&self) -> Result<Prepared, Vec<Fault>> {
        Prepared::new(&self.0, None)
    }

    fn dearest_step(&self, steps: usize) -> Result<Made, Vec<Fault>> {
        dearest_step(self.prepared()?, steps)
    }

    /// Operations of the gradient of one sequence, and operations a second in gradients of some.
    fn rate(&self, sequences: u64) -> Result<(f64, f64), Vec<Fault>> {
        let prepared = self.prepared()?;
        let mut state = prepared.session.lock();
        let (backend, params) = state.backend_and_params();
        let problem = backend.problem();
        let flops = 3.0 * problem.forward_flops(1);
        let gradient = |first: u64| {
            let parts = vec![Part { purpose: Purpose::STEP.0, first: first * sequences, count: sequences }];
            let tokens = sequences * problem.seq_len() as u64;
            problem.loss_and_gradient(&params, &Position { parts, sequences, tokens })
        };
        // The first one finds no memory to use again.
        gradient(0).map_err(|fault| vec![fault])?;
        let (started, mut done) = (Instant::now(), 0);
        while started.elapsed() < RATE_TIME {
            done += 1;
            gradient(done).map_err(|fault| vec![fault])?;
        }
        Ok((flops, flops * (done * sequences) as f64 / started.elapsed().as_secs_f64()))
    }
}

/// Of the first steps of a run, the one with the most operations; the first itself only where there is no other.
fn dearest_step(mut prepared: Prepared, steps: usize) -> Result<Made, Vec<Fault>> {
    let seq_len = prepared.manifest.seq_len as f64;
    let (mut made, mut parts, mut before): (Vec<Made>, f64, Option<Step>) = (vec![], 0.0, None);
    while made.len() < steps {
        let mut step = None;
        let mut hear = |event| {
            if let Event::Step(heard) = event {
                step = Some(heard);
            }
        };
        let progress = prepared.trainer.advance(&mut hear).map_err(|fault| vec![fault])?;
        parts += 1.0;
        if let Some(step) = step {
            made.push(Made::since(before.as_ref(), &step, parts, seq_len));
            (parts, before) = (0.0, Some(step));
        }
        if let Progress::End(_) = progress {
            break;
        }
    }
    let later = if made.len() > 1 { &made[1..] } else { &made[..] };
    let dearest = later.iter().copied().max_by(|a, b| a.gradients.total_cmp(&b.gradients));
    dearest.ok_or_else(|| vec![Fault::new(Exit::Usage, "the configuration ends before its first step")])
}

impl Made {
    /// A step that `parts` calls have made, by the sums in its event and in that of the step before.
    fn since(before: Option<&Step>, step: &Step, parts: f64, seq_len: f64) -> Self {
        let new = |of: fn(&Step) -> f64| of(step) - before.map_or(0.0, of);
        Self {
            gradients: new(|step| step.gradient_equivalents),
            sequences: new(|step| step.tokens as f64) / seq_len,
            line_search_sequences: new(|step| step.line_search_tokens as f64) / seq_len,
            parts,
            own_seconds: (step.seconds - step.call_seconds).max(0.0),
        }
    }
}

/// A shard in llm.c's layout with 32-bit ids, all below `ids`.
fn write_tokens(path: &Path, ids: u32) -> Result<()> {
    let header: [u32; 3] = [20_240_801, 7, STAND_IN_TOKENS];
    // A multiplicative hash: any tokens will do that are not all the same.
    let tokens = (0..STAND_IN_TOKENS).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) % ids);
    let numbers = header.into_iter().chain(std::iter::repeat_n(0, 253)).chain(tokens);
    let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    std::fs::write(path, bytes).map_err(|error| Fault::writing(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_with_the_batch_and_what_does_not_is_told_apart() {
        let made = |gradients: f64, n: f64| Made {
            gradients,
            sequences: 4.0 * n,
            line_search_sequences: 8.0,
            parts: n + 1.0,
            own_seconds: 0.5,
        };
        // Three gradients of the batch and one of 4 sequences whatever it is.
        let line = Line { one: made(4.0, 1.0), many: made(3.25, 4.0) };
        let at = line.at(10.0);
        assert_eq!((at.sequences, at.line_search_sequences, at.parts, at.own_seconds), (40.0, 8.0, 11.0, 0.5));
        assert!((at.gradients - 3.1).abs() < 1e-12, "{}", at.gradients);
    }
}
