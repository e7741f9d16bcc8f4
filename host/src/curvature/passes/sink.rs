//! What becomes of the cotangents at each use of a parameter: summed to a gradient, or to Kronecker factors.

use tch::Tensor;

/// Takes the cotangents that a pullback meets. A parameter is named by its index.
pub trait Sink {
    /// Cotangents of a block's product follow.
    fn begin(&mut self, block: usize);

    /// Whether the cotangents of a parameter are wanted.
    fn wants(&self, param: usize) -> bool;

    /// A linear layer with weight `[out, in]`: its inputs `[N, in]` and the cotangents of its outputs `[N, out]`.
    fn linear(&mut self, param: usize, inputs: &Tensor, outputs: &Tensor);

    /// A vector, with its cotangent.
    fn vector(&mut self, param: usize, cotangent: Tensor);

    /// A table of which row `tokens[n]` was read for each n: the cotangents of what was read, `[N, width]`.
    fn table(&mut self, param: usize, tokens: &Tensor, outputs: &Tensor);
}

/// Sums to J^T u, one tensor a parameter, over micro-batches and uses.
#[derive(Debug)]
pub struct Gradient {
    sums: Vec<Option<Tensor>>,
    /// Rows of the table of tokens.
    vocab_size: i64,
    of_param: Vec<usize>,
    block: usize,
}

impl Gradient {
    /// No sum yet. A parameter is wanted in the products of its block.
    pub fn new(of_param: &[usize], vocab_size: i64) -> Self {
        Self { sums: of_param.iter().map(|_| None).collect(), vocab_size, of_param: of_param.to_vec(), block: 0 }
    }

    /// The sums; zeros where a parameter had no cotangent.
    pub fn finish(self, like: &[Tensor]) -> Vec<Tensor> {
        self.sums.into_iter().zip(like).map(|(sum, like)| sum.unwrap_or_else(|| like.zeros_like())).collect()
    }

    fn add(&mut self, param: usize, part: Tensor) {
        self.sums[param] = super::linear::add(self.sums[param].take(), Some(part));
    }
}

impl Sink for Gradient {
    fn begin(&mut self, block: usize) {
        self.block = block;
    }

    fn wants(&self, param: usize) -> bool {
        self.of_param[param] == self.block
    }

    fn linear(&mut self, param: usize, inputs: &Tensor, outputs: &Tensor) {
        match &mut self.sums[param] {
            Some(sum) => drop(sum.addmm_(&outputs.tr(), inputs)),
            empty => *empty = Some(outputs.tr().mm(inputs)),
        }
    }

    fn vector(&mut self, param: usize, cotangent: Tensor) {
        self.add(param, cotangent);
    }

    fn table(&mut self, param: usize, tokens: &Tensor, outputs: &Tensor) {
        self.add(param, Tensor::embedding_dense_backward(outputs, tokens, self.vocab_size, -1, false));
    }
}

/// Wants nothing.
#[derive(Debug)]
pub struct Nothing;

impl Sink for Nothing {
    fn begin(&mut self, _: usize) {}

    fn wants(&self, _: usize) -> bool {
        false
    }

    fn linear(&mut self, _: usize, _: &Tensor, _: &Tensor) {}

    fn vector(&mut self, _: usize, _: Tensor) {}

    fn table(&mut self, _: usize, _: &Tensor, _: &Tensor) {}
}
