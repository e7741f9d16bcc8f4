//! The table and the file of a bench.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::machine;
use super::statistics::{Estimate, median, spread};
use super::subject::{Key, Rounds, Subject};
use crate::unpack;

/// What has been measured so far.
#[derive(Debug, Default)]
pub struct Report {
    rounds: usize,
    threads: usize,
    versions: BTreeMap<String, String>,
    timings: Map<String, Value>,
    ratios: Map<String, Value>,
    half_intervals: Map<String, Value>,
    limits: Map<String, Value>,
    /// Keys whose limit does not hold.
    pub exceeded: Vec<&'static str>,
}

impl Report {
    /// Nothing yet; every subject runs `rounds` rounds on `threads` threads.
    pub fn new(rounds: usize, threads: usize) -> Self {
        Self { rounds, threads, ..Self::default() }
    }

    /// Versions that a side has told.
    pub fn versions(&mut self, versions: BTreeMap<String, String>) {
        self.versions.extend(versions);
    }

    /// Takes the rounds of a subject and prints its part of the table. Keys that no round has quantities for are left
    /// out.
    pub fn add(&mut self, subject: &Subject, rounds: &Rounds) {
        for ((side, quantity), values) in rounds {
            let (median, spread) = (median(values), spread(values));
            println!("{:<12} {side:<14} {quantity:<22} {median:>12.6} +- {spread:.6}", subject.name);
            let timing = json!({ "median": median, "spread": spread });
            self.timings.insert(format!("{}.{side}.{quantity}", subject.name), timing);
        }
        for key in subject.keys {
            if let Some(ratios) = key.ratios(rounds) {
                self.add_key(key, &ratios);
            }
        }
    }

    fn add_key(&mut self, key: &Key, ratios: &[f64]) {
        let estimate = Estimate::of(ratios);
        self.ratios.insert(key.name.into(), json!(estimate.median));
        self.half_intervals.insert(key.name.into(), json!(estimate.half_interval));
        let verdict = match key.limit {
            Some(limit) if estimate.holds(limit) => format!("at most {limit}: holds"),
            Some(limit) => {
                self.exceeded.push(key.name);
                format!("at most {limit}: EXCEEDED")
            }
            None => "stated".to_owned(),
        };
        if let Some(limit) = key.limit {
            self.limits.insert(key.name.into(), json!(limit));
        }
        println!("  {:<46} {:>8.4} +- {:.4}  {verdict}", key.name, estimate.median, estimate.half_interval);
    }

    /// Writes everything to `path`.
    pub fn write(&self, path: &Path) -> Result<()> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let all = json!({
            "unix_time": seconds,
            "machine": machine::machine(),
            "versions": self.versions,
            "rounds": self.rounds,
            "threads": self.threads,
            "timings": self.timings,
            "ratios": self.ratios,
            "half_intervals": self.half_intervals,
            "limits": self.limits,
        });
        unpack::write_file(path, &format!("{all:#}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::subject::{Against, Of};

    #[test]
    fn ratios_and_half_intervals_have_the_same_keys_and_limits_are_judged() {
        const KEYS: &[Key] = &[
            Key { name: "good", of: Of("a", "seconds"), against: Against::Number(2.0), limit: Some(0.5) },
            Key { name: "bad", of: Of("a", "seconds"), against: Against::Number(2.0), limit: Some(0.4) },
            Key { name: "stated", of: Of("a", "seconds"), against: Against::Number(1.0), limit: None },
            Key { name: "not_measured", of: Of("b", "seconds"), against: Against::Number(1.0), limit: Some(1.0) },
        ];
        let subject = Subject { name: "x", sides: &[], keys: KEYS };
        let mut report = Report::new(15, 2);
        report.add(&subject, &Rounds::from([(("a".into(), "seconds".into()), vec![1.0; 15])]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bench/latest.json");
        report.write(&path).unwrap();
        let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(all["ratios"], json!({ "good": 0.5, "bad": 0.5, "stated": 1.0 }));
        assert_eq!(all["half_intervals"], json!({ "good": 0.0, "bad": 0.0, "stated": 0.0 }));
        assert_eq!(all["limits"], json!({ "good": 0.5, "bad": 0.4 }));
        assert_eq!(all["timings"]["x.a.seconds"], json!({ "median": 1.0, "spread": 0.0 }));
        assert_eq!(report.exceeded, ["bad"]);
    }
}
