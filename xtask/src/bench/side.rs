//! One side of a comparison: a process that lives for all rounds and is driven by lines.
//!
//! The process is started with what it is to measure and prints one JSON object a line on its standard output: first
//! `{"check": [...], "versions": {...}}` when it is warm, then for each line `round` on its standard input the quantities
//! of one round, by name. It ends with its input.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What a process says when it is warm.
#[derive(Debug)]
pub struct Ready {
    /// Numbers that every side of the subject has to agree on.
    pub check: Vec<f64>,
    /// Versions of what it runs on.
    pub versions: BTreeMap<String, String>,
}

/// A process between its start and its end.
pub struct Side {
    /// How messages name it.
    what: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Side {
    /// Starts the process and waits until it is warm.
    pub fn start(what: String, command: &mut Command) -> Result<(Self, Ready)> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.with_context(|| format!("{what}: cannot start it"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the process has no output")?);
        let mut side = Self { what, child, input, output };
        let line = side.answer()?;
        let check = numbers(&line["check"]).with_context(|| format!("{}: not ready: {line}", side.what))?;
        let versions = line["versions"].as_object().into_iter().flatten();
        let versions = versions.map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned()));
        Ok((side, Ready { check, versions: versions.collect() }))
    }

    /// Runs one round: its quantities by name.
    pub fn round(&mut self) -> Result<BTreeMap<String, f64>> {
        let sent = self.input.as_mut().map_or(Ok(()), |input| input.write_all(b"round\n").and_then(|()| input.flush()));
        sent.with_context(|| format!("{}: it ended early", self.what))?;
        let line = self.answer()?;
        let quantities = line.as_object().with_context(|| format!("{}: not an object: {line}", self.what))?;
        let finite = |(name, value): (&String, &Value)| Some((name.clone(), value.as_f64().filter(|x| x.is_finite())?));
        let numbers: BTreeMap<String, f64> = quantities.iter().filter_map(finite).collect();
        if numbers.is_empty() || numbers.len() < quantities.len() {
            bail!("{}: found {line}, expected numbers by name", self.what);
        }
        Ok(numbers)
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line).with_context(|| format!("{}: cannot read from it", self.what))?;
        if line.is_empty() {
            let status = self.child.wait()?;
            bail!("{}: it ended with {status}; see its messages above", self.what);
        }
        serde_json::from_str(&line).with_context(|| format!("{}: not JSON: {}", self.what, line.trim()))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.input.take());
        // A process that does not end with its input is ended; its status says nothing that a round did not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbers(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(Value::as_f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<(Side, Ready)> {
        Side::start("host of `x`".into(), Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn a_side_is_warm_first_and_then_answers_round_by_round() {
        let script = r#"echo '{"check": [1.5, 2], "versions": {"torch": "2.13.0"}}'
                        n=0; while read line; do n=$((n+1)); echo "{\"seconds\": $n, \"bytes\": 8}"; done"#;
        let (mut side, ready) = shell(script).unwrap();
        assert_eq!(ready.check, [1.5, 2.0]);
        assert_eq!(ready.versions["torch"], "2.13.0");
        for n in 1..4 {
            assert_eq!(
                side.round().unwrap(),
                BTreeMap::from([("seconds".into(), f64::from(n)), ("bytes".into(), 8.0)])
            );
        }
    }

    #[test]
    fn a_side_that_fails_is_named() {
        let line = |script: &str| match shell(script) {
            Ok((mut side, _)) => side.round().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(line("exit 7").starts_with("host of `x`: it ended with exit status: 7"));
        assert!(line("echo nonsense").starts_with("host of `x`: not JSON: nonsense"));
        assert!(line("echo '{}'").starts_with("host of `x`: not ready"));
        let null = r#"echo '{"check": []}'; read l; echo '{"seconds": null}'"#;
        assert!(line(null).contains("expected numbers by name"));
    }
}
