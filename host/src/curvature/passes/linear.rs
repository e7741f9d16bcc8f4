//! Linear layers y = x W^T: tangents and pullbacks of matrices, with a count of their floating-point operations.

use std::cell::Cell;
use tch::{Device, Kind, Tensor};

/// Floating-point operations of matrix products, a multiplication and an addition counted as two.
#[derive(Debug, Default)]
pub struct Flops(Cell<f64>);

impl Flops {
    /// Counts `products` products of matrices `[m, k] x [k, n]`.
    pub fn count(&self, products: i64, m: i64, k: i64, n: i64) {
        self.0.set(self.0.get() + 2.0 * products as f64 * m as f64 * k as f64 * n as f64);
    }

    /// What was counted since this was last asked.
    pub fn take(&self) -> f64 {
        self.0.take()
    }

    /// `x [N, in]` by `W [out, in]`: `x W^T`, added to `sum` if there is one.
    pub fn forward(&self, x: &Tensor, weight: &Tensor, sum: Option<&Tensor>) -> Tensor {
        self.count_linear(x, weight);
        product(x, weight, sum)
    }

    /// `x' W^T + x W'^T`, of the tangents that there are.
    pub fn tangent(&self, x: &Tensor, dx: Option<&Tensor>, weight: &Tensor, dw: Option<&Tensor>) -> Option<Tensor> {
        let moved = dx.map(|dx| self.forward(dx, weight, None));
        match dw {
            Some(dw) => Some(self.forward(x, dw, moved.as_ref())),
            None => moved,
        }
    }

    /// `dy W`, added to `sum` if there is one.
    pub fn pullback(&self, sum: Option<Tensor>, dy: &Tensor, weight: &Tensor) -> Tensor {
        self.count_linear(dy, weight);
        product(dy, &weight.tr(), sum.as_ref())
    }

    fn count_linear(&self, rows: &Tensor, weight: &Tensor) {
        let shape = weight.size();
        self.count(1, rows.size()[0], shape[0], shape[1]);
    }
}

/// `x W^T`, added to `sum` if there is one.
fn product(x: &Tensor, weight: &Tensor, sum: Option<&Tensor>) -> Tensor {
    let is_served = x.kind() == Kind::Float && x.device() == Device::Cpu;
    if let Some(Ok(product)) = is_served.then(|| gauntlet_torch_ext::linear(x, weight, sum)) {
        return product;
    }
    match sum {
        None => x.mm(&weight.tr()),
        Some(sum) => sum.addmm(x, &weight.tr()),
    }
}

/// The sum of two tangents or cotangents, of those that there are.
pub fn add(a: Option<Tensor>, b: Option<Tensor>) -> Option<Tensor> {
    match (a, b) {
        (Some(mut a), Some(b)) => Some(a.g_add_(&b)),
        (a, b) => a.or(b),
    }
}
