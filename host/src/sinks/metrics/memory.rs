//! The memory of this process, as the kernel counts it, and how much it can have.

/// Resident memory in bytes, now and at its largest; `None` where the system does not tell.
pub fn resident() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some((field(&status, "VmRSS:")?, field(&status, "VmHWM:")?))
}

/// Bytes that this process can have: the machine's, or its control group's limit where that is less.
pub fn limit() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, "MemTotal:"));
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max");
    [machine, group.or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"))].into_iter().flatten().min()
}

/// A size in the file `status`, whose unit is always kB, for 1024 bytes.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "VmHWM:")), (Some(1 << 20), Some(2 << 20)));
        assert_eq!((field(status, "VmSwap:"), field("VmRSS: many kB", "VmRSS:")), (None, None));
        let (now, peak) = resident().unwrap();
        assert!(limit().is_some_and(|limit| limit > now), "{:?}", limit());
        assert!(now > 100_000 && peak >= now / 2, "{now} {peak}");
    }
}
