//! `gauntlet watch`: a running or finished run on the terminal, as its record tells it.
//!
//! [`follow`] reads `events.jsonl` as it grows and looks whether the run's process lives, [`run`] keeps what a view shows,
//! [`words`] makes lines of events, [`view`] draws a frame, [`screen`] shows frames on a terminal until the user quits.
//! The run is never touched: its files are opened to be read, and nothing is sent to its process.

mod follow;
mod run;
mod screen;
#[cfg(test)]
mod tests;
mod view;
mod words;

use crate::error::{Exit, Fault, Result};
use follow::Follower;
use std::io::IsTerminal;
use std::path::Path;
use view::View;

/// Shows a run's folder on the terminal until the user quits; gives the exit code, which is not 0 where a signal ended it.
///
/// # Errors
///
/// [`Exit::Usage`] without a terminal, [`Exit::Missing`] without the folder, [`Exit::Data`] where its record is none,
/// [`Exit::Write`] where the terminal fails.
pub fn watch(folder: &Path) -> Result<u8> {
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Err(Fault::new(Exit::Usage, "`gauntlet watch` needs a terminal")
            .found("standard input or output that is none")
            .hint("print one frame with `--once`"));
    }
    let mut follower = Follower::new(folder)?;
    follower.poll()?;
    screen::show(&mut follower)
}

/// One frame of a run's folder as plain text of at most `width` characters a line.
///
/// # Errors
///
/// [`Exit::Missing`] without the folder or its record, [`Exit::Data`] where that is none.
pub fn once(folder: &Path, width: u16) -> Result<String> {
    let mut follower = Follower::new(folder)?;
    follower.poll()?;
    follower.expect_record()?;
    Ok(View::of(&follower).plain(width))
}
