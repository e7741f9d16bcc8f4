//! What hearing a step costs beside the step: the record, the metrics and the terminal's line, for the quickstart.

use std::collections::BTreeMap;

use anyhow::Result;
use gauntlet::config;
use gauntlet::events::{Event, Step};
use gauntlet::model::{ModelConfig, param_specs};
use gauntlet::plugin::{Plugin, PluginOptimizer};
use gauntlet::sinks::{Metrics, Progress, Record};
use serde_json::json;

use crate::drive::{Arguments, Round, Subject, seconds};
use crate::inputs::Inputs;
use crate::session;

/// Steps and events of a round.
const REPEATS: u32 = 40;

pub struct Listening {
    record: Record,
    metrics: Option<Metrics>,
    progress: Progress,
    optimizer: PluginOptimizer,
    step: u64,
    heard: u64,
}

/// The quickstart's model and data with the plugin `adam`, and its metrics on a free port.
pub fn quickstart(arguments: &Arguments) -> Result<(PluginOptimizer, Option<Metrics>)> {
    let inputs = Inputs::new(ModelConfig::default(), 4 * 4096, 128, arguments)?;
    let (specs, problem) = (param_specs(inputs.model.config()), Box::new(inputs.problem()));
    let session = session::start(problem, specs, inputs.params, 4)?;
    let optimizer = session::optimizer("adam", session, &json!({ "lr": 2e-3 }))?;
    let metadata = Plugin::load(&session::plugin_path("adam")?, None)?.metadata;
    let settings = config::Metrics { listen: ([127, 0, 0, 1], 0).into(), ..config::Metrics::default() };
    Ok((optimizer, Metrics::open(&settings, "bench", &metadata)?))
}

impl Listening {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let (optimizer, metrics) = quickstart(arguments)?;
        let record = Record::open(&arguments.folder.join("events.jsonl"))?;
        Ok(Self { record, metrics, progress: Progress::new(), optimizer, step: 0, heard: 0 })
    }

    fn step(&mut self) -> Result<()> {
        self.optimizer.step(self.step)?;
        self.step += 1;
        Ok(())
    }

    fn hear(&mut self) -> Result<()> {
        self.heard += 1;
        let event = Event::Step(Step {
            step: self.heard,
            loss: Some(2.0),
            schedule: 1.0,
            tokens: 512 * self.heard,
            line_search_tokens: 0,
            flops: 1e9,
            gradient_equivalents: self.heard as f64,
            seconds: 0.05,
            call_seconds: 0.04,
            data_seconds: 0.001,
            param_norm: Some(30.0),
            calls: BTreeMap::from([("gradient".into(), 1)]),
            rejected: None,
            metrics: BTreeMap::from([("gradient_norm".into(), 1.0)]),
        });
        self.progress.show(&event);
        if let Some(metrics) = &mut self.metrics {
            metrics.hear(&event);
        }
        Ok(self.record.write(&event)?)
    }
}

impl Subject for Listening {
    fn check(&mut self) -> Result<Vec<f64>> {
        self.step()?;
        self.hear()?;
        Ok(vec![])
    }

    fn round(&mut self) -> Result<Round> {
        let step = seconds(REPEATS, || self.step())?;
        Ok(vec![("step", step), ("hear", seconds(REPEATS, || self.hear())?)])
    }
}
