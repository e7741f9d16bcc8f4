//! A record's lines as they come, in pieces that may end anywhere.

use crate::error::{Exit, Fault, Result};
use crate::events::Event;
use serde::Deserialize;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// The longest line that is kept, in bytes; a longer one is no event.
const LONGEST: usize = 16 << 20;

/// What hears an event, with the seconds since its process began.
pub type Hear<'a> = dyn FnMut(f64, Event) + 'a;

/// Reads a record that may still grow. A last line that is torn waits for its rest.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// Lines that are events.
    pub events: u64,
    /// Lines that are not; a torn last one is not among them.
    pub unreadable: u64,
    /// The line whose end has not come.
    pending: Vec<u8>,
    /// Whether that line is longer than what is kept of it.
    too_long: bool,
}

#[derive(Deserialize)]
struct Line {
    /// Seconds since the start of the process's part of the run.
    elapsed: f64,
    #[serde(flatten)]
    event: Event,
}

impl Lines {
    /// Reads on to the present end of the file; gives the bytes that came.
    ///
    /// # Errors
    ///
    /// The system's own.
    pub fn read(&mut self, file: &mut impl Read, hear: &mut Hear<'_>) -> std::io::Result<u64> {
        let (mut piece, mut total) = (vec![0; PIECE], 0);
        loop {
            match file.read(&mut piece) {
                Ok(0) => return Ok(total),
                Ok(count) => {
                    self.take(&piece[..count], hear);
                    total += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes in more of the record's bytes.
    pub fn take(&mut self, bytes: &[u8], hear: &mut Hear<'_>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(piece);
            let ended = piece.ends_with(b"\n");
            // Only the newline of a whole event may be missing.
            if ended || piece.ends_with(b"}") {
                self.line(ended, hear);
            }
            if self.pending.len() > LONGEST {
                (self.pending, self.too_long) = (Vec::new(), true);
            }
        }
    }

    /// Hears the pending line; one that has not `ended` and is no event stays.
    fn line(&mut self, ended: bool, hear: &mut Hear<'_>) {
        let parsed = if self.too_long { None } else { serde_json::from_slice::<Line>(&self.pending).ok() };
        let blank = self.pending.trim_ascii().is_empty() && !self.too_long;
        match parsed {
            Some(Line { elapsed, event }) => {
                self.events += 1;
                hear(elapsed, event);
            }
            None if !ended => return,
            None => self.unreadable += u64::from(!blank),
        }
        self.pending.clear();
        self.too_long &= !ended;
    }

    /// Whether what was read of `path` can be the record of a run: not when it has lines, none of which is an event.
    ///
    /// # Errors
    ///
    /// [`Exit::Data`].
    pub fn check(&self, path: &Path) -> Result<()> {
        match self.events > 0 || self.unreadable == 0 {
            true => Ok(()),
            false => Err(Fault::new(Exit::Data, format!("`{}`: not the record of a run", path.display()))
                .found(format_args!("{} lines, none of which is an event", self.unreadable))),
        }
    }
}
