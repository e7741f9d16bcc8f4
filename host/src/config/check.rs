//! Checks a configuration value against the JSON Schema of its type, and collects every problem at once.
//!
//! It understands what `schemars` 1 derives for structures, options, lists, tuples, maps, plain and tagged enumerations:
//! `$ref`, `allOf`, `anyOf`, `oneOf`, `type`, `const`, `enum`, `properties`, `required`, `additionalProperties`,
//! `patternProperties` (the patterns themselves are not matched), `items`, `prefixItems`, and bounds on numbers and
//! lengths. A table is closed, whatever `additionalProperties` leaves unsaid: a mistyped key must never pass silently.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::expected::{self, Bounds};
use super::layers::Origins;
use super::schema::{self, MAX_DEPTH, Schema, branches, join, known_keys, properties, resolved, type_holds};
use crate::error::{Exit, Fault};

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: the dotted path, for example `optimizer.config.lr` or `data.train[2]`.
    pub key: String,
    /// What is wrong, for example `unknown key`.
    pub what: String,
    /// What was there.
    pub found: Option<String>,
    /// What should have been there.
    pub expected: Option<String>,
    /// An edit that helps.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of the value at `key`.
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into(), found: None, expected: None, hint: None }
    }

    /// What was there.
    pub fn found(mut self, found: impl std::fmt::Display) -> Self {
        self.found = Some(found.to_string());
        self
    }

    /// What should have been there.
    pub fn expected(mut self, expected: impl std::fmt::Display) -> Self {
        self.expected = Some(expected.to_string());
        self
    }

    /// An edit that helps.
    pub fn hint(mut self, hint: impl std::fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The problem as an error that begins with the layer which the value comes from.
    pub fn fault(&self, origins: &Origins) -> Fault {
        let layer = origins.get(&self.key).unwrap_or("configuration");
        let mut fault = Fault::new(Exit::Usage, format!("{layer}: `{}`: {}", self.key, self.what));
        if let Some(found) = &self.found {
            fault = fault.found(found);
        }
        if let Some(expected) = &self.expected {
            fault = fault.expected(expected);
        }
        match &self.hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}

/// Reads a `T` from the value of the section `at`, if its schema finds nothing wrong.
///
/// # Errors
/// Every problem found, each [`Exit::Usage`] with layer, key, found, expected and hint.
pub fn strict<T: DeserializeOwned + JsonSchema>(value: &Value, at: &str, origins: &Origins) -> Result<T, Vec<Fault>> {
    let problems = validate(schemars::schema_for!(T).as_value(), value, at);
    if !problems.is_empty() {
        return Err(problems.iter().map(|problem| problem.fault(origins)).collect());
    }
    T::deserialize(value).map_err(|error| vec![Problem::new(at, error.to_string()).fault(origins)])
}

/// All problems of `value`, the value of the section `at` (empty for a whole configuration), under a JSON Schema.
pub fn validate(schema: &Value, value: &Value, at: &str) -> Vec<Problem> {
    let mut walk = Walk { root: schema, at, problems: Vec::new(), depth: 0 };
    walk.visit(schema, value, at);
    walk.problems
}

/// The candidate that `word` is most likely a misspelling of: the nearest by edits, in at most a third of the letters.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let rated = candidates.into_iter().map(|candidate| (strsim::osa_distance(&word, &plain(candidate)), candidate));
    let close = |&(edits, candidate): &(usize, &str)| {
        let (longer, letters) = (word.len().max(candidate.len()), candidate.len());
        edits <= (longer / 3).max(1) && edits < letters
    };
    rated.filter(close).min().map(|(_, candidate)| candidate)
}

/// One pass over a value and its schema.
struct Walk<'a> {
    root: &'a Value,
    at: &'a str,
    problems: Vec<Problem>,
    depth: usize,
}

impl Walk<'_> {
    fn visit(&mut self, schema: &Value, value: &Value, key: &str) {
        if self.depth >= MAX_DEPTH || schema == &Value::Bool(true) {
            return;
        }
        self.depth += 1;
        self.visit_resolved(&resolved(self.root, schema), value, key);
        self.depth -= 1;
    }

    fn visit_resolved(&mut self, schema: &Schema, value: &Value, key: &str) {
        let choices = schema::choices(self.root, schema);
        if value.is_null() && schema::nullable(schema) {
            return;
        }
        if let Some(choices) = choices {
            return self.visit_choice(&choices, value, key);
        }
        if let Some(branches) = branches(self.root, schema) {
            return self.visit_branches(schema, &branches, value, key);
        }
        if !type_holds(schema, value) {
            return self.problems.push(self.wrong_type(schema, value, key));
        }
        match value {
            Value::Number(number) if !Bounds::of(schema).hold(number) => {
                let problem = Problem::new(key, "out of range").found(number);
                self.problems.push(problem.expected(expected::describe(self.root, schema)));
            }
            Value::String(text) => self.visit_length(schema, text.chars().count(), "Length", key),
            Value::Array(items) => self.visit_array(schema, items, key),
            Value::Object(table) => self.visit_table(schema, table, key),
            _ => {}
        }
    }

    fn wrong_type(&self, schema: &Schema, value: &Value, key: &str) -> Problem {
        let problem = Problem::new(key, "wrong type")
            .found(expected::shown(value))
            .expected(expected::describe(self.root, schema));
        let alternatives = branches(self.root, schema).unwrap_or_else(|| vec![schema.clone()]);
        let takes = |value: &Value| alternatives.iter().any(|schema| type_holds(schema, value));
        match value {
            Value::String(text) if serde_json::from_str(text).is_ok_and(|value| takes(&value)) => {
                problem.hint("write it without quotes")
            }
            Value::Number(_) | Value::Bool(_) if takes(&Value::String(String::new())) => {
                problem.hint(format_args!("write it in quotes: `\"{value}\"`"))
            }
            _ => problem,
        }
    }

    fn visit_choice(&mut self, choices: &[String], value: &Value, key: &str) {
        let text = value.as_str();
        if text.is_some_and(|text| choices.iter().any(|choice| choice == text)) {
            return;
        }
        let what = if text.is_some() { "unknown choice" } else { "wrong type" };
        let problem = Problem::new(key, what).found(expected::shown(value)).expected(expected::one_of(choices));
        let meant = text.and_then(|text| nearest(text, choices.iter().map(String::as_str)));
        self.problems.push(match meant {
            Some(meant) => problem.hint(format_args!("did you mean `{meant}`?")),
            None => problem,
        });
    }

    /// The branch that the value's tag names, else the only one of the value's type, else the one with fewest problems.
    fn visit_branches(&mut self, schema: &Schema, branches: &[Schema], value: &Value, key: &str) {
        if let (Some((tag, choices)), Some(table)) = (schema::tag(branches), value.as_object()) {
            let Some(named) = table.get(&tag) else { return self.problems.push(missing(key, &tag, Some(&choices))) };
            let of_name = |branch: &&Schema| {
                properties(branch).any(|(name, schema)| *name == tag && schema.get("const") == Some(named))
            };
            return match branches.iter().find(of_name) {
                Some(branch) => self.visit_resolved(branch, value, key),
                None => self.visit_choice(&choices, named, &join(key, &tag)),
            };
        }
        let fitting = branches.iter().filter(|branch| type_holds(branch, value));
        let tried = fitting.map(|branch| {
            let mut walk = Walk { root: self.root, at: self.at, problems: Vec::new(), depth: self.depth };
            walk.visit(&Value::Object(branch.clone()), value, key);
            walk.problems
        });
        match tried.min_by_key(Vec::len) {
            Some(problems) => self.problems.extend(problems),
            None => self.problems.push(self.wrong_type(schema, value, key)),
        }
    }

    fn visit_length(&mut self, schema: &Schema, len: usize, keyword: &str, key: &str) {
        let bound = |which: &str| schema.get(&format!("{which}{keyword}")).and_then(Value::as_u64);
        let (min, max) = (bound("min"), bound("max"));
        if min.is_some_and(|min| (len as u64) < min) || max.is_some_and(|max| len as u64 > max) {
            let unit = if keyword == "Items" { "items" } else { "characters" };
            let problem = Problem::new(key, "wrong length").found(format_args!("{len} {unit}"));
            self.problems.push(problem.expected(expected::length(min, max, unit)));
        }
    }

    fn visit_array(&mut self, schema: &Schema, items: &[Value], key: &str) {
        self.visit_length(schema, items.len(), "Items", key);
        let prefix = schema.get("prefixItems").and_then(Value::as_array);
        for (i, item) in items.iter().enumerate() {
            let inner = prefix.and_then(|prefix| prefix.get(i)).or_else(|| schema.get("items"));
            if let Some(inner) = inner {
                self.visit(inner, item, &format!("{key}[{i}]"));
            }
        }
    }

    fn visit_table(&mut self, schema: &Schema, table: &Map<String, Value>, key: &str) {
        let known = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        let others = patterns.and_then(|patterns| patterns.values().next()).or(schema.get("additionalProperties"));
        for (name, value) in table {
            let path = join(key, name);
            match (known.and_then(|known| known.get(name)), others) {
                (Some(inner), _) => self.visit(inner, value, &path),
                (None, Some(inner)) if inner != &Value::Bool(false) => self.visit(inner, value, &path),
                (None, _) => self.problems.push(self.unknown_key(schema, key, name)),
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str).filter(|name| !table.contains_key(*name)) {
            let inner = known.and_then(|known| known.get(name)).unwrap_or(&Value::Null);
            let problem = missing(key, name, None);
            self.problems.push(problem.expected(expected::describe(self.root, &resolved(self.root, inner))));
        }
    }

    /// A key that nobody knows: a misspelt neighbour, else one of the same name elsewhere, else the list of neighbours.
    fn unknown_key(&self, schema: &Schema, key: &str, name: &str) -> Problem {
        let neighbours: Vec<&str> = properties(schema).map(|(name, _)| name.as_str()).collect();
        let problem = Problem::new(join(key, name), "unknown key");
        if let Some(meant) = nearest(name, neighbours.iter().copied()) {
            return problem.hint(format_args!("did you mean `{}`?", join(key, meant)));
        }
        let all = known_keys(self.root, self.at);
        if let Some(elsewhere) = all.iter().find(|known| known.rsplit('.').next() == Some(name)) {
            return problem.hint(format_args!("did you mean `{elsewhere}`?"));
        }
        match neighbours.is_empty() {
            true => problem.hint("there are no keys here"),
            false => problem.hint(format_args!("the keys here are {}", expected::listed(&neighbours))),
        }
    }
}

fn missing(key: &str, name: &str, choices: Option<&[String]>) -> Problem {
    let problem = Problem::new(join(key, name), "missing");
    let problem = match key {
        "" => problem.hint(format_args!("add `{name}`")),
        key => problem.hint(format_args!("add `{name}` to `[{key}]`")),
    };
    match choices {
        Some(choices) => problem.expected(expected::one_of(choices)),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Plugin {
        #[schemars(extend("exclusiveMinimum" = 0))]
        lr: f64,
        #[serde(default)]
        betas: Option<(f64, f64)>,
        #[serde(default)]
        small: Option<u32>,
        #[serde(default)]
        single: Option<f32>,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        groups: Vec<Group>,
        #[serde(default)]
        by_name: BTreeMap<String, f64>,
        #[serde(default)]
        clip: Option<Clip>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Inner {
        /// Steps.
        #[schemars(range(min = 1, max = 50))]
        steps: u8,
        schedule: Option<Shape>,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Shape {
        Constant,
        /// Half a cosine.
        Cosine,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    struct Group {
        role: String,
        #[serde(flatten)]
        options: Options,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    struct Options {
        #[serde(default)]
        weight_decay: f64,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Clip {
        Norm { max_norm: f64 },
        Value { limit: f64 },
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    struct Nothing {}

    fn lines(value: Value) -> Vec<String> {
        let read = strict::<Plugin>(&value, "optimizer.config", &Origins::default());
        let faults = read.err().unwrap_or_default();
        faults.iter().map(|fault| fault.to_string().replace("configuration: `optimizer.config", "`~")).collect()
    }

    #[test]
    fn a_right_value_is_read() {
        let value = json!({
            "lr": 1, "betas": [0.9, 0.95], "small": 7, "single": 1e30, "by_name": {"any": 2.0}, "clip": null,
            "inner": {"steps": 3, "schedule": "cosine"}, "groups": [{"role": "norm", "weight_decay": 0.1}],
        });
        let plugin: Plugin = strict(&value, "optimizer.config", &Origins::default()).unwrap();
        assert_eq!((plugin.lr, plugin.betas, plugin.small), (1.0, Some((0.9, 0.95)), Some(7)));
        assert_eq!(plugin.inner, Some(Inner { steps: 3, schedule: Some(Shape::Cosine) }));
        assert_eq!(plugin.groups[0].options.weight_decay, 0.1);
        assert_eq!(lines(json!({"lr": 0.1, "clip": {"kind": "value", "limit": 1}})), [""; 0]);
    }

    #[test]
    fn wrong_values_at_every_depth() {
        let table = [
            (json!({}), "`~.lr`: missing: expected a number > 0; hint: add `lr` to `[optimizer.config]`"),
            (json!({"lr": 0}), "`~.lr`: out of range: found 0, expected a number > 0"),
            (json!({"lr": null}), "`~.lr`: wrong type: found nothing, expected a number > 0"),
            (json!({"lr": 1, "betas": [0.9]}), "`~.betas`: wrong length: found 1 items, expected 2 items"),
            (
                json!({"lr": 1, "betas": [0.9, "x"]}),
                "`~.betas[1]`: wrong type: found the string `x`, expected a number",
            ),
            (
                json!({"lr": 1, "small": 4294967296u64}),
                "`~.small`: out of range: found 4294967296, expected an integer >= 0 and <= 4294967295",
            ),
            (
                json!({"lr": 1, "inner": {"steps": 51}}),
                "`~.inner.steps`: out of range: found 51, expected an integer >= 1 and <= 50",
            ),
            (
                json!({"lr": 1, "inner": {"stesp": 5}}),
                "`~.inner.stesp`: unknown key; hint: did you mean `optimizer.config.inner.steps`?",
            ),
            (
                json!({"lr": 1, "inner": {"schedule": "cosien"}}),
                "`~.inner.schedule`: unknown choice: found the string `cosien`, expected one of `constant`, `cosine`; hint: did you mean `cosine`?",
            ),
            (json!({"lr": 1, "inner": 3}), "`~.inner`: wrong type: found 3, expected a table"),
            (
                json!({"lr": 1, "groups": [{"role": "a"}, {"rolle": "b", "role": "c"}]}),
                "`~.groups[1].rolle`: unknown key; hint: did you mean `optimizer.config.groups[1].role`?",
            ),
            (
                json!({"lr": 1, "groups": [{"role": "a", "wieght_decay": 1}]}),
                "`~.groups[0].wieght_decay`: unknown key; hint: did you mean `optimizer.config.groups[0].weight_decay`?",
            ),
            (
                json!({"lr": 1, "by_name": {"x": "y"}}),
                "`~.by_name.x`: wrong type: found the string `y`, expected a number",
            ),
            (
                json!({"lr": 1, "clip": {"kind": "nrom", "max_norm": 1}}),
                "`~.clip.kind`: unknown choice: found the string `nrom`, expected one of `norm`, `value`; hint: did you mean `norm`?",
            ),
            (
                json!({"lr": 1, "clip": {"max_norm": 1}}),
                "`~.clip.kind`: missing: expected one of `norm`, `value`; hint: add `kind` to `[optimizer.config.clip]`",
            ),
            (
                json!({"lr": 1, "clip": {"kind": "norm", "limit": 1, "max_norm": 1}}),
                "`~.clip.limit`: unknown key; hint: did you mean `optimizer.config.clip.limit`?",
            ),
            (json!({"lr": 1, "clip": []}), "`~.clip`: wrong type: found a list of 0, expected a table"),
            (json!([]), "`~`: wrong type: found a list of 0, expected a table"),
        ];
        for (value, expected) in table {
            assert_eq!(lines(value.clone()), [expected], "{value}");
        }
        let single = lines(json!({"lr": 1, "single": 1e39}));
        assert!(
            single.len() == 1
                && single[0].starts_with("`~.single`: out of range: found 1e+39, expected a number >= -3"),
            "{single:?}"
        );
    }

    #[test]
    fn a_table_without_keys_is_closed() {
        let problems = validate(schemars::schema_for!(Nothing).as_value(), &json!({"x": 1}), "optimizer.config");
        assert_eq!(problems, [Problem::new("optimizer.config.x", "unknown key").hint("there are no keys here")]);
    }

    #[test]
    fn schemas_that_refer_to_themselves_end() {
        for schema in
            [json!({"$ref": "#"}), json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}), json!({"allOf": [{"$ref": "#"}]})]
        {
            validate(&schema, &json!({"a": [1, {"b": 2}]}), "");
            known_keys(&schema, "");
        }
    }

    #[test]
    fn the_nearest_word() {
        let words = ["lr", "momentum", "weight_decay", "ns_steps"];
        let table = [
            ("mometum", Some("momentum")),
            ("rl", Some("lr")),
            ("weight-decay", Some("weight_decay")),
            ("LR", Some("lr")),
            ("x", None),
            ("steps", None),
        ];
        for (typed, meant) in table {
            assert_eq!(nearest(typed, words), meant, "{typed}");
        }
        assert_eq!(nearest("a", ["b"]), None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "(lr|kind|norm|[a-z]{0,3})".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let names = "(lr|betas|small|single|inner|groups|by_name|clip|steps|schedule|role|kind|limit|[a-z]{1,3})";
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(names, inner, 0..5).prop_map(|map| map.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        /// What passes the walk is always read, so the fallback of `strict` without a key is never needed.
        #[test]
        fn what_passes_is_read(value in any_json()) {
            let schema = schemars::schema_for!(Plugin);
            if validate(schema.as_value(), &value, "x").is_empty() {
                prop_assert!(Plugin::deserialize(&value).is_ok(), "{}", value);
            }
        }
    }
}
