//! Runs that begin at a checkpoint of another: `fork`, and `run.init_from`; and a run's limit of gradients.

use crate::built::plugin;
use crate::corpus::Run;
use crate::program::gauntlet;
use serde_json::Value;
use std::fs;

#[test]
fn a_branch_goes_on_with_another_plugin_on_the_same_data() {
    let run =
        Run::of(plugin("adam")).set("checkpoint={every_steps = 2, keep = 9}").set("eval.every_steps=1").finished();
    let sgd = format!("optimizer.plugin={}", plugin("sgd").display());
    let args = ["fork", "run@2", "--set", &sgd, "--set", "optimizer.config.lr=0.1", "--dir", "branch"];
    let ended = gauntlet(run.folder.path(), &args);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("validation loss of `branch` beside `run`\n  step 3 "), "{}", ended.stdout);
    assert!(ended.stdout.contains("training loss on the same 2 batches: difference "), "{}", ended.stdout);
    let text = fs::read_to_string(run.folder.path().join("branch/events.jsonl")).unwrap();
    let steps: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &Value| event["event"] == "step")
        .collect();
    // The loss of step 3 is taken before its update, on the same batch at the same parameters.
    assert_eq!(steps[0]["loss"].as_f64(), Some(run.by_step("loss")[2]));
    assert_eq!((steps.len(), steps[0]["tokens"].as_f64()), (2, Some(run.by_step("tokens")[2])));
    // The same command goes on with a branch; one that is whole is compared again.
    assert_eq!(gauntlet(run.folder.path(), &args).succeeded(), ended.stdout);
    let other = gauntlet(run.folder.path(), &["fork", "run@4", "--dir", "branch"]);
    assert!(
        other.code == 2 && other.errors()[0].contains("or a branch of `run/checkpoints/step-4`"),
        "{}",
        other.stderr
    );
    for (set, line) in [
        ("data.batch_size=8", "`data`: a branch has the data of its run"),
        ("eval.batches=1", "`eval`: a branch has the data of its run"),
        ("run.seed=7", "`run.seed`: a branch has the data of its run"),
        ("run.dir=other", "`run.dir` is the branch's folder"),
    ] {
        let refused = gauntlet(run.folder.path(), &["fork", "run@2", "--set", set, "--dir", "other"]);
        assert!(refused.code == 2 && refused.errors()[0].starts_with(line), "{set}: {}", refused.stderr);
    }
    // Of the same plugin its settings are kept, and a slash at the end changes no name.
    let same = format!("optimizer.plugin={}", plugin("adam").display());
    gauntlet(run.folder.path(), &["fork", "run/@2", "--set", &same]).succeeded();
    let config =
        |folder: &str| fs::read_to_string(run.folder.path().join(folder).join("config.resolved.toml")).unwrap();
    let optimizer = |folder: &str| config(folder).split("[optimizer").skip(1).collect::<String>();
    assert_eq!(optimizer("run-fork-2"), optimizer("run"));
    for (from, code) in [("run", 2), ("run@x", 2), ("run@3", 76), ("none@2", 66)] {
        let refused = gauntlet(run.folder.path(), &["fork", from, "--dir", "other"]);
        assert_eq!((refused.code, refused.errors().len()), (code, 1), "{from}: {}", refused.stderr);
    }
}

#[test]
fn a_run_begins_with_the_parameters_of_a_checkpoint() {
    let first = Run::of(plugin("adam")).set("eval.every_steps=1").finished();
    let from = first.folder.path().join("run/checkpoints/step-4");
    let init = format!("run.init_from={}", from.display());
    let second = Run::of(plugin("sgd")).set(&init).set("optimizer.config.lr=0").set("eval.every_steps=1").finished();
    let losses = |run: &Run| run.events("evaluated").iter().map(|event| event["loss"].clone()).collect::<Vec<_>>();
    assert_eq!(losses(&second)[0], losses(&first)[3], "without steps the loss is the checkpoint's");
    assert_eq!(second.by_step("tokens")[0], 5.0 * 64.0, "it goes on at the checkpoint's place in the data");
    let other = Run::of(plugin("sgd")).set(&init).set("run.seed=5").set("optimizer.config.lr=0").finished();
    assert_eq!(other.by_step("tokens")[0], 64.0, "another order has another place");
    let wide = Run::of(plugin("adam")).set(&init).set("model.width=32").train();
    assert!(wide.code == 76 && wide.errors()[0].starts_with("`run.init_from`: "), "{}", wide.stderr);
    let none = Run::of(plugin("adam")).set("run.init_from=none").train();
    assert_eq!(
        (none.code, none.errors()),
        (66, vec!["`run.init_from`: cannot read `none`: no such file or directory"])
    );
}

#[test]
fn an_optimizer_that_begins_at_a_checkpoint_is_made_at_its_parameters() {
    // The iterate of full-gn is a copy of the parameters that it was made at. Here a step has one inner step.
    let solver = "optimizer.config={inner_batch_size = 4, inner = {sgd = {lr = 0.1}}}";
    let at_anchor = |run: &Run, step: usize| {
        let event = &run.events("step")[step];
        assert_eq!(event["metrics"]["inner_value_first"], event["loss"], "the first inner step is at the anchor");
    };
    let first = Run::of(plugin("full-gn")).set("data.batch_size=4").set(solver).finished();
    at_anchor(&first, 0);
    let init = format!("run.init_from={}", first.folder.path().join("run/checkpoints/step-4").display());
    at_anchor(&Run::of(plugin("full-gn")).set("data.batch_size=4").set(solver).set(&init).finished(), 0);
    let resumed = ["--resume", "auto", "--reset-optimizer", "--set", "train.max_steps=9"];
    assert_eq!(first.train_with(&resumed).code, 0);
    at_anchor(&first, 8);
}

#[test]
fn a_run_ends_at_its_limit_of_gradients() {
    let run = Run::of(plugin("adam")).set("train={max_steps = 99, max_gradient_equivalents = 2.5}").finished();
    assert_eq!(run.events("step").len(), 3);
    assert_eq!(run.events("finished")[0]["reason"], "max_gradient_equivalents");
}
