//! Texts to shards: the quickstart's plays, from the start of a preparation to its end, in seconds a megabyte of text.

use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use gauntlet::data::tokenizer::{Choice, TrainTokenizer, train_tokenizer};
use gauntlet::data::{OnBad, Prepare, prepare};
use serde_json::{Value, json};

use crate::drive::{Arguments, Round, Subject};

/// Ids of the tokenizer that is learnt from the plays.
const IDS: usize = 4096;
/// What Llama 3 splits by.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Preparations of the same texts.
pub struct Preparing {
    plays: PathBuf,
    folder: PathBuf,
    learnt: PathBuf,
    llama3: PathBuf,
    threads: usize,
}

impl Preparing {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let plays: PathBuf = env::var_os("BENCH_PLAYS").context("BENCH_PLAYS is not set")?.into();
        let (folder, learnt) = (arguments.folder.join("prepared"), arguments.folder.join("learnt.json"));
        train_tokenizer(&TrainTokenizer {
            inputs: vec![plays.clone()],
            output: learnt.clone(),
            vocab_size: IDS,
            min_frequency: 2,
            validation_fraction: 0.0,
            validation_files: vec![],
            text_field: Prepare::TEXT_FIELD.into(),
            on_bad: OnBad::Error,
            threads: 0,
        })?;
        let llama3 = arguments.folder.join("llama3.json");
        fs::write(&llama3, with_llama3_split(&fs::read(&learnt)?)?)?;
        Ok(Self { plays, folder, learnt, llama3, threads: arguments.threads })
    }

    /// Seconds a megabyte.
    fn prepare(&self, tokenizer: Choice, threads: usize) -> Result<f64> {
        let mut options = Prepare::new(vec![self.plays.clone()], self.folder.clone());
        (options.tokenizer, options.threads, options.validation_fraction) = (tokenizer, threads, 0.0);
        let started = Instant::now();
        let prepared = prepare(&options)?;
        let seconds = started.elapsed().as_secs_f64();
        ensure!(prepared.train.tokens > 0, "no tokens were written");
        fs::remove_dir_all(&self.folder)?;
        Ok(seconds / (bytes(&self.plays)? as f64 / 1e6))
    }
}

/// A tokenizer with the split into words that Llama 3 has.
fn with_llama3_split(file: &[u8]) -> Result<String> {
    let mut file: Value = serde_json::from_slice(file)?;
    file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]});
    Ok(file.to_string())
}

/// Bytes of all files below a folder.
fn bytes(folder: &std::path::Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

impl Subject for Preparing {
    fn check(&mut self) -> Result<Vec<f64>> {
        self.prepare(Choice::Bytes, 1)?;
        Ok(vec![])
    }

    fn round(&mut self) -> Result<Round> {
        let learnt = || Choice::File(self.learnt.clone());
        let llama3 = Choice::File(self.llama3.clone());
        self.prepare(Choice::Bytes, 1)?;
        Ok(vec![
            ("bytes", self.prepare(Choice::Bytes, 1)?),
            ("learnt", self.prepare(learnt(), 1)?),
            ("llama3", self.prepare(llama3, 1)?),
            ("gpt2", self.prepare(Choice::Gpt2, 1)?),
            ("learnt_on_all", self.prepare(learnt(), self.threads)?),
        ])
    }
}
