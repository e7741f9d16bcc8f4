//! The gradient of a small transformer, as a plugin's call computes it.

use anyhow::Result;
use gauntlet::curvature::Problem;
use tch::{Kind, Tensor};

use crate::drive::{Arguments, Round, Subject, seconds};
use crate::inputs::{self, Inputs};

pub struct Gradient {
    inputs: Inputs,
}

impl Gradient {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let inputs = Inputs::new(inputs::small(), 8, 128, arguments)?;
        inputs.write(&arguments.folder)?;
        Ok(Self { inputs })
    }

    fn run(&self) -> Result<(f64, Vec<Tensor>)> {
        let params: Vec<&Tensor> = self.inputs.params.iter().collect();
        Ok(self.inputs.problem().loss_and_gradient(&params, &self.inputs.batch())?)
    }
}

impl Subject for Gradient {
    fn check(&mut self) -> Result<Vec<f64>> {
        let (loss, gradient) = self.run()?;
        Ok(vec![loss, norm(&gradient)])
    }

    fn round(&mut self) -> Result<Round> {
        Ok(vec![("seconds", seconds(2, || self.run())?)])
    }
}

/// The norm of a list of tensors, accumulated in f64.
pub fn norm(tensors: &[Tensor]) -> f64 {
    tensors.iter().map(|tensor| tensor.square().sum(Kind::Double).double_value(&[])).sum::<f64>().sqrt()
}
