//! Every rule as an optimizer of its own: the conformance suite, and the rules' equality with what they are made of.

use super::*;
use gauntlet_plugin_api::testing::{Harness, Problem, conformance, json};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    inner: InnerConfig,
}

struct Solver(Inner);

impl Optimizer for Solver {
    const NAME: &'static str = "solver";
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        config.inner.check("inner.")?;
        Ok(Self(Inner::new(&config.inner, setup.params())?))
    }

    fn state_bytes(config: &Config, params: &Params) -> u64 {
        config.inner.state_bytes(params)
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let (loss, mut gradient) = ctx.loss_and_gradient(ctx.params(), &ctx.next_batch()?)?;
        let schedule = ctx.schedule();
        self.0.step(ctx.params_mut(), &mut gradient, schedule)?;
        Ok(StepReport::new(loss))
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        self.0.save(state, "inner.")
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.0.load(state, "inner.")
    }
}

#[test]
fn every_rule_conforms() {
    conformance::<Solver>(json!({ "inner": { "muon": {} } }));
    conformance::<Solver>(json!({ "inner": { "muon": { "variant": "optax", "lr": 0.01, "clip_norm": 1.0 } } }));
    conformance::<Solver>(json!({ "inner": { "soap": { "precondition_frequency": 2 } } }));
    conformance::<Solver>(json!({ "inner": { "adamw": {} } }));
    conformance::<Solver>(json!({ "inner": { "sgd": { "lr": 0.1, "momentum": 0.9 } } }));
}

#[test]
fn every_rule_descends() {
    let rules = [
        json!({ "muon": { "lr": 0.02, "variant": "optax" } }),
        json!({ "muon": { "lr": 0.02, "adam": { "lr": 0.02 } } }),
        json!({ "soap": { "lr": 0.03 } }),
        json!({ "adamw": { "lr": 0.02 } }),
        json!({ "sgd": { "lr": 0.5, "momentum": 0.9 } }),
    ];
    for inner in rules {
        let mut run = Harness::<Solver>::new(json!({ "inner": inner }), Problem::two_layer()).unwrap();
        let before = run.loss().unwrap();
        (0..50).for_each(|_| drop(run.step().unwrap()));
        let after = run.loss().unwrap();
        assert!(after < before - 0.2, "{inner}: {before} {after}");
    }
}

#[test]
fn values_out_of_range_name_their_key() {
    let refused =
        |inner| Harness::<Solver>::new(json!({ "inner": inner }), Problem::squared()).unwrap_err().to_string();
    assert_eq!(refused(json!({ "muon": { "clip_norm": 0.0 } })), "inner.muon.clip_norm: must be > 0, got 0");
    assert_eq!(refused(json!({ "muon": { "ns_steps": 100 } })), "inner.muon.ns_steps: must be from 1 to 99, got 100");
    let betas = json!({ "muon": { "adam": { "betas": [0.9, 1.0] } } });
    assert_eq!(refused(betas), "inner.muon.adam.betas[1]: must be in [0, 1), got 1");
    assert_eq!(refused(json!({ "adamw": { "lr": -1.0 } })), "inner.adamw.lr: must be > 0, got -1");
    assert_eq!(
        refused(json!({ "sgd": { "lr": 1.0, "momentum": 1.0 } })),
        "inner.sgd.momentum: must be in [0, 1), got 1"
    );
}
