//! Nested calls of cargo in the workspace, all in the one profile that the project uses.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;

/// The workspace's root folder. Cargo says at run time where it is now: a checkout may have moved since it was built.
pub fn workspace_root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let xtask = PathBuf::from(xtask);
        xtask.parent().map(Path::to_owned).unwrap_or(xtask)
    });
    &ROOT
}

/// `cargo ARGS`, run in the workspace's root by the same cargo that runs this program.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(args).current_dir(workspace_root());
    command
}

/// Builds every crate and returns the path of the binary `name`, wherever the target folder is configured to be.
pub fn build_workspace(name: &str) -> Result<PathBuf> {
    build(&["build", "--release", "--workspace"], "bin", name)
}

/// Builds an example of a package and returns its path.
pub fn build_example(package: &str, name: &str) -> Result<PathBuf> {
    build(&["build", "--release", "--package", package, "--example", name], "example", name)
}

fn build(args: &[&str], kind: &str, name: &str) -> Result<PathBuf> {
    let what = format!("cargo {}", args.join(" "));
    let mut command = command(args);
    command.arg("--message-format=json-render-diagnostics");
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{what}`"))?;
    let mut binary = None;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines) {
        binary = executable(&line.with_context(|| format!("cannot read from `{what}`"))?, kind, name).or(binary);
    }
    process::check(child.wait()?, &what)?;
    match binary {
        Some(binary) => Ok(binary),
        None => bail!("`{what}` built no {kind} `{name}`"),
    }
}

/// The executable that this line of cargo's JSON messages reports, if it is the `name` of a kind.
fn executable(line: &str, kind: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let target = &message["target"];
    let is_it = message["reason"] == "compiler-artifact"
        && target["name"] == name
        && target["kind"].as_array()?.iter().any(|found| found == kind);
    is_it.then(|| message["executable"].as_str().map(PathBuf::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_the_messages() {
        let artifact = |kind: &str, name: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}","kind":["{kind}"]}},"executable":"/t/release/{name}"}}"#
            )
        };
        assert_eq!(
            executable(&artifact("bin", "gauntlet"), "bin", "gauntlet"),
            Some(PathBuf::from("/t/release/gauntlet"))
        );
        assert_eq!(executable(&artifact("bin", "xtask"), "bin", "gauntlet"), None);
        assert_eq!(executable(&artifact("test", "gauntlet"), "bin", "gauntlet"), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#, "bin", "gauntlet"), None);
        assert_eq!(executable("text of a build script", "bin", "gauntlet"), None);
    }
}
