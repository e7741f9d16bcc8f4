//! Dashboards, alerts and what starts them: that they hold together, and that they name what a run exports.

mod board;
mod live;
mod promql;
mod server;

use crate::built::source_tree;
use crate::program::{gauntlet, outcome};
use crate::skipped::skipped;
use board::{boards, expressions, problems};
use gauntlet::sinks::metrics::table::{Kind, OPTIMIZER_PREFIX, TABLE};
use promql::{filled, metrics};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the folder `grafana`.
fn file(name: &str) -> PathBuf {
    source_tree().join("grafana").join(name)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(name: &str) -> Value {
    serde_yaml_ng::from_str(&text(&file(name))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The rules: a recording, then alerts.
fn rules() -> Vec<Value> {
    let groups = yaml("prometheus/rules.yml");
    let groups = groups["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| !rule["alert"].is_null()).collect()
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no `{key}` in {value}"))
}

/// All expressions of dashboards and rules, as PromQL.
fn all_expressions() -> Vec<String> {
    let boards = boards();
    let of_boards = boards.iter().flat_map(|(_, board)| expressions(board)).map(|raw| filled(&raw, "1m"));
    of_boards.chain(rules().iter().map(|rule| word(rule, "expr").to_owned())).collect()
}

/// The program, with the plugin of a name.
fn inspected(plugin: &str) -> String {
    gauntlet(source_tree(), &["plugins", "inspect", plugin]).succeeded()
}

#[test]
fn every_metric_named_is_exported_and_every_one_exported_is_named() {
    let named: BTreeSet<String> = all_expressions().iter().flat_map(|expr| metrics(expr)).collect();
    let own: BTreeSet<&str> = TABLE.iter().map(|entry| entry.name).collect();
    let histograms: Vec<&str> = TABLE.iter().filter(|entry| entry.kind == Kind::Histogram).map(|e| e.name).collect();
    let base = |name: &str| -> String {
        let of = |histogram: &&&str| {
            let rest = name.strip_prefix(**histogram);
            rest.is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))
        };
        histograms.iter().find(of).map_or(name, |histogram| histogram).to_owned()
    };
    let declared: String = crate::built::shipped().iter().map(|plugin| inspected(plugin)).collect();
    let declares = |name: &str| declared.split_whitespace().any(|word| word == name);
    for name in &named {
        let known = own.contains(base(name).as_str())
            || name.strip_prefix(OPTIMIZER_PREFIX).is_some_and(declares)
            || ["up", "gauntlet:active"].contains(&name.as_str());
        assert!(known, "`{name}` is exported by nobody");
    }
    let named: BTreeSet<String> = named.iter().map(|name| base(name)).collect();
    let unused: Vec<&&str> = own.iter().filter(|name| !named.contains(**name)).collect();
    assert_eq!(unused, [""; 0].iter().collect::<Vec<_>>(), "in no dashboard and no rule");
}

#[test]
fn dashboards_obey_every_rule() {
    let mut ids = BTreeSet::new();
    for (name, board) in boards() {
        assert_eq!(problems(&board), [""; 0], "{name}");
        assert!(ids.insert(board["uid"].to_string()), "{name}: its uid is another's too");
    }
    assert_eq!(ids.len(), 2);
    let source = &yaml("provisioning/datasources/gauntlet.yml")["datasources"][0];
    assert_eq!((word(source, "uid"), &source["editable"]), (board::DATASOURCE, &json!(false)));
    let provider = &yaml("provisioning/dashboards/gauntlet.yml")["providers"][0];
    assert_eq!((&provider["allowUiUpdates"], &provider["disableDeletion"]), (&json!(false), &json!(true)));
}

#[test]
fn each_breach_of_a_rule_is_found() {
    let (_, run) = boards().into_iter().find(|(name, _)| name == "run.json").unwrap();
    let table: [(&str, Value, &str); 14] = [
        ("/panels/2/id", json!(2), "id 2 is there twice"),
        ("/panels/2/gridPos/x", json!(1), "overlaps"),
        ("/panels/2/gridPos/x", json!(22), "wider than 24"),
        ("/panels/2/title", json!(""), "no title"),
        ("/panels/2/description", Value::Null, "no description"),
        ("/panels/2/fieldConfig/defaults/unit", Value::Null, "no unit"),
        ("/panels/2/datasource/uid", json!("abc"), "not the data source's variable"),
        ("/panels/2/targets/0/expr", json!("sum(gauntlet_run_steps"), "not PromQL"),
        ("/panels/2/targets/0/expr", json!("gauntlet_run_steps"), "selects no run"),
        ("/panels/2/targets/0/expr", json!("rate(gauntlet_steps_total{run=~\"$run\"}[5m])"), "a range of its own"),
        ("/schemaVersion", Value::Null, "no schemaVersion"),
        ("/editable", json!(true), "editable"),
        ("/templating/list/1/refresh", json!(1), "does not follow the time range"),
        ("/uid", Value::Null, "no uid"),
    ];
    for (pointer, value, expected) in table {
        let mut broken = run.clone();
        *broken.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        let found = problems(&broken);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{pointer}: {found:?}");
    }
    let mut exported = run.clone();
    exported["__inputs"] = json!([]);
    assert!(problems(&exported)[0].contains("__inputs"));
}

#[test]
fn dashboards_fit_the_schema_of_grafana() {
    let schema: Value =
        serde_json::from_str(&text(&source_tree().join("tests/data/grafana/dashboard.schema.json"))).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (name, board) in boards() {
        let errors: Vec<String> =
            validator.iter_errors(&board).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert_eq!(errors, [""; 0], "{name}");
        for (key, value) in [("panelz", json!([])), ("refresh", json!(5))] {
            let mut broken = board.clone();
            broken[key] = value;
            assert!(!validator.is_valid(&broken), "{name}: `{key}` passes");
        }
    }
}

#[test]
fn alerts_have_a_runbook_a_gate_and_a_test() {
    let tests = yaml("prometheus/rules_test.yml");
    let tests = tests["tests"].as_array().unwrap();
    let guide = text(&source_tree().join("docs/monitoring.md"));
    assert_eq!(alerts().len(), 15);
    for alert in alerts() {
        let (name, expr) = (word(&alert, "alert"), word(&alert, "expr"));
        let notes = &alert["annotations"];
        for key in ["summary", "description"] {
            assert!(word(notes, key).len() > 20, "{name}: {key}");
        }
        let anchor = name.to_lowercase();
        assert_eq!(word(notes, "runbook_url"), format!("docs/monitoring.md#{anchor}"));
        assert!(guide.lines().any(|line| line == format!("### {name}")), "{name} has no runbook");
        assert!(["critical", "warning"].contains(&word(&alert["labels"], "severity")), "{name}");
        promql_parser::parser::parse(expr).unwrap_or_else(|error| panic!("{name}: {error}"));
        let gates = metrics(expr);
        assert!(gates.iter().any(|gate| gate == "gauntlet:active" || gate == "gauntlet_run_state"), "{name}");
        let own = tests.iter().filter(|test| word(test, "name") == name);
        let checks: Vec<usize> = own
            .flat_map(|test| test["alert_rule_test"].as_array().unwrap())
            .map(|check| check["exp_alerts"].as_array().unwrap().len())
            .collect();
        assert!(checks.contains(&0) && checks.contains(&1), "{name}: {checks:?}");
    }
}

/// Whether a service listens on this machine alone, by its command or its environment.
fn is_local(service: &Value) -> bool {
    let command = service["command"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut listens = command.filter_map(|flag| flag.strip_prefix("--web.listen-address="));
    match service["environment"]["GF_SERVER_HTTP_ADDR"].as_str() {
        Some(address) => address == "127.0.0.1",
        None => listens.next().is_some_and(|address| address.starts_with("127.0.0.1:")),
    }
}

#[test]
fn what_docker_starts_is_pinned_local_and_there() {
    let compose = yaml("docker-compose.yml");
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.len(), 3);
    for (name, service) in services {
        let (_, version) = word(service, "image").rsplit_once(':').unwrap();
        let numbers: Vec<&str> = version.trim_start_matches('v').split('.').collect();
        assert!(numbers.len() == 3 && numbers.iter().all(|n| n.parse::<u32>().is_ok()), "{name}: {version}");
        assert!(is_local(service), "{name} listens to others");
        for mount in service["volumes"].as_array().unwrap() {
            let source = mount.as_str().unwrap().split(':').next().unwrap();
            let there = match source.strip_prefix("./") {
                Some(path) => file(path).is_dir(),
                None => compose["volumes"].as_object().unwrap().contains_key(source),
            };
            assert!(there, "{name}: {source}");
        }
    }
}

/// Runs a checker of others, which must be content.
fn accepts(tool: &str, calls: &[&[&str]]) {
    if !server::has(tool) {
        return skipped(&format!("no {tool} for the files of `grafana`"));
    }
    for args in calls {
        let outcome = outcome(Command::new(tool).args(*args).current_dir(file("")));
        assert_eq!(outcome.code, 0, "{tool} {args:?}: {}{}", outcome.stdout, outcome.stderr);
    }
}

#[test]
fn promtool_accepts_configuration_and_rules_and_sees_each_alert_fire() {
    accepts(
        "promtool",
        &[
            &["check", "config", "--lint-fatal", "prometheus/prometheus.yml"],
            &["check", "rules", "--lint=all", "--lint-fatal", "prometheus/rules.yml"],
            &["test", "rules", "prometheus/rules_test.yml"],
        ],
    );
}

#[test]
fn amtool_accepts_the_routes_of_alerts() {
    accepts("amtool", &[&["check-config", "alertmanager/alertmanager.yml"]]);
}
