//! Matrices cut into blocks of bounded size; equally shaped blocks of all parameters form one batch.

use gauntlet_plugin_api::prelude::*;
use std::ops::Range;

/// A rectangle of one parameter. Vectors are matrices of one column and are not cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    param: usize,
    rows: Range<usize>,
    cols: Range<usize>,
}

/// Blocks of one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockBatch {
    /// Rows of a block.
    pub rows: usize,
    /// Columns of a block.
    pub cols: usize,
    /// Whether the blocks are vectors.
    pub is_vector: bool,
    /// The first block's place: the parameter's name, and row and column where it was cut.
    pub name: String,
    blocks: Vec<Block>,
}

/// The ranges of at most `max` that cover `0 .. n`.
fn ranges(n: usize, max: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    (0..n).step_by(max).map(move |start| start..n.min(start + max))
}

/// The rows and columns of a parameter as a matrix.
fn matrix(spec: &ParamSpec) -> [usize; 2] {
    let rows = spec.shape.first().copied().unwrap_or(1);
    [rows, spec.numel() / rows.max(1)]
}

/// Number of blocks that a matrix is cut into.
pub fn count(spec: &ParamSpec, max_dim: usize) -> usize {
    matrix(spec).map(|n| n.div_ceil(max_dim)).iter().product()
}

impl BlockBatch {
    /// The batches of a list, in the order of their first blocks. No side of a block is longer than `max_dim`.
    pub fn all(params: &Params, max_dim: usize) -> Vec<Self> {
        let mut batches: Vec<Self> = vec![];
        for (param, spec) in params.specs().iter().enumerate() {
            let ([rows, cols], is_vector) = (matrix(spec), spec.shape.len() < 2);
            let max = if is_vector { rows.max(1) } else { max_dim };
            let whole = rows <= max && cols <= max;
            for (rows, cols) in
                ranges(rows, max).flat_map(|rows| ranges(cols, max).map(move |cols| (rows.clone(), cols)))
            {
                let shape = (rows.len(), cols.len(), is_vector);
                let name = match whole {
                    true => spec.name.clone(),
                    false => format!("{}[{},{}]", spec.name, rows.start, cols.start),
                };
                let block = Block { param, rows, cols };
                match batches.iter_mut().find(|batch| (batch.rows, batch.cols, batch.is_vector) == shape) {
                    Some(batch) => batch.blocks.push(block),
                    None => batches.push(Self { rows: shape.0, cols: shape.1, is_vector, name, blocks: vec![block] }),
                }
            }
        }
        batches
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Elements of all blocks.
    pub fn numel(&self) -> usize {
        self.len() * self.rows * self.cols
    }

    /// The blocks of a list, `[batch, rows, cols]`.
    pub fn gather(&self, list: &Params) -> Result<Tensor> {
        let all: Vec<(&ParamSpec, &Tensor)> = list.iter().collect();
        let block = |block: &Block| {
            let (spec, tensor) = all.get(block.param).ok_or_else(|| Error::shape("blocks", "another list"))?;
            let [rows, cols] = matrix(spec);
            let whole = tensor.reshape(&[rows, cols])?;
            let band = if block.rows.len() < rows { whole.slice(0, block.rows.start, block.rows.end)? } else { whole };
            if block.cols.len() < cols { band.slice(1, block.cols.start, block.cols.end) } else { Ok(band) }
        };
        let blocks = self.blocks.iter().map(block).collect::<Result<Vec<_>>>()?;
        let [first, others @ ..] = blocks.as_slice() else { return Err(Error::shape("blocks", "an empty batch")) };
        first.stack(&others.iter().collect::<Vec<_>>(), 0)
    }

    /// Each block with its part of `batch`, the inverse of [`BlockBatch::gather`].
    pub fn scatter(&self, batch: &Tensor) -> Result<Vec<(Block, Tensor)>> {
        let part = |(at, block): (usize, &Block)| {
            let part = batch.slice(0, at, at + 1)?.reshape(&[self.rows, self.cols])?;
            Ok((block.clone(), part))
        };
        self.blocks.iter().enumerate().map(part).collect()
    }
}

/// Calls `f` with each parameter that has blocks and what they join to, in the parameter's shape.
pub fn for_each(
    list: &mut Params,
    mut blocks: Vec<(Block, Tensor)>,
    mut f: impl FnMut(&mut Tensor, &Tensor) -> Result<()>,
) -> Result<()> {
    blocks.sort_by_key(|(block, _)| (block.param, block.rows.start, block.cols.start));
    let mut tensors: Vec<(&ParamSpec, &mut Tensor)> = list.iter_mut().collect();
    for of_param in blocks.chunk_by(|a, b| a.0.param == b.0.param) {
        let Some((spec, tensor)) = tensors.get_mut(of_param[0].0.param) else { continue };
        let bands = of_param.chunk_by(|a, b| a.0.rows.start == b.0.rows.start);
        let bands = bands.map(|band| join(band.iter().map(|(_, tensor)| tensor), 1)).collect::<Result<Vec<_>>>()?;
        f(tensor, &join(bands.iter(), 0)?.reshape(&spec.shape)?)?;
    }
    Ok(())
}

fn join<'a>(parts: impl Iterator<Item = &'a Tensor>, dim: usize) -> Result<Tensor> {
    match parts.collect::<Vec<_>>().as_slice() {
        [] => Err(Error::shape("blocks", "nothing to join")),
        [one] => one.try_clone(),
        [first, others @ ..] => first.cat(others, dim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{numbers, on};

    fn params() -> Vec<(ParamSpec, Vec<f64>)> {
        let mut random = numbers(2);
        let shapes: [(&str, &[usize]); 5] =
            [("a", &[7, 5]), ("vector", &[9]), ("b", &[3, 3]), ("cube", &[2, 3, 2]), ("nothing", &[0, 3])];
        let param = |(name, shape): (&str, &[usize])| {
            let spec = ParamSpec::new(name, shape, Role::Hidden);
            let values = (0..spec.numel()).map(|_| random()).collect();
            (spec, values)
        };
        shapes.into_iter().map(param).collect()
    }

    #[test]
    fn long_sides_are_cut_and_equal_blocks_share_a_batch() {
        let batches = on(DType::F64, params(), |ctx| Ok(BlockBatch::all(ctx.params(), 3))).unwrap();
        let found: Vec<_> = batches.iter().map(|b| (b.rows, b.cols, b.len(), b.name.as_str())).collect();
        let expected = [
            (3, 3, 3, "a[0,0]"),
            (3, 2, 2, "a[0,3]"),
            (1, 3, 1, "a[6,0]"),
            (1, 2, 1, "a[6,3]"),
            (9, 1, 1, "vector"),
            (2, 3, 2, "cube[0,0]"),
        ];
        assert_eq!(found, expected);
        assert_eq!(batches.iter().map(BlockBatch::numel).sum::<usize>(), 35 + 9 + 9 + 12);
    }

    #[test]
    fn what_is_gathered_comes_back_in_its_place() {
        for max_dim in [1, 2, 3, 100] {
            let same = on(DType::F64, params(), move |ctx| {
                let source = ctx.params().try_clone()?;
                let (mut copy, mut blocks) = (source.zeros_like()?, vec![]);
                for batch in BlockBatch::all(&source, max_dim) {
                    blocks.extend(batch.scatter(&batch.gather(&source)?)?);
                }
                for_each(&mut copy, blocks, |to, from| to.copy_(from).map(drop))?;
                copy.axpy_(-1.0, &source)?;
                copy.max_abs()
            });
            assert_eq!(same, Ok(0.0));
        }
    }
}
