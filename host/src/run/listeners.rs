//! Everything that hears a run's events.

use crate::config::Config;
use crate::error::{Fault, Result};
use crate::events::Event;
use crate::sinks::{Metrics, Progress, Record, say};
use gauntlet_plugin_api::metadata::Metadata;
use std::path::Path;

/// The record, the metrics and the terminal.
pub struct Listeners {
    record: Record,
    metrics: Option<Metrics>,
    progress: Progress,
    failed: Option<Fault>,
}

/// Serves the metrics, where they are wanted, and says where. It comes before anything is written, since it may fail.
pub fn metrics(config: &Config, plugin: &Metadata) -> Result<Option<Metrics>> {
    let dir = std::path::absolute(&config.run.dir).unwrap_or_default();
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let metrics = Metrics::open(&config.metrics, &name, plugin)?;
    metrics.iter().flat_map(Metrics::notices).for_each(|line| say(line));
    Ok(metrics)
}

impl Listeners {
    pub fn open(dir: &Path, metrics: Option<Metrics>) -> Result<Self> {
        let record = Record::open(&dir.join("events.jsonl"))?;
        Ok(Self { record, metrics, progress: Progress::new(), failed: None })
    }

    pub fn hear(&mut self, event: &Event) {
        self.progress.show(event);
        if let Some(metrics) = &mut self.metrics {
            metrics.hear(event);
        }
        if let Err(fault) = self.record.write(event) {
            self.failed.get_or_insert(fault);
        }
    }

    /// The record is part of the run: when it cannot be written, the run ends.
    pub fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Syncs the record; gives the metrics, which are closed when all of the run's files are complete.
    pub fn close(mut self) -> (Result<()>, Option<Metrics>) {
        (self.check().and_then(|()| self.record.sync()), self.metrics)
    }
}
