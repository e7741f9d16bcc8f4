//! `cargo xtask test`: format, clippy and the whole test suite, with one closing line of counts.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::process;
use crate::setup;

/// The variable that names the file to which a test that lacks a tool adds one line, its reason, before it returns.
const SKIPPED_LOG: &str = "GAUNTLET_SKIPPED_LOG";

/// Runs all checks, also after one has failed, and prints the counts as the last line.
pub fn run() -> Result<()> {
    setup::ensure(setup::present_edition(), &[])?;
    let format = check(&["fmt", "--all", "--check"]);
    let lints = check(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    let (counts, tests) = run_tests(&["--workspace", "--no-fail-fast"], &[], |_| ())?;
    let failures: Vec<String> =
        [format, lints, tests].into_iter().filter_map(|check| Some(check.err()?.to_string())).collect();
    failures.iter().for_each(|failure| eprintln!("failed: {failure}"));
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    if failures.is_empty() { Ok(()) } else { bail!("{} of 3 checks failed", failures.len()) }
}

fn check(args: &[&str]) -> Result<()> {
    let what = format!("cargo {}", args.join(" "));
    eprintln!("running `{what}`");
    process::run(&mut cargo::command(args), &what)
}

/// Runs `cargo test --release` with more arguments and variables; `hear` gets each line of its output. Returns the counts,
/// and whether it succeeded.
pub fn run_tests(
    args: &[&str],
    variables: &[(&str, &str)],
    mut hear: impl FnMut(&str),
) -> Result<(Counts, Result<()>)> {
    let args = [&["test", "--release"], args].concat();
    let what = format!("cargo {}", args.join(" "));
    eprintln!("running `{what}`");
    let log = SkippedLog::new()?;
    let mut command = cargo::command(&args);
    command.envs(variables.iter().copied()).env(SKIPPED_LOG, &log.path);
    let spawned = command.stdout(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("cannot run `{what}`"))?;
    let mut counts = Counts::default();
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(|output| output.split(b'\n')) {
        let line = line.with_context(|| format!("cannot read from `{what}`"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        counts.add_result(&line);
        hear(&line);
    }
    let outcome = process::check(child.wait()?, &what);
    for reason in log.reasons() {
        println!("skipped: {reason}");
        counts.skip_passed();
    }
    Ok((counts, outcome))
}

/// The file that tests write their reasons to, removed on drop.
struct SkippedLog {
    path: PathBuf,
}

impl SkippedLog {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("gauntlet-skipped-{}.log", std::process::id()));
        fs::write(&path, "").with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self { path })
    }

    fn reasons(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let lines = text.lines().map(|line| line.trim_start_matches("skipped: ").trim());
        lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

impl Drop for SkippedLog {
    fn drop(&mut self) {
        // A file left in the temporary folder harms nobody.
        let _ = fs::remove_file(&self.path);
    }
}

/// The sums over all test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that ran and held.
    pub passed: u64,
    /// Tests that did not hold.
    pub failed: u64,
    /// Tests that this machine cannot run.
    pub skipped: u64,
}

impl Counts {
    /// Adds a line `test result: ok. 5 passed; 0 failed; 1 ignored; …`; other lines count nothing.
    fn add_result(&mut self, line: &str) {
        let Some((_, numbers)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in numbers.split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            let number = number.parse::<u64>().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Counts a test as skipped that told its reason and that the test harness counts as passed.
    fn skip_passed(&mut self) {
        self.passed = self.passed.saturating_sub(1);
        self.skipped += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
            "test result::tests::ok ... ok",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.23s",
            "all doctests ran in 0.50s; merged doctests compilation took 0.30s",
        ] {
            counts.add_result(line);
        }
        assert_eq!(counts, Counts { passed: 13, failed: 2, skipped: 1 });
        counts.skip_passed();
        assert_eq!(counts, Counts { passed: 12, failed: 2, skipped: 2 });
    }

    #[test]
    fn reasons_are_the_lines_of_the_log() {
        let log = SkippedLog::new().unwrap();
        assert!(log.reasons().is_empty());
        fs::write(&log.path, "skipped: no objdump\n\nno gcc for aarch64\n").unwrap();
        assert_eq!(log.reasons(), ["no objdump", "no gcc for aarch64"]);
        let path = log.path.clone();
        drop(log);
        assert!(!path.exists());
    }
}
