//! Real runs under a real Prometheus and a real Pushgateway.

use super::board::{boards, expressions, queries};
use super::promql::filled;
use super::server::{Server, free_port, get, has, until};
use super::{alerts, file};
use crate::built::{GAUNTLET, fixture, plugin};
use crate::corpus::Run;
use crate::program::without_own;
use crate::skipped::skipped;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// What promtool has against the metrics: the loss in bits a byte is a quantity of its own, whose name says its unit.
const KNOWN: &str = "gauntlet_val_bits_per_byte use base unit \"bytes\" instead of \"bits\"";

/// A run that goes on until it is stopped.
fn endless(plugin: &Path, name: &str, port: u16) -> Run {
    let run = Run::of(plugin).set("train.max_steps=1000000").set("eval.every_steps=25").set("metrics.enabled=true");
    let run = run.set(format!("run.dir={name}")).set(format!("metrics.listen=127.0.0.1:{port}"));
    run.set("metrics.peak_flops=1e11").set("checkpoint.every_steps=50")
}

/// Second-order runs, which report what others do not, and one that meets values that are not finite and goes on.
fn runs(ports: [u16; 3]) -> [Run; 3] {
    let full_gn = endless(plugin("full-gn"), "full-gn", ports[1]).set("optimizer.config.inner_batch_size=1");
    let inner = "{muon = {lr = 0.02, adam = {lr = 0.01, weight_decay = 0.0}}}";
    let full_gn = full_gn.set("optimizer.config.clip_norm=1.0").set(format!("optimizer.config.inner={inner}"));
    let faulty = endless(fixture("misbehaving"), "faulty", ports[2]).set("optimizer.config.mode=nan-loss");
    let batches: Vec<String> = (1..9).map(|i| (400 * i).to_string()).collect();
    let faulty = faulty.set(format!("optimizer.config.batches=[{}]", batches.join(", "))).set("train.on_error=skip");
    [endless(plugin("hessian-free"), "hessian-free", ports[0]), full_gn, faulty]
}

fn start(run: &Run, port: u16) -> Server {
    let mut command = Command::new(GAUNTLET);
    without_own(&mut command).args(run.args(&[])).current_dir(run.folder.path());
    Server::start(&mut command, port, "/healthz")
}

/// Prometheus over these runs, with the shipped rules and short intervals.
fn prometheus(folder: &Path, targets: [u16; 3]) -> Server {
    let targets = targets.map(|port| format!("'127.0.0.1:{port}'")).join(", ");
    let config = format!(
        "global: {{ scrape_interval: 500ms, evaluation_interval: 1s }}\n\
         rule_files: ['{}']\n\
         scrape_configs:\n  - job_name: gauntlet\n    static_configs: [{{ targets: [{targets}] }}]\n",
        file("prometheus/rules.yml").display()
    );
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    let port = free_port();
    let mut command = Command::new("prometheus");
    command.arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=data").current_dir(folder);
    Server::start(command.arg(format!("--web.listen-address=127.0.0.1:{port}")), port, "/-/ready")
}

/// The series of an expression over the last seconds.
fn series(prometheus: &Server, expr: &str) -> usize {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let [start, end] = [now - 5.0, now].map(|time| format!("{time:.3}"));
    let parameters = [("query", expr), ("start", &start), ("end", &end), ("step", "1")];
    prometheus.data("/api/v1/query_range", &parameters)["result"].as_array().unwrap().len()
}

fn holds(prometheus: &Server, expr: &str) -> bool {
    !prometheus.data("/api/v1/query", &[("query", expr)])["result"].as_array().unwrap().is_empty()
}

/// The values that a variable offers: `label_values(SELECTOR, LABEL)`.
fn values(prometheus: &Server, query: &str) -> BTreeSet<String> {
    let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
    let (selector, label) = inside.rsplit_once(',').unwrap();
    let path = format!("/api/v1/label/{}/values", label.trim());
    let values = prometheus.data(&path, &[("match[]", &filled(selector, ""))]);
    values.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_real_prometheus_answers_every_panel_and_an_alert_fires() {
    if !has("prometheus") {
        return skipped("no prometheus for the dashboards over real runs");
    }
    let ports = [free_port(), free_port(), free_port()];
    let runs = runs(ports);
    let [mut hessian_free, _full_gn, _faulty] = [0, 1, 2].map(|i| start(&runs[i], ports[i]));
    let folder = tempfile::tempdir().unwrap();
    let prometheus = prometheus(folder.path(), ports);

    for (name, board) in boards() {
        for (variable, query) in queries(&board) {
            let all =
                until(&format!("{name}: {query}"), || Some(values(&prometheus, query)).filter(|all| all.len() == 3));
            let faulty = ["faulty", "misbehaving"].iter().any(|value| all.contains(*value));
            assert!(all.contains("hessian-free") && all.contains("full-gn") && faulty, "{}: {all:?}", variable["name"]);
        }
        let mut waiting: Vec<String> = expressions(&board).iter().map(|raw| filled(raw, "5s")).collect();
        assert!(waiting.len() > 20);
        let what = |waiting: &[String]| format!("{name}: series for {}", waiting.join("\n"));
        let started = std::time::Instant::now();
        while !waiting.is_empty() {
            waiting.retain(|expr| series(&prometheus, expr) == 0);
            assert!(started.elapsed().as_secs() < 40, "{}", what(&waiting));
        }
    }

    until("GauntletNonFinite fires", || {
        let fires = "ALERTS{alertname=\"GauntletNonFinite\", alertstate=\"firing\", run=\"faulty\"}";
        holds(&prometheus, fires).then_some(())
    });
    // A validation loss may rise by chance within a few steps of a tiny model.
    let others = "ALERTS{run!=\"faulty\", alertname!=\"GauntletValidationRising\", alertstate=\"firing\"}";
    assert!(!holds(&prometheus, others), "others are well");
    let rules = prometheus.data("/api/v1/rules", &[]);
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.iter().all(|rule| rule["health"] == "ok"), "{rules:?}");
    assert_eq!(rules.len(), alerts().len() + 1);

    // A run that is stopped waits until Prometheus has seen its end.
    hessian_free.interrupt();
    assert_eq!(hessian_free.wait(), Some(75));
    let seen = "last_over_time(gauntlet_run_state{run=\"hessian-free\", state=\"stopped\"}[1m]) == 1";
    assert!(holds(&prometheus, seen), "its end was not seen");
    let down = format!("up{{instance=\"127.0.0.1:{}\"}} == 0", ports[0]);
    until("Prometheus misses the run", || holds(&prometheus, &down).then_some(()));
    let down = alerts().into_iter().find(|alert| alert["alert"] == "GauntletDown").unwrap();
    assert!(!holds(&prometheus, down["expr"].as_str().unwrap()), "a run that said how it ended is not missed");
}

#[test]
fn promtool_accepts_the_metrics_of_a_real_run() {
    if !has("promtool") {
        return skipped("no promtool for `check metrics`");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.prom");
    let run = Run::of(plugin("hessian-free")).set(format!("metrics.textfile={}", path.display()));
    let _run = run.set("metrics.peak_flops=1e11").finished();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("gauntlet_run_state{run=\"run\",state=\"finished\"} 1\n"), "{text}");
    let findings = |text: &str| {
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(findings(&text).trim(), KNOWN);
    let unlike = text.replace("# HELP gauntlet_run_steps", "# about gauntlet_run_steps");
    assert!(findings(&unlike).contains("gauntlet_run_steps no help text"));
}

#[test]
fn a_real_pushgateway_takes_the_last_metrics() {
    let Some(program) = ["prometheus-pushgateway", "pushgateway"].into_iter().find(|name| has(name)) else {
        return skipped("no prometheus-pushgateway for `metrics.push_gateway`");
    };
    let port = free_port();
    let mut command = Command::new(program);
    let gateway = Server::start(command.arg(format!("--web.listen-address=127.0.0.1:{port}")), port, "/-/ready");
    let pushing = |name: &str| {
        let run = Run::of(plugin("adam")).set(format!("metrics.push_gateway=http://127.0.0.1:{port}"));
        let outcome = run.set(format!("run.dir='{name}'")).train();
        assert_eq!((outcome.code, outcome.stderr.contains("warning: ")), (0, false), "{}", outcome.stderr);
    };
    ["short job", "a/b"].into_iter().for_each(pushing);
    let (_, text) = get(gateway.port, "/metrics").unwrap();
    for run in ["short job", "b"] {
        let steps = format!("gauntlet_steps_total{{instance=\"\",job=\"gauntlet\",run=\"{run}\"}} 4\n");
        let state =
            format!("gauntlet_run_state{{instance=\"\",job=\"gauntlet\",run=\"{run}\",state=\"finished\"}} 1\n");
        assert!(text.contains(&steps) && text.contains(&state), "{text}");
    }
    drop(gateway);
    let outcome = Run::of(plugin("adam")).set(format!("metrics.push_gateway=http://127.0.0.1:{port}")).train();
    let warning = "warning: `metrics.push_gateway`: the last metrics were not pushed: found connection refused";
    assert!(outcome.code == 0 && outcome.stderr.lines().any(|line| line == warning), "{}", outcome.stderr);
}
