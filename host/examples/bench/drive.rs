//! The command line, and the loop that answers a line with a round.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// `SUBJECT SIDE FOLDER THREADS`.
pub struct Arguments {
    pub subject: String,
    pub side: String,
    pub folder: PathBuf,
    pub threads: usize,
}

impl Arguments {
    pub fn read() -> Result<Self> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let [subject, side, folder, threads] = words.try_into().map_err(|words: Vec<String>| {
            anyhow::anyhow!("found {} arguments, expected SUBJECT SIDE FOLDER THREADS", words.len())
        })?;
        let threads = threads.parse().with_context(|| format!("threads: found `{threads}`, expected a number"))?;
        Ok(Self { subject, side, folder: folder.into(), threads })
    }
}

/// Quantities of a round by name.
pub type Round = Vec<(&'static str, f64)>;

/// What one side measures.
pub trait Subject {
    /// Numbers that all sides have to agree on.
    fn check(&mut self) -> Result<Vec<f64>>;

    /// One round.
    fn round(&mut self) -> Result<Round>;
}

/// Says that the subject is warm, and answers every line with a round.
pub fn serve(mut subject: Box<dyn Subject>) -> Result<()> {
    let check = subject.check()?;
    let versions = json!({ "gauntlet": env!("CARGO_PKG_VERSION"), "libtorch": gauntlet_torch_ext::libtorch_version() });
    say(&json!({ "check": check, "versions": versions }))?;
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "round" => {
                let quantities = subject.round()?.into_iter().map(|(name, value)| (name.to_owned(), json!(value)));
                say(&Value::Object(quantities.collect::<Map<_, _>>()))?;
            }
            other => bail!("found `{other}`, expected `round`"),
        }
    }
    Ok(())
}

fn say(line: &Value) -> Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// The time of a call in seconds, on average over `repeats` after one that is not measured.
pub fn seconds<T>(repeats: u32, mut run: impl FnMut() -> Result<T>) -> Result<f64> {
    drop(run()?);
    let (started, mut last) = (Instant::now(), None);
    for _ in 0..repeats {
        last = Some(run()?);
    }
    let elapsed = started.elapsed().as_secs_f64();
    drop(last);
    Ok(elapsed / f64::from(repeats))
}
