//! `gauntlet data`.

use super::Faults;
use crate::data::tokenizer::{Choice, TrainTokenizer, train_tokenizer};
use crate::data::{OnBad, Prepare, Prepared, Progress, prepare_with, verify};
use crate::error::Result;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make token shards from texts.
    Prepare(PrepareArgs),
    /// Learn a byte-level BPE tokenizer from the texts that would be trained on.
    TrainTokenizer(TrainArgs),
    /// Check shards against their sidecars.
    Verify {
        /// Shard files, or folders of them.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
}

/// Which texts, and which of them are for validation.
#[derive(Debug, clap::Args)]
pub struct Texts {
    /// Text files; folders that are searched for `*.txt`, `*.md`, `*.jsonl` and `*.parquet`, also with `.gz` or `.zst`
    /// behind; patterns in quotes such as `'src/**/*.rs'`.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Expected share of the validation split, by whole documents.
    #[arg(long, default_value_t = Prepare::VALIDATION_FRACTION)]
    validation_fraction: f64,
    /// A file name or relative path that goes to the validation split; `*` stands for any characters.
    #[arg(long, value_name = "PATTERN")]
    validation_file: Vec<String>,
    /// Key of a line of `.jsonl`, or column of a `.parquet`, that holds the text.
    #[arg(long, value_name = "NAME", default_value = Prepare::TEXT_FIELD)]
    text_field: String,
    /// What a line or row without a text does: `error`, or `skip:MAX` to leave out at most MAX in all (`skip`: 1000).
    #[arg(long, value_name = "POLICY", default_value_t = OnBad::Error)]
    on_bad_line: OnBad,
    /// Threads; 0 for all cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

#[derive(Debug, clap::Args)]
pub struct PrepareArgs {
    #[command(flatten)]
    texts: Texts,
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What makes tokens of text: `bytes`, `gpt2`, or the path of a `tokenizer.json`.
    #[arg(long, value_name = "TOKENIZER", default_value_t = Choice::Bytes)]
    tokenizer: Choice,
    /// Most tokens in a shard.
    #[arg(long, default_value_t = Prepare::SHARD_TOKENS)]
    shard_tokens: u64,
}

#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    #[command(flatten)]
    texts: Texts,
    /// The file to write, a `tokenizer.json`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Ids, of which 256 are bytes and one separates documents.
    #[arg(long, default_value_t = 4096)]
    vocab_size: usize,
    /// Least count of a pair of tokens that becomes one.
    #[arg(long, default_value_t = 2)]
    min_frequency: u64,
}

pub fn run(command: Command) -> Result<(), Faults> {
    let one = |fault| vec![fault];
    match command {
        Command::Prepare(args) => run_prepare(args).map_err(one),
        Command::TrainTokenizer(args) => run_train(args).map_err(one),
        Command::Verify { paths } => run_verify(&paths),
    }
}

fn run_prepare(args: PrepareArgs) -> Result<()> {
    let (out, texts) = (args.out.clone(), args.texts);
    let options = Prepare {
        inputs: texts.inputs,
        output: args.out,
        validation_fraction: texts.validation_fraction,
        validation_files: texts.validation_file,
        shard_tokens: args.shard_tokens,
        tokenizer: args.tokenizer,
        text_field: texts.text_field,
        on_bad: texts.on_bad_line,
        threads: texts.threads,
    };
    let bar = Bar::new();
    let prepared = prepare_with(&options, &|progress| bar.show(progress));
    drop(bar);
    let prepared = prepared?;
    print_prepared(&prepared);
    println!("wrote {}", out.display());
    Ok(())
}

fn print_prepared(prepared: &Prepared) {
    for (name, split) in [("train", prepared.train), ("validation", prepared.validation)] {
        println!("{name:<10} {:>12} tokens in {} files, {} shards", split.tokens, split.documents, split.shards);
    }
    if prepared.duplicates + prepared.empty > 0 {
        println!("left out: {} exact duplicates, {} empty files", prepared.duplicates, prepared.empty);
    }
    if prepared.bad > 0 {
        println!("left out: {} bad lines", prepared.bad);
    }
    if prepared.resumed > 0 {
        println!("{} shards were finished before", prepared.resumed);
    }
}

fn run_train(args: TrainArgs) -> Result<()> {
    let texts = args.texts;
    let trained = train_tokenizer(&TrainTokenizer {
        inputs: texts.inputs,
        output: args.out.clone(),
        vocab_size: args.vocab_size,
        min_frequency: args.min_frequency,
        validation_fraction: texts.validation_fraction,
        validation_files: texts.validation_file,
        text_field: texts.text_field,
        on_bad: texts.on_bad_line,
        threads: texts.threads,
    })?;
    println!("{} ids from {} bytes in {} files", trained.vocab_size, trained.bytes, trained.documents);
    println!("wrote {}", args.out.display());
    Ok(())
}

fn run_verify(paths: &[PathBuf]) -> Result<(), Faults> {
    let verification = verify(paths).map_err(|fault| vec![fault])?;
    for shard in &verification.shards {
        println!("ok  {}", shard.path.display());
    }
    match verification.problems.is_empty() {
        true => Ok(()),
        false => Err(verification.problems),
    }
}

/// How far a preparation is, on a terminal.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new() -> Self {
        Self(std::io::stderr().is_terminal().then(ProgressBar::new_spinner))
    }

    fn show(&self, progress: Progress) {
        let Some(bar) = &self.0 else { return };
        match progress {
            Progress::Reading(bytes) => bar.set_message(format!("reading  {}", HumanBytes(bytes))),
            Progress::Encoding(done, total) => {
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    bar.reset_eta();
                    let style = ProgressStyle::with_template(
                        "encoding {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
                    );
                    style.into_iter().for_each(|style| bar.set_style(style));
                }
                bar.set_position(done);
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.iter().for_each(ProgressBar::finish_and_clear);
    }
}
