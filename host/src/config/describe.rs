//! The keys of a JSON Schema in words, for people: what is expected, the default, what it means.

use serde_json::Value;

use super::expected::describe;
use super::schema::{join, properties, resolved};

/// One key of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyInfo {
    /// Dotted path.
    pub key: String,
    /// What values it takes.
    pub expected: String,
    /// Its default; `None` where it must be set.
    pub default: Option<Value>,
    /// What it means.
    pub doc: String,
}

/// The keys of a table's schema in alphabetical order, those of tables inside it by their dotted paths.
pub fn keys(schema: &Value) -> Vec<KeyInfo> {
    let mut keys = Vec::new();
    collect(schema, schema, "", 0, &mut keys);
    keys
}

fn collect(root: &Value, schema: &Value, at: &str, depth: usize, keys: &mut Vec<KeyInfo>) {
    let table = resolved(root, schema);
    for (name, inner) in properties(&table) {
        let (key, inner_schema) = (join(at, name), resolved(root, inner));
        let has_keys = properties(&inner_schema).next().is_some();
        if has_keys && depth < 8 {
            collect(root, inner, &key, depth + 1, keys);
            continue;
        }
        let doc = inner_schema.get("description").and_then(Value::as_str).unwrap_or_default();
        keys.push(KeyInfo {
            key,
            expected: describe(root, &inner_schema),
            default: inner_schema.get("default").cloned(),
            doc: doc.split_whitespace().collect::<Vec<_>>().join(" "),
        });
    }
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
            },
        });
        let found = keys(&schema);
        assert_eq!((found[0].key.as_str(), found[0].default.as_ref()), ("adam.eps", Some(&json!(1e-8))));
        assert_eq!((found[1].expected.as_str(), found[1].doc.as_str()), ("a number", "Step size."));
        assert_eq!(found[1].default, None);
    }
}
