//! An optimizer of a plugin on the run's session, with its errors as the host's.

use super::load::Plugin;
use crate::config::{Origins, check};
use crate::curvature::TorchSession;
use crate::error::{Exit, Fault, Result};
use gauntlet_plugin_abi::{Capability, ErrorCode, RString};
use gauntlet_plugin_api::Error;
use gauntlet_plugin_api::backend::{Backend, CreateFn, Instance, SavedState, StepResult};
use gauntlet_plugin_api::metadata::{Metadata, RULES};
use serde_json::Value;
use tch::Tensor;

/// An optimizer that a plugin made for this run.
#[derive(Debug)]
pub struct PluginOptimizer {
    name: String,
    session: &'static TorchSession,
    create: CreateFn,
    config: String,
    instance: Instance<crate::curvature::TorchBackend>,
    answers_rules: bool,
}

impl PluginOptimizer {
    /// Makes the optimizer from its configuration, the table `[optimizer.config]`.
    ///
    /// # Errors
    ///
    /// Keys and values that the plugin's schema or the plugin itself refuses ([`Exit::Usage`]), all that the schema
    /// finds at once; needs that this host does not meet, by name ([`Exit::Plugin`]).
    pub fn new(
        plugin: &Plugin,
        session: &'static TorchSession,
        config: &Value,
        origins: &Origins,
    ) -> Result<Self, Vec<Fault>> {
        let name = plugin.metadata.name.clone();
        check_needs(&plugin.metadata, session).map_err(|fault| vec![fault])?;
        let problems = check::validate(&plugin.metadata.schema, config, "optimizer.config");
        if !problems.is_empty() {
            return Err(problems.iter().map(|problem| problem.fault(origins)).collect());
        }
        let (create, config) = (plugin.module().create(), config.to_string());
        let instance = Instance::create(session, create, &config);
        let instance = instance.map_err(|error| vec![fault_of(&name, session, error)])?;
        let answers_rules = plugin.metadata.answers.iter().any(|question| question == RULES);
        Ok(Self { name, session, create, config, instance, answers_rules })
    }

    /// Makes the optimizer anew at the parameters of now. One that was made at others may hold what it took from them.
    /// Until the new one is made, both states are in memory.
    ///
    /// # Errors
    ///
    /// What the plugin says.
    pub fn make_anew(&mut self) -> Result<()> {
        let made = Instance::create(self.session, self.create, &self.config);
        self.instance = made.map_err(|error| fault_of(&self.name, self.session, error))?;
        Ok(())
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The session it runs on.
    pub fn session(&self) -> &'static TorchSession {
        self.session
    }

    /// The rule of each parameter, in their order; the plugin's name where it does not tell.
    pub fn rules(&mut self) -> Result<Vec<String>> {
        if !self.answers_rules {
            return Ok(vec![self.name.clone(); self.session.lock().specs().len()]);
        }
        self.instance.rules().map_err(|error| fault_of(&self.name, self.session, error))
    }

    /// Bytes of state that it holds now: of each parameter, and of none in particular.
    pub fn state_bytes_by_param(&self) -> Result<(Vec<u64>, u64)> {
        self.instance.state_bytes_by_param().map_err(|error| fault_of(&self.name, self.session, error))
    }

    /// One call of `step`.
    pub fn step(&mut self, step: u64) -> Result<StepResult> {
        self.instance.step(step).map_err(|error| fault_of(&self.name, self.session, error))
    }

    /// The optimizer's state.
    pub fn save(&self) -> Result<SavedState> {
        self.instance.save().map_err(|error| fault_of(&self.name, self.session, error))
    }

    /// Restores a state.
    pub fn load(&mut self, state: &SavedState) -> Result<()> {
        self.instance.load(state).map_err(|error| fault_of(&self.name, self.session, error))
    }

    /// Aliases of the parameters to evaluate at, where they are not the run's own.
    pub fn evaluation_params(&self) -> Result<Option<Vec<Tensor>>> {
        let handles = self.instance.evaluation_params().map_err(|error| fault_of(&self.name, self.session, error))?;
        let Some(handles) = handles else { return Ok(None) };
        let state = self.session.lock();
        let tensors = handles.iter().map(|raw| state.tensor(*raw).map(Tensor::shallow_clone));
        let tensors = tensors.collect::<Result<_, Error>>();
        drop(state);
        tensors.map(Some).map_err(|error| fault_of(&self.name, self.session, error))
    }
}

/// Bytes of state that an optimizer with this configuration will hold.
pub fn state_bytes(plugin: &Plugin, session: &'static TorchSession, config: &Value) -> Result<u64> {
    let config = RString::from(config.to_string());
    let bytes = (plugin.module().state_bytes())(session.host(), config.as_rstr()).into_result();
    bytes.map_err(|error| fault_of(&plugin.metadata.name, session, error.into()))
}

fn check_needs(metadata: &Metadata, session: &'static TorchSession) -> Result<()> {
    let state = session.lock();
    let missing = metadata.needs.iter().filter(|need| !state.backend.supports(Capability(need.code)));
    let missing: Vec<String> = missing.map(|need| format!("`{}`", need.name)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => {
            Err(Fault::new(Exit::Plugin, format!("plugin `{}` needs what this host does not offer", metadata.name))
                .found(missing.join(", "))
                .hint("update gauntlet, or use another optimizer"))
        }
    }
}

/// A plugin's error as the host's. An error that the host itself gave the plugin keeps its own text and exit code.
pub fn fault_of(plugin: &str, session: &'static TorchSession, error: Error) -> Fault {
    let behind = session.lock().backend.fault.take();
    if let (ErrorCode::DATA, Some(fault)) = (error.code, behind) {
        return fault;
    }
    let (exit, at) = match error.code {
        ErrorCode::CONFIG if error.at.is_empty() => (Exit::Usage, "`optimizer.config`: ".into()),
        ErrorCode::CONFIG => (Exit::Usage, format!("`optimizer.config.{}`: ", error.at)),
        ErrorCode::HOST => return Fault::new(Exit::Internal, format!("{}{}", prefix(&error.at), error.message)),
        ErrorCode::NUMERICAL => (Exit::NonFinite, prefix(&error.at)),
        _ => (Exit::Plugin, prefix(&error.at)),
    };
    let fault = Fault::new(exit, format!("plugin `{plugin}`: {at}{}", error.message));
    match error.detail.is_empty() {
        true => fault,
        false => fault.detail(error.detail),
    }
}

fn prefix(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!("{at}: ") }
}
