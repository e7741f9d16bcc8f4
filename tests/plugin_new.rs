//! `gauntlet plugins new`: the crate that it writes builds outside the source tree, passes its tests, and trains.

use crate::built::{REPORT, artifact, build, small, source_tree};
use crate::corpus::Run;
use crate::program::{filtered, gauntlet, outcome};
use std::fs;
use std::path::Path;

/// `plugins new` must end with this exit code and this one line, and make nothing.
fn check(folder: &Path, args: &[&str], expected: &str) {
    let before = fs::read_dir(folder).unwrap().count();
    let outcome = gauntlet(folder, &[&["plugins", "new"], args].concat());
    assert_eq!(outcome.refusal(folder), format!("{expected}\n"), "{args:?}");
    assert_eq!(fs::read_dir(folder).unwrap().count(), before, "{args:?}");
}

#[test]
fn a_new_plugin_builds_passes_its_tests_and_trains() {
    let folder = tempfile::tempdir().unwrap();
    let crate_dir = folder.path().join("plugins/my-opt");
    let said = gauntlet(folder.path(), &["plugins", "new", "my-opt", "--path", "plugins/my-opt"]).succeeded();
    assert!(said.starts_with("wrote plugins/my-opt\n"), "{said}");
    let files = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(&crate_dir), ["Cargo.toml", "src"]);
    assert_eq!(files(&crate_dir.join("src")), ["lib.rs"]);
    let manifest: toml::Table = fs::read_to_string(crate_dir.join("Cargo.toml")).unwrap().parse().unwrap();
    let dependencies: Vec<&String> = manifest["dependencies"].as_table().unwrap().keys().collect();
    assert_eq!(dependencies, ["gauntlet-plugin-api", "serde"]);

    // The crate's own lock begins as the workspace's, so that nothing has to be fetched; cargo takes away what it does
    // not need. The target folder is shared with the fixtures, and lies outside the crate.
    let lock = crate_dir.join("Cargo.lock");
    fs::copy(source_tree().join("Cargo.lock"), &lock).unwrap();
    let built = build(&mut small(&crate_dir, &["build", REPORT, "--release"]));
    let library = artifact(&built, "my-opt");
    assert_eq!(library.file_name().unwrap(), "libmy_opt.so");
    let locked = fs::read_to_string(&lock).unwrap();
    assert!(locked.contains("name = \"my-opt\"") && !locked.contains("name = \"torch-sys\""));

    let tests = outcome(&mut small(&crate_dir, &["test", "--release"]));
    assert_eq!(tests.code, 0, "{}\n{}", tests.stdout, tests.stderr);
    assert!(tests.stdout.contains("test tests::conforms ... ok"), "{}", tests.stdout);

    let run = Run::of(library).set("optimizer.config.lr=0.1").set("train.max_steps=10").finished();
    assert_eq!(run.events("started")[0]["plugin"], "my-opt");
    let losses = run.by_step("loss");
    assert!(losses.len() == 10 && losses[9] < losses[0], "{losses:?}");
}

#[test]
fn the_folder_is_named_after_the_plugin_where_none_is_given() {
    let folder = tempfile::tempdir().unwrap();
    gauntlet(folder.path(), &["plugins", "new", "second-order"]).succeeded();
    let library = fs::read_to_string(folder.path().join("second-order/src/lib.rs")).unwrap();
    assert!(library.contains("const NAME: &'static str = \"second-order\";"), "{library}");
    assert!(library.contains("export_optimizer!(SecondOrder);"), "{library}");
}

#[test]
fn the_type_never_hides_one_that_the_crate_uses() {
    let folder = tempfile::tempdir().unwrap();
    for (name, type_name) in [("optimizer", "OptimizerRule"), ("self", "SelfRule"), ("config", "ConfigRule")] {
        gauntlet(folder.path(), &["plugins", "new", name]).succeeded();
        let library = fs::read_to_string(folder.path().join(name).join("src/lib.rs")).unwrap();
        assert!(library.contains(&format!("impl Optimizer for {type_name} {{")), "{library}");
        assert!(library.contains(&format!("export_optimizer!({type_name});")), "{library}");
    }
}

#[test]
fn names_that_are_no_names() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["", "My-Opt", "my_opt", "7th", "opt-", "a b", "a/b", "ö"] {
        let expected = "expected lower-case letters, digits and `-`, beginning with a letter, at most 64";
        check(folder.path(), &[name], &format!("2: error: name of the plugin: found `{name}`, {expected}"));
    }
}

#[test]
fn a_folder_that_exists_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("taken")).unwrap();
    check(
        folder.path(),
        &["my-opt", "--path", "taken"],
        "2: error: `taken` exists: expected a folder to be made; hint: choose another folder, or remove this one",
    );
}

#[test]
fn an_api_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    check(
        folder.path(),
        &["my-opt", "--api", "gone"],
        "66: error: `gone` is not the crate gauntlet-plugin-api: found no `Cargo.toml`; hint: name its folder with `--api \
         DIR`",
    );
    let other = source_tree().join("plugins/sgd");
    let outcome = gauntlet(folder.path(), &["plugins", "new", "my-opt", "--api", other.to_str().unwrap()]);
    assert_eq!(outcome.code, 66);
    assert_eq!(
        filtered(&outcome.stderr, folder.path()),
        "error: `[SOURCE]/plugins/sgd` is not the crate gauntlet-plugin-api: found another crate; hint: name its folder \
         with `--api DIR`\n"
    );
}
