//! Products with curvature on small transformers, each on a linearization of its own unless it says otherwise.

use std::time::Instant;

use anyhow::{Context, Result};
use gauntlet::curvature::{Linearization, Problem};
use gauntlet::model::{Attention, ModelConfig, param_specs};
use gauntlet_plugin_api::{Blocks, Labels, Structure};
use tch::Tensor;

use crate::drive::{Arguments, Round, Subject, seconds};
use crate::gradient::norm;
use crate::inputs::{self, Inputs};
use crate::resident;

/// A model at a point with a direction, `0.01 w`.
struct Point {
    inputs: Inputs,
    delta: Vec<Tensor>,
}

impl Point {
    fn new(config: ModelConfig, sequences: u64, seq_len: usize, arguments: &Arguments) -> Result<Self> {
        let inputs = Inputs::new(config, sequences, seq_len, arguments)?;
        let delta = inputs.params.iter().map(|param| param * 0.01).collect();
        Ok(Self { inputs, delta })
    }

    fn whole(&self) -> Blocks {
        Blocks::whole(self.delta.len())
    }

    fn linearize(&self, blocks: &Blocks) -> Result<Linearization> {
        let params: Vec<&Tensor> = self.inputs.params.iter().collect();
        let at = self.inputs.problem().linearize(&params, &self.inputs.batch(), blocks, 0);
        Ok(at.context("the model has no curvature")??)
    }

    fn gradient(&self) -> Result<(f64, Vec<Tensor>)> {
        Ok(self.linearize(&self.whole())?.gradient(Labels::Data))
    }

    /// The values and the gradient of the quadratic model along `delta`.
    fn quadratic(&self, blocks: &Blocks, delta: &[Tensor]) -> Result<(Vec<f64>, Vec<Tensor>)> {
        let product = self.linearize(blocks)?.quadratic(&delta.iter().collect::<Vec<_>>());
        Ok((product.values, product.tensors))
    }

    /// The gradient by libtorch's reverse mode, with its fused attention.
    fn autograd(&self, tokens: &Tensor) -> Vec<Tensor> {
        let leaf = |param: &Tensor| param.detach().set_requires_grad(true);
        let leaves: Vec<Tensor> = self.inputs.params.iter().map(leaf).collect();
        let loss = self.inputs.model.loss(&leaves, tokens, Attention::Fused);
        Tensor::run_backward(&[loss], &leaves, false, false)
    }
}

/// The quadratic model, the gradient, and repeated products.
pub struct Products {
    point: Point,
    tokens: Tensor,
}

impl Products {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let point = Point::new(inputs::small(), 8, 128, arguments)?;
        point.inputs.write(&arguments.folder)?;
        Ok(Self { tokens: point.inputs.tokens()?, point })
    }

    /// The second and third of three products on one linearization.
    fn repeated(&self) -> Result<f64> {
        let point = &self.point;
        let mut at = point.linearize(&point.whole())?;
        let delta: Vec<&Tensor> = point.delta.iter().collect();
        drop(at.ggn_vector_product(&delta));
        let started = Instant::now();
        (0..2).for_each(|_| drop(at.ggn_vector_product(&delta)));
        Ok(started.elapsed().as_secs_f64() / 2.0)
    }
}

impl Subject for Products {
    fn check(&mut self) -> Result<Vec<f64>> {
        let (values, gradient) = self.point.quadratic(&self.point.whole(), &self.point.delta)?;
        self.repeated()?;
        Ok(vec![values[0], values[1], values[2], norm(&gradient)])
    }

    fn round(&mut self) -> Result<Round> {
        let point = &self.point;
        Ok(vec![
            ("quadratic", seconds(1, || point.quadratic(&point.whole(), &point.delta))?),
            ("gradient", seconds(1, || point.gradient())?),
            ("autograd", seconds(1, || Ok(point.autograd(&self.tokens)))?),
            ("repeated_ggn", self.repeated()?),
        ])
    }
}

/// The quadratic model of every layer at once, and one after another.
pub struct Layerwise {
    point: Point,
    blocks: Blocks,
}

impl Layerwise {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let point = Point::new(ModelConfig { num_layers: 12, ..inputs::small() }, 4, 128, arguments)?;
        let blocks = Blocks::resolve(&Structure::Layerwise, &param_specs(point.inputs.model.config()))?;
        Ok(Self { point, blocks })
    }

    /// Delta of one block, zero outside.
    fn alone(&self, block: usize) -> Vec<Tensor> {
        let of_param = self.blocks.of_param();
        let part = |(delta, of): (&Tensor, &usize)| if *of == block { delta.copy() } else { delta.zeros_like() };
        self.point.delta.iter().zip(of_param).map(part).collect()
    }

    /// One call of the full structure for each block; gives what each block's own part of the gradient is.
    fn separate(&self) -> Result<(f64, Vec<Tensor>)> {
        let (mut elapsed, mut gradient) = (0.0, self.point.delta.iter().map(Tensor::shallow_clone).collect::<Vec<_>>());
        for block in 0..self.blocks.count() {
            let delta = self.alone(block);
            let started = Instant::now();
            let (_, tensors) = self.point.quadratic(&self.point.whole(), &delta)?;
            elapsed += started.elapsed().as_secs_f64();
            for (index, tensor) in tensors.into_iter().enumerate() {
                if self.blocks.of_param()[index] == block {
                    gradient[index] = tensor;
                }
            }
        }
        Ok((elapsed, gradient))
    }
}

impl Subject for Layerwise {
    fn check(&mut self) -> Result<Vec<f64>> {
        let (_, at_once) = self.point.quadratic(&self.blocks, &self.point.delta)?;
        let (_, separate) = self.separate()?;
        let difference: Vec<Tensor> = at_once.iter().zip(&separate).map(|(a, b)| a - b).collect();
        let error = norm(&difference) / norm(&separate);
        anyhow::ensure!(error < 1e-4, "the blocks' gradients differ by {error:e}");
        Ok(vec![norm(&at_once)])
    }

    fn round(&mut self) -> Result<Round> {
        let started = Instant::now();
        drop(self.point.quadratic(&self.blocks, &self.point.delta)?);
        Ok(vec![("layerwise", started.elapsed().as_secs_f64()), ("separate", self.separate()?.0)])
    }
}

/// The peak memory of one kind of call: what the process holds beyond its libraries.
pub struct Peak {
    before: f64,
    point: Point,
    quadratic: bool,
}

impl Peak {
    /// `side` is `gradient` or `quadratic`.
    pub fn new(arguments: &Arguments, config: ModelConfig, sequences: u64, seq_len: usize) -> Result<Self> {
        resident::load_libraries();
        let before = resident::now()?;
        let quadratic = arguments.side == "quadratic";
        // Both sides hold the direction: whoever asks for the one holds it also while asking for the other.
        Ok(Self { before, point: Point::new(config, sequences, seq_len, arguments)?, quadratic })
    }

    fn call(&self) -> Result<f64> {
        if self.quadratic {
            return Ok(self.point.quadratic(&self.point.whole(), &self.point.delta)?.0[0]);
        }
        let params: Vec<&Tensor> = self.point.inputs.params.iter().collect();
        Ok(self.point.inputs.problem().loss_and_gradient(&params, &self.point.inputs.batch())?.0)
    }
}

impl Subject for Peak {
    /// The loss at the point.
    fn check(&mut self) -> Result<Vec<f64>> {
        self.call()?;
        Ok(vec![self.call()?])
    }

    fn round(&mut self) -> Result<Round> {
        resident::forget_peak()?;
        self.call()?;
        Ok(vec![("bytes", resident::peak()? - self.before)])
    }
}
