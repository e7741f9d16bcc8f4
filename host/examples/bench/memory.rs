//! The peak memory of a training step of paper-45m with AdamW: what the process holds beyond its libraries.

use anyhow::Result;
use gauntlet::model::param_specs;
use gauntlet::plugin::PluginOptimizer;
use serde_json::json;

use crate::drive::{Arguments, Round, Subject};
use crate::inputs::{self, Inputs};
use crate::{resident, session};

pub struct Memory {
    before: f64,
    optimizer: PluginOptimizer,
    step: u64,
}

impl Memory {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        resident::load_libraries();
        let before = resident::now()?;
        let inputs = Inputs::new(inputs::paper_45m()?, 8, 128, arguments)?;
        inputs.write(&arguments.folder)?;
        let (specs, problem) = (param_specs(inputs.model.config()), Box::new(inputs.problem()));
        let session = session::start(problem, specs, inputs.params, inputs.sequences)?;
        let config = json!({ "lr": 1e-4, "betas": [0.9, 0.95], "weight_decay": 0.1 });
        Ok(Self { before, optimizer: session::optimizer("adam", session, &config)?, step: 0 })
    }

    /// One step; gives its loss.
    fn step(&mut self) -> Result<f64> {
        let loss = self.optimizer.step(self.step)?.loss;
        self.step += 1;
        Ok(loss)
    }
}

impl Subject for Memory {
    /// The losses of three steps.
    fn check(&mut self) -> Result<Vec<f64>> {
        (0..3).map(|_| self.step()).collect()
    }

    fn round(&mut self) -> Result<Round> {
        resident::forget_peak()?;
        self.step()?;
        Ok(vec![("bytes", resident::peak()? - self.before)])
    }
}
