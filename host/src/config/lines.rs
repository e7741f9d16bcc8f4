//! Values as TOML on one line, and a configuration as one line a key with the layer that each value came from.

use serde_json::Value;

use super::layers::Origins;

/// `key = value  # layer`, a line a key in alphabetical order; the lines are a TOML file of these values.
pub fn lines(config: &Value, origins: &Origins) -> String {
    let mut lines = String::new();
    collect(config, "", "", origins, &mut lines);
    lines
}

/// `plain` is the dotted path that layers are known by, `quoted` the same as TOML writes it.
fn collect(value: &Value, plain: &str, quoted: &str, origins: &Origins, lines: &mut String) {
    match value {
        Value::Null => {}
        Value::Object(table) if plain.is_empty() || !table.is_empty() => table.iter().for_each(|(name, inner)| {
            let (plain, quoted) = (super::schema::join(plain, name), super::schema::join(quoted, &key(name)));
            collect(inner, &plain, &quoted, origins, lines);
        }),
        _ => {
            let layer = crate::error::printable(origins.get(plain).unwrap_or("default"));
            lines.push_str(&format!("{quoted} = {}  # {layer}\n", inline(value)));
        }
    }
}

/// A value as TOML writes it on one line; what TOML cannot write, nothing, is empty.
pub fn inline(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => string(text),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(table) if table.is_empty() => "{}".to_owned(),
        Value::Object(table) => {
            let entries = table.iter().filter(|(_, inner)| !inner.is_null());
            let entries = entries.map(|(name, inner)| format!("{} = {}", key(name), inline(inner)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { string(name) }
}

/// A basic string, every control character escaped.
fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_a_key_that_toml_reads_back() {
        let config = json!({
            "run": { "dir": "a\n\"b\"\u{7f}\u{80}", "seed": 7 },
            "model": { "rope": { "theta": 1e30 }, "list": [[1], [2.0]], "empty": {}, "odd key": true, "": -1 },
            "optimizer": { "config": { "groups": [{ "roles": ["norm"], "set": { "weight decay": 0.0 } }] } },
        });
        let mut origins = Origins::default();
        origins.fill(&json!({ "dir": 1 }), "run", "a\nb.toml");
        let text = lines(&config, &origins);
        assert_eq!(text.lines().count(), 8, "{text}");
        assert!(text.contains("\nrun.dir = \"a\\u000a\\\"b\\\"\\u007f\\u0080\"  # a\\nb.toml\n"), "{text}");
        assert!(text.ends_with("run.seed = 7  # default\n"), "{text}");
        assert!(text.contains("groups = [{ roles = [\"norm\"], set = { \"weight decay\" = 0.0 } }]"), "{text}");
        assert_eq!(toml::from_str::<Value>(&text).unwrap(), config);
    }

    #[test]
    fn what_is_off_has_no_line() {
        assert_eq!(lines(&json!({ "ema": { "decay": null } }), &Origins::default()), "");
        assert_eq!(inline(&json!({ "a": null, "b": 1 })), "{ b = 1 }");
    }
}
