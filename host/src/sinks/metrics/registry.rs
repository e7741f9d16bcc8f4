//! The values of the metrics, behind the `metrics` facade, rendered in Prometheus' text format.

use super::table::{BUCKETS, Entry, Kind, OPTIMIZER_PREFIX, TABLE, well_known};
use crate::error::{Exit, Fault, Result};
use gauntlet_plugin_api::metadata::{Metadata as Plugin, MetricInfo};
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use std::collections::BTreeMap;

/// The most characters of a label's value or of a plugin's description.
const MAX_TEXT: usize = 200;
/// The most characters of a plugin's metric name.
const MAX_NAME: usize = 64;

const ORIGIN: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// The values of one run's metrics. Counters and histograms are there from the start, gauges from their first value.
pub struct Registry {
    recorder: PrometheusRecorder,
    /// Where the optimizer's metrics go, by the name that it reports.
    optimizer: BTreeMap<String, Key>,
}

impl Registry {
    /// All metrics of a run with this plugin.
    pub fn new(run: &str, plugin: &Plugin) -> Result<Self> {
        let mut builder = PrometheusBuilder::new().add_global_label("run", text(run));
        for entry in TABLE.iter().filter(|entry| entry.kind == Kind::Histogram) {
            let matcher = Matcher::Full(entry.name.into());
            let refused = |error| Fault::new(Exit::Internal, format!("metrics: {error}"));
            builder = builder.set_buckets_for_metric(matcher, &BUCKETS).map_err(refused)?;
        }
        let mut registry = Self { recorder: builder.build_recorder(), optimizer: BTreeMap::new() };
        TABLE.iter().for_each(|entry| registry.declare(entry));
        registry.optimizer.insert("gradient_norm".into(), key(&super::table::GRADIENT_NORM, &[]));
        plugin.metrics.iter().for_each(|metric| registry.declare_optimizer(&plugin.name, metric));
        Ok(registry)
    }

    fn declare(&self, entry: &Entry) {
        let values = entry.labels.first().map_or(vec![vec![]], |(_, values)| values.iter().map(|v| vec![*v]).collect());
        let keys = values.iter().map(|values| key(entry, values));
        match entry.kind {
            Kind::Counter => {
                self.recorder.describe_counter(entry.name.into(), None, entry.help.into());
                keys.for_each(|key| drop(self.recorder.register_counter(&key, &ORIGIN)));
            }
            Kind::Gauge => self.recorder.describe_gauge(entry.name.into(), None, entry.help.into()),
            Kind::Histogram => {
                self.recorder.describe_histogram(entry.name.into(), None, entry.help.into());
                keys.for_each(|key| drop(self.recorder.register_histogram(&key, &ORIGIN)));
            }
        }
    }

    /// A metric that the plugin declares: the host's own of that name, else one of the optimizer's.
    fn declare_optimizer(&mut self, plugin: &str, metric: &MetricInfo) {
        let key = match well_known(&metric.name) {
            Some(entry) => key(entry, &[]),
            None => {
                let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
                let name: String = metric.name.chars().take(MAX_NAME).map(plain).collect();
                let name = format!("{OPTIMIZER_PREFIX}{name}");
                let unit = if metric.unit.is_empty() { String::new() } else { format!(" ({})", metric.unit) };
                let help = text(&format!("{}{unit}", metric.help));
                self.recorder.describe_gauge(name.clone().into(), None, help.into());
                Key::from_parts(name, vec![Label::new("plugin", text(plugin))])
            }
        };
        self.optimizer.insert(metric.name.clone(), key);
    }

    /// Adds to a counter; `labels` are the values of its labels in order.
    pub fn add(&self, entry: &Entry, labels: &[&str], count: u64) {
        self.recorder.register_counter(&key(entry, labels), &ORIGIN).increment(count);
    }

    /// Sets a gauge; what is not finite is `NaN`.
    pub fn set(&self, entry: &Entry, labels: &[&str], value: f64) {
        self.set_key(&key(entry, labels), value);
    }

    /// Sets a metric that the optimizer reports; one that it did not declare is left out.
    pub fn set_optimizer(&self, name: &str, value: f64) {
        if let Some(key) = self.optimizer.get(name) {
            self.set_key(key, value);
        }
    }

    fn set_key(&self, key: &Key, value: f64) {
        self.recorder.register_gauge(key, &ORIGIN).set(if value.is_finite() { value } else { f64::NAN });
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, entry: &Entry, labels: &[&str], value: f64) {
        self.recorder.register_histogram(&key(entry, labels), &ORIGIN).record(value);
    }

    /// Everything in the text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.recorder.handle().render()
    }

    /// Sums up the histograms' observations; to be called now and then, or they pile up.
    pub fn run_upkeep(&self) {
        self.recorder.handle().run_upkeep();
    }
}

fn key(entry: &Entry, values: &[&str]) -> Key {
    let labels = entry.labels.iter().zip(values).map(|((name, _), value)| Label::new(*name, text(value)));
    Key::from_parts(entry.name, labels.collect::<Vec<_>>())
}

/// A text from outside as a label's value or a description: at most [`MAX_TEXT`] characters, none of them a control
/// character. A backslash is doubled here, since the exporter takes a pair for one that is escaped already; quotes are
/// escaped there.
fn text(text: &str) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(MAX_TEXT).map(shown).collect::<String>().replace('\\', r"\\")
}
