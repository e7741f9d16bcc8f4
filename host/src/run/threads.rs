//! What the threads of this process are doing, as the system sees them.

use crate::error::printable;
use crate::sinks::say;
use std::fs;

/// Says one line a thread: number, name, state, processor time, and the place in the system where it waits.
pub fn say_states() {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut ids: Vec<u32> = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    say(&format!("{} threads:", ids.len()));
    ids.iter().filter_map(|id| line(*id)).for_each(|line| say(&line));
}

fn line(id: u32) -> Option<String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/task/{id}/{name}")).ok();
    let stat = read("stat")?;
    let Facts { state, ticks } = Facts::of(&stat)?;
    let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    let name = read("comm").unwrap_or_default();
    let waits = read("wchan").filter(|place| !matches!(place.trim(), "" | "0"));
    let waits = waits.map(|place| format!(", waits in {}", printable(place.trim()))).unwrap_or_default();
    Some(format!("thread {id} `{}`: {state}, {seconds:.1} s of processor time{waits}", printable(name.trim())))
}

#[derive(Debug, PartialEq, Eq)]
struct Facts {
    state: &'static str,
    ticks: u64,
}

impl Facts {
    /// From `stat`, whose second field is the name in parentheses and may hold anything.
    fn of(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let state = match *fields.first()? {
            "R" => "runs",
            "S" => "sleeps",
            "D" => "waits for a device",
            "T" | "t" => "is stopped",
            _ => "ends",
        };
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self { state, ticks: number(11)? + number(12)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_does_not_confuse() {
        let stat = "17 (a) R (b) S 1 17 17 0 -1 64 100 0 0 0 250 50 0 0 20 0 3 0 99 0 0";
        assert_eq!(Facts::of(stat), Some(Facts { state: "sleeps", ticks: 300 }));
        assert_eq!(Facts::of("17 (a"), None);
    }

    #[test]
    fn the_own_thread_runs() {
        let line = line(rustix::thread::gettid().as_raw_nonzero().get() as u32).unwrap();
        assert!(line.contains("runs, ") && line.contains(" s of processor time"), "{line}");
    }
}
