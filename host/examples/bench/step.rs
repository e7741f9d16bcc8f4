//! A whole training step of paper-45m with AdamW: through the plugin, and with the same update in the host.

use std::time::Instant;

use anyhow::Result;
use gauntlet::curvature::{LanguageModel, Problem, TorchSession};
use gauntlet::model::param_specs;
use gauntlet::plugin::PluginOptimizer;
use serde_json::json;
use tch::{Kind, Tensor};

use crate::drive::{Arguments, Round, Subject};
use crate::gradient::norm;
use crate::inline::InlineAdamW;
use crate::inputs::{self, Inputs};
use crate::session;

pub struct Step {
    session: &'static TorchSession,
    optimizer: PluginOptimizer,
    inputs: Inputs,
    problem: LanguageModel,
    inline: InlineAdamW,
    step: u64,
}

impl Step {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let inputs = Inputs::new(inputs::paper_45m()?, 8, 128, arguments)?;
        let specs = param_specs(inputs.model.config());
        let session = session::start(Box::new(inputs.problem()), specs, copies(&inputs.params), inputs.sequences)?;
        let config = json!({ "lr": 1e-4, "betas": [0.9, 0.95], "weight_decay": 0.1 });
        let optimizer = session::optimizer("adam", session, &config)?;
        let (problem, inline) = (inputs.problem(), InlineAdamW::new(&inputs.params));
        Ok(Self { session, optimizer, problem, inline, inputs, step: 0 })
    }

    fn plugin(&mut self) -> Result<f64> {
        let started = Instant::now();
        self.optimizer.step(self.step)?;
        self.step += 1;
        Ok(started.elapsed().as_secs_f64())
    }

    fn inline(&mut self) -> Result<f64> {
        let started = Instant::now();
        let params: Vec<&Tensor> = self.inputs.params.iter().collect();
        let (_, gradient) = self.problem.loss_and_gradient(&params, &self.inputs.batch())?;
        norm_of(&gradient)?;
        self.inline.step(&mut self.inputs.params, &gradient)?;
        drop(gradient);
        Ok(started.elapsed().as_secs_f64())
    }
}

fn copies(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::copy).collect()
}

/// The gradient's norm as the host computes it for a plugin.
fn norm_of(gradient: &[Tensor]) -> Result<f64> {
    let tensors: Vec<&Tensor> = gradient.iter().collect();
    let squares = gauntlet::curvature::tensor::reduce(gauntlet_plugin_abi::ListReduction::SQUARED_NORM, &tensors, &[])?;
    Ok(squares.iter().sum::<f64>().sqrt())
}

impl Subject for Step {
    /// Both ways arrive at the same parameters.
    fn check(&mut self) -> Result<Vec<f64>> {
        for _ in 0..2 {
            self.plugin()?;
            self.inline()?;
        }
        let mut state = self.session.lock();
        let plugin = state.backend_and_params().1;
        let differ = plugin.iter().zip(&self.inputs.params).map(|(a, b)| (*a - b).abs().max());
        let most = differ.map(|most| most.to_kind(Kind::Double).double_value(&[])).fold(0.0, f64::max);
        anyhow::ensure!(most < 1e-6, "the plugin's parameters differ by {most:e} from those of the inline update");
        Ok(vec![norm(&self.inputs.params)])
    }

    /// Both in turn, and in the other order in every other round.
    fn round(&mut self) -> Result<Round> {
        let (plugin, inline) = match self.step % 2 {
            0 => (self.plugin()?, self.inline()?),
            _ => {
                let inline = self.inline()?;
                (self.plugin()?, inline)
            }
        };
        Ok(vec![("plugin", plugin), ("inline", inline)])
    }
}
