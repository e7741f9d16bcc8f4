//! The checkpoints of a run: one function decides which is the latest, for resume, rotation and listing.

use super::open::Checkpoint;
use crate::error::{Fault, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder that bears a checkpoint's name.
#[derive(Debug)]
pub struct Found {
    /// Finished steps, and parts of the next one, by its name.
    pub at: (u64, u64),
    /// The folder.
    pub path: PathBuf,
    /// The checkpoint, or why it is none.
    pub checkpoint: Result<Checkpoint>,
}

/// Folders that bear a checkpoint's name and are none, each with the reason.
pub type Damaged = Vec<(PathBuf, Fault)>;

/// Name of the folder of a checkpoint.
pub fn name(step: u64, part: u64) -> String {
    if part == 0 { format!("step-{step}") } else { format!("step-{step}.part-{part}") }
}

/// Finished steps and parts of a folder's name.
fn parse(name: &str) -> Option<(u64, u64)> {
    let rest = name.strip_prefix("step-")?;
    let (step, part) = rest.split_once(".part-").map_or((rest, "0"), |(step, part)| (step, part));
    let at = (step.parse().ok()?, part.parse().ok()?);
    (self::name(at.0, at.1) == name).then_some(at)
}

/// Every folder that bears a checkpoint's name, oldest first by its number. Only manifests are read.
///
/// # Errors
///
/// A folder that cannot be read; one that does not exist is empty.
pub fn list(folder: &Path) -> Result<Vec<Found>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(Fault::reading(folder, &error)),
    };
    let mut found: Vec<Found> = entries
        .flatten()
        .filter_map(|entry| Some((parse(entry.file_name().to_str()?)?, entry.path())))
        .map(|(at, path)| Found { at, checkpoint: Checkpoint::open(&path), path })
        .collect();
    found.sort_by_key(|found| found.at);
    Ok(found)
}

/// The newest checkpoint that verifies, and the newer folders that do not, each with the reason.
///
/// # Errors
///
/// A folder that cannot be read.
pub fn latest(folder: &Path) -> Result<(Option<Checkpoint>, Damaged)> {
    let mut damaged = vec![];
    for found in list(folder)?.into_iter().rev() {
        match found.checkpoint.and_then(|checkpoint| checkpoint.verify().map(|()| checkpoint)) {
            Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
            Err(fault) => damaged.push((found.path, fault)),
        }
    }
    Ok((None, damaged))
}

/// Renames a damaged checkpoint, so that the run can write its own at that step: `step-4` becomes `step-4.damaged`.
/// Gives the new path.
///
/// # Errors
///
/// [`Exit::Write`](crate::error::Exit::Write).
pub fn set_aside(damaged: &Path) -> Result<PathBuf> {
    let name = damaged.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    let numbered = (2..).map(|number| damaged.with_file_name(format!("{name}.damaged-{number}")));
    let names = std::iter::once(damaged.with_file_name(format!("{name}.damaged"))).chain(numbered);
    let target = names.into_iter().find(free).unwrap_or_else(|| damaged.to_owned());
    fs::rename(damaged, &target).map_err(|error| Fault::writing(damaged, &error))?;
    Ok(target)
}

/// Removes the oldest checkpoints, so that `keep` whole ones stay; `newest` is never removed.
///
/// # Errors
///
/// A folder that cannot be removed. It gets another name first, so that what is left of it bears no checkpoint's.
pub fn rotate(folder: &Path, keep: usize, newest: &Path) -> Result<()> {
    let whole: Vec<Found> = list(folder)?.into_iter().filter(|found| found.checkpoint.is_ok()).collect();
    let surplus = whole.len().saturating_sub(keep.max(1));
    for old in whole.iter().filter(|found| found.path != newest).take(surplus) {
        let removed = folder.join(format!(".{}{REMOVED}", name(old.at.0, old.at.1)));
        let remove = || {
            if removed.exists() {
                fs::remove_dir_all(&removed)?;
            }
            fs::rename(&old.path, &removed)?;
            fs::remove_dir_all(&removed)
        };
        remove().map_err(|error| Fault::writing(&old.path, &error))?;
    }
    Ok(())
}

/// Ending of the name of a checkpoint that is being removed.
const REMOVED: &str = ".removed";

/// Removes what a killed process left: checkpoints that were not committed, and old ones that were not wholly removed.
/// Gives their names. The run's folder is locked, so nobody writes there.
///
/// # Errors
///
/// A folder that cannot be read or removed.
pub fn clean(folder: &Path) -> Result<Vec<String>> {
    let mut names = vec![];
    for entry in fs::read_dir(folder).map_err(|error| Fault::reading(folder, &error))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let hidden =
            name.strip_prefix('.').and_then(|rest| rest.strip_suffix(REMOVED).or(rest.strip_suffix(".partial")));
        if hidden.and_then(parse).is_some() && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(entry.path()).map_err(|error| Fault::writing(&entry.path(), &error))?;
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_number_and_read_back() {
        let mut all = vec![(9_000, 0), (10_000, 0), (9_000, 12), (9_000, 3)];
        all.sort_unstable();
        let names: Vec<String> = all.iter().map(|(step, part)| name(*step, *part)).collect();
        assert_eq!(names, ["step-9000", "step-9000.part-3", "step-9000.part-12", "step-10000"]);
        assert_eq!(names.iter().filter_map(|name| parse(name)).collect::<Vec<_>>(), all);
        for no in ["step-", "step-x", "step-01", ".step-1.partial", "step-1.part-0", "latest"] {
            assert_eq!(parse(no), None, "{no}");
        }
    }
}
