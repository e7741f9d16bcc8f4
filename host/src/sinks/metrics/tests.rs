//! What a run's events become, read back by a strict parser of the text format.

use super::table::{Entry, Kind, OPTIMIZER};
use super::*;
use crate::events::{Evaluated, Finished, Started, Step};
use gauntlet_plugin_api::metadata::MetricInfo;
use openmetrics_parser::prometheus::parse_prometheus;
use openmetrics_parser::{HistogramValue, PrometheusType, PrometheusValue};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

/// A scrape: each family's type and help, and its samples by their labels without `run`, as `a=1,b=2`.
struct Scrape(BTreeMap<String, (PrometheusType, String, BTreeMap<String, PrometheusValue>)>);

impl Scrape {
    fn of(text: &str) -> Self {
        let parsed = parse_prometheus(text).unwrap_or_else(|error| panic!("{error:?} in\n{text}"));
        let family = |(name, family): (String, openmetrics_parser::MetricFamily<PrometheusType, PrometheusValue>)| {
            let mut samples = BTreeMap::new();
            for sample in family.iter_samples() {
                let labels = sample.get_labelset().unwrap();
                let labels: BTreeMap<_, _> = labels.iter().filter(|(label, _)| *label != "run").collect();
                let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
                samples.insert(labels.join(","), sample.value.clone());
            }
            (name, (family.family_type.clone(), family.help.clone(), samples))
        };
        Self(parsed.families.into_iter().map(family).collect())
    }

    fn value(&self, name: &str, labels: &str) -> Option<f64> {
        match self.0.get(name)?.2.get(labels)? {
            PrometheusValue::Gauge(value) | PrometheusValue::Unknown(value) => Some(value.as_f64()),
            PrometheusValue::Counter(counter) => Some(counter.value.as_f64()),
            _ => None,
        }
    }

    fn histogram(&self, entry: &Entry, labels: &str) -> &HistogramValue {
        match &self.0[entry.name].2[labels] {
            PrometheusValue::Histogram(histogram) => histogram,
            other => panic!("{other:?}"),
        }
    }

    /// A gauge's or counter's value without labels.
    fn get(&self, entry: &Entry) -> Option<f64> {
        self.value(entry.name, "")
    }
}

fn plugin(metrics: &[(&str, &str, &str)]) -> Plugin {
    let metric = |(name, unit, help): &(&str, &str, &str)| MetricInfo {
        name: (*name).into(),
        unit: (*unit).into(),
        help: (*help).into(),
    };
    Plugin {
        name: "full-gn".into(),
        version: "1.0.0".into(),
        abi: "1.0.0".into(),
        min_host_minor: 0,
        needs: vec![],
        schema: serde_json::Value::Null,
        metrics: metrics.iter().map(metric).collect(),
        state_version: 0,
        uses_schedule: true,
        answers: vec![],
    }
}

fn started() -> Event {
    Event::Started(Started {
        version: "0.1.0".into(),
        commit: "0123456789ab".into(),
        libtorch: "2.13.0".into(),
        device: "cpu".into(),
        threads: 2,
        seed: 7,
        plugin: "full-gn".into(),
        plugin_sha256: "f".repeat(64),
        model: "tiny".into(),
        num_params: 1_000_000,
        state_bytes: 8_000_000,
        tokens_per_step: 2048,
        micro_batch_size: 4,
        data: "d".repeat(64),
        epoch_tokens: 4096,
        max_steps: Some(100),
        lr: Some(0.02),
        timing: "synchronised".into(),
        checkpoint_seconds: Some(900.0),
        checkpoint_steps: Some(50),
    })
}

fn step(step: u64, metrics: &[(&str, f64)]) -> Step {
    Step {
        step,
        loss: Some(2.0),
        schedule: 0.5,
        tokens: 2048 * step,
        line_search_tokens: 512 * step,
        flops: 1e12 * step as f64,
        gradient_equivalents: 3.5 * step as f64,
        seconds: 0.06,
        call_seconds: 0.05,
        data_seconds: 0.01,
        param_norm: Some(12.5),
        calls: [("gradient".to_owned(), 2), ("not_a_call".to_owned(), 1)].into(),
        rejected: None,
        metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
    }
}

fn resumed(step: u64, checkpoint: &str) -> Event {
    let (tokens, line_search_tokens, flops) = (2048 * step, 512 * step, 1e12 * step as f64);
    Event::Resumed { step, checkpoint: checkpoint.into(), tokens, line_search_tokens, flops }
}

fn evaluated(loss: f64) -> Event {
    let bits_per_byte = Some(loss / std::f64::consts::LN_2);
    Event::Evaluated(Evaluated { step: 1, loss, bits_per_byte, tokens: 10, at: "params".into(), seconds: 0.3 })
}

fn skipped(exit_code: u8) -> Event {
    Event::Skipped { step: 1, reason: "why".into(), exit_code, first_sequence: 0, sequences: 16 }
}

fn finished(reason: &str, exit_code: u8) -> Event {
    let (reason, error, validation_loss) = (reason.into(), None, None);
    Event::Finished(Finished { step: 1, reason, exit_code, error, validation_loss, seconds: 1.0 })
}

/// What a scrape sees after these events.
fn after(plugin: &Plugin, events: &[Event]) -> Scrape {
    let registry = Arc::new(Registry::new("run", plugin).unwrap());
    let mut view = View::new(registry.clone(), Some(4e13));
    events.iter().for_each(|event| view.hear(event));
    Scrape::of(&Live { registry, made: Arc::default() }.metrics())
}

/// Every entry's metric was set once.
fn everything() -> (Plugin, Vec<Event>) {
    let own = table::TABLE.iter().filter(|entry| entry.group == OPTIMIZER);
    let own: Vec<&str> = own.map(|entry| entry.name.strip_prefix("gauntlet_").unwrap()).collect();
    let declared: Vec<_> = own.iter().map(|name| (*name, "", "Its own words")).collect();
    let values: Vec<_> = own.iter().map(|name| (*name, 0.25)).collect();
    let (level, message) = ("warn".into(), "careful".into());
    let checkpoint = Event::Checkpoint { step: 3, path: "x".into(), bytes: 4000, seconds: 0.2, held_seconds: 0.2 };
    let events = vec![
        started(),
        resumed(2, "x"),
        Event::Step(step(3, &values)),
        evaluated(1.5),
        Event::Log { level, message },
        checkpoint,
        Event::NonFinite { step: 3, place: "loss".into() },
        skipped(79),
        finished("max_steps", 0),
    ];
    (plugin(&declared), events)
}

#[test]
fn counters_and_histograms_are_zero_before_the_first_step() {
    let scrape = after(&plugin(&[]), &[started()]);
    for entry in table::TABLE.iter().filter(|entry| entry.kind != Kind::Gauge) {
        let labels = match entry.labels {
            [] => vec![String::new()],
            [(label, values)] => values.iter().map(|value| format!("{label}={value}")).collect(),
            more => panic!("{more:?}"),
        };
        for labels in labels {
            match entry.kind {
                Kind::Counter => assert_eq!(scrape.value(entry.name, &labels), Some(0.0), "{}", entry.name),
                _ => assert_eq!(scrape.histogram(entry, &labels).count, Some(0), "{}", entry.name),
            }
        }
    }
    for unknown in [&table::TRAIN_LOSS, &table::VAL_LOSS, &table::ETA, &table::GRADIENT_NORM] {
        assert_eq!(scrape.get(unknown), None, "{} is told before it is known", unknown.name);
    }
}

#[test]
fn every_entry_is_exported_with_its_type_and_help_and_nothing_else_is() {
    let (plugin, events) = everything();
    let scrape = after(&plugin, &events);
    for Entry { name, kind, help, labels, .. } in table::TABLE.iter().copied() {
        let (found, text, samples) = scrape.0.get(*name).unwrap_or_else(|| panic!("{name} is not exported"));
        let expected = match kind {
            Kind::Counter => PrometheusType::Counter,
            Kind::Gauge => PrometheusType::Gauge,
            Kind::Histogram => PrometheusType::Histogram,
        };
        assert_eq!((found, text.as_str()), (&expected, *help), "{name}");
        let names = |sample: &String| {
            sample.split(',').filter(|s| !s.is_empty()).map(|s| s.split('=').next().unwrap().to_owned()).collect()
        };
        let expected: BTreeSet<String> = labels.iter().map(|(label, _)| (*label).to_owned()).collect();
        samples
            .keys()
            .for_each(|sample| assert_eq!(BTreeSet::<String>::from_iter::<Vec<_>>(names(sample)), expected, "{name}"));
    }
    assert_eq!(scrape.0.len(), table::TABLE.len());
}

#[test]
fn steps_evaluations_and_checkpoints_are_seen() {
    let losses =
        [Event::Step(Step { loss: Some(3.0), ..step(1, &[]) }), Event::Step(step(2, &[("gradient_norm", 0.5)]))];
    let checkpoint = Event::Checkpoint { step: 2, path: "x".into(), bytes: 4000, seconds: 0.2, held_seconds: 0.2 };
    let events = [&[started()], &losses[..], &[evaluated(1.5), evaluated(1.75), checkpoint]].concat();
    let scrape = after(&plugin(&[]), &events);
    let expected = [
        (&table::STEPS, 2.0),
        (&table::FLOPS, 2e12),
        (&table::RUN_STEPS, 2.0),
        (&table::RUN_GRADIENT_EQUIVALENTS, 7.0),
        (&table::TARGET_STEPS, 100.0),
        (&table::EPOCHS, 1.0),
        (&table::TRAIN_LOSS, 2.0),
        (&table::TRAIN_LOSS_EMA, 2.98),
        (&table::VAL_LOSS, 1.75),
        (&table::BEST_VAL_LOSS, 1.5),
        (&table::EVALUATIONS, 2.0),
        (&table::RISING_EVALUATIONS, 1.0),
        (&table::CHECKPOINT_INTERVAL, 900.0),
        (&table::CHECKPOINT_INTERVAL_STEPS, 50.0),
        (&table::GRADIENT_NORM, 0.5),
        (&table::SCHEDULE, 0.5),
        (&table::LEARNING_RATE, 0.01),
        (&table::PARAM_NORM, 12.5),
        (&table::BITS_PER_BYTE, 1.75 / std::f64::consts::LN_2),
        (&table::MFU, 1e12 / 0.06 / 4e13),
        (&table::CHECKPOINT_STEPS, 2.0),
        (&table::CHECKPOINT_SIZE, 4000.0),
        (&table::PARAMETERS, 1e6),
        (&table::RESUMES, 0.0),
    ];
    for (entry, value) in expected {
        let found = scrape.get(entry).unwrap();
        assert!((found - value).abs() < 1e-9, "{}: {found}, expected {value}", entry.name);
    }
    assert_eq!(scrape.value("gauntlet_tokens_total", "purpose=line_search"), Some(1024.0));
    assert_eq!(scrape.value("gauntlet_run_tokens", "purpose=step"), Some(4096.0));
    assert_eq!(scrape.value("gauntlet_checkpoints_total", "outcome=committed"), Some(1.0));
    assert_eq!(scrape.value("gauntlet_run_state", "state=training"), Some(1.0));
    let build = "commit=0123456789ab,libtorch=2.13.0,version=0.1.0";
    assert_eq!(scrape.value("gauntlet_build_info", build), Some(1.0));
    let steps = scrape.histogram(&table::STEP_DURATION, "");
    let within = |bound: f64| steps.buckets.iter().find(|bucket| bucket.upper_bound == bound).unwrap().count.as_f64();
    assert_eq!((within(0.05), within(0.1), within(f64::INFINITY), steps.count), (0.0, 2.0, 2.0, Some(2)));
    let phase = |name: &str| scrape.histogram(&table::PHASE_DURATION, &format!("phase={name}")).sum.unwrap().as_f64();
    assert!((phase("model") - 0.08).abs() < 1e-12 && (phase("optimizer") - 0.02).abs() < 1e-12);
    assert!((phase("data") - 0.02).abs() < 1e-12);
    assert_eq!(scrape.value("gauntlet_calls_total", "call=gradient"), Some(4.0));
    assert!(!scrape.0["gauntlet_calls_total"].2.contains_key("call=not_a_call"));
    assert!((phase("eval") - 0.6).abs() < 1e-12 && (phase("checkpoint") - 0.2).abs() < 1e-12);
    assert!(scrape.get(&table::RESIDENT_MEMORY).unwrap() > 1e5);
}

#[test]
fn after_a_resume_counters_count_this_process_and_gauges_the_run() {
    let scrape = after(&plugin(&[]), &[started(), resumed(40, "x"), Event::Step(step(41, &[]))]);
    assert_eq!((scrape.get(&table::STEPS), scrape.get(&table::RUN_STEPS)), (Some(1.0), Some(41.0)));
    assert_eq!(scrape.value("gauntlet_tokens_total", "purpose=step"), Some(2048.0));
    assert_eq!(scrape.value("gauntlet_run_tokens", "purpose=step"), Some(41.0 * 2048.0));
    assert_eq!((scrape.get(&table::FLOPS), scrape.get(&table::RUN_FLOPS)), (Some(1e12), Some(41e12)));
    assert_eq!(scrape.get(&table::RESUMES), Some(1.0));
    let from_start = after(&plugin(&[]), &[started(), resumed(0, "")]);
    assert_eq!((from_start.get(&table::RESUMES), from_start.get(&table::CHECKPOINT_STEPS)), (Some(0.0), None));
}

#[test]
fn failures_are_counted_by_their_cause_and_the_end_by_its_state() {
    let nonfinite = |place: &str| Event::NonFinite { step: 1, place: place.into() };
    let failed = Event::CheckpointFailed { step: 1, reason: "no space".into() };
    let events =
        [nonfinite("loss"), skipped(79), skipped(80), skipped(80), nonfinite("params"), nonfinite("elsewhere")];
    let scrape = after(&plugin(&[]), &[&[started()], &events[..], &[failed, finished("error", 79)]].concat());
    let expected = [
        ("gauntlet_skipped_steps_total", "reason=nonfinite", 1.0),
        ("gauntlet_skipped_steps_total", "reason=plugin", 2.0),
        ("gauntlet_nonfinite_total", "where=loss", 1.0),
        ("gauntlet_nonfinite_total", "where=params", 1.0),
        ("gauntlet_nonfinite_total", "where=validation", 0.0),
        ("gauntlet_plugin_errors_total", "", 2.0),
        ("gauntlet_checkpoints_total", "outcome=failed", 1.0),
    ];
    for (name, labels, value) in expected {
        assert_eq!(scrape.value(name, labels), Some(value), "{name} {labels}");
    }
    let rejected = Step { rejected: Some("no descent".into()), loss: None, ..step(1, &[]) };
    let scrape = after(&plugin(&[]), &[started(), Event::Step(rejected)]);
    assert_eq!(scrape.get(&table::REJECTED), Some(1.0));
}

#[test]
fn the_state_follows_the_run() {
    let table = [
        (started(), "training"),
        (Event::Evaluating { step: 1 }, "evaluating"),
        (evaluated(1.0), "training"),
        (Event::Checkpointing { step: 1 }, "checkpointing"),
        (Event::CheckpointStaged { step: 1, bytes: 1, seconds: 0.1 }, "training"),
        (finished("error", 80), "failed"),
        (finished("stopped", 75), "stopped"),
        (finished("target_loss", 0), "finished"),
    ];
    for (event, state) in table {
        let scrape = after(&plugin(&[]), &[event]);
        let states = &scrape.0["gauntlet_run_state"].2;
        let on: Vec<&String> =
            states.keys().filter(|labels| scrape.value("gauntlet_run_state", labels) == Some(1.0)).collect();
        assert_eq!((on, states.len()), (vec![&format!("state={state}")], 7));
    }
}

#[test]
fn a_loss_far_above_its_average_is_a_spike() {
    let at = |index: u64, loss: f64| Event::Step(Step { loss: Some(loss), ..step(index, &[]) });
    let wave = |index: u64| 2.0 + 0.1 * f64::from((index % 5) as u32);
    let calm: Vec<Event> = (1..=60).map(|index| at(index, wave(index))).collect();
    let spikes = |events: &[Event]| after(&plugin(&[]), events).get(&table::LOSS_SPIKES);
    assert_eq!(spikes(&calm), Some(0.0));
    assert_eq!(spikes(&[&calm[..], &[at(61, 4.0), at(62, wave(62)), at(63, 0.5)]].concat()), Some(1.0));
    assert_eq!(spikes(&[&calm[..10], &[at(11, 4.0)]].concat()), Some(0.0), "too early to tell");
}

#[test]
fn every_call_that_an_optimizer_can_make_is_counted() {
    let counted = |name: &str| table::CALLS.labels[0].1.contains(&name);
    for (call, _) in gauntlet_plugin_abi::Capability::ALL {
        // From 40 on: calls that do not exist yet, and the average, which computes nothing.
        assert!(call.0 >= 40 || counted(&call.name()), "{}", call.name());
    }
}

#[test]
fn values_that_are_not_numbers_are_nan() {
    let none = Event::Step(Step { loss: None, flops: f64::INFINITY, ..step(2, &[]) });
    let registry = Arc::new(Registry::new("run", &plugin(&[])).unwrap());
    let mut view = View::new(registry.clone(), Some(4e13));
    [started(), Event::Step(step(1, &[])), none].iter().for_each(|event| view.hear(event));
    let text = registry.render();
    assert!(text.contains("gauntlet_train_loss_nats{run=\"run\"} NaN\n"), "{text}");
    let scrape = Scrape::of(&text);
    assert!(scrape.get(&table::TRAIN_LOSS).unwrap().is_nan() && scrape.get(&table::RUN_FLOPS).unwrap().is_nan());
    assert_eq!(scrape.get(&table::TRAIN_LOSS_EMA), Some(2.0));
}

#[test]
fn metrics_of_the_plugin_are_gauges_with_their_unit_and_help() {
    let declared =
        [("damping", "", "Of its own"), ("line_search_rate", "ratio", "Step size"), ("Odd name-1", "", "Odd")];
    let values = [("damping", 0.125), ("line_search_rate", 0.75), ("Odd name-1", 2.0), ("undeclared", 1.0)];
    let scrape = after(&plugin(&declared), &[started(), Event::Step(step(1, &values))]);
    assert_eq!(scrape.get(&table::DAMPING), Some(0.125));
    assert_eq!(scrape.value("gauntlet_optimizer_line_search_rate", "plugin=full-gn"), Some(0.75));
    let (kind, help, _) = &scrape.0["gauntlet_optimizer_line_search_rate"];
    assert_eq!((kind, help.as_str()), (&PrometheusType::Gauge, "Step size (ratio)"));
    assert_eq!(scrape.value("gauntlet_optimizer_odd_name_1", "plugin=full-gn"), Some(2.0));
    assert!(!scrape.0.keys().any(|name| name.contains("undeclared")));
    let later = after(&plugin(&declared), &[started(), Event::Step(step(1, &values)), Event::Step(step(2, &[]))]);
    assert_eq!(later.get(&table::DAMPING), Some(0.125), "the last value stays");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn names_from_outside_cannot_break_the_format(name in "(?s)[\"\\\\\n}{,=# a-z]{0,12}|.{0,12}", help in "(?s).{0,12}") {
        let mut odd = plugin(&[("m", &name, &help)]);
        odd.name = name.clone();
        let registry = Arc::new(Registry::new(&name, &odd).unwrap());
        View::new(registry.clone(), Some(4e13)).hear(&Event::Step(step(1, &[("m", 1.0)])));
        let text = registry.render();
        let parsed = parse_prometheus(&text).map_err(|error| TestCaseError::fail(format!("{error:?} in\n{text}")))?;
        let family = &parsed.families["gauntlet_optimizer_m"];
        let sample = family.iter_samples().next().unwrap();
        let labels = sample.get_labelset().unwrap();
        let shown: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        prop_assert_eq!(labels.get_label_value("run"), Some(shown.as_str()));
        prop_assert_eq!(labels.get_label_value("plugin"), Some(shown.as_str()));
        prop_assert!(text.lines().all(|line| line.is_empty() || line.starts_with("# ") || line.starts_with("gauntlet_")));
    }
}

#[test]
fn texts_from_outside_are_cut() {
    let long = "x".repeat(1 << 20);
    let registry = Registry::new(&long, &plugin(&[(&long, &long, &long)])).unwrap();
    registry.set_optimizer(&long, 1.0);
    let longest = registry.render().lines().map(str::len).max();
    assert!(longest.is_some_and(|length| length < 700), "{longest:?}");
}

fn config(listen: SocketAddr, required: bool) -> config::Metrics {
    config::Metrics { listen, required, ..config::Metrics::default() }
}

fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn a_run_is_served_until_it_ends() {
    let any = "127.0.0.1:0".parse().unwrap();
    let mut metrics = Metrics::open(&config(any, true), "quickstart", &plugin(&[])).unwrap().unwrap();
    let address = metrics.address().unwrap();
    assert_eq!(metrics.notices(), [format!("metrics at http://{address}/metrics")]);
    metrics.hear(&started());
    let text = scrape(address);
    assert!(text.contains("gauntlet_steps_total{run=\"quickstart\"} 0\n"), "{text}");
    assert_eq!(Scrape::of(&text).get(&table::PARAMETERS), Some(1e6));
    drop(metrics);
    assert!(TcpStream::connect(address).is_err());
    assert!(
        Metrics::open(&config::Metrics { enabled: false, ..config(any, false) }, "x", &plugin(&[])).unwrap().is_none()
    );
}

#[test]
fn the_end_waits_for_a_scrape_only_where_there_were_some() {
    let lingering = config::Metrics { linger_seconds: 3600, ..config("127.0.0.1:0".parse().unwrap(), true) };
    let mut metrics = Metrics::open(&lingering, "x", &plugin(&[])).unwrap().unwrap();
    let address = metrics.address().unwrap();
    metrics.hear(&finished("max_steps", 0));
    assert_eq!(metrics.close(&|| false), [""; 0], "nobody has scraped");
    let scraped = scrape(address);
    assert_eq!(metrics.close(&|| true), [""; 0], "in a hurry");
    assert!(scraped.contains("gauntlet_run_state{run=\"x\",state=\"finished\"} 1\n"), "{scraped}");
    let last = std::thread::spawn(move || {
        std::thread::sleep(2 * Duration::from_millis(100));
        scrape(address)
    });
    assert_eq!(metrics.close(&|| false), [""; 0]);
    drop(metrics);
    assert_eq!(Scrape::of(&last.join().unwrap()).value("gauntlet_run_state", "state=finished"), Some(1.0));
}

#[test]
fn the_last_metrics_are_written_and_pushed_and_failures_are_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.prom");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let with = |textfile: &std::path::Path| config::Metrics {
        enabled: false,
        textfile: Some(textfile.to_owned()),
        push_gateway: Some(format!("http://{closed}")),
        ..config::Metrics::default()
    };
    let mut metrics = Metrics::open(&with(&path), "x", &plugin(&[])).unwrap().unwrap();
    assert_eq!((metrics.address(), metrics.notices()), (None, &[][..]), "nothing is served");
    [started(), Event::Step(step(1, &[])), finished("max_steps", 0)].iter().for_each(|event| metrics.hear(event));
    let refused = "warning: `metrics.push_gateway`: the last metrics were not pushed: found connection refused";
    assert_eq!(metrics.close(&|| false), [refused]);
    let scrape = Scrape::of(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(scrape.value("gauntlet_run_state", "state=finished"), Some(1.0));
    assert_eq!(scrape.get(&table::STEPS), Some(1.0));
    let nowhere = Metrics::open(&with(&folder.path().join("no/run.prom")), "x", &plugin(&[])).unwrap().unwrap();
    let warnings = nowhere.close(&|| false);
    assert!(warnings[0].starts_with("warning: `metrics.textfile`: cannot write `"), "{warnings:?}");
}

#[test]
fn a_port_in_use_is_a_warning_or_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let expected = format!(
        "`metrics.listen`: cannot listen on `{address}`: found address already in use, expected a free address of this \
         machine; hint: set `metrics.listen` to another port, or to port 0 for any"
    );
    let fault = Metrics::open(&config(address, true), "x", &plugin(&[])).err().unwrap();
    assert_eq!((fault.exit, fault.to_string()), (Exit::Usage, expected.clone()));
    let mut metrics = Metrics::open(&config(address, false), "x", &plugin(&[])).unwrap().unwrap();
    assert_eq!(metrics.notices(), [format!("warning: {expected}; the run goes on without metrics until it is free")]);
    metrics.hear(&started());
    assert_eq!(metrics.address(), None);
}

#[test]
fn addresses_that_are_not_here_or_open_to_others_are_warned_of() {
    let elsewhere = "192.0.2.1:0".parse().unwrap();
    let metrics = Metrics::open(&config(elsewhere, false), "x", &plugin(&[])).unwrap().unwrap();
    assert!(metrics.notices()[0].contains("found cannot assign requested address"), "{:?}", metrics.notices());
    let open = Metrics::open(&config("0.0.0.0:0".parse().unwrap(), true), "x", &plugin(&[])).unwrap().unwrap();
    assert!(
        open.notices()[0].starts_with("warning: `metrics.listen`: other machines can read"),
        "{:?}",
        open.notices()
    );
    assert!(open.notices()[1].starts_with("metrics at http://0.0.0.0:"));
}
