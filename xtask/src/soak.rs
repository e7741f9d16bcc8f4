//! `cargo xtask soak`: every round of the tests of what can be done to a run, of which the suite runs a sample.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::cargo;
use crate::setup;
use crate::suite::{self, Counts};

/// Modules of the integration tests that have more rounds than the suite runs.
const MODULES: [&str; 3] = ["kills::", "storage::", "power::"];
/// The page that keeps the last result.
const PAGE: &str = "docs/soak.md";

/// Runs the tests, one at a time, and writes the page.
pub fn run() -> Result<()> {
    setup::ensure(setup::present_edition(), &[])?;
    let args = [&["--package", "gauntlet", "--test", "integration", "--", "--test-threads=1"], &MODULES[..]].concat();
    let (mut results, mut last) = (vec![], Instant::now());
    let hear = |line: &str| {
        if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            results.push((name.to_owned(), result.to_owned(), last.elapsed()));
            last = Instant::now();
        } else if line.starts_with("running ") {
            last = Instant::now();
        }
    };
    let (counts, outcome) = suite::run_tests(&args, &[("GAUNTLET_SOAK", "1")], hear)?;
    let page = cargo::workspace_root().join(PAGE);
    std::fs::write(&page, text(&results, &counts)).with_context(|| format!("cannot write `{}`", page.display()))?;
    println!("wrote {PAGE}");
    outcome
}

fn text(results: &[(String, String, Duration)], counts: &Counts) -> String {
    let row = |(name, result, time): &(String, String, Duration)| {
        let what = name.split("::").last().unwrap_or(name).replace('_', " ");
        format!("| {what} | {result} | {} |\n", time.as_secs())
    };
    let rows: String = results.iter().map(row).collect();
    let Counts { passed, failed, skipped } = counts;
    format!(
        "# The last soak\n\n`cargo xtask soak` on {}, {}, Linux {}: {passed} passed, {failed} failed, {skipped} \
         skipped.\n\n| what holds | result | seconds |\n| --- | --- | ---: |\n{rows}",
        today(),
        processor(),
        said("uname", &["-r"]),
    )
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(|_| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {}", name.map_or("an unknown processor", |(_, name)| name))
}

/// Today's date, UTC, as YYYY-MM-DD (the algorithm of days in 400-year eras, from March).
fn today() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() / 86_400);
    date(days)
}

fn date(days_since_1970: u64) -> String {
    let days = days_since_1970 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + u64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(
            [0, 59, 11_016, 19_782, 20_454].map(date),
            ["1970-01-01", "1970-03-01", "2000-02-29", "2024-02-29", "2026-01-01"]
        );
    }

    #[test]
    fn a_page_has_a_row_for_each_test() {
        let results = [("kills::a_kill_is_fine".to_owned(), "ok".to_owned(), Duration::from_secs(7))];
        let page = text(&results, &Counts { passed: 1, failed: 0, skipped: 0 });
        assert!(page.contains("1 passed, 0 failed, 0 skipped") && page.ends_with("| a kill is fine | ok | 7 |\n"));
    }
}
