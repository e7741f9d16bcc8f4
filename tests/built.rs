//! Nested calls of cargo: the shipped plugins, the fixtures, and crates that a test made.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The program under test.
pub const GAUNTLET: &str = env!("CARGO_BIN_EXE_gauntlet");

/// Lets cargo report what it built on standard output.
pub const REPORT: &str = "--message-format=json-render-diagnostics";

/// What a call of cargo built: the path of each shared library and program by its crate's name.
pub type Artifacts = BTreeMap<String, PathBuf>;

/// What a build came to: its artifacts, or cargo's output.
pub type Built = Result<Artifacts, String>;

/// The root of the source tree.
pub fn source_tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The folder that the program was built into, for example `target/release`.
pub fn profile_dir() -> &'static Path {
    Path::new(GAUNTLET).parent().unwrap()
}

/// The target folder of everything that is no member of the workspace.
pub fn fixtures_dir() -> PathBuf {
    profile_dir().parent().unwrap().join("fixtures")
}

/// The library of a shipped plugin.
pub fn plugin(name: &str) -> &'static Path {
    static PLUGINS: LazyLock<Built> = LazyLock::new(|| {
        let profile = match profile_dir().file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        let mut cargo = cargo(source_tree(), &["build", REPORT, "--profile", profile]);
        cargo.args(shipped().iter().flat_map(|name| ["-p", name.as_str()]));
        build(cargo.arg("--target-dir").arg(profile_dir().parent().unwrap()))
    });
    artifact(&PLUGINS, name)
}

/// The names of the shipped plugins: the folders of `plugins`, but for the library of their rules.
pub fn shipped() -> Vec<String> {
    let folders = std::fs::read_dir(source_tree().join("plugins")).unwrap().flatten();
    let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name != "update-rules").collect();
    names.sort();
    names
}

/// The library or program of a fixture.
pub fn fixture(name: &str) -> &'static Path {
    static FIXTURES: LazyLock<Built> = LazyLock::new(|| {
        let folder = source_tree().join("tests/fixtures");
        let all = &["build", REPORT, "--release", "--workspace", "--exclude", "aborting"];
        let mut built = build(&mut small(&folder, all))?;
        let aborting = &["rustc", REPORT, "--release", "-p", "aborting", "--crate-type", "cdylib"];
        built.extend(build(small(&folder, aborting).args(["--", "-C", "panic=abort"]))?);
        Ok(built)
    });
    artifact(&FIXTURES, name)
}

/// A program of the host's examples.
pub fn example(name: &str) -> &'static Path {
    static EXAMPLES: LazyLock<Built> = LazyLock::new(|| {
        let profile = if profile_dir().ends_with("debug") { "dev" } else { "release" };
        let mut cargo = cargo(source_tree(), &["build", REPORT, "--profile", profile, "-p", "gauntlet", "--examples"]);
        build(cargo.arg("--target-dir").arg(profile_dir().parent().unwrap()))
    });
    artifact(&EXAMPLES, name)
}

/// A call of cargo in a folder.
fn cargo(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(folder);
    command
}

/// A call of cargo for crates outside the workspace: quick to compile, one target folder for all, so that what they
/// depend on is compiled once. They need no libtorch, so they are not told of any.
pub fn small(folder: &Path, args: &[&str]) -> Command {
    let mut command = cargo(folder, args);
    command
        .env("CARGO_TARGET_DIR", fixtures_dir())
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env_remove("LIBTORCH")
        .env_remove("LD_LIBRARY_PATH");
    command
}

/// Runs a build with [`REPORT`] and gives what it built, or cargo's output when it fails.
pub fn build(command: &mut Command) -> Built {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(reported).collect()),
        false => Err(format!("{command:?}\n{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// One of several artifacts. Panics, with cargo's output, where the build failed.
pub fn artifact<'a>(built: &'a Built, name: &str) -> &'a Path {
    let artifacts = built.as_ref().unwrap_or_else(|output| panic!("{output}"));
    artifacts.get(name).unwrap_or_else(|| panic!("`{name}` is not among {:?}", artifacts.keys()))
}

/// The shared library or the program that a line of cargo's messages reports.
fn reported(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let kinds = message["target"]["kind"].as_array()?;
    if !kinds.iter().any(|kind| kind == "cdylib" || kind == "bin" || kind == "example") {
        return None;
    }
    let mut files = message["filenames"].as_array()?.iter().filter_map(Value::as_str);
    let file = message["executable"].as_str().or_else(|| files.find(|file| file.ends_with(".so")))?;
    Some((message["target"]["name"].as_str()?.replace('_', "-"), file.into()))
}
