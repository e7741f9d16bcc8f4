//! The rules that a dashboard has to obey.

use super::{file, promql, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// The uid of the data source that comes with the dashboards.
pub const DATASOURCE: &str = "gauntlet-prometheus";

/// The dashboards by the names of their files.
pub fn boards() -> Vec<(String, Value)> {
    let files = fs::read_dir(file("dashboards")).unwrap().flatten();
    let board = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        let board = serde_json::from_str(&text(&entry.path())).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, board)
    };
    files.map(board).collect()
}

/// All panels, rows and those inside rows.
fn panels(board: &Value) -> Vec<&Value> {
    list(&board["panels"]).iter().flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"]))).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn targets(panel: &Value) -> &[Value] {
    list(&panel["targets"])
}

/// The variables that ask Prometheus: their names and queries.
pub fn queries(board: &Value) -> Vec<(&Value, &str)> {
    let variables = board["templating"]["list"].as_array().unwrap();
    variables.iter().filter_map(|variable| Some((variable, variable["query"]["query"].as_str()?))).collect()
}

/// The expressions of all panels, with Grafana's variables.
pub fn expressions(board: &Value) -> Vec<String> {
    let targets = panels(board).into_iter().flat_map(targets);
    targets.map(|target| target["expr"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Everything that is wrong with a dashboard.
pub fn problems(board: &Value) -> Vec<String> {
    let mut problems = of_board(board);
    let panels = panels(board);
    let mut ids = BTreeSet::new();
    for (i, panel) in panels.iter().enumerate() {
        let name = format!("panel {} `{}`", panel["id"], panel["title"].as_str().unwrap_or_default());
        let mut say = |what: String| problems.push(format!("{name}: {what}"));
        if !panel["id"].is_u64() || !ids.insert(panel["id"].to_string()) {
            say(format!("id {} is there twice, or is none", panel["id"]));
        }
        let [x, _, w, _] = place(panel);
        if x + w > 24 {
            say("wider than 24".into());
        }
        let others = panels[..i].iter().filter(|other| overlap(place(panel), place(other)));
        others.for_each(|other| say(format!("overlaps panel {}", other["id"])));
        if panel["type"] != "row" {
            of_panel(panel).into_iter().for_each(say);
        }
    }
    problems
}

fn of_board(board: &Value) -> Vec<String> {
    let mut problems = vec![];
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            problems.push(what.to_owned());
        }
    };
    expect(board["__inputs"].is_null() && board["__requires"].is_null(), "`__inputs` is left over from an export");
    expect(board["uid"].as_str().is_some_and(|uid| !uid.is_empty()), "no uid");
    expect(board["id"].is_null(), "an id of some Grafana");
    expect(board["schemaVersion"].as_u64().is_some_and(|version| version >= 36), "no schemaVersion");
    expect(board["editable"] == false, "editable, although it comes from a file");
    let source = &board["templating"]["list"][0];
    let chooses = source["type"] == "datasource" && source["query"] == "prometheus" && source["name"] == "datasource";
    expect(chooses && source["current"]["value"] == DATASOURCE, "the first variable does not choose the data source");
    for (variable, _) in queries(board) {
        expect(variable["refresh"] == 2, "a variable does not follow the time range");
        expect(is_variable(&variable["datasource"]), "a variable has not the data source's variable");
    }
    expect(queries(board).iter().any(|(variable, _)| variable["name"] == "run"), "no variable `run`");
    problems
}

fn is_variable(source: &Value) -> bool {
    *source == json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn of_panel(panel: &Value) -> Vec<String> {
    let mut problems = vec![];
    for key in ["title", "description"] {
        if panel[key].as_str().is_none_or(str::is_empty) {
            problems.push(format!("no {key}"));
        }
    }
    if !panel["fieldConfig"]["defaults"]["unit"].is_string() {
        problems.push("no unit".into());
    }
    let sources = targets(panel).iter().map(|target| &target["datasource"]).chain([&panel["datasource"]]);
    if !sources.into_iter().all(is_variable) {
        problems.push("not the data source's variable".into());
    }
    if targets(panel).is_empty() {
        problems.push("no target".into());
    }
    for target in targets(panel) {
        problems.extend(of_expression(target["expr"].as_str().unwrap_or_default()));
    }
    problems
}

fn of_expression(raw: &str) -> Vec<String> {
    let expr = promql::filled(raw, "1m");
    let selectors = match promql::selectors(&expr) {
        Err(error) => return vec![format!("`{raw}` is not PromQL: {error}")],
        Ok(selectors) => selectors,
    };
    let mut problems = vec![];
    let selects = |selector: &promql_parser::parser::VectorSelector| {
        selector.matchers.matchers.iter().any(|matcher| matcher.name == "run")
    };
    if selectors.is_empty() || !selectors.iter().all(selects) || !raw.contains("run=~\"$run\"") {
        problems.push(format!("`{raw}` selects no run"));
    }
    if raw.matches('[').count() != raw.matches("[$__rate_interval]").count() {
        problems.push(format!("`{raw}` has a range of its own"));
    }
    if expr.contains('$') {
        problems.push(format!("`{raw}` has a variable that is not known"));
    }
    problems
}

/// x, y, width and height.
fn place(panel: &Value) -> [u64; 4] {
    ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap_or(u64::MAX / 4))
}

fn overlap([x, y, w, h]: [u64; 4], [x2, y2, w2, h2]: [u64; 4]) -> bool {
    x < x2 + w2 && x2 < x + w && y < y2 + h2 && y2 < y + h
}
