//! Schedules, the moving average, and how runs end, through the whole program.

use crate::built::plugin;
use crate::corpus::Run;
use crate::program::gauntlet;
use std::f64::consts::PI;

fn adam() -> Run {
    Run::of(plugin("adam")).set("optimizer.config.lr=0.01").set("eval.every_steps=2")
}

fn close(found: &[f64], expected: &[f64]) {
    let same = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(same, "{found:?} instead of {expected:?}");
}

#[test]
fn a_schedule_warms_up_and_decays() {
    let run = adam().set("train.max_steps=6").set("schedule.warmup_steps=2");
    let cosine = run.set("schedule.kind=cosine").set("schedule.final_fraction=0.2").finished();
    let decayed = |progress: f64| 0.2 + 0.8 * 0.5 * (1.0 + (PI * progress).cos());
    close(&cosine.by_step("schedule"), &[0.5, 1.0, decayed(0.0), decayed(0.25), decayed(0.5), decayed(0.75)]);
    let stable = adam().set("train.max_steps=6").set("schedule.kind=wsd").set("schedule.decay_steps=2").finished();
    close(&stable.by_step("schedule"), &[1.0, 1.0, 1.0, 1.0, 1.0, 0.5]);
    let linear = adam().set("schedule.kind=linear").set("schedule.horizon_steps=8").finished();
    close(&linear.by_step("schedule"), &[1.0, 0.875, 0.75, 0.625]);
}

#[test]
fn the_schedule_reaches_the_optimizer() {
    let run = |kind: &str| adam().set(format!("schedule.kind={kind}")).set("train.max_steps=2").finished();
    let params = |run: &Run| run.saved(2, "params.safetensors");
    assert!(params(&run("constant")) != params(&run("linear")));
}

#[test]
fn a_run_with_an_average_is_judged_and_used_at_the_average() {
    let (plain, averaged) = (adam().finished(), adam().set("ema.decay=0.5").finished());
    assert!(plain.saved(4, "params.safetensors") == averaged.saved(4, "params.safetensors"));
    assert!(averaged.saved(4, "ema.safetensors") != averaged.saved(4, "params.safetensors"));
    let evaluated = averaged.events("evaluated");
    assert!(evaluated.len() == 2 && evaluated.iter().all(|event| event["at"] == "ema"), "{evaluated:?}");
    let loss = evaluated[1]["loss"].as_f64().unwrap();
    let args = ["eval", "--checkpoint", "run/checkpoints/step-4", "--batches", "2", "--batch-size", "4"];
    let said = gauntlet(averaged.folder.path(), &args).succeeded();
    assert_eq!(said, format!("validation loss {loss:.6} nats a token over 128 tokens (step 4, ema)\n"));
}

#[test]
fn a_run_ends_by_steps_tokens_or_loss() {
    let reason = |run: &Run| run.events("finished")[0]["reason"].clone();
    let by_steps = adam().finished();
    assert_eq!((reason(&by_steps), by_steps.events("step").len()), ("max_steps".into(), 4));
    let by_tokens = adam().set("train.max_steps=100").set("train.max_tokens=130").finished();
    assert_eq!((reason(&by_tokens), by_tokens.events("step").len()), ("max_tokens".into(), 3), "64 tokens a step");
    let losses: Vec<f64> = adam().set("train.max_steps=12").finished().events("evaluated").iter().map(loss).collect();
    let target = (losses[1] + losses[2]) / 2.0;
    let by_loss = adam().set("train.max_steps=12").set(format!("train.target_loss={target}")).finished();
    let first = losses.iter().position(|loss| *loss <= target).unwrap();
    assert_eq!((reason(&by_loss), by_loss.events("step").len()), ("target_loss".into(), 2 * (first + 1)));
}

fn loss(event: &serde_json::Value) -> f64 {
    event["loss"].as_f64().unwrap()
}

#[test]
fn micro_batches_do_not_change_what_is_computed() {
    let run = |size: u64| adam().set("run.dtype=f64").set(format!("train.micro_batch_size={size}")).finished();
    let (one, four) = (run(1), run(4));
    assert_eq!(
        (one.events("started")[0]["micro_batch_size"].as_u64(), one.by_step("tokens")),
        (Some(1), four.by_step("tokens"))
    );
    let same = one.by_step("loss").iter().zip(four.by_step("loss")).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(same, "{:?} {:?}", one.by_step("loss"), four.by_step("loss"));
}

#[test]
fn data_and_initialisation_follow_the_seed_and_the_order() {
    let run = |setting: &str| adam().set(setting).set("train.max_steps=1").finished().by_step("loss")[0];
    let (seed, order) = (run("run.seed=1"), run("data.order=sequential"));
    assert!(seed != run("run.seed=2") && order != run("data.order=shuffled"));
    assert_eq!(seed, run("run.seed=1"));
}
