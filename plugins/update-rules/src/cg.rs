//! Preconditioned conjugate gradients on a block-diagonal system B x = b. Each block has its own step sizes, its own
//! stop, and its own way back (Martens, ICML 2010, sections 4.4 to 4.8).

use gauntlet_plugin_api::{Blocks, Error, ErrorCode, Params, Result, StateReader, StateWriter, Structure, fused};

/// Iterations after which the residual is computed anew, against drift.
const FRESH_RESIDUAL_EVERY: usize = 10;

/// When a block stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stop {
    /// Iterations at most.
    pub max_iterations: usize,
    /// Least relative progress an iteration, over the last k = max(10, ceil(i / 10)); 0 for no such rule.
    pub progress: f64,
    /// Norm of the residual by that of b at which a block is solved; 0 for no such rule.
    pub residual: f64,
}

/// How a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// It goes on.
    Running,
    /// A rule of [`Stop`] holds, or the residual is 0.
    Stopped,
    /// p^T B p <= 0 along its direction p: B is not positive definite there. It keeps its last iterate.
    NotPositive,
}

/// The solver between two iterations.
#[derive(Debug)]
pub struct Cg {
    stop: Stop,
    blocks: Blocks,
    /// The right-hand side.
    pub b: Params,
    /// The iterate.
    pub x: Params,
    /// Diagonal of M, or none for the identity.
    preconditioner: Option<Params>,
    /// b - B x.
    residual: Params,
    direction: Params,
    /// r^T M^-1 r of each block.
    rho: Vec<f64>,
    /// 1/2 x^T B x - b^T x of each block after each of its iterations.
    values: Vec<Vec<f64>>,
    states: Vec<Block>,
    iteration: usize,
    /// Iterates 5, 7, 9, 11, 15, ...
    iterates: Vec<Params>,
}

/// B v.
pub type Product<'a> = &'a mut dyn FnMut(&Params) -> Result<Params>;

impl Cg {
    /// Starts at `x`; one product where that is not 0.
    pub fn start(
        stop: Stop,
        blocks: Blocks,
        b: Params,
        x: Params,
        preconditioner: Option<Params>,
        product: Product,
    ) -> Result<Self> {
        let mut residual = b.try_clone()?;
        if x.max_abs()? != 0.0 {
            residual.axpy_(-1.0, &product(&x)?)?;
        }
        let direction = divided(&residual, preconditioner.as_ref())?;
        let rho = residual.dot_by_block(&blocks, &direction)?;
        let states = rho.iter().map(|rho| if *rho == 0.0 { Block::Stopped } else { Block::Running }).collect();
        let (values, iteration, iterates) = (vec![vec![]; blocks.count()], 0, vec![]);
        Ok(Self { stop, blocks, b, x, preconditioner, residual, direction, rho, values, states, iteration, iterates })
    }

    /// Whether every block has stopped.
    pub fn is_done(&self) -> bool {
        self.iteration >= self.stop.max_iterations || !self.states.contains(&Block::Running)
    }

    /// Iterations so far: of the block that made most.
    pub fn iterations(&self) -> usize {
        self.values.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// 1/2 x^T B x - b^T x, summed over blocks.
    pub fn value(&self) -> f64 {
        self.values.iter().filter_map(|values| values.last()).sum()
    }

    /// How each block stands.
    pub fn states(&self) -> &[Block] {
        &self.states
    }

    /// Norm of the residual by that of b, the largest of all blocks; 0 where b is 0.
    pub fn residual_ratio(&self) -> Result<f64> {
        Ok(self.residual_ratios()?.into_iter().fold(0.0, f64::max))
    }

    fn residual_ratios(&self) -> Result<Vec<f64>> {
        let (r, b) = (self.residual.norm_by_block(&self.blocks)?, self.b.norm_by_block(&self.blocks)?);
        Ok(r.into_iter().zip(b).map(|(r, b)| if r == 0.0 { 0.0 } else { r / b }).collect())
    }

    /// One iteration: one product, or two where the residual is computed anew.
    ///
    /// # Errors
    ///
    /// A product that is not finite.
    pub fn iterate(&mut self, product: Product) -> Result<()> {
        let along = product(&self.direction)?;
        let alphas = self.step_sizes(&self.direction.dot_by_block(&self.blocks, &along)?)?;
        self.iteration += 1;
        self.x.axpy_by_block_(&self.blocks, &alphas, &self.direction)?;
        if self.iteration.is_multiple_of(FRESH_RESIDUAL_EVERY) {
            self.residual.copy_(&self.b)?.axpy_(-1.0, &product(&self.x)?)?;
        } else {
            let backward: Vec<f64> = alphas.iter().map(|alpha| -alpha).collect();
            self.residual.axpy_by_block_(&self.blocks, &backward, &along)?;
        }
        let preconditioned = divided(&self.residual, self.preconditioner.as_ref())?;
        let rho = self.residual.dot_by_block(&self.blocks, &preconditioned)?;
        let beta = |block: usize| match self.states[block] {
            Block::Running => rho[block] / self.rho[block],
            _ => 0.0,
        };
        let betas: Vec<f64> = (0..rho.len()).map(beta).collect();
        self.direction.scale_by_block_(&self.blocks, &betas)?.axpy_(1.0, &preconditioned)?;
        self.rho = rho;
        self.judge()
    }

    /// rho / p^T B p of the blocks that go on, 0 for the others.
    fn step_sizes(&mut self, curvatures: &[f64]) -> Result<Vec<f64>> {
        if let Some(bad) = curvatures.iter().find(|curvature| !curvature.is_finite()) {
            let message = format!("p^T B p is {bad}, expected a finite number");
            return Err(Error::new(ErrorCode::NUMERICAL, "conjugate gradients", message));
        }
        let mut alphas = vec![0.0; curvatures.len()];
        for (block, curvature) in curvatures.iter().enumerate() {
            match self.states[block] {
                Block::Running if *curvature > 0.0 => alphas[block] = self.rho[block] / curvature,
                Block::Running => self.states[block] = Block::NotPositive,
                _ => {}
            }
        }
        Ok(alphas)
    }

    /// Notes the values of the blocks that go on, keeps the iterate where it is due, and stops blocks.
    fn judge(&mut self) -> Result<()> {
        let along_r = self.x.dot_by_block(&self.blocks, &self.residual)?;
        let along_b = self.x.dot_by_block(&self.blocks, &self.b)?;
        let ratios = self.residual_ratios()?;
        let running: Vec<usize> = (0..self.blocks.count()).filter(|b| self.states[*b] == Block::Running).collect();
        for block in &running {
            let values = &mut self.values[*block];
            values.push(-0.5 * (along_r[*block] + along_b[*block]));
            if ratios[*block] <= self.stop.residual || self.stop.progress_ended(values) {
                self.states[*block] = Block::Stopped;
            }
        }
        if !running.is_empty() && self.iteration == kept(self.iterates.len()) {
            self.iterates.push(self.x.try_clone()?);
        }
        Ok(())
    }

    /// How many kept iterates a block has, its last one not among them.
    fn candidates(&self, block: usize) -> usize {
        (0..self.iterates.len()).take_while(|j| kept(*j) < self.values[block].len()).count()
    }

    /// A step whose blocks are those of the chosen iterates: `chosen[block]` is a kept one, or the last where it is the
    /// block's number of kept ones.
    fn assembled(&self, chosen: &[usize]) -> Result<Params> {
        let mut step = self.x.try_clone()?;
        for (j, iterate) in self.iterates.iter().enumerate() {
            let takes = |block: usize| chosen[block] == j && j < self.candidates(block);
            self.copy_blocks(&mut step, iterate, takes)?;
        }
        Ok(step)
    }

    /// Copies the tensors of some blocks.
    fn copy_blocks(&self, to: &mut Params, from: &Params, takes: impl Fn(usize) -> bool) -> Result<()> {
        let pairs = to.iter_mut().zip(from.iter()).zip(self.blocks.of_param());
        for (((_, to), (_, from)), _) in pairs.filter(|(_, block)| takes(**block)) {
            to.copy_(from)?;
        }
        Ok(())
    }

    /// Tensors that a solve holds at most, in lists of one tensor a parameter.
    pub fn lists(max_iterations: usize, preconditioned: bool) -> u64 {
        let iterates = (0..).take_while(|j| kept(*j) <= max_iterations).count() as u64;
        4 + u64::from(preconditioned) + iterates
    }

    /// Saves the solver; `prefix` stands before the entries' names.
    pub fn save(&self, state: &mut StateWriter, prefix: &str) -> Result<()> {
        let key = |name: &str| format!("{prefix}{name}");
        state.params(&key("b"), &self.b)?;
        state.params(&key("x"), &self.x)?;
        state.params(&key("residual"), &self.residual)?;
        state.params(&key("direction"), &self.direction)?;
        if let Some(preconditioner) = &self.preconditioner {
            state.params(&key("preconditioner"), preconditioner)?;
        }
        for (j, iterate) in self.iterates.iter().enumerate() {
            state.params(&key(&format!("iterates.{j}")), iterate)?;
        }
        state.u64(&key("iteration"), self.iteration as u64)?;
        state.f64s(&key("rho"), &self.rho)?;
        state.bytes(&key("states"), &self.states.iter().map(|state| *state as u8).collect::<Vec<_>>())?;
        (self.values.iter().enumerate()).try_for_each(|(l, values)| state.f64s(&key(&format!("values.{l}")), values))
    }

    /// Restores what [`Cg::save`] took.
    pub fn load(state: &StateReader, prefix: &str, stop: Stop, structure: &Structure) -> Result<Self> {
        let key = |name: &str| format!("{prefix}{name}");
        let known = [Block::Running, Block::Stopped, Block::NotPositive];
        let of = |code: &u8| known.into_iter().find(|state| *state as u8 == *code);
        let states: Option<Vec<Block>> = state.bytes(&key("states"))?.iter().map(of).collect();
        let states = states.ok_or_else(|| Error::state(key("states"), "holds an unknown state of a block"))?;
        let names = (0..).map(|j| key(&format!("iterates.{j}"))).take_while(|name| state.has(name));
        let has_preconditioner = state.has(&key("preconditioner"));
        let b = state.params(&key("b"))?;
        let blocks = Blocks::resolve(structure, b.specs())?;
        Ok(Self {
            b,
            x: state.params(&key("x"))?,
            residual: state.params(&key("residual"))?,
            direction: state.params(&key("direction"))?,
            preconditioner: has_preconditioner.then(|| state.params(&key("preconditioner"))).transpose()?,
            iterates: names.map(|name| state.params(&name)).collect::<Result<_>>()?,
            iteration: state.u64(&key("iteration"))? as usize,
            rho: state.f64s(&key("rho"))?,
            states,
            values: (0..blocks.count()).map(|l| state.f64s(&key(&format!("values.{l}")))).collect::<Result<_>>()?,
            stop,
            blocks,
        })
    }
}

impl Stop {
    /// (phi_i - phi_(i-k)) / phi_i < progress k, with phi_(i-k) < 0 and i > k.
    fn progress_ended(&self, values: &[f64]) -> bool {
        let i = values.len();
        let k = i.div_ceil(10).max(10);
        let (Some(at), Some(last)) = (i.checked_sub(k + 1), values.last()) else { return false };
        self.progress > 0.0 && values[at] < 0.0 && (last - values[at]) / last < self.progress * k as f64
    }
}

/// The iteration after which iterate j is kept: ceil(5 1.3^j).
fn kept(j: usize) -> usize {
    (5.0 * 1.3_f64.powi(j as i32)).ceil() as usize
}

/// M^-1 r.
fn divided(residual: &Params, preconditioner: Option<&Params>) -> Result<Params> {
    let mut result = residual.try_clone()?;
    if let Some(preconditioner) = preconditioner {
        fused([&mut result], [preconditioner], |[r], [m]| [r / m])?;
    }
    Ok(result)
}

/// The way back over kept iterates: each block, the others at 0, goes from its last iterate to earlier ones while the
/// true loss does not rise. One loss is asked for at a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backtrack {
    /// Chosen iterate of the blocks that are done, and of the one in progress once it has a loss.
    chosen: Vec<usize>,
    /// Losses at the chosen iterates.
    losses: Vec<f64>,
    /// Next kept iterate to try, of the block in progress; `None` where its last iterate has no loss yet.
    next: Option<usize>,
}

impl Backtrack {
    /// The step whose loss is to be told next; `None` when all blocks are done.
    pub fn trial(&self, cg: &Cg) -> Result<Option<Params>> {
        let block = match self.next {
            Some(_) => self.chosen.len() - 1,
            None => self.chosen.len(),
        };
        if block >= cg.blocks.count() {
            return Ok(None);
        }
        let whole = match self.next {
            Some(candidate) => &cg.iterates[candidate],
            None => &cg.x,
        };
        let mut trial = whole.zeros_like()?;
        cg.copy_blocks(&mut trial, whole, |other| other == block)?;
        Ok(Some(trial))
    }

    /// Takes the loss of the last trial.
    pub fn tell(&mut self, cg: &Cg, loss: f64) {
        let goes_on = match (self.next, self.losses.last_mut()) {
            (Some(candidate), Some(best)) if loss <= *best || best.is_nan() => {
                *best = loss;
                if let Some(chosen) = self.chosen.last_mut() {
                    *chosen = candidate;
                }
                true
            }
            (Some(_), _) => false,
            (None, _) => {
                self.chosen.push(cg.candidates(self.chosen.len()));
                self.losses.push(loss);
                true
            }
        };
        self.next = self.chosen.last().filter(|_| goes_on).and_then(|chosen| chosen.checked_sub(1));
    }

    /// The chosen step.
    pub fn step(&self, cg: &Cg) -> Result<Params> {
        match self.chosen.len() == cg.blocks.count() {
            true => cg.assembled(&self.chosen),
            false => cg.x.try_clone(),
        }
    }

    /// The iteration whose iterate the first block takes.
    pub fn iteration(&self, cg: &Cg) -> usize {
        match self.chosen.first() {
            Some(chosen) if *chosen < cg.candidates(0) => kept(*chosen),
            _ => cg.iterations(),
        }
    }

    /// Saves it; `prefix` stands before the entries' names.
    pub fn save(&self, state: &mut StateWriter, prefix: &str) -> Result<()> {
        let chosen: Vec<f64> = self.chosen.iter().map(|chosen| *chosen as f64).collect();
        state.f64s(&format!("{prefix}chosen"), &chosen)?;
        state.f64s(&format!("{prefix}losses"), &self.losses)?;
        state.f64s(&format!("{prefix}next"), self.next.map(|next| next as f64).as_slice())
    }

    /// Restores what [`Backtrack::save`] took.
    pub fn load(state: &StateReader, prefix: &str) -> Result<Self> {
        let chosen = state.f64s(&format!("{prefix}chosen"))?.into_iter().map(|chosen| chosen as usize).collect();
        let next = state.f64s(&format!("{prefix}next"))?.first().map(|next| *next as usize);
        Ok(Self { chosen, losses: state.f64s(&format!("{prefix}losses"))?, next })
    }
}

#[cfg(test)]
mod tests;
