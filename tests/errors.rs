//! A plugin that misbehaves ends the run with one line that names it, and with the exit code of its kind of fault.

use crate::built::fixture;
use crate::corpus::Run;
use serde_json::json;

fn misbehaving(mode: &str) -> Run {
    Run::of(fixture("misbehaving")).set(format!("optimizer.config.mode={mode}"))
}

/// The run ends with this exit code and this line, the source line of a panic left out, and saves nothing.
fn check(mode: &str, code: i32, expected: &str) {
    let run = misbehaving(mode);
    let outcome = run.train();
    let [error] = outcome.errors()[..] else { panic!("{mode}: {}", outcome.stderr) };
    let (place, said) = error
        .split_once(".rs:")
        .map_or(("", error), |(place, rest)| (place, rest.split_once(": ").map_or(rest, |(_line, rest)| rest)));
    let shown = if place.is_empty() { said.to_owned() } else { format!("{place}.rs: {said}") };
    assert_eq!((outcome.code, shown.as_str()), (code, expected), "{mode}");
    let saved = std::fs::read_dir(run.file("checkpoints")).into_iter().flatten().count();
    assert_eq!(saved, 0, "{mode}: a failed run saved a checkpoint");
    if run.file("").exists() {
        let finished = &run.events("finished")[0];
        assert_eq!((&finished["reason"], &finished["error"]), (&json!("error"), &json!(error)));
    }
}

#[test]
fn panics() {
    let at = "plugin `misbehaving`: misbehaving/src/mode.rs: panicked:";
    check("panic-in-new", 80, &format!("{at} new panics"));
    check("panic-in-state-bytes", 80, &format!("{at} state_bytes panics"));
    check("panic-in-step", 80, &format!("{at} step panics with 7 of 3"));
    check("panic-with-control-characters", 80, &format!("{at} red \\u{{1b}}[31m and a bell \\u{{7}}"));
    check("panic-in-save", 80, &format!("{at} save panics"));
}

#[test]
fn errors() {
    check("error-in-new", 80, "plugin `misbehaving`: cannot be made");
    check("error-in-step", 80, "plugin `misbehaving`: cannot take this step");
    check("error-in-save", 80, "plugin `misbehaving`: velocity: cannot be written");
    check("numerical-error", 79, "plugin `misbehaving`: cholesky: no positive pivot");
    check("unknown-number", 80, "plugin `misbehaving`: batches for Purpose 77: not supported by this host");
}

#[test]
fn wrong_shapes_and_types() {
    let at = "plugin `misbehaving`: gradient:";
    check("wrong-shape", 80, &format!("{at} `embed.weight` has shape [4096], expected [256, 16]"));
    check("wrong-dtype", 80, &format!("{at} `embed.weight` is f64, expected f32"));
    check("wrong-count", 80, &format!("{at} 1 tensors for 16 parameters"));
    let sizes = "The size of tensor a (256) must match the size of tensor b (16) at non-singleton dimension 0";
    check("wrong-operator", 80, &format!("plugin `misbehaving`: add: {sizes}"));
    let plugin = "plugin `misbehaving`: evaluation_params:";
    check("wrong-evaluation-params", 80, &format!("{plugin} `embed.weight` has shape [4096], expected [256, 16]"));
}

#[test]
fn values_that_are_not_finite() {
    let what = "left values in `embed.weight` that are not finite: found 4096 of 4096";
    check("nan-update", 79, &format!("plugin `misbehaving`: step 1 {what}"));
    check("nan-loss", 79, "plugin `misbehaving`: the loss of step 1 is not finite: found NaN");
}

#[test]
fn a_rejected_step_that_writes_to_the_parameters() {
    let what = "plugin `misbehaving`: step 1 was rejected, yet wrote to the parameters";
    check("rejected-but-writes", 80, &format!("{what}; hint: write to them only when the step is accepted"));
}

#[test]
fn rejected_steps_count_and_change_nothing() {
    let run = misbehaving("rejected").finished();
    let steps = run.events("step");
    assert_eq!(run.by_step("tokens"), [64.0, 128.0, 192.0, 256.0], "their data are consumed");
    assert!(steps.iter().all(|step| step["rejected"] == "no descent" && step["loss"] == 1.5));
    let started = misbehaving("rejected").set("train.max_steps=1").finished();
    assert_eq!(run.saved(4, "params.safetensors"), started.saved(1, "params.safetensors"));
}

#[test]
fn only_declared_metrics_with_finite_values_are_recorded() {
    let run = misbehaving("undeclared-metric");
    let outcome = run.train();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(run.events("step").iter().all(|step| step["metrics"] == json!({ "declared": 0.25 })));
    let logs = run.events("log");
    let message = "plugin `misbehaving`: metric `undeclared` is not declared, so it is dropped";
    assert_eq!((logs.len(), &logs[0]["level"], &logs[0]["message"]), (1, &json!("warn"), &json!(message)));

    let run = misbehaving("nan-metric").finished();
    assert!(run.events("step").iter().all(|step| step.get("metrics").is_none()));
    let logs = run.events("log");
    assert!(logs.len() == 4 && logs.iter().all(|log| log["message"] == "a line of the plugin"), "{logs:?}");
}

#[test]
fn a_panic_while_the_optimizer_is_dropped_harms_nothing() {
    let run = misbehaving("panic-in-drop").finished();
    assert_eq!(run.events("finished")[0]["reason"], "max_steps");
    assert!(!run.saved(4, "params.safetensors").is_empty());
}

#[test]
fn a_long_step_is_one_step() {
    let run = || Run::of(fixture("misbehaving"));
    let (short, long) = (run().finished(), run().set("optimizer.config.long=true").finished());
    assert_eq!(long.by_step("tokens"), short.by_step("tokens"), "a batch is counted once");
    assert_eq!(long.by_step("loss"), short.by_step("loss"));
    assert_eq!(long.by_step("gradient_equivalents"), [2.0, 4.0, 6.0, 8.0]);
    assert_eq!(long.saved(4, "params.safetensors"), short.saved(4, "params.safetensors"));
}

#[test]
fn a_plugin_that_changes_the_process() {
    let line = "plugin `misbehaving` changed the working folder of the process: found `/`, expected `";
    for (mode, begun) in [("move-in-new", false), ("move-in-step", true)] {
        let run = misbehaving(mode);
        let dir = format!("run.dir={}", run.file("").display());
        let run = run.set(dir);
        let ended = run.train();
        assert_eq!((ended.code, ended.errors().len()), (80, 1), "{mode}: {}", ended.stderr);
        assert!(ended.errors()[0].starts_with(line), "{mode}: {}", ended.stderr);
        assert_eq!(run.file("").exists(), begun, "{mode}");
    }
}
