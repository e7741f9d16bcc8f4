//! What a finished run leaves: a small file that the comparison is made of.

use super::plan::{Settings, Spec, Stage};
use crate::durable;
use crate::error::{Exit, Fault, Result};
use crate::report::{Cost, History};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Version of the files.
const FORMAT: u64 = 1;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It came down to its last target.
    Target,
    /// It reached its limit or its own end before that.
    Limit,
    /// A value was not finite.
    Diverged,
    /// Anything else: its plugin, its configuration.
    Failed,
}

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunResult {
    /// Version of this file.
    pub format: u64,
    /// The run's hash.
    pub hash: String,
    /// Whose it is.
    pub contender: String,
    /// What it was for.
    pub stage: Stage,
    /// Its seed.
    pub seed: u64,
    /// Sequences of its batch.
    pub batch_size: u64,
    /// What was chosen for it.
    pub settings: Settings,
    /// How it ended.
    pub end: End,
    /// The error's line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Gradients of its batch that it might spend.
    pub limit: f64,
    /// The last target that it was to reach.
    pub target: f64,
    /// What it ran with.
    pub made_with: MadeWith,
    /// Fingerprint of the data that these losses are of; absent of runs by an older version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation_data: Option<String>,
    /// Its validation losses with what had been spent.
    pub validation: Vec<Evaluation>,
    /// Losses of some of its checkpoints over more validation data, by step.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub fine: BTreeMap<u64, f64>,
    /// Mean training loss of its last tenth of steps.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub train_loss: Option<f64>,
    /// Passes over the training data that it drew.
    pub epochs: f64,
    /// The optimizer's metrics at its last step.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub metrics: BTreeMap<String, f64>,
    /// Times that it was resumed.
    pub resumes: u64,
}

/// What a run was made with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeWith {
    /// Version of the program.
    pub gauntlet: String,
    /// Its commit.
    pub commit: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// The plugin's name.
    pub plugin: String,
    /// SHA-256 of its file.
    pub plugin_sha256: String,
    /// Fingerprint of the training data.
    pub data: String,
    /// The device.
    pub device: String,
    /// Threads.
    pub threads: usize,
    /// Elements of all parameters.
    pub num_params: u64,
}

/// A validation loss and what had been spent by then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Finished steps.
    pub step: u64,
    /// Nats a token.
    pub loss: f64,
    /// Tokens drawn for steps.
    pub tokens: u64,
    /// Tokens drawn for line searches.
    pub line_search_tokens: u64,
    /// Floating-point operations in gradients of the batch.
    pub gradient_equivalents: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Wall time within steps.
    pub seconds: f64,
}

/// The horizontal axes of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Finished steps.
    Steps,
    /// Tokens drawn for steps.
    Tokens,
    /// Tokens drawn for steps and line searches.
    AllTokens,
    /// Floating-point operations in gradients of the batch.
    GradientEquivalents,
    /// Floating-point operations.
    Flops,
    /// Wall time within steps.
    Seconds,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Steps, Self::Tokens, Self::AllTokens, Self::GradientEquivalents, Self::Flops, Self::Seconds];

    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Tokens => "tokens, without those of line searches",
            Self::AllTokens => "tokens, with those of line searches",
            Self::GradientEquivalents => "gradient equivalents",
            Self::Flops => "floating-point operations",
            Self::Seconds => "seconds within steps",
        }
    }

    /// An evaluation's place on this axis.
    pub fn of(self, at: &Evaluation) -> f64 {
        match self {
            Self::Steps => at.step as f64,
            Self::Tokens => at.tokens as f64,
            Self::AllTokens => (at.tokens + at.line_search_tokens) as f64,
            Self::GradientEquivalents => at.gradient_equivalents,
            Self::Flops => at.flops,
            Self::Seconds => at.seconds,
        }
    }
}

impl RunResult {
    /// Of a run's record. `ended` says how, with the error's line.
    pub fn of(spec: &Spec, history: &History, ended: (End, Option<String>), limit: f64, target: f64) -> Self {
        let started = history.started.clone();
        let made_with = started.as_ref().map(|started| MadeWith {
            gauntlet: started.version.clone(),
            commit: started.commit.clone(),
            libtorch: started.libtorch.clone(),
            plugin: started.plugin.clone(),
            plugin_sha256: started.plugin_sha256.clone(),
            data: started.data.clone(),
            device: started.device.clone(),
            threads: started.threads,
            num_params: started.num_params,
        });
        let epoch = started.map_or(0, |started| started.epoch_tokens).max(1) as f64;
        let losses: Vec<f64> = history.train.iter().filter_map(|at| at.loss).collect();
        let last = &losses[losses.len() - losses.len().div_ceil(10)..];
        Self {
            format: FORMAT,
            hash: spec.hash.clone(),
            contender: spec.contender.clone(),
            stage: spec.stage,
            seed: spec.seed,
            batch_size: spec.batch_size,
            settings: spec.settings.clone(),
            end: ended.0,
            error: ended.1,
            limit,
            target,
            made_with: made_with.unwrap_or_default(),
            validation_data: Some(spec.validation.clone()),
            validation: history.validation.iter().filter_map(|at| Some(evaluation(&at.cost, at.loss?))).collect(),
            fine: BTreeMap::new(),
            train_loss: (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64),
            epochs: history.cost().tokens as f64 / epoch,
            metrics: history.metrics.clone(),
            resumes: history.resumes,
        }
    }

    /// Reads the result of a run, if there is one of the same hash.
    ///
    /// # Errors
    ///
    /// [`Exit::Data`]: a file that is no result.
    pub fn read(folder: &Path, spec: &Spec) -> Result<Option<Self>> {
        let path = Self::path(folder, spec);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Fault::reading(&path, &error)),
        };
        let bad = |found: String| {
            let fault =
                Fault::new(Exit::Data, format!("`{}`: not the result of this run", path.display())).found(found);
            let fault = fault.expected(format!("format {FORMAT} and hash {}", spec.hash));
            fault.hint("remove it, and the run is made again")
        };
        let result: Self = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if result.format != FORMAT || result.hash != spec.hash {
            return Err(bad(format!("format {} and hash {}", result.format, result.hash)));
        }
        if let Some(other) = result.validation_data.as_ref().filter(|data| **data != spec.validation) {
            let fault = Fault::new(Exit::Data, format!("`{}`: made on other validation data", path.display()));
            let fault = fault.found(other).expected(&spec.validation);
            return Err(fault.hint("remove it and the run's folder, and the run is made again"));
        }
        Ok(Some(result))
    }

    /// Writes it where [`RunResult::read`] looks.
    ///
    /// # Errors
    ///
    /// [`Exit::Write`].
    pub fn write(&self, folder: &Path, spec: &Spec) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|error| Fault::writing(folder, &error))?;
        let text = serde_json::to_string(self).map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
        durable::replace(&Self::path(folder, spec), (text + "\n").as_bytes())
    }

    fn path(folder: &Path, spec: &Spec) -> PathBuf {
        folder.join(format!("{}.json", spec.name()))
    }

    /// Whether the run is as good as one that may spend `limit` and is to reach `target`.
    pub fn suffices(&self, limit: f64, target: f64) -> bool {
        match self.end {
            End::Target => self.target <= target && self.losses().iter().any(|loss| *loss <= target),
            End::Limit => self.limit >= limit,
            End::Diverged | End::Failed => true,
        }
    }

    /// The run as it was when it had spent `limit`: one that went on further, in a later rung or by a larger budget, is heard
    /// as one that did not.
    pub fn up_to(mut self, limit: f64) -> Self {
        let within = 1 + self.validation.iter().take_while(|at| at.gradient_equivalents < limit).count();
        let went_on = within < self.validation.len();
        // What comes after the limit is not heard, a failure without another loss neither.
        let failed_later = within == self.validation.len() && matches!(self.end, End::Diverged | End::Failed);
        if went_on || failed_later {
            self.validation.truncate(within);
            self.fine.retain(|step, _| self.validation.last().is_some_and(|last| *step <= last.step));
            (self.end, self.error, self.limit) = (End::Limit, None, limit);
        }
        if went_on {
            // These are of its last steps.
            (self.train_loss, self.metrics) = (None, BTreeMap::new());
        }
        self
    }

    /// Losses over an axis as the larger set gives them: those of the checkpoints that were evaluated again, and the others
    /// moved by the difference between the two sets there, interpolated over steps, and as at the nearest before and after.
    pub fn curve(&self, measure: Measure) -> Vec<(f64, f64)> {
        self.validation.iter().map(|at| measure.of(at)).zip(self.losses()).collect()
    }

    /// The steps between which [`Self::curve`] first comes down to a target: of the evaluation there, and of the one before.
    pub fn around(&self, target: f64) -> Vec<u64> {
        let first = self.losses().iter().position(|loss| *loss <= target);
        let around = first.map_or(&[][..], |at| &self.validation[at.saturating_sub(1)..=at]);
        around.iter().map(|at| at.step).collect()
    }

    /// The losses of [`Self::curve`].
    pub fn losses(&self) -> Vec<f64> {
        let loss_at = |step: &u64| self.validation.iter().find(|at| at.step == *step).map(|at| at.loss);
        let differences: BTreeMap<u64, f64> =
            self.fine.iter().filter_map(|(step, fine)| Some((*step, fine - loss_at(step)?))).collect();
        self.validation.iter().map(|at| at.loss + interpolated(&differences, at.step)).collect()
    }
}

/// A value between those of the steps around it; beyond the first and the last step theirs; 0 where there is none.
fn interpolated(values: &BTreeMap<u64, f64>, step: u64) -> f64 {
    match (values.range(..=step).next_back(), values.range(step..).next()) {
        (Some((before, low)), Some((after, high))) if before < after => {
            low + (high - low) * (step - before) as f64 / (after - before) as f64
        }
        (Some((_, value)), _) | (None, Some((_, value))) => *value,
        (None, None) => 0.0,
    }
}

fn evaluation(cost: &Cost, loss: f64) -> Evaluation {
    Evaluation {
        step: cost.step,
        loss,
        tokens: cost.tokens.saturating_sub(cost.line_search_tokens),
        line_search_tokens: cost.line_search_tokens,
        gradient_equivalents: cost.gradient_equivalents,
        flops: cost.flops,
        seconds: cost.step_seconds,
    }
}
