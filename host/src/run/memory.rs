//! How many sequences are computed at once, by the memory that is free.

use crate::curvature::automatic_micro_batch;
use crate::model::ModelConfig;

/// Bytes of activations for which [`automatic_micro_batch`] gives its number; more gains no speed.
const MOST: u64 = 2 << 30;
/// Share of the free memory that activations may take; parameters, gradients and states take the rest.
const SHARE: u64 = 4;

/// The number of sequences whose activations fit a quarter of the free memory, at most 2 GiB; at least one.
pub fn micro_batch_size(model: &ModelConfig, seq_len: usize) -> usize {
    let most = automatic_micro_batch(model, seq_len);
    within(most, free().unwrap_or(u64::MAX))
}

fn within(most: usize, free: u64) -> usize {
    let budget = (free / SHARE).min(MOST);
    ((most as u128 * u128::from(budget) / u128::from(MOST)) as usize).max(1)
}

/// Bytes that the system, or the control group of this process, has left; `None` where neither tells.
fn free() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = available.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = |limit: &str, usage: &str| Some(number(limit)?.saturating_sub(number(usage)?));
    let group = group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current").or_else(|| {
        let folder = "/sys/fs/cgroup/memory";
        group(&format!("{folder}/memory.limit_in_bytes"), &format!("{folder}/memory.usage_in_bytes"))
    });
    [available.map(|kib| kib * 1024), group].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_take_a_quarter_of_what_is_free_and_at_most_2_gib() {
        assert_eq!(within(64, u64::MAX), 64);
        assert_eq!(within(64, 8 << 30), 64);
        assert_eq!(within(64, 4 << 30), 32);
        assert_eq!(within(64, 1 << 30), 8);
        assert_eq!(within(64, 0), 1);
    }

    #[test]
    fn this_machine_tells_what_is_free() {
        assert!(free().is_some_and(|free| free > 1 << 20));
    }
}
