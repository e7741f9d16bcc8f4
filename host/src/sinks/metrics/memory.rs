//! The memory of this process, as the kernel counts it.

/// Resident memory in bytes, now and at its largest; `None` where the system does not tell.
pub fn resident() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some((field(&status, "VmRSS:")?, field(&status, "VmHWM:")?))
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
        assert!(now > 100_000 && peak >= now / 2, "{now} {peak}");
    }
}
