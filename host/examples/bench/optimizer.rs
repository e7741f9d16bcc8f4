//! One step of a plugin at a gradient that costs nothing: `0.001 w` of the parameters w at the start.

use anyhow::Result;
use gauntlet::curvature::{Problem, TorchSession};
use gauntlet::error::Result as HostResult;
use gauntlet::model::{init_params, param_specs};
use gauntlet::plugin::PluginOptimizer;
use gauntlet_plugin_api::{Position, Role};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::drive::{Arguments, Round, Subject, seconds};
use crate::gradient::norm;
use crate::{inputs, session};

/// The same gradient in every step.
struct Constant(Vec<Tensor>);

impl Problem for Constant {
    fn seq_len(&self) -> usize {
        1
    }

    fn vocab_size(&self) -> usize {
        1
    }

    fn forward_flops(&self, _: u64) -> f64 {
        0.0
    }

    fn losses(&self, _: &[&Tensor], batch: &Position) -> HostResult<Vec<f64>> {
        Ok(vec![0.0; batch.sequences as usize])
    }

    fn loss_and_gradient(&self, _: &[&Tensor], _: &Position) -> HostResult<(f64, Vec<Tensor>)> {
        Ok((0.0, self.0.iter().map(Tensor::shallow_clone).collect()))
    }
}

pub struct OptimizerStep {
    session: &'static TorchSession,
    optimizer: PluginOptimizer,
    step: u64,
    repeats: u32,
}

impl OptimizerStep {
    /// AdamW on all parameters of paper-45m.
    pub fn adam(arguments: &Arguments) -> Result<Self> {
        let config = json!({ "lr": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.1 });
        Self::new(arguments, "adam", &config, |_| true, 4)
    }

    /// Muon on the hidden matrices of paper-45m.
    pub fn muon(arguments: &Arguments) -> Result<Self> {
        let config = json!({ "lr": 1e-3, "momentum": 0.95, "nesterov": true, "weight_decay": 0.1 });
        Self::new(arguments, "muon", &config, |role| role == Role::Hidden, 1)
    }

    /// SOAP on the hidden matrices of paper-45m, between two refreshes of its bases.
    pub fn soap(arguments: &Arguments) -> Result<Self> {
        let never = 1_000_000_000u64;
        let config = json!({ "lr": 1e-3, "betas": [0.95, 0.95], "precondition_frequency": never });
        Self::new(arguments, "soap", &config, |role| role == Role::Hidden, 1)
    }

    fn new(
        arguments: &Arguments,
        plugin: &str,
        config: &Value,
        choose: impl Fn(Role) -> bool,
        repeats: u32,
    ) -> Result<Self> {
        let model = inputs::paper_45m()?;
        let all = init_params(&model, 1, Kind::Float, Device::Cpu);
        let (specs, params): (Vec<_>, Vec<_>) =
            param_specs(&model).into_iter().zip(all).filter(|(spec, _)| choose(spec.role)).unzip();
        let named: Vec<(&str, &Tensor)> = specs.iter().map(|spec| spec.name.as_str()).zip(&params).collect();
        Tensor::write_safetensors(&named, arguments.folder.join("inputs.safetensors"))?;
        let gradient = params.iter().map(|param| param * 1e-3).collect();
        let session = session::start(Box::new(Constant(gradient)), specs, params, 1)?;
        let optimizer = session::optimizer(plugin, session, config)?;
        Ok(Self { session, optimizer, step: 0, repeats })
    }

    fn step(&mut self) -> Result<()> {
        self.optimizer.step(self.step)?;
        self.step += 1;
        Ok(())
    }
}

impl Subject for OptimizerStep {
    /// The norm of the parameters after two steps.
    fn check(&mut self) -> Result<Vec<f64>> {
        self.step()?;
        self.step()?;
        let mut state = self.session.lock();
        let params: Vec<Tensor> = state.backend_and_params().1.into_iter().map(Tensor::shallow_clone).collect();
        Ok(vec![norm(&params)])
    }

    fn round(&mut self) -> Result<Round> {
        Ok(vec![("seconds", seconds(self.repeats, || self.step())?)])
    }
}
