//! Kronecker factors of linear layers, E[a a^T] and E[s s^T], gathered by a pullback.

use super::passes::Sink;
use crate::model::{ModelConfig, Places, param_specs};
use gauntlet_plugin_api::{Error, Result, Sharing};
use tch::{Kind, Tensor};

/// Gathers the factors of named weights.
#[derive(Debug)]
pub struct Factors {
    layers: Vec<Layer>,
    sharing: Sharing,
    /// Sequences and tokens of the micro-batch, and how many rows of the head were met.
    shape: [i64; 2],
}

/// One layer: sums of a a^T and s s^T over cases.
#[derive(Debug)]
struct Layer {
    param: usize,
    inputs: Option<Tensor>,
    outputs: Option<Tensor>,
    cases: i64,
    /// With `Sharing::Reduce`, rows of a sequence that is not complete: the head comes by chunks.
    pending: Option<[Tensor; 2]>,
}

impl Factors {
    /// No sum yet.
    ///
    /// # Errors
    /// A name that is not the weight of a linear layer, or one that is given twice.
    pub fn new(config: &ModelConfig, names: &[String], sharing: Sharing) -> Result<Self> {
        let specs = param_specs(config);
        let places = Places::bind(config, 0..specs.len());
        let linear = |param: usize| param == places.head || (specs[param].shape.len() == 2 && param != places.embed);
        let mut layers: Vec<Layer> = vec![];
        for name in names {
            let param = specs.iter().position(|spec| spec.name == *name).filter(|param| linear(*param));
            let unknown = || Error::argument("kronecker_factors", format!("no linear layer has a weight `{name}`"));
            let param = param.ok_or_else(unknown)?;
            if layers.iter().any(|layer| layer.param == param) {
                return Err(Error::argument("kronecker_factors", format!("`{name}` is named twice")));
            }
            layers.push(Layer { param, inputs: None, outputs: None, cases: 0, pending: None });
        }
        Ok(Self { layers, sharing, shape: [0, 0] })
    }

    /// A micro-batch of `[sequences, T]` follows.
    pub fn start(&mut self, shape: [i64; 2]) {
        self.shape = shape;
    }

    /// The inputs and the outputs factor of each layer.
    pub fn finish(self) -> Vec<Tensor> {
        let mean = |sum: Option<Tensor>, cases: i64| sum.map(|mut sum| sum.g_mul_scalar_(1.0 / cases.max(1) as f64));
        let pairs =
            self.layers.into_iter().map(|layer| [mean(layer.inputs, layer.cases), mean(layer.outputs, layer.cases)]);
        pairs.flatten().flatten().collect()
    }
}

impl Sink for Factors {
    fn begin(&mut self, _: usize) {}

    fn wants(&self, param: usize) -> bool {
        self.layers.iter().any(|layer| layer.param == param)
    }

    fn linear(&mut self, param: usize, inputs: &Tensor, outputs: &Tensor) {
        let Some(layer) = self.layers.iter_mut().find(|layer| layer.param == param) else { return };
        match self.sharing {
            Sharing::Reduce => layer.add_sequences(self.shape[1], inputs, outputs),
            _ => layer.add(inputs, outputs),
        }
    }

    fn vector(&mut self, _: usize, _: Tensor) {}

    fn table(&mut self, _: usize, _: &Tensor, _: &Tensor) {}
}

impl Layer {
    /// One case a row.
    fn add(&mut self, inputs: &Tensor, outputs: &Tensor) {
        for (sum, rows) in [(&mut self.inputs, inputs), (&mut self.outputs, outputs)] {
            match sum {
                Some(sum) => drop(sum.addmm_(&rows.tr(), rows)),
                empty => *empty = Some(rows.tr().mm(rows)),
            }
        }
        self.cases += inputs.size()[0];
    }

    /// One case a sequence: the mean of its inputs, the sum of its outputs' cotangents.
    fn add_sequences(&mut self, length: i64, inputs: &Tensor, outputs: &Tensor) {
        let rows = match self.pending.take() {
            Some([a, s]) => [Tensor::cat(&[&a, inputs], 0), Tensor::cat(&[&s, outputs], 0)],
            None => [inputs.shallow_clone(), outputs.shallow_clone()],
        };
        let whole = rows[0].size()[0] / length * length;
        let by_sequence = |rows: &Tensor| {
            let sequences = rows.narrow(0, 0, whole).unflatten(0, [-1, length]);
            sequences.sum_dim_intlist([1_i64].as_slice(), false, None::<Kind>)
        };
        if whole > 0 {
            self.add(&(by_sequence(&rows[0]) / length as f64), &by_sequence(&rows[1]));
        }
        let left = rows[0].size()[0] - whole;
        self.pending = (left > 0).then(|| rows.map(|rows| rows.narrow(0, whole, left).copy()));
    }
}
