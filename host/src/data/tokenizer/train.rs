//! A byte-level BPE learnt from the training documents of a corpus.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::super::documents::{self, Content, Sink};
use super::super::pool;
use super::super::records::{OnBad, Rules};
use super::super::scan::{self, Fate, Selection};
use super::super::split::Split;
use super::Encoder;
use crate::durable::{refuse_existing, write_new};
use crate::error::{Exit, Fault, Result};

const SEPARATOR: &str = "<|endoftext|>";
/// The separator, 256 bytes, and one merge.
const LEAST_VOCAB: usize = 258;
const MOST_VOCAB: usize = 1 << 20;
/// Pieces that wait to be counted.
const WAITING: usize = 64;

/// What a tokenizer is learnt from, and how.
#[derive(Clone, Debug)]
pub struct TrainTokenizer {
    /// Files, folders and patterns, as for [`super::super::Prepare::inputs`].
    pub inputs: Vec<PathBuf>,
    /// The file to write. It must not exist.
    pub output: PathBuf,
    /// The number of ids, from 258; fewer where the texts have no more pairs to merge.
    pub vocab_size: usize,
    /// Least count of a pair that is merged.
    pub min_frequency: u64,
    /// As for a preparation, so that nothing is learnt from validation documents.
    pub validation_fraction: f64,
    /// As for a preparation.
    pub validation_files: Vec<String>,
    /// The key or column that holds the text of a record.
    pub text_field: String,
    /// What a record without a text does.
    pub on_bad: OnBad,
    /// Threads; 0 for all cores.
    pub threads: usize,
}

/// What was learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trained {
    /// The number of ids.
    pub vocab_size: usize,
    /// Training documents that were counted.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Learns a tokenizer and writes it as a `tokenizer.json`. The same texts and options give the same file.
///
/// # Errors
///
/// A bad option, or an output that exists (2); bad or no text (65); a missing input (66); a file that cannot be written (74).
pub fn train_tokenizer(options: &TrainTokenizer) -> Result<Trained> {
    if !(LEAST_VOCAB..=MOST_VOCAB).contains(&options.vocab_size) {
        let fault = Fault::new(Exit::Usage, "bad size of a vocabulary").found(options.vocab_size);
        return Err(fault.expected(format!("{LEAST_VOCAB} to {MOST_VOCAB}")));
    }
    refuse_existing(&options.output)?;
    pool(options.threads)?.install(|| learn(options))
}

fn learn(options: &TrainTokenizer) -> Result<Trained> {
    let rules = Rules { field: options.text_field.clone(), on_bad: options.on_bad };
    let selection = Selection {
        inputs: &options.inputs,
        rules: &rules,
        validation_fraction: options.validation_fraction,
        validation_files: &options.validation_files,
    };
    let corpus = scan::scan(&selection, &|_| ())?;
    let failed = |error: tokenizers::Error| Fault::new(Exit::Internal, format!("training of a tokenizer: {error}"));
    let trainer = BpeTrainer::builder()
        .vocab_size(options.vocab_size)
        .min_frequency(options.min_frequency)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(SEPARATOR, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer = Tokenizer::new(BPE::default());
    let rule = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(rule)).with_decoder(Some(rule));
    let (send, receive) = sync_channel(WAITING);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| feed(&corpus, &rules, send));
        let mut trainer = TrainerWrapper::BpeTrainer(trainer);
        tokenizer.train(&mut trainer, receive.into_iter()).map_err(failed)?;
        reader.join().unwrap_or_else(|_| Err(Fault::new(Exit::Internal, "the reader of texts panicked")))
    });
    let (documents, bytes) = read?;
    let text = tokenizer.to_string(true).map_err(failed)? + "\n";
    let encoder = Encoder::of_json(Path::new(super::FILE), text.as_bytes())?;
    write_new(&options.output, text.as_bytes())?;
    Ok(Trained { vocab_size: encoder.described().vocab_size, documents, bytes })
}

/// Sends the training documents; gives their number and bytes.
fn feed(corpus: &scan::Corpus, rules: &Rules, send: SyncSender<String>) -> Result<(u64, u64)> {
    struct Feed<'a> {
        send: &'a SyncSender<String>,
        fates: &'a [(scan::Key, Fate)],
        documents: u64,
        bytes: u64,
    }
    impl Feed<'_> {
        fn takes(&self) -> bool {
            self.fates.first().is_some_and(|(_, fate)| *fate == Fate::Kept(Split::Train))
        }
    }
    impl Sink for Feed<'_> {
        fn piece(&mut self, text: &str) -> Result<()> {
            match self.takes() && self.send.send(text.to_owned()).is_err() {
                true => Err(Fault::new(Exit::Internal, "the trainer of a tokenizer is gone")),
                false => Ok(()),
            }
        }

        fn end(&mut self, content: Content) -> Result<()> {
            if self.takes() {
                (self.documents, self.bytes) = (self.documents + 1, self.bytes + content.bytes);
            }
            self.fates = self.fates.get(1..).unwrap_or_default();
            Ok(())
        }
    }
    let mut feed = Feed { send: &send, fates: &[], documents: 0, bytes: 0 };
    for file in &corpus.files {
        feed.fates = &file.documents;
        documents::read(&file.input, rules, &mut feed)?;
    }
    Ok((feed.documents, feed.bytes))
}
