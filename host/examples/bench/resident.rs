//! What this process holds, as the system tells it.

use std::fs;

use anyhow::{Context, Result};

/// Bytes held now.
pub fn now() -> Result<f64> {
    field("VmRSS")
}

/// The most bytes held since [`forget_peak`].
pub fn peak() -> Result<f64> {
    field("VmHWM")
}

/// Begins a new peak.
pub fn forget_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("cannot write `/proc/self/clear_refs`")
}

fn field(name: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read `/proc/self/status`")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(1024.0 * kilobytes.with_context(|| format!("`/proc/self/status` has no `{name}`"))?)
}

/// Loads what libtorch loads at its first use, so that it is not counted as a subject's.
pub fn load_libraries() {
    let x = tch::Tensor::ones([64, 64], (tch::Kind::Float, tch::Device::Cpu));
    drop(x.matmul(&x));
}
