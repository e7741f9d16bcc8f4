//! The harness with a small optimizer: what tests inject and read arrives.

use super::*;
use crate::prelude::*;
use serde_json::json;

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    lr: f64,
}

/// Descent that averages its iterates, logs and reports.
struct Descent(f64, Option<Params>);

impl Optimizer for Descent {
    const NAME: &'static str = "descent";
    type Config = Config;

    fn new(config: Config, _: &Setup) -> Result<Self> {
        Ok(Self(config.lr, None))
    }

    fn state_bytes(_: &Config, _: &Params) -> u64 {
        0
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let batch = ctx.next_batch()?;
        let (loss, gradient) = ctx.loss_and_gradient(ctx.params(), &batch)?;
        if gradient.max_abs()? == 0.0 {
            return Ok(StepReport::rejected("nothing to do").with_loss(loss));
        }
        let lr = self.0 * ctx.schedule();
        ctx.params_mut().axpy_(-lr, &gradient)?;
        ctx.ema_update(ctx.params())?;
        ctx.metric("lr", lr)?;
        ctx.log(LogLevel::INFO, "moved");
        self.1 = Some(ctx.params().try_clone()?);
        Ok(StepReport::new(loss))
    }

    fn save(&self, _: &mut StateWriter) -> Result<()> {
        Ok(())
    }

    fn load(&mut self, _: &StateReader) -> Result<()> {
        Ok(())
    }

    fn evaluation_params(&self) -> Option<&Params> {
        self.1.as_ref()
    }
}

fn recorded(lr: f64) -> Harness<Descent> {
    let specs = vec![ParamSpec::new("w", &[2], Role::Hidden), ParamSpec::new("b", &[1], Role::Bias)];
    let gradients = vec![vec![vec![1.0, 2.0], vec![3.0]], vec![vec![-4.0, 0.0], vec![1.0]]];
    Harness::with_gradients(json!({ "lr": lr }), specs, vec![vec![10.0, 20.0], vec![30.0]], gradients).unwrap()
}

#[test]
fn recorded_gradients_arrive_one_a_step() {
    let mut harness = recorded(1.0);
    assert_eq!(harness.step().unwrap().loss, 0.0);
    assert_eq!(harness.params(), [9.0, 18.0, 27.0]);
    harness.step().unwrap();
    assert_eq!((harness.params(), harness.steps()), (vec![13.0, 18.0, 26.0], 2));
    let error = harness.step().unwrap_err();
    assert_eq!(error.to_string(), "gradient: none is recorded for batch 2");
    assert_eq!((harness.steps(), harness.drawn(Purpose::STEP)), (2, 3));
    assert_eq!(harness.loss().unwrap_err().code, ErrorCode::UNSUPPORTED);
    let wrong = Problem::recorded(vec![ParamSpec::new("w", &[2], Role::Hidden)], vec![vec![1.0]], vec![]).unwrap_err();
    assert_eq!(wrong.to_string(), "params: found counts [1], expected [2]");
}

#[test]
fn schedule_ema_metrics_and_log_are_seen() {
    let mut harness = recorded(2.0);
    harness.set_schedule(|step| 1.0 / (1.0 + step));
    harness.step().unwrap();
    harness.step().unwrap();
    assert_eq!(harness.metrics(), [("lr".to_string(), 2.0), ("lr".to_string(), 1.0)]);
    assert_eq!(harness.params(), [12.0, 16.0, 23.0]);
    assert_eq!(harness.evaluation_params().unwrap().unwrap(), harness.params());
    let ema = harness.ema().unwrap();
    assert!((ema[0] - (0.9 * 8.0 + 0.1 * 12.0)).abs() < 1e-14, "{ema:?}");
    assert_eq!(harness.log(), ["info plugin: moved"; 2]);
    assert_eq!(harness.live(), (2, 0), "the parameters to evaluate at");
    assert_eq!(harness.finish(), (0, 0));
}

#[test]
fn faults_come_and_go() {
    let mut harness = Harness::<Descent>::new(json!({ "lr": 0.1 }), Problem::two_layer()).unwrap();
    let before = harness.params();
    harness.inject(Some(Fault::ZeroGradients));
    let rejected = harness.step().unwrap();
    assert_eq!(rejected.outcome, Outcome::Rejected("nothing to do".into()));
    assert!(rejected.loss > 0.0 && harness.params() == before && harness.steps() == 1);
    harness.inject(None);
    let loss = harness.loss().unwrap();
    harness.step().unwrap();
    assert!(harness.loss().unwrap() < loss && harness.gradient_norm().unwrap() > 0.0);
    harness.inject(Some(Fault::NanGradients));
    harness.step().unwrap();
    assert!(harness.params().iter().all(|x| x.is_nan()));
}

#[test]
fn a_snapshot_sets_everything_back() {
    let mut harness = Harness::<Descent>::new(json!({ "lr": 0.1 }), Problem::two_layer().batch_size(2)).unwrap();
    harness.step().unwrap();
    let snapshot = harness.snapshot().unwrap();
    harness.step().unwrap();
    let after = (harness.params(), harness.ema(), harness.drawn(Purpose::STEP));
    harness.restore(&snapshot).unwrap();
    assert_eq!((harness.steps(), harness.drawn(Purpose::STEP)), (1, 2));
    harness.step().unwrap();
    assert_eq!((harness.params(), harness.ema(), harness.drawn(Purpose::STEP)), after);
}
