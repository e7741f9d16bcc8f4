//! The keys of a JSON Schema in words, for people: what is expected, the default, what it means.

use serde_json::Value;

use super::expected::describe;
use super::schema::{Schema, join, properties, resolved};

/// One key of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyInfo {
    /// Dotted path.
    pub key: String,
    /// What values it takes.
    pub expected: String,
    /// Its default; `None` where it must be set or may be absent.
    pub default: Option<Value>,
    /// Whether it must be set.
    pub required: bool,
    /// What it means.
    pub doc: String,
    /// The texts that one may choose from, each with its meaning, where the schema tells them.
    pub choices: Vec<(String, String)>,
}

/// The keys of a table's schema in alphabetical order, those of tables inside it by their dotted paths.
pub fn keys(schema: &Value) -> Vec<KeyInfo> {
    keys_below(schema, schema, "")
}

/// The same for the table `at`, whose schema may refer to definitions of `root`.
pub fn keys_below(root: &Value, schema: &Value, at: &str) -> Vec<KeyInfo> {
    let mut keys = Vec::new();
    collect(root, schema, at, 0, &mut keys);
    keys
}

fn collect(root: &Value, schema: &Value, at: &str, depth: usize, keys: &mut Vec<KeyInfo>) {
    let table = resolved(root, schema);
    let required = table.get("required").and_then(Value::as_array);
    for (name, inner) in properties(&table) {
        let (key, inner_schema) = (join(at, name), resolved(root, inner));
        let has_keys = properties(&inner_schema).next().is_some();
        if has_keys && depth < 8 {
            collect(root, inner, &key, depth + 1, keys);
            continue;
        }
        keys.push(KeyInfo {
            key,
            expected: describe(root, &inner_schema),
            default: inner_schema.get("default").cloned(),
            required: required.is_some_and(|required| required.iter().any(|required| required == name)),
            doc: doc(&inner_schema),
            choices: choices(root, &inner_schema),
        });
    }
}

/// The description on one line.
fn doc(schema: &Schema) -> String {
    let doc = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn choices(root: &Value, schema: &Schema) -> Vec<(String, String)> {
    let alternatives = ["anyOf", "oneOf"].into_iter().filter_map(|keyword| schema.get(keyword)?.as_array()).flatten();
    let alternatives = alternatives.map(|alternative| resolved(root, alternative));
    alternatives.filter_map(|choice| Some((choice.get("const")?.as_str()?.to_owned(), doc(&choice)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_tell_what_they_expect_their_default_and_meaning() {
        let schema = json!({
            "type": "object",
            "properties": {
                "lr": { "type": "number", "description": "Step\nsize." },
                "adam": { "type": "object", "properties": { "eps": { "type": "number", "default": 1e-8 } } },
                "shape": { "$ref": "#/$defs/Shape" },
            },
            "required": ["lr"],
            "$defs": { "Shape": { "oneOf": [{ "const": "flat", "description": "Stays." }, { "const": "wsd" }] } },
        });
        let found = keys(&schema);
        assert_eq!((found[0].key.as_str(), found[0].default.as_ref()), ("adam.eps", Some(&json!(1e-8))));
        assert_eq!((found[1].expected.as_str(), found[1].doc.as_str()), ("a number", "Step size."));
        assert_eq!((&found[1].default, found[1].required, found[0].required), (&None, true, false));
        assert_eq!(found[2].expected, "one of `flat`, `wsd`");
        assert_eq!(found[2].choices, [("flat", "Stays."), ("wsd", "")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
