//! Equally shaped matrices of a parameter list as one batch, so that products and factorisations run on all of them.

use gauntlet_plugin_api::SubBlocks;
use gauntlet_plugin_api::prelude::*;

/// Elements of one batch at most: it bounds the memory of temporary tensors to a few times this.
const MAX_ELEMENTS: usize = 1 << 22;

/// Parameters of one list whose matrices have the same shape. Vectors are matrices of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixBatch {
    /// Rows of a matrix.
    pub rows: usize,
    /// Columns of a matrix.
    pub cols: usize,
    /// Whether the parameters are vectors.
    pub is_vector: bool,
    heads: Option<SubBlocks>,
    indices: Vec<usize>,
}

impl MatrixBatch {
    /// The batches of a list, in the order of their first parameters. With `per_head` each sub-block of a parameter
    /// counts as a matrix.
    pub fn all(params: &Params, per_head: bool) -> Vec<Self> {
        let mut batches: Vec<Self> = vec![];
        for (index, spec) in params.specs().iter().enumerate().filter(|(_, spec)| spec.numel() > 0) {
            let alone = Self::of(spec, per_head, index);
            let room = |batch: &&mut Self| (batch.indices.len() + 1) * spec.numel() <= MAX_ELEMENTS;
            match batches.iter_mut().filter(room).find(|batch| batch.is_like(&alone)) {
                Some(batch) => batch.indices.push(index),
                None => batches.push(alone),
            }
        }
        batches
    }

    /// A batch of one parameter, the one at `index` of its list.
    pub fn of(spec: &ParamSpec, per_head: bool, index: usize) -> Self {
        let rows = spec.shape.first().copied().unwrap_or(1);
        let cols = spec.numel() / rows.max(1);
        let fits = |heads: &SubBlocks| {
            spec.shape.len() == 2 && heads.dim < 2 && spec.shape[heads.dim].is_multiple_of(heads.count)
        };
        let heads = spec.sub_blocks.filter(|heads| per_head && heads.count > 1 && fits(heads));
        let (rows, cols) = match heads {
            Some(SubBlocks { dim: 0, count }) => (rows / count, cols),
            Some(SubBlocks { count, .. }) => (rows, cols / count),
            None => (rows, cols),
        };
        Self { rows, cols, is_vector: spec.shape.len() < 2, heads, indices: vec![index] }
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.rows, self.cols, self.is_vector, self.heads) == (other.rows, other.cols, other.is_vector, other.heads)
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Positions of the parameters in their list, ascending.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Elements of one batch of its matrices.
    pub fn numel(&self) -> usize {
        let heads = self.heads.map_or(1, |heads| heads.count);
        self.len() * heads * self.rows * self.cols
    }

    /// Its name in a saved state: the first parameter's.
    pub fn name<'a>(&self, params: &'a Params) -> &'a str {
        let first = self.indices.first().and_then(|index| params.specs().get(*index));
        first.map_or("", |spec| spec.name.as_str())
    }

    /// The matrices of a list, `[batch, rows, cols]`.
    pub fn gather(&self, list: &Params) -> Result<Tensor> {
        let all: Vec<&Tensor> = list.iter().map(|(_, tensor)| tensor).collect();
        let chosen: Vec<&Tensor> = self.indices.iter().filter_map(|index| all.get(*index).copied()).collect();
        let [first, others @ ..] = chosen.as_slice() else { return Err(Error::shape("batch", "an empty batch")) };
        let stacked = first.stack(others, 0)?;
        match self.heads {
            Some(SubBlocks { dim: 1, count }) => {
                let apart = stacked.reshape(&[self.len(), self.rows, count, self.cols])?;
                apart.transpose(1, 2)?.reshape(&[self.len() * count, self.rows, self.cols])
            }
            Some(SubBlocks { count, .. }) => stacked.reshape(&[self.len() * count, self.rows, self.cols]),
            None if stacked.shape()? == [self.len(), self.rows, self.cols] => Ok(stacked),
            None => stacked.reshape(&[self.len(), self.rows, self.cols]),
        }
    }

    /// Calls `f` with each parameter of `list` and its part of `batch`, in the parameter's shape: the inverse of
    /// [`MatrixBatch::gather`].
    pub fn for_each(
        &self,
        list: &mut Params,
        batch: &Tensor,
        mut f: impl FnMut(&mut Tensor, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let whole = match self.heads {
            Some(SubBlocks { dim: 1, count }) => {
                Some(batch.reshape(&[self.len(), count, self.rows, self.cols])?.transpose(1, 2)?)
            }
            Some(SubBlocks { count, .. }) => Some(batch.reshape(&[self.len(), count * self.rows, self.cols])?),
            None => None,
        };
        let whole = whole.as_ref().unwrap_or(batch);
        for (index, (spec, tensor)) in list.iter_mut().enumerate() {
            if let Ok(at) = self.indices.binary_search(&index) {
                f(tensor, &whole.slice(0, at, at + 1)?.reshape(&spec.shape)?)?;
            }
        }
        Ok(())
    }
}

/// Reads a batch of a saved state into its place.
///
/// # Errors
///
/// Another shape: the state of another model.
pub(crate) fn load(state: &StateReader, entry: &str, tensor: &mut Tensor) -> Result<()> {
    let saved = state.tensor(entry)?;
    let (found, expected) = (saved.shape()?, tensor.shape()?);
    if found != expected {
        return Err(Error::state(entry, format!("found shape {found:?}, expected {expected:?}")));
    }
    *tensor = saved;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{numbers, on};

    fn param(name: &str, shape: &[usize], sub_blocks: Option<SubBlocks>) -> (ParamSpec, Vec<f64>) {
        let spec = ParamSpec { sub_blocks, ..ParamSpec::new(name, shape, Role::Hidden) };
        let mut random = numbers(shape.len() as u64 + name.len() as u64);
        let values = (0..spec.numel()).map(|_| random()).collect();
        (spec, values)
    }

    /// Parameters of several shapes, some with heads along rows or columns.
    fn params() -> Vec<(ParamSpec, Vec<f64>)> {
        let heads = |dim, count| Some(SubBlocks { dim, count });
        vec![
            param("q", &[4, 3], heads(0, 2)),
            param("up", &[4, 3], None),
            param("vector", &[5], None),
            param("output", &[3, 4], heads(1, 2)),
            param("k", &[4, 3], heads(0, 2)),
            param("cube", &[4, 3, 2], None),
            param("nothing", &[0, 3], None),
        ]
    }

    #[test]
    fn equal_shapes_share_a_batch_and_heads_count_where_asked() {
        let shapes = |per_head| {
            let batches = on(DType::F64, params(), move |ctx| Ok(MatrixBatch::all(ctx.params(), per_head))).unwrap();
            batches.iter().map(|batch| (batch.rows, batch.cols, batch.indices().to_vec())).collect::<Vec<_>>()
        };
        let whole = [(4, 3, vec![0, 1, 4]), (5, 1, vec![2]), (3, 4, vec![3]), (4, 6, vec![5])];
        assert_eq!(shapes(false), whole);
        let heads = [(2, 3, vec![0, 4]), (4, 3, vec![1]), (5, 1, vec![2]), (3, 2, vec![3]), (4, 6, vec![5])];
        assert_eq!(shapes(true), heads);
    }

    #[test]
    fn what_is_gathered_comes_back_in_its_place() {
        for per_head in [false, true] {
            let same = on(DType::F64, params(), move |ctx| {
                let source = ctx.params().try_clone()?;
                let mut copy = source.zeros_like()?;
                for batch in MatrixBatch::all(&source, per_head) {
                    let gathered = batch.gather(&source)?;
                    assert_eq!(gathered.shape()?[1..], [batch.rows, batch.cols]);
                    batch.for_each(&mut copy, &gathered, |to, from| to.copy_(from).map(drop))?;
                }
                copy.axpy_(-1.0, &source)?;
                copy.max_abs()
            });
            assert_eq!(same, Ok(0.0));
        }
    }

    #[test]
    fn a_head_along_the_columns_is_a_slice_of_columns() {
        let values: Vec<f64> = (0..12).map(f64::from).collect();
        let spec = ParamSpec {
            sub_blocks: Some(SubBlocks { dim: 1, count: 2 }),
            ..ParamSpec::new("output", &[3, 4], Role::Hidden)
        };
        let found = on(DType::F64, vec![(spec, values)], |ctx| {
            MatrixBatch::all(ctx.params(), true)[0].gather(ctx.params())?.to_vec()
        });
        assert_eq!(found.unwrap(), [0.0, 1.0, 4.0, 5.0, 8.0, 9.0, 2.0, 3.0, 6.0, 7.0, 10.0, 11.0]);
    }
}
