//! What a measurement was made on.

use std::fs;

use serde_json::{Value, json};

/// Processor, cores, memory and system, as Linux tells them.
pub fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    json!({
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "memory_kb": field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or(0),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_1m": read("/proc/loadavg").split(' ').next().and_then(|load| load.parse::<f64>().ok()),
    })
}

/// The first value of `name : value` lines.
fn field(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 17\nmodel name\t: A B\nMemTotal:  123 kB\n";
        assert_eq!(field(text, "model name"), "A B");
        assert_eq!(field(text, "model"), "17");
        assert_eq!(field(text, "MemTotal"), "123 kB");
        assert_eq!(field(text, "flags"), "");
    }
}
