//! What a JSON Schema expects of a value: the bounds of numbers and the words for all.

use serde_json::{Number, Value};

use super::schema::{Schema, branches, choices, types};

/// The bounds of a number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    lower: Option<(Number, bool)>,
    upper: Option<(Number, bool)>,
}

impl Bounds {
    /// Those that the schema states, and those of its `format` where it states none.
    pub fn of(schema: &Schema) -> Self {
        let number = |keyword: &str| match schema.get(keyword) {
            Some(Value::Number(number)) => Some(number.clone()),
            _ => None,
        };
        let bound = |open: &str, closed: &str| {
            number(open).map(|bound| (bound, true)).or_else(|| number(closed).map(|bound| (bound, false)))
        };
        let (least, most) = match schema.get("format").and_then(Value::as_str) {
            Some("uint32") => (Some(0.into()), Some(u32::MAX.into())),
            Some("int32") => (Some(i32::MIN.into()), Some(i32::MAX.into())),
            Some("uint" | "uint64") => (Some(0.into()), None),
            Some("float") => (Number::from_f64(f64::from(f32::MIN)), Number::from_f64(f64::from(f32::MAX))),
            _ => (None, None),
        };
        Self {
            lower: bound("exclusiveMinimum", "minimum").or(least.map(|bound| (bound, false))),
            upper: bound("exclusiveMaximum", "maximum").or(most.map(|bound| (bound, false))),
        }
    }

    /// Whether the number lies within.
    pub fn hold(&self, number: &Number) -> bool {
        let above = |(bound, open): &(Number, bool)| less(bound, number) || (!open && !less(number, bound));
        let below = |(bound, open): &(Number, bool)| less(number, bound) || (!open && !less(bound, number));
        self.lower.as_ref().is_none_or(above) && self.upper.as_ref().is_none_or(below)
    }

    fn words(&self) -> String {
        let lower = self.lower.iter().map(|(bound, open)| format!(" {} {bound}", if *open { ">" } else { ">=" }));
        let upper = self.upper.iter().map(|(bound, open)| format!(" {} {bound}", if *open { "<" } else { "<=" }));
        lower.chain(upper).collect::<Vec<_>>().join(" and")
    }
}

/// Exact between integers, else as f64.
fn less(a: &Number, b: &Number) -> bool {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a < b,
        _ => a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a < b),
    }
}

/// What the schema expects, in words: `an integer >= 1`, ``one of `cosine`, `linear` ``, `a string or a list`.
pub fn describe(root: &Value, schema: &Schema) -> String {
    if let Some(choices) = choices(root, schema) {
        return one_of(&choices);
    }
    if let Some(branches) = branches(root, schema) {
        let mut words: Vec<_> = branches.iter().map(|branch| describe(root, branch)).collect();
        words.dedup();
        return words.join(" or ");
    }
    let word = |name: &str| match name {
        "boolean" => "`true` or `false`".to_owned(),
        "integer" => format!("an integer{}", Bounds::of(schema).words()),
        "number" => format!("a number{}", Bounds::of(schema).words()),
        "string" => "a string".to_owned(),
        "array" => "a list".to_owned(),
        _ => "a table".to_owned(),
    };
    let types = types(schema);
    match types.is_empty() {
        true => "a value".to_owned(),
        false => types.into_iter().filter(|&name| name != "null").map(word).collect::<Vec<_>>().join(" or "),
    }
}

/// ``one of `a`, `b` ``, or the only choice.
pub fn one_of(choices: &[String]) -> String {
    match choices {
        [only] => format!("`{only}`"),
        _ => format!("one of {}", listed(choices)),
    }
}

/// `` `a`, `b` ``.
pub fn listed(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `at least 1 items`, `2 characters`, `1 to 4 items`.
pub fn length(min: Option<u64>, max: Option<u64>, unit: &str) -> String {
    match (min, max) {
        (Some(min), Some(max)) if min == max => format!("{min} {unit}"),
        (min, Some(max)) => format!("{} to {max} {unit}", min.unwrap_or(0)),
        (min, None) => format!("at least {} {unit}", min.unwrap_or(0)),
    }
}

/// The value, short enough for a line.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => format!("{value}"),
        Value::String(text) if text.chars().count() > 60 => {
            format!("the string `{}…`", text.chars().take(60).collect::<String>())
        }
        Value::String(text) => format!("the string `{text}`"),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "a table".to_owned(),
    }
}
