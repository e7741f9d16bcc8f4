//! The second reading: kept documents become tokens, in parallel, and go to their split's shards in order.
//!
//! One thread reads ahead by two batches; the pieces of a batch are encoded in the threads of the current pool, and written
//! in their order by the caller. So the shards do not depend on the number of threads, and no more than a few batches are
//! in memory.

use std::sync::mpsc::{SyncSender, sync_channel};

use rayon::prelude::*;

use super::documents::{self, Content, Sink};
use super::inputs::Input;
use super::records::Rules;
use super::scan::{self, Corpus, Fate, Scanned};
use super::shard::Format;
use super::sidecar::Source;
use super::split::Split;
use super::tokenizer::Encoder;
use super::writer::ShardWriter;
use crate::error::{Exit, Fault, Result};

/// Text in a batch, for each thread.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that wait for the caller.
const WAITING: usize = 2;

/// A piece of a kept document.
struct Piece {
    /// The file's place in the corpus.
    file: usize,
    split: Split,
    /// The document's place in its split.
    document: u64,
    /// Whether the document begins here.
    begins: bool,
    text: String,
}

/// The writers of both splits.
pub(super) struct Writers<'a> {
    pub train: ShardWriter<'a>,
    pub validation: ShardWriter<'a>,
}

impl<'a> Writers<'a> {
    fn of(&mut self, split: Split) -> &mut ShardWriter<'a> {
        match split {
            Split::Train => &mut self.train,
            Split::Validation => &mut self.validation,
        }
    }
}

/// Encodes and writes every kept document that is not in a finished shard. `progress` gets the bytes of text so far.
pub(super) fn run(
    corpus: &Corpus,
    rules: &Rules,
    encoder: &Encoder,
    format: Format,
    writers: &mut Writers,
    progress: &dyn Fn(u64),
) -> Result<()> {
    let first = [writers.train.first(), writers.validation.first()];
    let (send, receive) = sync_channel(WAITING);
    let most = BATCH_BYTES * rayon::current_num_threads();
    let sources: Vec<Source> = corpus.files.iter().map(source).collect();
    let separator = stored(format, &[encoder.described().separator as u32]);
    std::thread::scope(|scope| {
        // It ends with this closure, also by an error, so that the reader does not wait for it for ever.
        let receive = receive;
        let reader = scope.spawn(move || read(corpus, rules, (first, most), &send));
        while let Ok(batch) = receive.recv() {
            let encode = |piece: &Piece| encoder.encode(&piece.text).map(|ids| stored(format, &ids));
            let encoded: Vec<Result<Vec<u8>>> = batch.pieces.par_iter().map(encode).collect();
            for (piece, tokens) in batch.pieces.iter().zip(encoded) {
                let name = || corpus.files[piece.file].input.path.display().to_string();
                let tokens = tokens.map_err(|fault| in_file(&fault, &name()))?;
                let (writer, source) = (writers.of(piece.split), &sources[piece.file]);
                if piece.begins {
                    writer.begin(piece.document, source, &separator)?;
                }
                writer.tokens(source, &tokens, piece.text.len() as u64)?;
            }
            progress(batch.bytes_before);
        }
        reader.join().unwrap_or_else(|_| Err(Fault::new(Exit::Internal, "the reader of texts panicked")))
    })
}

/// Ids as they are stored in a shard.
fn stored(format: Format, ids: &[u32]) -> Vec<u8> {
    match format {
        Format::LlmC32 => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
        Format::LlmC16 | Format::Headerless => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
    }
}

fn source(file: &Scanned) -> Source {
    Source { path: file.input.name.clone(), sha256: file.sha256.clone(), bytes: file.text_bytes, tokens: 0 }
}

fn in_file(fault: &Fault, name: &str) -> Fault {
    Fault::new(fault.exit, format!("`{name}`: {fault}"))
}

/// Pieces that are encoded together.
#[derive(Default)]
struct Batch {
    pieces: Vec<Piece>,
    bytes: usize,
    /// Bytes of all texts up to the end of the batch, also of those that are not kept.
    bytes_before: u64,
}

/// Reads all files again and sends the pieces that are wanted; each file must be what it was.
fn read(corpus: &Corpus, rules: &Rules, (first, most): ([u64; 2], usize), send: &SyncSender<Batch>) -> Result<()> {
    let batch = Batch::default();
    let mut reader =
        Reader { send, most, first, next: [0, 0], batch, bytes: 0, file: 0, fates: &[], input: None, begun: false };
    for (place, file) in corpus.files.iter().enumerate() {
        (reader.file, reader.fates, reader.input) = (place, &file.documents, Some(&file.input));
        let read = documents::read(&file.input, rules, &mut reader)?;
        if read != file.read || !reader.fates.is_empty() {
            return Err(changed(&file.input));
        }
    }
    reader.send()
}

struct Reader<'a> {
    send: &'a SyncSender<Batch>,
    most: usize,
    /// By split, the first document that is wanted.
    first: [u64; 2],
    /// By split, the place of the next document.
    next: [u64; 2],
    batch: Batch,
    bytes: u64,
    file: usize,
    /// Of the documents of the file that are not read yet.
    fates: &'a [(scan::Key, Fate)],
    input: Option<&'a Input>,
    begun: bool,
}

impl Reader<'_> {
    fn send(&mut self) -> Result<()> {
        let batch = Batch { bytes_before: self.bytes, ..std::mem::take(&mut self.batch) };
        // The caller ended with an error of its own, which is the one to report.
        let gone = |_| Fault::new(Exit::Internal, "the writer of shards is gone");
        self.send.send(batch).map_err(gone)
    }

    fn changed(&self) -> Fault {
        self.input.map_or_else(|| Fault::new(Exit::Internal, "a document of no file"), changed)
    }
}

impl Sink for Reader<'_> {
    fn piece(&mut self, text: &str) -> Result<()> {
        self.bytes += text.len() as u64;
        let Some((_, fate)) = self.fates.first() else { return Err(self.changed()) };
        let Fate::Kept(split) = *fate else { return Ok(()) };
        let document = self.next[split as usize];
        if document < self.first[split as usize] {
            return Ok(());
        }
        let begins = !std::mem::replace(&mut self.begun, true);
        self.batch.pieces.push(Piece { file: self.file, split, document, begins, text: text.to_owned() });
        self.batch.bytes += text.len();
        if self.batch.bytes >= self.most { self.send() } else { Ok(()) }
    }

    fn end(&mut self, content: Content) -> Result<()> {
        let Some((&(key, fate), rest)) = self.fates.split_first() else { return Err(self.changed()) };
        if key != scan::key(&content) {
            return Err(self.changed());
        }
        if let Fate::Kept(split) = fate {
            self.next[split as usize] += 1;
        }
        (self.fates, self.begun) = (rest, false);
        Ok(())
    }
}

fn changed(input: &Input) -> Fault {
    let fault = Fault::new(Exit::Data, format!("`{}`: the file changed while it was read", input.path.display()));
    fault.hint("prepare again when nothing writes to it")
}
