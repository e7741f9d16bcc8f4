//! The configuration in words: a page of Markdown made from the schema, so that it cannot differ from the code.

use serde_json::Value;

use super::describe::{self, KeyInfo};
use super::layers::ENV_PREFIX;
use super::lines::inline;
use super::schema::{properties, resolved};

/// The sections in the order in which one thinks of them.
const SECTIONS: [&str; 12] = [
    "run",
    "model",
    "data",
    "optimizer",
    "schedule",
    "train",
    "ema",
    "eval",
    "checkpoint",
    "curvature",
    "plugins",
    "metrics",
];

const INTRODUCTION: &str = "\
# Configuration

<!-- Made from the types in host/src/config and host/src/model by a test; `GAUNTLET_BLESS=1 cargo test --release` writes \
it. -->

A run is described by one configuration. It is merged from layers, key by key; later ones win:

1. the defaults on this page
2. files, `--config FILE`, in the order in which they are given (TOML)
3. environment variables, named under each key; the value is read as TOML, or else as text
4. `--set KEY=VALUE`, in the order in which they are given; the value is read in the same way

A key that nobody knows is an error at any depth, in every layer. All problems are reported at once, each with its layer,
its key, what was found and what is expected.

```
gauntlet config show --config run.toml            # every value that a run would use, as a TOML file
gauntlet config show --origin --config run.toml   # a line a key, with the layer that it comes from
gauntlet config check --config run.toml           # `ok`, or every problem, without training
gauntlet config schema                            # JSON Schema, for editors
```

Relative paths are relative to the folder in which the program runs. `~` stands for no folder.
";

/// The page: every section with its keys. `after` is text that follows the section of that name.
pub fn render(schema: &Value, after: &[(&str, String)]) -> String {
    let root = resolved(schema, schema);
    let mut page = INTRODUCTION.to_owned();
    for name in SECTIONS {
        let Some((_, section)) = properties(&root).find(|(property, _)| *property == name) else { continue };
        page.push_str(&render_section(schema, name, section));
        for (_, text) in after.iter().filter(|(section, _)| *section == name) {
            page.push_str(text);
        }
    }
    page
}

fn render_section(root: &Value, name: &str, section: &Value) -> String {
    let doc = resolved(root, section);
    let doc = doc.get("description").and_then(Value::as_str).unwrap_or_default();
    let rows: String = describe::keys_below(root, section, name).iter().map(row).collect();
    format!("\n## `[{name}]`\n\n{doc}\n\n| key and variable | values | default | meaning |\n|---|---|---|---|\n{rows}")
}

fn row(key: &KeyInfo) -> String {
    let default = match &key.default {
        Some(value) if !value.is_null() => format!("`{}`", inline(value)),
        _ if key.required => "must be set".to_owned(),
        _ => "none".to_owned(),
    };
    let choices = key.choices.iter().filter(|(_, doc)| !doc.is_empty());
    let choices: String = choices.map(|(name, doc)| format!("<br>`{name}`: {doc}")).collect();
    let meaning = format!("{}{choices}", without_default(&key.doc, key.default.as_ref()));
    let cells = [format!("`{}`<br>`{}`", key.key, variable(&key.key)), key.expected.clone(), default, meaning];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// The text without a sentence that only repeats the default and the bounds, which have columns of their own.
fn without_default(doc: &str, default: Option<&Value>) -> String {
    let value = match default {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string().trim_end_matches(".0").to_owned(),
        None => return doc.to_owned(),
    };
    let repeats = |sentence: &str| {
        let rest = sentence.strip_prefix("Default ").map(|rest| rest.replace('`', ""));
        let rest = rest.as_deref().and_then(|rest| rest.strip_prefix(&value));
        let bound = |rest: &str| rest.starts_with(", at ") && !rest.contains(';');
        rest.is_some_and(|rest| rest.is_empty() || bound(rest))
    };
    let sentences = doc.trim_end_matches('.').split(". ").filter(|sentence| !repeats(sentence));
    sentences.map(|sentence| format!("{sentence}.")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_section_has_its_place() {
        let root = resolved(&super::super::schema(), &super::super::schema());
        let mut sections: Vec<&str> = properties(&root).map(|(name, _)| name.as_str()).collect();
        let mut ordered = SECTIONS.to_vec();
        sections.sort_unstable();
        ordered.sort_unstable();
        assert_eq!(ordered, sections);
    }

    #[test]
    fn a_key_has_its_variable_its_values_its_default_and_its_meaning() {
        let page = render(&super::super::schema(), &[("run", "\nMore.\n".into())]);
        for row in [
            "| `run.seed`<br>`GAUNTLET_RUN__SEED` | an integer >= 0 and <= 9223372036854775807 | `0` | Seed of \
             initialisation, shuffling and sampling. |",
            "| `data.train`<br>`GAUNTLET_DATA__TRAIN` | a string or a list | must be set | Training shards: a folder, or \
             a list of files and folders. Of a list of tables `{path, weight}`, sequences are drawn in proportion to the \
             weights, to 1/4096. No default. |",
            "| `ema.decay`<br>`GAUNTLET_EMA__DECAY` | a number > 0 and < 1 | none | Weight of the old average in each \
             step, between 0 and 1. Default: no average. |",
            "| `train.on_error`<br>`GAUNTLET_TRAIN__ON_ERROR` | one of `stop`, `skip` | `\"stop\"` | What a plugin's \
             error or a non-finite value does.<br>`stop`: The run ends;",
        ] {
            assert!(page.contains(row), "no {row} in:\n{page}");
        }
        assert!(page.find("\nMore.\n").unwrap() < page.find("## `[model]`").unwrap());
    }

    #[test]
    fn only_the_sentence_that_repeats_the_default_goes() {
        let table = [
            ("Threads; 0 means all. Default 0, at most 4.", json!(0), "Threads; 0 means all."),
            ("Folder. Default `runs/run`.", json!("runs/run"), "Folder."),
            ("Minutes. Default 15.", json!(15.0), "Minutes."),
            ("Type. Default `f32`; `f64` is for tests.", json!("f32"), "Type. Default `f32`; `f64` is for tests."),
            ("Bytes. Default 1 GiB.", json!(1_u64 << 30), "Bytes. Default 1 GiB."),
            ("Steps. Default 10.", json!(1), "Steps. Default 10."),
        ];
        for (doc, default, expected) in table {
            assert_eq!(without_default(doc, Some(&default)), expected);
        }
        assert_eq!(without_default("Steps. Default none.", None), "Steps. Default none.");
    }
}
