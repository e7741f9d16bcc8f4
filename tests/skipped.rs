//! Tests that a machine cannot run: they say so, in the output and in the list that `cargo xtask test` counts.

use std::io::Write;

/// Tells that a test is skipped, and why, for example `skipped("no /bin/ls")`.
pub fn skipped(reason: &str) {
    println!("skipped: {reason}");
    let Some(path) = std::env::var_os("GAUNTLET_SKIPPED_LOG") else { return };
    let log = std::fs::OpenOptions::new().append(true).create(true).open(path);
    log.and_then(|mut log| writeln!(log, "skipped: {reason}")).expect("the list of skipped tests cannot be written");
}
