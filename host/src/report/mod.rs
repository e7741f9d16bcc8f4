//! `report.html`: one or several runs as their records tell them, on one page that needs no script and no network.
//!
//! [`lines`] and [`history`] read `events.jsonl` back, [`series`] makes curves of it, [`chart`] draws them as SVG,
//! [`page`] puts the page together. The same records give the same bytes. Whatever else shows a record reads it here.

mod branch;
mod chart;
mod history;
mod lines;
mod numbers;
mod page;
mod series;

pub use branch::Branch;
pub use chart::{Chart, Curve, Size, Stroke};
pub use history::{Cost, History, Loss, RECORD};
pub use lines::Lines;
pub use numbers::{duration, rounded};
pub use page::{document, escaped, figure_of, swatch};
pub use series::{Axis, Points, average_length, averaged, points, thinned};

use crate::durable;
use crate::error::Result;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Reads the records of these run folders and writes the page about them to `out`, which it replaces.
///
/// # Errors
///
/// [`Exit::Missing`](crate::error::Exit::Missing) for a folder without a record,
/// [`Exit::Data`](crate::error::Exit::Data) for a record of something else,
/// [`Exit::Write`](crate::error::Exit::Write).
pub fn write(runs: &[PathBuf], out: &Path) -> Result<()> {
    let histories = runs.par_iter().map(|run| History::read(run)).collect::<Result<Vec<_>>>()?;
    durable::replace(out, page::render(&with_distinct_names(histories, runs))?.as_bytes())
}

/// Runs whose folders have one name are told apart by their whole paths.
fn with_distinct_names(mut histories: Vec<History>, runs: &[PathBuf]) -> Vec<History> {
    let names: Vec<String> = histories.iter().map(|history| history.name.clone()).collect();
    for (history, run) in histories.iter_mut().zip(runs) {
        if names.iter().filter(|name| **name == history.name).count() > 1 {
            history.name = run.display().to_string();
        }
    }
    histories
}

#[cfg(test)]
mod tests;
