//! Losses of checkpoints around targets over more validation data, kept in the run's folder as they come: a run that was
//! interrupted is looked at where one is that was not.

use crate::durable;
use crate::error::{Exit, Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Losses by step.
pub type ByStep = BTreeMap<u64, f64>;

/// What was evaluated again of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Fine {
    file: PathBuf,
    kept: Kept,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    batches: usize,
    /// The losses that the run was to come down to, and those of its last checkpoints when it had.
    aims: Vec<(f64, ByStep)>,
}

impl Fine {
    /// Of a run's folder, over so many batches; losses over other numbers of batches are forgotten.
    pub fn of(folder: &Path, batches: usize) -> Self {
        let file = folder.join("fine.json");
        let kept = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let kept = kept.filter(|kept: &Kept| kept.batches == batches).unwrap_or(Kept { batches, aims: vec![] });
        Self { file, kept }
    }

    /// What was found when the run had come down to `aim`, if that was looked at.
    pub fn at(&self, aim: f64) -> Option<&ByStep> {
        self.kept.aims.iter().find(|(at, _)| *at == aim).map(|(_, losses)| losses)
    }

    /// Keeps what was found there.
    ///
    /// # Errors
    ///
    /// [`Exit::Write`].
    pub fn keep(&mut self, aim: f64, losses: ByStep) -> Result<()> {
        self.kept.aims.push((aim, losses));
        let text = serde_json::to_vec(&self.kept).map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
        durable::replace(&self.file, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_kept_for_the_same_batches() {
        let folder = tempfile::tempdir().unwrap();
        let found = ByStep::from([(3, 2.5), (4, 0.1 + 0.2)]);
        Fine::of(folder.path(), 7).keep(1.65, found.clone()).unwrap();
        assert_eq!(Fine::of(folder.path(), 7).at(1.65), Some(&found));
        assert_eq!((Fine::of(folder.path(), 7).at(1.6), Fine::of(folder.path(), 8).at(1.65)), (None, None));
        std::fs::write(folder.path().join("fine.json"), "{").unwrap();
        assert_eq!(Fine::of(folder.path(), 7).at(1.65), None, "what cannot be read is made again");
    }
}
