//! The structure of a JSON Schema: references, alternatives, properties, types and choices.

use serde_json::{Map, Value};

/// One schema of a table, list or plain value.
pub type Schema = Map<String, Value>;

/// The dotted paths of all keys that a JSON Schema knows, sorted; keys of maps and list elements are not among them.
pub fn known_keys(schema: &Value, at: &str) -> Vec<String> {
    let mut keys = Vec::new();
    collect_keys(schema, schema, at, 0, &mut keys);
    keys.sort();
    keys.dedup();
    keys
}

/// Nesting of schemas beyond which nothing is checked; values are bounded by their parsers.
pub const MAX_DEPTH: usize = 64;

/// A schema with references resolved and `allOf` merged into it.
pub fn resolved(root: &Value, schema: &Value) -> Schema {
    let mut merged = schema.as_object().cloned().unwrap_or_default();
    for _ in 0..MAX_DEPTH {
        let target = merged.remove("$ref");
        let target = target.as_ref().and_then(Value::as_str).and_then(|path| root.pointer(path.strip_prefix('#')?));
        let Some(target) = target.and_then(Value::as_object).cloned() else { break };
        merge(&mut merged, target);
    }
    if let Some(Value::Array(parts)) = merged.remove("allOf") {
        parts.iter().for_each(|part| merge(&mut merged, part.as_object().cloned().unwrap_or_default()));
    }
    merged
}

/// Adds what `schema` lacks; properties and required keys are united.
fn merge(schema: &mut Schema, other: Schema) {
    for (keyword, value) in other {
        match (schema.get_mut(&keyword), value) {
            (Some(Value::Object(mine)), Value::Object(theirs)) if keyword == "properties" => {
                theirs.into_iter().for_each(|(name, schema)| {
                    mine.entry(name).or_insert(schema);
                });
            }
            (Some(Value::Array(mine)), Value::Array(theirs)) if keyword == "required" => mine.extend(theirs),
            (Some(_), _) => {}
            (None, value) => {
                schema.insert(keyword, value);
            }
        }
    }
}

/// The alternatives of a schema in one flat list, `null` left out, each merged with what stands beside them.
pub fn branches(root: &Value, schema: &Schema) -> Option<Vec<Schema>> {
    let nested = |schema: &Schema| ["anyOf", "oneOf"].into_iter().find(|keyword| schema.contains_key(*keyword));
    nested(schema)?;
    let mut flat = vec![schema.clone()];
    for _ in 0..MAX_DEPTH {
        let Some((i, keyword)) = flat.iter().enumerate().find_map(|(i, branch)| Some((i, nested(branch)?))) else {
            break;
        };
        let mut beside = flat.remove(i);
        let Some(Value::Array(alternatives)) = beside.remove(keyword) else { continue };
        let merged = |branch: &Value| {
            let mut branch = resolved(root, branch);
            merge(&mut branch, beside.clone());
            branch
        };
        flat.splice(i..i, alternatives.iter().map(merged));
    }
    flat.retain(|branch| nested(branch).is_none() && branch.get("type").and_then(Value::as_str) != Some("null"));
    Some(flat)
}

/// The named properties of a table's schema.
pub fn properties(schema: &Schema) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn collect_keys(root: &Value, schema: &Value, at: &str, depth: usize, keys: &mut Vec<String>) {
    if depth > MAX_DEPTH / 10 {
        return;
    }
    let schema = resolved(root, schema);
    for (name, inner) in properties(&schema) {
        let key = join(at, name);
        collect_keys(root, inner, &key, depth + 1, keys);
        keys.push(key);
    }
    for branch in branches(root, &schema).into_iter().flatten() {
        collect_keys(root, &Value::Object(branch), at, depth + 1, keys);
    }
}

/// The schema with that of one section in place of its own; the section keeps its description.
pub fn with_section(mut root: Value, name: &str, mut section: Value) -> Value {
    let definitions = section.as_object_mut().and_then(|section| section.remove("$defs"));
    if let (Some(Value::Object(definitions)), Some(root)) = (definitions, root.as_object_mut()) {
        let all = root.entry("$defs").or_insert_with(|| Value::Object(Map::new()));
        all.as_object_mut().into_iter().for_each(|all| all.extend(definitions.clone()));
    }
    if let (Some(place), Some(section)) = (root["properties"].get_mut(name), section.as_object_mut()) {
        section.remove("$schema");
        if let Some(description) = place.get("description") {
            section.insert("description".to_owned(), description.clone());
        }
        *place = Value::Object(section.clone());
    }
    root
}

/// The dotted path of a key in the table `at`; empty for the whole configuration.
pub fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// The types that a schema names, `null` included; empty when it names none.
pub fn types(schema: &Schema) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether the value is of a type that the schema allows. A whole number is a `number`, but `1.0` is no `integer`.
pub fn type_holds(schema: &Schema, value: &Value) -> bool {
    let types = types(schema);
    let holds = |name: &str| match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => name == "number" || (name == "integer" && !number.is_f64()),
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    };
    types.is_empty() || types.into_iter().any(holds)
}

/// Whether the schema allows nothing at all in place of a value.
pub fn nullable(schema: &Schema) -> bool {
    let alternatives = ["anyOf", "oneOf"].into_iter().filter_map(|keyword| schema.get(keyword)?.as_array()).flatten();
    let mut all = alternatives.filter_map(Value::as_object).chain([schema]);
    all.any(|schema| types(schema).contains(&"null"))
}

/// The texts among which a schema lets one choose, if it is such a schema: `enum`, `const`, or alternatives of these.
pub fn choices(root: &Value, schema: &Schema) -> Option<Vec<String>> {
    if let Some(Value::String(only)) = schema.get("const") {
        return Some(vec![only.clone()]);
    }
    if let Some(Value::Array(values)) = schema.get("enum") {
        return values.iter().filter(|value| !value.is_null()).map(|value| value.as_str().map(str::to_owned)).collect();
    }
    let branches = branches(root, schema)?; // flat, so that the next line goes no deeper
    let each = branches.iter().map(|branch| choices(root, branch)).collect::<Option<Vec<_>>>()?;
    (!each.is_empty()).then(|| each.concat())
}

/// The property by whose constant a tagged enumeration tells its variants apart, and the variants' names.
pub fn tag(branches: &[Schema]) -> Option<(String, Vec<String>)> {
    let constant =
        |branch: &Schema, name: &str| Some(branch.get("properties")?.get(name)?.get("const")?.as_str()?.to_owned());
    let names = branches.first()?.get("properties")?.as_object()?.keys();
    names.into_iter().find_map(|name| {
        let choices = branches.iter().map(|branch| constant(branch, name)).collect::<Option<Vec<_>>>()?;
        Some((name.clone(), choices))
    })
}
