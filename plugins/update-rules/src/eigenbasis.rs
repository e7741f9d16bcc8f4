//! A second-moment factor of one side of matrices, and the basis of its eigenvectors.

use gauntlet_plugin_api::ErrorCode;
use gauntlet_plugin_api::prelude::*;

/// Factors and their eigenvectors for a batch, both `[batch, n, n]`. Columns are in descending order of eigenvalues.
#[derive(Debug)]
pub struct Eigenbasis {
    /// Moving average of the statistics.
    pub factor: Tensor,
    /// Orthogonal matrices Q.
    pub basis: Tensor,
}

impl Eigenbasis {
    /// Zero factors and identities, like `of` in element type.
    pub fn new(of: &Tensor, batch: usize, n: usize) -> Result<Self> {
        Ok(Self { factor: of.full(&[batch, n, n], 0.0)?, basis: of.eye(n)?.broadcast_to(&[batch, n, n])? })
    }

    /// L <- beta L + (1 - beta) S.
    pub fn update(&mut self, statistics: &Tensor, beta: f64) -> Result<()> {
        fused([&mut self.factor], [statistics], |[l], [s]| [beta * l + (1.0 - beta) * s])
    }

    /// The eigenvectors of the factors.
    ///
    /// # Errors
    ///
    /// An eigendecomposition that fails, also in f64.
    pub fn decompose(&mut self) -> Result<()> {
        let [_, vectors] = eigh(&self.factor)?;
        let [batch, n, _] = shape(&vectors)?;
        let descending: Vec<i64> = (0..n as i64).rev().collect();
        self.basis = match batch * n {
            0 => vectors,
            _ => vectors.index_select(2, &vectors.with_indices(&[n], &descending)?)?,
        };
        Ok(())
    }

    /// One step of power iteration: Q <- orthonormal columns of L Q, which are first put in descending order of the
    /// estimated eigenvalues diag(Q^T L Q). Gives that order, `[batch, n]`; `None` where the decomposition fails, which
    /// leaves the basis as it was.
    pub fn refresh(&mut self) -> Result<Option<Tensor>> {
        let [batch, n, _] = shape(&self.basis)?;
        let power = self.factor.matmul(&self.basis)?;
        let order = self.basis.mul(&power)?.sum(&[1], false)?.argsort(1, true)?;
        match power.gather(2, &order.reshape(&[batch, 1, n])?.broadcast_to(&[batch, n, n])?)?.qr() {
            Ok([q, _]) if q.all_finite()? => {
                self.basis = q;
                Ok(Some(order))
            }
            Err(error) if error.code != ErrorCode::NUMERICAL => Err(error),
            _ => Ok(None),
        }
    }

    /// Largest element of |Q^T Q - I|.
    pub fn deviation(&self) -> Result<f64> {
        let [_, n, _] = shape(&self.basis)?;
        self.basis.t()?.matmul(&self.basis)?.sub(&self.basis.eye(n)?)?.max_abs()
    }
}

/// Eigenvalues (ascending) and eigenvectors; a decomposition that fails is tried again in f64.
///
/// # Errors
///
/// It fails in f64 too.
pub fn eigh(a: &Tensor) -> Result<[Tensor; 2]> {
    let dtype = a.dtype()?;
    match a.eigh() {
        Err(_) if dtype != DType::F64 => {
            let [values, vectors] = a.cast(DType::F64)?.eigh()?;
            Ok([values.cast(dtype)?, vectors.cast(dtype)?])
        }
        result => result,
    }
}

fn shape(batch: &Tensor) -> Result<[usize; 3]> {
    let shape = batch.shape()?;
    <[usize; 3]>::try_from(shape.as_slice()).map_err(|_| Error::shape("basis", format!("{shape:?} is not a batch")))
}

#[cfg(test)]
mod tests;
