//! Orthogonalisation by Newton-Schulz iterations: odd polynomials that drive every singular value of a matrix to 1.

use gauntlet_plugin_api::prelude::*;

/// The polynomials a x + b x^3 + c x^5, one for each iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coefficients {
    /// One steep polynomial for all iterations; singular values end between 0.68 and 1.14 (Jordan et al. 2024).
    #[default]
    Jordan,
    /// The minimax polynomials of Amsel et al. (arXiv 2505.16932, with its safety factor 1.01); they converge to 1.
    PolarExpress,
    /// Five tuned polynomials, the last repeated; singular values end between 0.97 and 1.04 (Dion, arXiv 2504.05295).
    Dion,
}

const JORDAN: [f64; 3] = [3.4445, -4.7750, 2.0315];

const DION: [[f64; 3]; 5] = [
    [4.0848, -6.8946, 2.9270],
    [3.9505, -6.3029, 2.6377],
    [3.7418, -5.5913, 2.3037],
    [2.8769, -3.1427, 1.2046],
    [2.8366, -3.0525, 1.2012],
];

/// Before the safety factor.
const POLAR_EXPRESS: [[f64; 3]; 7] = [
    [8.28721201814563, -23.595886519098837, 17.300387312530933],
    [4.107059111542203, -2.9478499167379106, 0.5448431082926601],
    [3.9486908534822946, -2.908902115962949, 0.5518191394370137],
    [3.3184196573706015, -2.488488024314874, 0.51004894012372],
    [2.300652019954817, -1.6689039845747493, 0.4188073119525673],
    [1.891301407787398, -1.2679958271945868, 0.37680408948524835],
    [1.8750014808534479, -1.2500016453999487, 0.3750001645474248],
];

/// What Polar Express converges to: the Newton-Schulz iteration of degree 5.
const LIMIT: [f64; 3] = [1.875, -1.25, 0.375];

/// Room for rounding above 1: without it a singular value could leave the interval of the next polynomial.
const SAFETY: f64 = 1.01;

impl Coefficients {
    /// a, b, c of iteration `index`, from 0.
    pub fn triple(self, index: usize) -> [f64; 3] {
        match self {
            Self::Jordan => JORDAN,
            Self::Dion => DION[index.min(DION.len() - 1)],
            Self::PolarExpress => POLAR_EXPRESS.get(index).map_or(LIMIT, |[a, b, c]| {
                [a / SAFETY, b / (SAFETY * SAFETY * SAFETY), c / (SAFETY * SAFETY * SAFETY * SAFETY * SAFETY)]
            }),
        }
    }

    /// What the Frobenius norm is multiplied by before a matrix is divided by it.
    fn margin(self) -> f64 {
        if self == Self::PolarExpress { SAFETY } else { 1.0 }
    }
}

/// An orthogonalisation: X <- X / (||X||_F + eps), then for each iteration
///
/// ```text
/// A = X X^T,  X <- (a I + b A + c A A) X
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewtonSchulz {
    /// The polynomials.
    pub coefficients: Coefficients,
    /// Number of iterations.
    pub steps: usize,
    /// Added to the Frobenius norm, so that zeros stay zeros.
    pub eps: f64,
}

impl NewtonSchulz {
    /// Orthogonalises each matrix of a batch `[batch, rows, cols]`.
    pub fn orthogonalize(&self, batch: &Tensor) -> Result<Tensor> {
        let norms = batch.norm_dims(&[1, 2], true)?;
        let divisors = norms.scale(self.coefficients.margin())?.add_scalar(self.eps)?;
        self.iterate(batch.div(&divisors)?)
    }

    /// The iterations alone, on a batch with singular values in [0, 1].
    ///
    /// A is made on the shorter side. Where the other side is at least 1.5 times as long, the iterations run on A itself:
    /// the polynomials of one symmetric matrix commute, so A <- P A P and Q <- P Q, and X is multiplied once, by Q.
    /// That takes 4 r^2 s + 34 r^3 operations in place of 20 r^2 s + 10 r^3 (r the shorter side, s the longer).
    fn iterate(&self, mut x: Tensor) -> Result<Tensor> {
        let Some(side) = Side::of(&x)? else { return Ok(x) };
        let triples: Vec<[f64; 3]> = (0..self.steps).map(|index| self.coefficients.triple(index)).collect();
        let mut rest = triples.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(if side.is_long { safe_count(rest) } else { 1 });
            let product = side.product(side.gram(&x)?, now)?;
            x = side.multiply(&product, &x)?;
            rest = later;
        }
        Ok(x)
    }
}

/// How many iterations can run on A in a row, at least 1. Each update of A multiplies its smallest eigenvalues, and with
/// them the rounding errors of A, by a^2. An eigenvalue that should be 0 becomes negative so, and the polynomials drive it
/// away from 0 without bound: it has to stay small, in f32 too, until A is made anew from X.
fn safe_count(triples: &[[f64; 3]]) -> usize {
    const MAX_GROWTH: f64 = 1e5;
    let growth = triples.iter().scan(1.0, |growth, [a, ..]| {
        *growth *= a * a;
        Some(*growth)
    });
    triples.len().min(1 + growth.take_while(|growth| *growth < MAX_GROWTH).count())
}

/// The shorter side of the matrices of a batch.
struct Side {
    is_tall: bool,
    is_long: bool,
    identity: Tensor,
}

impl Side {
    /// `None` where nothing is to be done.
    fn of(x: &Tensor) -> Result<Option<Self>> {
        let [batch, rows, cols] = x.shape()?[..] else {
            return Err(Error::shape("newton_schulz", format!("found {:?}, expected a batch of matrices", x.shape()?)));
        };
        let (short, long) = (rows.min(cols), rows.max(cols));
        if batch * short == 0 {
            return Ok(None);
        }
        let identity = x.eye(short)?.broadcast_to(&[batch, short, short])?;
        Ok(Some(Self { is_tall: rows > cols, is_long: 2 * long >= 3 * short, identity }))
    }

    /// X X^T, or X^T X of tall matrices.
    fn gram(&self, x: &Tensor) -> Result<Tensor> {
        let xt = x.t()?;
        if self.is_tall { xt.matmul(x) } else { x.matmul(&xt) }
    }

    /// The product of the polynomials of some iterations from A on.
    fn product(&self, mut a: Tensor, triples: &[[f64; 3]]) -> Result<Tensor> {
        let [first, later @ ..] = triples else { return self.identity.try_clone() };
        let mut p = self.polynomial(&a, *first)?;
        let mut product = None;
        for triple in later {
            a = p.matmul(&a.matmul(&p)?)?;
            let next = self.polynomial(&a, *triple)?;
            product = Some(next.matmul(product.as_ref().unwrap_or(&p))?);
            p = next;
        }
        Ok(product.unwrap_or(p))
    }

    /// a I + b A + c A A.
    fn polynomial(&self, a: &Tensor, [c1, c2, c3]: [f64; 3]) -> Result<Tensor> {
        let mut p = a.matmul(a)?;
        fused([&mut p], [a, &self.identity], |[p], [a, identity]| [c1 * identity + c2 * a + c3 * p])?;
        Ok(p)
    }

    /// P X, or X P of tall matrices.
    fn multiply(&self, p: &Tensor, x: &Tensor) -> Result<Tensor> {
        if self.is_tall { x.matmul(p) } else { p.matmul(x) }
    }
}

#[cfg(test)]
mod tests;
