//! What an optimizer takes on the problem of the checks: bytes of state, calls of the host, time and threads.

use super::super::subject::Subject;
use super::checks::{Failure, start};
use crate::backend::{Outcome, SavedState};
use crate::error::Error;
use gauntlet_plugin_abi::ErrorCode;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Measured figures; they are shown, not judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Bytes of the parameters.
    pub param_bytes: u64,
    /// Bytes of state that the optimizer declares.
    pub declared_state_bytes: u64,
    /// Bytes of the tensors that it saves between steps.
    pub saved_state_bytes: u64,
    /// Calls of `step` that one step takes.
    pub parts: u64,
    /// Calls of the host in one step.
    pub calls: u64,
    /// Median wall time of a step.
    pub step_time: Duration,
    /// Threads of the process before the optimizer was made, and the most of them after a step; where the system tells.
    pub threads: Option<(usize, usize)>,
}

/// Bytes of all tensors of a state.
pub(super) fn tensor_bytes(state: &SavedState) -> u64 {
    state.entries.iter().flat_map(|entry| &entry.tensors).map(|tensor| tensor.bytes.len() as u64).sum()
}

/// Steps an optimizer on the problem of the checks in F64 and measures it.
///
/// # Errors
///
/// The optimizer's own.
pub fn measure(subject: &Subject, config: &Value) -> Result<Figures, Error> {
    const STEPS: usize = 11;
    let failed = |failure: Failure| Error::new(ErrorCode::PLUGIN, "", failure.0);
    let before = threads();
    let mut harness = start(subject, config).map_err(failed)?;
    let (mut parts, mut calls, mut most) = (0, 0, before);
    let mut times = vec![];
    for _ in 0..STEPS {
        let (called, began) = (harness.calls(), Instant::now());
        parts = 1;
        while harness.call()?.outcome == Outcome::More {
            parts += 1;
        }
        times.push(began.elapsed());
        calls = harness.calls() - called;
        most = most.max(threads());
    }
    times.sort_unstable();
    Ok(Figures {
        param_bytes: 8 * harness.params().len() as u64,
        declared_state_bytes: harness.declared_state_bytes(subject, config)?,
        saved_state_bytes: tensor_bytes(&harness.save()?),
        parts,
        calls,
        step_time: times[STEPS / 2],
        threads: before.zip(most),
    })
}

/// Threads of this process.
fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}
