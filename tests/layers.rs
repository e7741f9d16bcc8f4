//! Rules of the source tree that no compiler checks.

use crate::built::source_tree;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The host's modules in the order in which data flow: each uses only those before it.
const ORDER: [&str; 10] =
    ["config", "data", "model", "curvature", "plugin", "trainer", "sinks", "report", "watch", "compare"];
/// Modules that all may use, and what they themselves may use.
const SHARED: [(&str, &[&str]); 4] =
    [("error", &[]), ("events", &[]), ("durable", &["error"]), ("tensor_file", &["durable", "error"])];
/// Modules in front of all others.
const FRONT: [&str; 5] = ["run", "commands", "fuzzed", "main", "lib"];

/// The files with an ending below a folder; target folders, hidden ones and the checkout's corpora are passed over.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true if name.starts_with('.') || name == "target" || path == source_tree().join("data") => {}
            true => found.extend(files(&path, ending)),
            false if name.ends_with(ending) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

fn manifests() -> Vec<(PathBuf, toml::Table)> {
    let manifests = files(source_tree(), "Cargo.toml").into_iter();
    manifests.map(|path| (path.clone(), fs::read_to_string(&path).unwrap().parse().unwrap())).collect()
}

/// The names of a manifest's dependencies of every kind.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    kinds.iter().filter_map(|kind| manifest.get(*kind)?.as_table()).flat_map(|table| table.keys().cloned()).collect()
}

/// The host's modules that a source text names after `crate::`, also inside braces.
fn used_modules(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        let list = match rest.strip_prefix('{') {
            Some(inside) => top_level(inside),
            None => vec![rest],
        };
        let name =
            |item: &str| item.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
        used.extend(list.into_iter().filter_map(name).filter(|name| !name.is_empty()));
    }
    used
}

/// The items of a list in braces, without those inside inner braces.
fn top_level(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, vec![]);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&text[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// What is wrong with the uses of one module of the host.
fn violations(module: &str, used: &BTreeSet<String>) -> Vec<String> {
    let shared = |name: &str| SHARED.iter().any(|(shared, _)| *shared == name);
    let allowed = |name: &str| match (SHARED.iter().find(|(shared, _)| *shared == module), place(module)) {
        (Some((_, may)), _) => may.contains(&name),
        (None, Some(own)) => shared(name) || place(name).is_some_and(|other| other < own),
        (None, None) => FRONT.contains(&module),
    };
    let known = |name: &str| shared(name) || place(name).is_some() || FRONT.contains(&name);
    let others = used.iter().filter(|name| *name != module && known(name) && !allowed(name));
    others.map(|name| format!("`{module}` uses `{name}`")).collect()
}

fn place(module: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == module)
}

#[test]
fn modules_of_the_host_use_only_those_before_them() {
    let root = source_tree().join("host/src");
    let mut wrong = vec![];
    let mut modules = BTreeSet::new();
    for path in files(&root, ".rs") {
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        let module = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        let known = FRONT.contains(&module.as_str()) || SHARED.iter().any(|(name, _)| *name == module);
        assert!(known || place(&module).is_some(), "`{module}` has no place in the order of modules");
        wrong.extend(violations(&module, &used_modules(&fs::read_to_string(&path).unwrap())));
        modules.insert(module);
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(modules.len(), ORDER.len() + SHARED.len() + FRONT.len(), "a module of the rule is gone: {modules:?}");
}

#[test]
fn the_rule_of_modules_is_read_from_any_spelling() {
    let text = "use crate::data::{Dataset};\nuse crate::{model, curvature::{a, sinks_inside}, events};\n\
                fn f() { crate::trainer::g(); $crate::export }\n";
    let used = used_modules(text);
    assert_eq!(used, BTreeSet::from(["data", "model", "curvature", "events", "trainer"].map(String::from)));
    assert_eq!(violations("plugin", &used), ["`plugin` uses `trainer`"]);
    assert_eq!(violations("trainer", &used), Vec::<String>::new());
    assert_eq!(violations("error", &BTreeSet::from(["events".to_owned()])), ["`error` uses `events`"]);
    assert_eq!(violations("sinks", &BTreeSet::from(["run".to_owned()])), ["`sinks` uses `run`"]);
}

#[test]
fn no_crate_depends_on_a_plugin() {
    let is_plugin = |manifest: &toml::Table| {
        let types = manifest.get("lib").and_then(|lib| lib.get("crate-type")).and_then(toml::Value::as_array);
        types.is_some_and(|types| types.iter().any(|kind| kind.as_str() == Some("cdylib")))
    };
    let manifests = manifests();
    let name = |manifest: &toml::Table| manifest["package"]["name"].as_str().unwrap().to_owned();
    let plugins: BTreeSet<String> = manifests.iter().map(|(_, m)| m).filter(|m| is_plugin(m)).map(name).collect();
    assert!(plugins.contains("sgd") && plugins.contains("adam"), "{plugins:?}");
    for (path, manifest) in &manifests {
        let found: Vec<String> = dependencies(manifest).intersection(&plugins).cloned().collect();
        assert!(found.is_empty(), "{} depends on {found:?}", path.display());
    }
}

#[test]
fn only_the_abi_names_abi_stable() {
    let root = source_tree().join("Cargo.toml");
    let naming = manifests()
        .into_iter()
        .filter(|(path, manifest)| *path != root && dependencies(manifest).contains("abi_stable"));
    let paths: Vec<PathBuf> = naming.map(|(path, _)| path.strip_prefix(source_tree()).unwrap().to_owned()).collect();
    assert_eq!(paths, [Path::new("plugin-api/abi/Cargo.toml")]);
}

#[test]
fn plugins_and_their_api_do_not_depend_on_libtorch() {
    // What tests the host depends on it.
    let others = [source_tree().join("host"), source_tree().join("fuzz")];
    let is_other = |path: &Path| others.iter().any(|folder| path.starts_with(folder));
    for (path, manifest) in manifests().iter().filter(|(path, _)| !is_other(path)) {
        let found = dependencies(manifest);
        let torch = ["tch", "torch-sys", "gauntlet-torch-ext", "gauntlet"].iter().find(|name| found.contains(**name));
        assert_eq!(torch, None, "{}", path.display());
    }
}

#[test]
fn every_module_opens_with_a_sentence_about_itself() {
    for path in files(source_tree(), ".rs") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} does not begin with `//! `", path.display());
    }
}

#[test]
fn the_template_of_plugins_is_short() {
    let text = fs::read_to_string(source_tree().join("plugins/sgd/src/lib.rs")).unwrap();
    let code = text.split("\n#[cfg(test)]").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines < 45, "{lines} lines");
}
