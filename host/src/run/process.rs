//! What of the process belongs to the host alone: a plugin that changes it changes the run of everything else.

use crate::error::{Exit, Fault, Result};
use std::fs;
use std::hint::black_box;

/// Folder, mask of modes, signals, threads of libtorch, and how numbers are rounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process(Vec<(&'static str, String)>);

impl Process {
    /// As it is now.
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().trim().to_owned()
        };
        let folder = std::env::current_dir().map(|folder| folder.display().to_string()).unwrap_or_default();
        Self(vec![
            ("working folder", folder),
            ("mask of file modes", line("Umask")),
            ("ignored signals", line("SigIgn")),
            ("handled signals", line("SigCgt")),
            ("threads of libtorch", tch::get_num_threads().to_string()),
            ("rounding of numbers", rounding().to_owned()),
        ])
    }

    /// Compares with how it is now.
    ///
    /// # Errors
    ///
    /// [`Exit::Plugin`]: the first difference, as a fault of the plugin.
    pub fn refuse_changes(&self, plugin: &str) -> Result<()> {
        let now = Self::now();
        match self.0.iter().zip(&now.0).find(|(before, after)| before != after) {
            None => Ok(()),
            Some(((what, before), (_, after))) => {
                let what = format!("plugin `{plugin}` changed the {what} of the process");
                Err(Fault::new(Exit::Plugin, what).found(format!("`{after}`")).expected(format!("`{before}`")))
            }
        }
    }
}

/// Whether numbers are rounded to the nearest, and small ones kept.
fn rounding() -> &'static str {
    let (one, small) = (black_box(1.0_f64), black_box(1e-20_f64));
    let nearest = one + small == 1.0 && -one - small == -1.0 && one - small == 1.0;
    let kept = black_box(f64::MIN_POSITIVE) / black_box(2.0) > 0.0;
    match (nearest, kept) {
        (true, true) => "to the nearest",
        (true, false) => "to the nearest, small ones to zero",
        (false, _) => "not to the nearest",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_with_both_values() {
        let mut before = Process::now();
        assert_eq!(before.refuse_changes("x"), Ok(()));
        before.0[1].1 = "7777".into();
        let fault = before.refuse_changes("x").unwrap_err().to_string();
        assert!(fault.starts_with("plugin `x` changed the mask of file modes of the process: found `"), "{fault}");
        assert!(fault.ends_with("expected `7777`"), "{fault}");
        assert_eq!(rounding(), "to the nearest");
    }
}
