//! `compare` over real runs: what is made, what is not made again, and what goes wrong.

use crate::built::{fixture, plugin, source_tree};
use crate::comparison::Comparison;
use crate::corpus::shards;
use crate::program::{gauntlet, outcome, program, without_own};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn a_comparison_is_made_once_and_comes_out_the_same() {
    let comparison = Comparison::new();
    let first = comparison.compare(&[]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let json = comparison.json();
    let contenders = json["contenders"].as_array().unwrap();
    assert_eq!(contenders.iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(), ["sgd", "adam"]);
    for one in contenders {
        assert_eq!(one["seeds"], serde_json::json!([1, 2]));
        assert!(
            one["steps_to_target"].as_array().unwrap().len() == 2
                && one["tuning"]["trials"].as_array().unwrap().len() >= 2
        );
    }
    assert!(contenders[1]["steps_to_target"][0].as_f64().unwrap() > 0.0, "{json:#}");
    assert_eq!(json["not_run"], serde_json::json!([]));
    assert!(crossings_were_looked_at(&comparison) >= 4);
    let (results, page) = (comparison.results(), fs::read(comparison.path().join("out/comparison.html")).unwrap());
    assert!(page.ends_with(b"</html>\n") && !String::from_utf8_lossy(&page).contains("<script"));
    let again = comparison.compare(&[]);
    assert_eq!((again.code, again.stderr.as_str()), (0, ""), "nothing is made again");
    assert_eq!((again.stdout, comparison.results() == results), (first.stdout.clone(), true));
    assert_eq!(fs::read(comparison.path().join("out/comparison.html")).unwrap(), page);
    // What one result says is made again alone, and to the bit.
    let lost = results.keys().find(|name| name.starts_with("adam-final-s2")).unwrap();
    fs::remove_file(comparison.path().join("out/results").join(lost)).unwrap();
    let reported = comparison.compare(&["--report"]);
    assert_eq!(reported.code, 0, "{}", reported.stderr);
    assert!(
        reported.stdout.contains(&format!("not run (1): {}", lost.trim_end_matches(".json"))),
        "{}",
        reported.stdout
    );
    fs::remove_dir_all(comparison.path().join("out/runs").join(lost.trim_end_matches(".json"))).unwrap();
    assert_eq!(timeless(&comparison.compare(&["--only", "adam"]).succeeded()), timeless(&first.stdout));
    let losses = |bytes: &[u8]| {
        serde_json::from_slice::<Value>(bytes).unwrap()["validation"]
            .as_array()
            .unwrap()
            .iter()
            .map(|at| (at["step"].clone(), at["loss"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(losses(&comparison.results()[lost]), losses(&results[lost]));
}

/// How many crossings there are; each lies between two checkpoints that were evaluated on more data.
fn crossings_were_looked_at(comparison: &Comparison) -> usize {
    let (json, results) = (comparison.json(), comparison.results());
    let mut found = 0;
    for one in json["contenders"].as_array().unwrap() {
        let runs = one["at"].as_array().unwrap().iter().flat_map(|at| at["runs"].as_array().unwrap());
        for (run, at) in runs.filter_map(|run| Some((run, run["crossing"]["at"].as_f64()?))) {
            let name = format!("{}-final-s{}-", one["name"].as_str().unwrap(), run["seed"]);
            let (_, result) = results.iter().find(|(file, _)| file.starts_with(&name)).unwrap();
            let fine = serde_json::from_slice::<Value>(result).unwrap()["fine"].clone();
            for step in [at.floor(), at.ceil()].into_iter().filter(|step| *step >= 1.0) {
                assert!(fine[step.to_string()].is_number(), "{name} comes down at {at}, but has {fine}");
            }
            found += 1;
        }
    }
    found
}

#[test]
fn a_micro_batch_changes_no_run_but_by_rounding() {
    let comparison = Comparison::new();
    comparison.compare(&["--only", "sgd"]).succeeded();
    let before = comparison.results();
    fs::remove_dir_all(comparison.path().join("out")).unwrap();
    let file = comparison.path().join("c.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("micro_batch_size = 3\n{text}")).unwrap();
    comparison.compare(&["--only", "sgd"]).succeeded();
    let after = comparison.results();
    assert!(before.keys().eq(after.keys()) && before.len() > 4, "{:?}", after.keys());
    for (name, bytes) in &after {
        let config = comparison.path().join("out/configs").join(name.replace(".json", ".toml"));
        assert!(fs::read_to_string(config).unwrap().contains("micro_batch_size = 3"), "{name}");
        let first = |bytes: &[u8]| {
            let result: Value = serde_json::from_slice(bytes).unwrap();
            result["validation"][0]["loss"].as_f64()
        };
        let close = first(bytes).zip(first(&before[name])).is_none_or(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close, "{name}");
    }
}

#[test]
fn contenders_of_a_seed_begin_at_one_warm_up_and_see_the_same_data() {
    let comparison = Comparison::new();
    comparison.compare(&[]).succeeded();
    let record = |run: &Path| {
        let text = fs::read_to_string(run.join("events.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let mut by_seed: BTreeMap<String, Vec<(Value, Value)>> = BTreeMap::new();
    for entry in fs::read_dir(comparison.path().join("out/runs")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let Some(at) = name.find("-final-") else { continue };
        let events = record(&entry.path());
        let begun = events.iter().find(|event| event["event"] == "initialized").unwrap();
        let loss = events.iter().find(|event| event["event"] == "step").unwrap()["loss"].clone();
        assert_eq!(begun["tokens"], 2 * 64, "it goes on at the warm-up's place in the data");
        by_seed.entry(name[at..at + 9].to_owned()).or_default().push((begun["checksum"].clone(), loss));
    }
    assert_eq!(by_seed.len(), 2);
    for runs in by_seed.values() {
        assert!(runs.len() == 2 && runs[0] == runs[1], "the first batch has one loss at one start: {runs:?}");
    }
    let starts: Vec<&Value> = by_seed.values().map(|runs| &runs[0].0).collect();
    assert_ne!(starts[0], starts[1], "another seed has another warm-up");
}

#[test]
fn a_contender_that_fails_or_diverges_is_recorded_and_the_rest_goes_on() {
    let moody = fixture("misbehaving");
    let more = format!(
        "[[contender]]\nname = 'broken'\nset.optimizer = {{ plugin = '{}', config = {{ mode = 'panic-in-step' }} }}\n\
         [[contender]]\nname = 'wild'\nset.optimizer = {{ plugin = 'SGD', config = {{ lr = 1e30 }} }}\n",
        moody.display()
    );
    let comparison = Comparison::with(&more.replace("SGD", &plugin("sgd").display().to_string()));
    let ended = comparison.compare(&[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let json = comparison.json();
    let ends = |name: &str| -> Vec<Value> {
        let one = json["contenders"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        one["at"][0]["runs"].as_array().unwrap().iter().map(|run| run["end"].clone()).collect()
    };
    assert_eq!((ends("broken"), ends("wild")), (vec!["failed".into(); 2], vec!["diverged".into(); 2]));
    assert_eq!(json["contenders"][2]["steps_to_target"], serde_json::json!([null, null]));
    assert!(ended.stderr.contains("panic"), "{}", ended.stderr);
    assert_eq!(comparison.compare(&[]).stderr, "", "a failure is a result too");
}

#[test]
fn a_plugin_that_crashes_has_failed_and_one_that_is_killed_is_left() {
    let more = |name: &str, mode: &str| {
        let plugin = fixture("misbehaving").display();
        format!(
            "[[contender]]\nname = '{name}'\nset.optimizer = {{ plugin = '{plugin}', config = {{ mode = '{mode}' }} }}\n"
        )
    };
    let comparison = Comparison::with(&[more("crashing", "abort"), more("killed", "kill")].concat());
    let ended = comparison.compare(&[]);
    assert_eq!(ended.code, 75, "{}", ended.stderr);
    let json = comparison.json();
    let ends: Vec<&Value> =
        json["contenders"][2]["at"][0]["runs"].as_array().unwrap().iter().map(|run| &run["end"]).collect();
    assert_eq!(ends, ["failed", "failed"], "{json:#}");
    assert!(ended.stderr.contains("by a signal of its own, 3 times"), "{}", ended.stderr);
    assert_eq!(json["contenders"][3]["seeds"], serde_json::json!([]));
    let left: Vec<&str> = json["not_run"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(left.len() == 2 && left.iter().all(|name| name.starts_with("killed-final-s")), "{left:?}");
    assert!(left.iter().all(|name| name.ends_with(" (its processes were killed)")), "{left:?}");
    assert!(json["contenders"][1]["seeds"].as_array().unwrap().len() == 2, "the rest goes on");
    // Over one that failed there is no ratio but that it would never come there.
    let ratio = json["ratios"].as_array().unwrap().iter().find(|one| one["contender"] == "crashing").unwrap();
    assert_eq!(ratio["by"]["steps"]["missed"], 2);
}

#[test]
fn what_the_machine_lacks_is_no_result_and_what_a_configuration_says_wrong_is_one() {
    let more = "[[contender]]\nname = 'elsewhere'\nset.optimizer = { plugin = 'SGD', config = { lr = 0.1 } }\n\
                set.run.device = 'cuda:63'\n\
                [[contender]]\nname = 'refused'\nset.optimizer = { plugin = 'SGD', config = { lr = -0.1 } }\n";
    let comparison = Comparison::with(&more.replace("SGD", &plugin("sgd").display().to_string()));
    let args = ["--only", "elsewhere", "--only", "refused", "--seed", "1"];
    let ended = comparison.compare(&args);
    assert_eq!(ended.code, 75, "{}", ended.stderr);
    assert!(ended.stderr.contains("`run.device`: `cuda:63` is not there"), "{}", ended.stderr);
    let names: Vec<String> = comparison.results().into_keys().collect();
    let count = |part: &str| names.iter().filter(|name| name.starts_with(part)).count();
    assert_eq!((count("elsewhere-final-"), count("refused-final-")), (0, 1), "{names:?}");
}

/// The comparison that is shipped to try it out, with a smaller model, on the data of the tests.
#[test]
fn the_shipped_smoke_comparison_runs() {
    let folder = tempfile::tempdir().unwrap();
    let configs = source_tree().join("configs");
    let text = fs::read_to_string(configs.join("compare-smoke.toml")).unwrap();
    let bases = "base = [\"compare/mini-base.toml\", \"compare/smoke-base.toml\"]";
    assert!(text.contains(bases), "{text}");
    let all =
        ["mini-base", "smoke-base"].map(|name| configs.join(format!("compare/{name}.toml")).display().to_string());
    let text = text.replace(bases, &format!("base = [{:?}, {:?}, \"tiny.toml\"]", all[0], all[1]));
    let named = ["full-gn", "soap", "adam"].iter().fold(text, |text, name| {
        text.replace(&format!("plugin = \"{name}\""), &format!("plugin = {:?}", plugin(name).display().to_string()))
    });
    let tiny = format!(
        "model = {{ width = 16, mlp_width = 32 }}\ndata = {{ train = '{0}', validation = '{0}', seq_len = 16 }}\n",
        shards().display()
    );
    fs::write(folder.path().join("tiny.toml"), tiny).unwrap();
    fs::write(folder.path().join("c.toml"), named).unwrap();
    let said = gauntlet(folder.path(), &["compare", "c.toml"]).succeeded();
    assert!(said.contains("`full-gn` against `"), "{said}");
    let json = fs::read(folder.path().join("runs/compare-smoke/comparison.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    for one in json["contenders"].as_array().unwrap() {
        assert!(one["steps_to_target"].as_array().unwrap().iter().all(Value::is_number), "{one:#}");
    }
}

#[test]
fn a_stop_and_a_killed_worker_lose_nothing() {
    let (whole, cut) = (Comparison::new(), Comparison::new());
    let expected = whole.compare(&[]).succeeded();
    let start = || {
        let mut command = program();
        let command = without_own(&mut command).args(["compare", "c.toml"]).current_dir(cut.path());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut killed = start();
    wait_for(|| workers_below(cut.path()) > 0);
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_for(|| workers_below(cut.path()) == 0); // they end with it
    let mut child = start();
    wait_for(|| workers_below(cut.path()) > 0);
    let second = cut.compare(&[]);
    let line = "`out`: another process compares here; hint: wait for it; `--report` shows what is there";
    assert_eq!((second.code, second.errors()), (69, vec![line]));
    let looked = cut.compare(&["--report"]).succeeded();
    assert!(
        looked.contains("not run (")
            && looked.ends_with("wrote nothing: another process makes runs of this comparison\n")
    );
    for pid in worker_pids(cut.path()) {
        outcome(std::process::Command::new("kill").args(["-9", &pid]));
    }
    wait_for(|| fs::read_dir(cut.path().join("out/results")).is_ok_and(|entries| entries.count() > 2));
    outcome(std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]));
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(75 | 0)), "{status}");
    wait_for(|| workers_below(cut.path()) == 0);
    assert_eq!(timeless(&cut.compare(&[]).succeeded()), timeless(&expected));
}

/// The text without times: numbers before ` s`.
fn timeless(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let is_time = |at: usize| words.get(at + 1).is_some_and(|next| *next == "s") && words[at].parse::<f64>().is_ok();
    let kept = words.iter().enumerate().filter(|(at, _)| !is_time(*at)).map(|(_, word)| *word);
    kept.collect::<Vec<_>>().join(" ")
}

/// Workers whose configuration lies in a folder.
fn worker_pids(folder: &Path) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let mine = |pid: &String| {
        let is = |file: &str, part: &str| {
            fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|text| String::from_utf8_lossy(&text).contains(part))
        };
        let here = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at == folder.canonicalize().unwrap());
        here && is("cmdline", "train\0--resume")
    };
    all.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter(mine).collect()
}

fn workers_below(folder: &Path) -> usize {
    worker_pids(folder).len()
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(120), "it took too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_runs() {
    let comparison = Comparison::with("[[contender]]\nname = 'typo'\nset.optimizer = { plugin = 'SGD2' }\n");
    let ended = comparison.compare(&[]);
    assert!(ended.code == 2 && ended.errors()[0].starts_with("contender `typo`: "), "{}", ended.stderr);
    assert!(!comparison.path().join("out/runs").exists());
    let wrong = |more: &str, change: (&str, &str)| {
        let comparison = Comparison::with(more);
        let file = comparison.path().join("c.toml");
        fs::write(&file, fs::read_to_string(&file).unwrap().replace(change.0, change.1)).unwrap();
        let ended = comparison.compare(&[]);
        assert!(!comparison.path().join("out/runs").exists(), "{}", ended.stderr);
        (ended.code, ended.errors()[0].to_owned())
    };
    let (code, line) = wrong("[[contender]]\nname = 'own'\nset.data.seq_len = 8\n", ("", ""));
    assert!(code == 2 && line.contains("`contender[2].set.data.seq_len`: has to be the same for all"), "{line}");
    let (code, line) = wrong("", ("[0.003, 0.01]", "[0.01, 0.003]"));
    assert!(code == 2 && line.contains("numbers that do not rise"), "{line}");
    let (code, line) = wrong("", ("config = { lr = 0.001 }", "config = { rate = 0.001 }"));
    assert!(code == 2 && line.starts_with("`warm_up`: ") && line.contains("rate"), "{line}");
    let (code, line) = wrong("", ("extensions = 1", "extensions = 1\nstudies = 3"));
    assert!(code == 2 && line.contains("`tuning.studies`: more than the trials of `sgd`"), "{line}");
    let no_plugin = "[[contender]]\nname = 'text'\nset.optimizer.plugin = './base.toml'\n";
    let (code, line) = wrong(no_plugin, ("", ""));
    assert!(code != 0 && line.starts_with("contender `text`: "), "{code}: {line}");
    let good = Comparison::new();
    let unknown = good.compare(&["--only", "muon"]);
    assert_eq!(
        (unknown.code, unknown.errors()),
        (2, vec!["`--only muon`: no contender has this name: expected sgd, adam"])
    );
    for (args, line) in [
        (["--seed", "3"], "`--seed 3`: no run has it: expected 1, 2"),
        (["--batch-size", "8"], "`--batch-size 8`: no run has it: expected 4"),
    ] {
        let refused = good.compare(&args);
        assert_eq!((refused.code, refused.errors()), (2, vec![line]));
    }
    let missing = gauntlet(good.path(), &["compare", "none.toml"]);
    assert_eq!(missing.code, 66, "{}", missing.stderr);
    let nobody = gauntlet(good.path(), &["sweep", "c.toml", "--contender", "muon"]);
    assert_eq!(
        (nobody.code, nobody.errors()),
        (2, vec!["`--contender muon`: no contender has this name: expected sgd, adam"])
    );
    let which = gauntlet(good.path(), &["sweep", "c.toml"]);
    assert_eq!((which.code, which.errors().len()), (2, 1));
    let no_capsule = gauntlet(good.path(), &["compare", "--verify", "."]);
    assert_eq!(no_capsule.code, 66, "{}", no_capsule.stderr);
}

#[test]
fn a_run_without_a_step_left_that_more_data_do_not_find_at_its_target_has_missed() {
    let comparison = Comparison::new();
    let write = |target: f64, few: usize, fine: usize| {
        let text = format!(
            "base = ['base.toml']\ndir = 'out'\nseeds = [1]\ntarget_loss = {target}\nmax_gradient_equivalents = 3\n\
             fine_batches = {fine}\nthreads = 1\n[[contender]]\nname = 'adam'\n\
             set.optimizer = {{ plugin = '{}', config = {{ lr = 0.01 }} }}\n",
            plugin("adam").display()
        );
        let base = fs::read_to_string(comparison.path().join("base.toml")).unwrap();
        let base =
            base.lines().map(|line| if line.starts_with("batches") { format!("batches = {few}") } else { line.into() });
        fs::write(comparison.path().join("base.toml"), base.collect::<Vec<String>>().join("\n")).unwrap();
        fs::write(comparison.path().join("c.toml"), text).unwrap();
        assert_eq!(comparison.compare(&[]).code, 0);
        fs::read_dir(comparison.path().join("out/runs")).unwrap().flatten().next().unwrap().path()
    };
    let last = write(0.1, 2, 3).join("checkpoints/step-3");
    let loss = |batches: usize| {
        let batches = batches.to_string();
        let args = ["eval", "--json", "--threads", "1", "--batches", &batches, "--checkpoint", last.to_str().unwrap()];
        let said = gauntlet(comparison.path(), &args).succeeded();
        serde_json::from_str::<Value>(&said).unwrap()["loss"].as_f64().unwrap()
    };
    let losses: Vec<(usize, f64)> = (1..8).map(|batches| (batches, loss(batches))).collect();
    let least = losses.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let most = losses.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(most.1 - least.1 > 1e-4, "{losses:?}");
    fs::remove_dir_all(comparison.path().join("out")).unwrap();
    write(f64::midpoint(least.1, most.1), least.0, most.0);
    let json = comparison.json();
    assert_eq!(json["contenders"][0]["steps_to_target"], serde_json::json!([null]), "{json:#}");
    assert_eq!(json["contenders"][0]["at"][0]["missed"], 1);
}
