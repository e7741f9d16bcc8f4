//! What a run would be, known before its first step: which rule each parameter follows, and what takes memory.

use super::estimate::{Estimate, StandIn};
use super::initial;
use super::prepare::Prepared;
use crate::config::Loaded;
use crate::error::Fault;
use crate::events::Started;
use gauntlet_plugin_api::ParamSpec;
use std::sync::Arc;

/// A run that was put together and not begun.
#[derive(Debug)]
pub struct Plan {
    /// What the run would begin with.
    pub started: Started,
    /// Each parameter with its rule, in the model's order.
    pub params: Vec<Planned>,
    /// Bytes of the optimizer's state that belong to no parameter.
    pub shared_state_bytes: u64,
    /// What takes memory, in bytes.
    pub memory: Vec<(&'static str, u64)>,
}

/// A parameter and its rule.
#[derive(Debug)]
pub struct Planned {
    /// Name, shape and role.
    pub spec: Arc<ParamSpec>,
    /// The rule, in the plugin's words.
    pub rule: String,
    /// Bytes of its values.
    pub bytes: u64,
    /// Bytes of state that the optimizer holds for it before step 1.
    pub state_bytes: u64,
}

impl Plan {
    /// The same for a configuration whose data and first checkpoint need not be there, with what a step will take and
    /// the keys of what is absent.
    ///
    /// # Errors
    ///
    /// As [`Plan::new`], and as [`Estimate::measure`].
    pub fn estimated(loaded: &Loaded) -> Result<(Self, Estimate, Vec<&'static str>), Vec<Fault>> {
        let stand_in = StandIn::new(loaded).map_err(|fault| vec![fault])?;
        let (complete, absent) = stand_in.instead_of_absent();
        let plan = Self::new(&complete)?;
        Ok((plan, Estimate::measure(&stand_in)?, absent))
    }

    /// Puts the run together as training would, and writes nothing.
    ///
    /// # Errors
    ///
    /// Everything that would keep the run from its first step.
    pub fn new(loaded: &Loaded) -> Result<Self, Vec<Fault>> {
        let one = |fault: Fault| vec![fault];
        let mut prepared = Prepared::new(loaded, None)?;
        if let Some(from) = &loaded.config.run.init_from {
            initial::begin_from(from, &mut prepared)?;
        }
        let element = prepared.session.lock().backend.facts().kind.elt_size_in_bytes() as u64;
        let rules = prepared.trainer.optimizer_mut().rules().map_err(one)?;
        let (state, shared_state_bytes) = prepared.trainer.optimizer_mut().state_bytes_by_param().map_err(one)?;
        let specs = prepared.session.lock().specs().to_vec();
        let planned = |((spec, rule), state_bytes): ((Arc<ParamSpec>, String), u64)| Planned {
            bytes: element * spec.numel() as u64,
            spec,
            rule,
            state_bytes,
        };
        let params: Vec<Planned> = specs.into_iter().zip(rules).zip(state).map(planned).collect();
        let bytes = params.iter().map(|param| param.bytes).sum();
        let mut memory = vec![
            ("parameters", bytes),
            ("gradient", bytes),
            ("optimizer state, as declared", prepared.started.state_bytes),
            ("activations, estimated", activation_bytes(loaded, &prepared, element)),
        ];
        if loaded.config.ema.decay.is_some() {
            memory.push(("average of the parameters", bytes));
        }
        Ok(Self { started: prepared.started, params, shared_state_bytes, memory })
    }
}

/// Bytes that a gradient keeps for one micro-batch: per token about 16 values of width and 4 of the MLP's width in each
/// block, and three rows of logits.
fn activation_bytes(loaded: &Loaded, prepared: &Prepared, element: u64) -> u64 {
    let model = &prepared.model;
    let per_token = model.num_layers * (16 * model.width + 4 * model.mlp_width) + 3 * model.vocab_size;
    (prepared.started.micro_batch_size * loaded.config.data.seq_len * per_token) as u64 * element
}
