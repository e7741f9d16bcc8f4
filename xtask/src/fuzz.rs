//! `cargo xtask fuzz`: every target of `fuzz/` for a while, by cargo-fuzz on a nightly toolchain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cargo::workspace_root;
use crate::process;
use crate::setup;

/// Bytes of an input, at most: a shard's header has 1024.
const MOST_BYTES: &str = "-max_len=4096";
/// Seconds that one input may take.
const TIME_LIMIT: &str = "-timeout=10";
/// Memory that a target may take, libtorch included.
const MEMORY_LIMIT: &str = "-rss_limit_mb=2048";

#[derive(clap::Args)]
pub struct Options {
    /// Seconds for each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
}

/// Runs the targets in turn; the first that fails ends it, and its input lies in `target/fuzz/found`.
pub fn run(options: &Options) -> Result<()> {
    let corpora = workspace_root().join("tests/data/fuzz");
    let targets = chosen(targets(&corpora)?, options.target.as_deref())?;
    if let Some(missing) = missing(succeeds) {
        bail!("{missing}");
    }
    setup::ensure(setup::present_edition(), &[])?;
    for target in &targets {
        eprintln!("fuzzing `{target}` for {} s", options.seconds);
        fuzz(target, &corpora.join(target), options.seconds)?;
    }
    println!("{} targets, {} s each: nothing found", targets.len(), options.seconds);
    Ok(())
}

/// Names of all targets: the folders of their corpora.
fn targets(corpora: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(corpora).with_context(|| format!("cannot read `{}`", corpora.display()))?;
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn chosen(targets: Vec<String>, wanted: Option<&str>) -> Result<Vec<String>> {
    match wanted {
        None => Ok(targets),
        Some(wanted) if targets.iter().any(|name| name == wanted) => Ok(vec![wanted.to_owned()]),
        Some(wanted) => bail!("`{wanted}` is no target: expected one of {}", targets.join(", ")),
    }
}

/// What this machine lacks, in a line, by what `succeeds`.
fn missing(succeeds: impl Fn(&[&str]) -> bool) -> Option<&'static str> {
    let nightly = ["run", "nightly"];
    let with = |args: &[&'static str]| succeeds(&[&nightly[..], args].concat());
    if !succeeds(&["--version"]) {
        Some("fuzzing needs rustup, which chooses toolchains: found no `rustup`; hint: install Rust by rustup")
    } else if !with(&["rustc", "--version"]) {
        Some(
            "fuzzing needs a nightly toolchain: found none; hint: `rustup toolchain install nightly --profile minimal`",
        )
    } else if !with(&["cargo", "fuzz", "--version"]) {
        Some("fuzzing needs cargo-fuzz: found none; hint: `cargo install cargo-fuzz --locked`")
    } else {
        None
    }
}

fn succeeds(args: &[&str]) -> bool {
    let mut command = Command::new("rustup");
    let status = command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Runs one target. Inputs that reach new code are kept in `target/fuzz/corpus`; `seeds` is only read.
fn fuzz(target: &str, seeds: &Path, seconds: u64) -> Result<()> {
    let place = workspace_root().join("target/fuzz");
    let (corpus, found) = (place.join("corpus").join(target), place.join("found").join(target));
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| format!("cannot write `{}`", folder.display()))?;
    }
    let what = format!("cargo fuzz run {target}");
    let mut command = Command::new("rustup");
    // The host is memory-safe code but for its calls of libtorch, which is not instrumented: the oracle is the panic.
    command.args(["run", "nightly", "cargo", "fuzz", "run", "--sanitizer", "none", "--fuzz-dir", "fuzz"]);
    command.arg("--target-dir").arg(place.join("build")).arg(target).arg(&corpus).arg(seeds).arg("--");
    command.args([MOST_BYTES, TIME_LIMIT, MEMORY_LIMIT, &format!("-max_total_time={seconds}")]);
    command.arg(prefix(&found)).current_dir(workspace_root());
    // This process was started by a cargo of another toolchain, which its environment says.
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC");
    process::run(&mut command, &what)
}

/// Where libFuzzer writes what it found.
fn prefix(found: &Path) -> PathBuf {
    PathBuf::from(format!("-artifact_prefix={}/", found.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_in_one_line_with_the_command_that_helps() {
        assert!(missing(|_| false).unwrap_or_default().contains("found no `rustup`"));
        assert_eq!(missing(|_| true), None);
        let without = |tool: &'static str| missing(move |args| !args.contains(&tool)).unwrap_or_default();
        assert!(without("rustc").contains("`rustup toolchain install nightly"), "{}", without("rustc"));
        assert!(without("fuzz").contains("`cargo install cargo-fuzz"), "{}", without("fuzz"));
    }

    #[test]
    fn targets_are_the_folders_of_corpora_and_others_are_refused() {
        let names = targets(&workspace_root().join("tests/data/fuzz")).unwrap();
        assert!(names.contains(&"config".to_owned()) && names.contains(&"elf".to_owned()), "{names:?}");
        assert_eq!(chosen(names.clone(), Some("elf")).unwrap(), ["elf"]);
        let error = chosen(names, Some("elves")).unwrap_err().to_string();
        assert!(error.starts_with("`elves` is no target: expected one of config, elf, "), "{error}");
    }
}
