//! The head and the loss, by chunks of rows: logits `z = h W^T`, their tangents, and what a product makes of both.
//!
//! Neither logits nor their tangents are ever held for all rows, so that a large vocabulary costs no memory.

use super::{Anchor, MicroBatch, Primal, RowWeights, Sink, Tangents};
use gauntlet_torch_ext::kernels;
use tch::{Kind, Tensor};

/// Bytes of one chunk's logits.
const CHUNK_BYTES: usize = 8 << 20;

/// What a rule has to know of the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Logits alone.
    Raw,
    /// Probabilities.
    Probabilities,
    /// Probabilities, and the losses of the data's targets.
    Losses,
    /// All of these.
    Logits,
}

/// A chunk of rows.
#[derive(Debug)]
pub struct Rows<'a> {
    /// The micro-batch.
    pub batch: &'a MicroBatch,
    /// First row in the micro-batch.
    pub first: i64,
    /// The data's targets, `[n, 1]`.
    pub targets: Tensor,
}

impl Rows<'_> {
    /// The weights of the chunk's rows, which are those of `p`.
    pub fn weights(&self, p: &Tensor) -> RowWeights {
        self.batch.weights.rows(self.first, p.size()[0])
    }
}

/// What the model says for a chunk of rows, as far as the rule needs it.
#[derive(Debug)]
pub struct Scores {
    /// z, `[n, vocab_size]`.
    pub logits: Option<Tensor>,
    /// softmax(z).
    pub probabilities: Option<Tensor>,
    /// The loss of each row's target, `[n, 1]`.
    pub losses: Option<Tensor>,
}

/// What a product does with logits and their tangents.
pub trait Rule {
    /// What it has to know.
    fn needs(&self) -> Needs;

    /// For a chunk of rows: the tangents z' of its blocks (absent ones are zero) become cotangents of the logits, one a
    /// block; none where nothing is to be pulled back.
    fn rows(&mut self, rows: &Rows, scores: &Scores, tangents: Vec<Option<Tensor>>) -> Vec<Option<Tensor>>;
}

/// One block's part of a product.
#[derive(Debug)]
pub struct Part<'a> {
    /// Its number.
    pub block: usize,
    /// Tangents of its parameters.
    pub tangents: Tangents<'a>,
    /// The tangent of the head's input, if there is one.
    pub hidden: Option<Tensor>,
}

impl Anchor {
    /// Runs a rule over all rows and hands the cotangents of the head to the sink. Gives the cotangent of the head's
    /// input for each part, where the rule gave any. With `keep` the probabilities stay for later products.
    pub fn head(
        &self,
        batch: &MicroBatch,
        primal: &mut Primal,
        parts: &[Part],
        keep: bool,
        rule: &mut dyn Rule,
        sink: &mut dyn Sink,
    ) -> Vec<Option<Tensor>> {
        let weight = self.param(self.places.head);
        let (mut cotangents, mut kept) = (parts.iter().map(|_| vec![]).collect::<Vec<_>>(), vec![]);
        let moved = |part: &Part| part.hidden.is_some() || part.tangents.of(self.places.head).is_some();
        for (first, count) in chunks(batch.rows(), weight, parts.iter().any(moved)) {
            let hidden = primal.norm.output.narrow(0, first, count);
            let scores = self.scores(batch, primal, first, &hidden, rule.needs());
            let tangents = parts.iter().map(|part| {
                let moved = part.hidden.as_ref().map(|h| h.narrow(0, first, count));
                self.flops.tangent(&hidden, moved.as_ref(), weight, part.tangents.of(self.places.head))
            });
            let rows = Rows { batch, first, targets: targets(batch, first, count) };
            let outputs = rule.rows(&rows, &scores, tangents.collect());
            for ((part, output), cotangents) in parts.iter().zip(outputs).zip(&mut cotangents) {
                let Some(output) = output else { continue };
                sink.begin(part.block);
                self.linear_cotangent(self.places.head, &hidden, &output, sink);
                cotangents.push(self.flops.pullback(None, &output, weight));
            }
            kept.extend(scores.probabilities.filter(|_| keep));
        }
        if keep && primal.probabilities.is_none() && !kept.is_empty() {
            primal.probabilities = Some(Tensor::cat(&kept, 0));
        }
        let join = |chunks: Vec<Tensor>| (!chunks.is_empty()).then(|| Tensor::cat(&chunks, 0));
        cotangents.into_iter().map(join).collect()
    }

    fn scores(&self, batch: &MicroBatch, primal: &Primal, first: i64, hidden: &Tensor, needs: Needs) -> Scores {
        let count = hidden.size()[0];
        match (needs, &primal.probabilities) {
            (Needs::Nothing, _) => Scores { logits: None, probabilities: None, losses: None },
            (Needs::Probabilities, Some(kept)) => {
                Scores { logits: None, probabilities: Some(kept.narrow(0, first, count)), losses: None }
            }
            (Needs::Raw, _) => {
                let logits = self.flops.forward(hidden, self.param(self.places.head), None);
                Scores { logits: Some(logits), probabilities: None, losses: None }
            }
            _ => {
                let logits = self.flops.forward(hidden, self.param(self.places.head), None);
                let kept = (needs == Needs::Logits).then(|| logits.copy());
                let (probabilities, losses) = softmax(logits, &targets(batch, first, count));
                Scores { logits: kept, probabilities: Some(probabilities), losses: Some(losses) }
            }
        }
    }
}

/// Probabilities in place of the logits, and the losses of the targets.
fn softmax(logits: Tensor, targets: &Tensor) -> (Tensor, Tensor) {
    if let Some(losses) = kernels::softmax_(&logits, targets) {
        return (logits, losses);
    }
    let mut log_probabilities = logits.log_softmax(-1, None::<Kind>);
    let losses = log_probabilities.gather(1, targets, false).neg();
    (log_probabilities.exp_(), losses)
}

fn targets(batch: &MicroBatch, first: i64, count: i64) -> Tensor {
    batch.targets().narrow(0, first, count).view([-1, 1])
}

/// First row and number of rows of each chunk. A large vocabulary gets so many rows that its matrix product is worth
/// reading the weights; fewer where tangents are `moved` beside the logits, which then take as much.
fn chunks(rows: i64, head: &Tensor, moved: bool) -> Vec<(i64, i64)> {
    let bytes = head.size()[0] as usize * head.kind().elt_size_in_bytes();
    let least = if moved { 24 } else { 64 };
    let most = (CHUNK_BYTES / bytes).max(least) as i64;
    let number = (rows + most - 1) / most;
    let size = (rows + number - 1) / number.max(1);
    (0..number).map(|i| (i * size, size.min(rows - i * size))).collect()
}
