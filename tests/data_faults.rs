//! Data and tokenizers that are damaged, swapped, too large or half made: what the program says of each, and its exit code.
//!
//! What concerns one reader alone (headers, lines, archives, tokenizer files) is tested beside it.

use crate::built::{GAUNTLET, plugin};
use crate::corpus::{Run, play};
use crate::program::{Outcome, gauntlet, outcome, without_own};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder with four plays in `plays`, each a file of its own.
fn plays(lines: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("plays")).unwrap();
    for (seed, name) in ["a.md", "b.md", "c.md", "d.md"].iter().enumerate() {
        fs::write(folder.path().join("plays").join(name), play(seed as u64, lines)).unwrap();
    }
    folder
}

fn call(folder: &Path, line: &str) -> Outcome {
    gauntlet(folder, &line.split_whitespace().collect::<Vec<_>>())
}

/// A call that fails in one line; gives the line.
fn refused(outcome: Outcome, code: i32) -> String {
    assert_eq!(outcome.code, code, "{}{}", outcome.stdout, outcome.stderr);
    let errors = outcome.errors();
    assert_eq!(errors.len(), 1, "{}", outcome.stderr);
    errors[0].to_owned()
}

/// All files of a folder with their bytes.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Every tokenizer trains, evaluates in bits a byte, and writes text; its file travels with the shards.
#[test]
fn every_tokenizer_goes_the_whole_way() {
    let folder = plays(200);
    let said = call(folder.path(), "data train-tokenizer plays --validation-file d.md --vocab-size 384 --out t.json");
    assert!(said.succeeded().starts_with("384 ids from "));
    for (tokenizer, vocab) in [("bytes", 256), ("t.json", 384), ("gpt2", 50_257)] {
        let out = format!("shards-{vocab}");
        call(folder.path(), &format!("data prepare plays --validation-file d.md --tokenizer {tokenizer} --out {out}"))
            .succeeded();
        let shards = folder.path().join(&out);
        assert_eq!(shards.join("tokenizer.json").exists(), vocab == 384);
        let run = Run::of(plugin("adam")).set(format!("model.vocab_size={vocab}"));
        let run =
            run.set(format!("data.train={}", shards.display())).set(format!("data.validation={}", shards.display()));
        let run = run.finished();
        let evaluated = run.events("evaluated");
        let (loss, bits) = (evaluated[0]["loss"].as_f64().unwrap(), evaluated[0]["bits_per_byte"].as_f64().unwrap());
        let sidecar = json(&shards.join("validation-00000.json"));
        let bytes = sidecar["text_bytes"].as_f64().or(sidecar["tokens"].as_f64()).unwrap();
        let expected = loss / std::f64::consts::LN_2 * sidecar["tokens"].as_f64().unwrap() / bytes;
        assert!((bits - expected).abs() < 1e-9 * expected, "{tokenizer}: {bits} and {expected}");
        if vocab > 256 {
            assert_eq!(bytes, play(3, 200).len() as f64);
        }
        let eval = gauntlet(run.folder.path(), &["eval", "--checkpoint", "run/checkpoints/step-4", "--batches", "2"]);
        assert!(eval.succeeded().starts_with("validation loss "));
        let args = ["generate", "--checkpoint", "run/checkpoints/step-4", "--prompt", "**ROSALIND", "--tokens", "20"];
        let text = gauntlet(run.folder.path(), &args).succeeded();
        assert!(text.starts_with("**ROSALIND") && text.len() > 12, "{tokenizer}: {text}");
        gauntlet(folder.path(), &["data", "verify", &out]).succeeded();
    }
}

/// F9: shards of another tokenizer, and a vocabulary that does not fit the model.
#[test]
fn a_swapped_tokenizer_is_refused_everywhere() {
    let folder = plays(60);
    for (vocab, out) in [(300, "t.json"), (310, "u.json")] {
        call(folder.path(), &format!("data train-tokenizer plays --vocab-size {vocab} --out {out}")).succeeded();
    }
    call(folder.path(), "data prepare plays --tokenizer t.json --out shards").succeeded();
    let shards = folder.path().join("shards");
    let run = |vocab: u32| {
        let run = Run::of(plugin("adam")).set(format!("model.vocab_size={vocab}")).set("eval.batches=1");
        run.set(format!("data.train={}", shards.display())).set(format!("data.validation={}", shards.display()))
    };
    let line = refused(run(299).train(), 65);
    assert!(line.contains("the vocabulary is larger than the model's: found 300 ids of tokenizer `json-"), "{line}");
    let trained = run(320).finished();
    let generate = |more: &[&str]| {
        let args = ["generate", "--checkpoint", "run/checkpoints/step-4", "--prompt", "a", "--tokens", "3"];
        gauntlet(trained.folder.path(), &[&args[..], more].concat())
    };
    generate(&[]).succeeded();
    let (t, u) = (folder.path().join("t.json"), folder.path().join("u.json"));
    generate(&["--tokenizer", t.to_str().unwrap()]).succeeded();
    let line = refused(generate(&["--tokenizer", u.to_str().unwrap()]), 65);
    assert!(line.contains("not the tokenizer of the checkpoint: found `json-"), "{line}");
    fs::copy(&u, shards.join("tokenizer.json")).unwrap();
    for outcome in [run(320).train(), gauntlet(folder.path(), &["data", "verify", "shards"])] {
        assert!(refused(outcome, 65).contains("not the tokenizer of these shards: found sha256 "));
    }
    assert!(refused(generate(&[]), 65).contains("to read and write text with: found `json-"));
    fs::remove_file(shards.join("tokenizer.json")).unwrap();
    assert!(
        refused(generate(&[]), 65).ends_with("found no such file; hint: name its `tokenizer.json` with `--tokenizer`")
    );
    run(320).finished();
}

/// A run on a mix that is stopped and resumed draws what one that was not draws.
#[test]
fn a_mix_goes_on_at_its_place() {
    let folder = plays(80);
    for name in ["a", "b"] {
        call(folder.path(), &format!("data prepare plays/{name}.md --out {name}")).succeeded();
    }
    let part =
        |name: &str, weight: u32| format!("{{path = '{}', weight = {weight}}}", folder.path().join(name).display());
    let of = |weights: [u32; 2]| {
        let train = format!("data.train=[{}, {}]", part("a", weights[0]), part("b", weights[1]));
        Run::of(plugin("adam")).set("train.max_steps=6").set(train)
    };
    let straight = of([3, 1]).finished();
    let resumed = of([3, 1]);
    for steps in [2, 5, 6] {
        let tokens = format!("train.max_tokens={}", 64 * steps);
        let outcome = resumed.train_with(&["--resume", "auto", "--set", &tokens]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    }
    let params = |run: &Run| run.saved(6, "params.safetensors");
    assert!(params(&straight) == params(&resumed));
    assert!(params(&straight) != params(&of([1, 3]).finished()));
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip").arg("-9").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = text.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&text).unwrap());
    let packed = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    packed
}

/// Files, archives and lines of the same texts are the same documents.
#[test]
fn every_kind_of_input_gives_the_same_tokens() {
    let folder = plays(50);
    let (root, mut lines) = (folder.path(), String::new());
    fs::create_dir_all(root.join("packed")).unwrap();
    for name in ["a.md", "b.md", "c.md"] {
        let text = fs::read_to_string(root.join("plays").join(name)).unwrap();
        fs::write(root.join("packed").join(format!("{name}.gz")), gzip(text.as_bytes())).unwrap();
        lines += &format!("{}\n", serde_json::json!({"body": text, "id": name}));
    }
    fs::write(root.join("all.jsonl"), lines).unwrap();
    fs::remove_file(root.join("plays/d.md")).unwrap();
    for (inputs, out) in [("plays", "x"), ("packed", "y"), ("all.jsonl", "z"), ("pl*/[abc].md", "w")] {
        call(root, &format!("data prepare {inputs} --text-field body --validation-fraction 0 --out {out}")).succeeded();
    }
    let shard = |out: &str| fs::read(root.join(out).join("train-00000.bin")).unwrap();
    assert!(["y", "z", "w"].iter().all(|out| shard(out) == shard("x")));
    let manifest = json(&root.join("z/MANIFEST.json"));
    assert_eq!((&manifest["inputs"][0]["documents"], &manifest["inputs"][0]["path"]), (&3.into(), &"all.jsonl".into()));
}

/// F10: an archive that unpacks to far more than it holds, and one that was cut.
#[test]
fn archives_that_lie_are_refused() {
    let folder = plays(5);
    let packed = gzip(&vec![b' '; 40 << 20]);
    fs::write(folder.path().join("plays/bomb.txt.gz"), &packed).unwrap();
    let line = refused(call(folder.path(), "data prepare plays --out x"), 65);
    assert!(line.starts_with("`plays/bomb.txt.gz`: too much to unpack: found "), "{line}");
    fs::write(folder.path().join("plays/bomb.txt.gz"), &packed[..packed.len() / 2]).unwrap();
    let line = refused(call(folder.path(), "data prepare plays --out x"), 65);
    assert!(line.starts_with("`plays/bomb.txt.gz`: "), "{line}");
    assert!(!folder.path().join("x").exists() && !folder.path().join(".x.partial").exists());
}

/// F11: a bad line ends a preparation by file and line, or is left out and counted.
#[test]
fn bad_lines_follow_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let line =
        |i: usize| if i % 10 == 3 { "{\"text\": 1}\n".to_owned() } else { format!("{{\"text\": \"line {i}\"}}\n") };
    fs::write(folder.path().join("a.jsonl"), (0..40).map(line).collect::<String>()).unwrap();
    let said = refused(call(folder.path(), "data prepare a.jsonl --out x"), 65);
    assert!(
        said.starts_with("`a.jsonl:4`: a bad line: found invalid type: integer `1`, expected a string in column "),
        "{said}"
    );
    let said = refused(call(folder.path(), "data prepare a.jsonl --out x --on-bad-line skip:3"), 65);
    assert!(said.starts_with("`a.jsonl:34`: a bad line"), "{said}");
    let said = call(folder.path(), "data prepare a.jsonl --out x --on-bad-line skip:4").succeeded();
    assert!(said.contains("left out: 4 bad lines"), "{said}");
    let manifest = json(&folder.path().join("x/MANIFEST.json"));
    assert_eq!((&manifest["left_out"]["bad_lines"], &manifest["inputs"][0]["bad_lines"]), (&4.into(), &4.into()));
    let said = refused(call(folder.path(), "data prepare a.jsonl --out y --on-bad-line perhaps"), 2);
    assert!(said.contains("`error`, `skip` or `skip:MAX`"), "{said}");
}

/// F6: many shards need no more open files than few.
#[test]
fn shards_are_not_kept_open() {
    let folder = plays(20);
    call(folder.path(), "data prepare plays --shard-tokens 20 --out shards --validation-file d.md").succeeded();
    let count = fs::read_dir(folder.path().join("shards")).unwrap().count();
    assert!(count > 400, "{count}");
    let mut command = Command::new("sh");
    without_own(&mut command).args(["-c", "ulimit -n 40; exec \"$0\" data verify shards", GAUNTLET]);
    outcome(command.current_dir(folder.path())).succeeded();
}

/// F12: a preparation that is killed at any instant leaves nothing that can be used by mistake, and the next one goes on to
/// the same bytes.
#[test]
fn a_killed_preparation_is_gone_on_with() {
    let folder = plays(6000);
    call(folder.path(), "data train-tokenizer plays --vocab-size 400 --out t.json").succeeded();
    let args =
        |out: &str| format!("data prepare plays --tokenizer t.json --shard-tokens 20000 --threads 1 --out {out}");
    call(folder.path(), &args("straight")).succeeded();
    let partial = folder.path().join(".x.partial");
    let done = || content_names(&partial).iter().filter(|name| name.ends_with(".done")).count();
    let (mut resumed, mut kills) = (0, 0);
    for shards in [1, 3, 6] {
        let mut command = Command::new(GAUNTLET);
        without_own(&mut command).args(args("x").split_whitespace()).current_dir(folder.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while done() < shards && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(120), "no shard is finished");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        kills += 1;
        assert!(!folder.path().join("x").exists());
        let run = Run::of(plugin("adam")).set("model.vocab_size=400");
        let line = refused(run.set(format!("data.train={}", partial.display())).train(), 65);
        assert!(line.contains(".x.partial`: an unfinished preparation"), "{line}");
        resumed = done();
    }
    assert!(kills > 0 && resumed > 0, "{kills} kills, {resumed} shards");
    let said = call(folder.path(), &args("x")).succeeded();
    assert!(said.contains(&format!("{resumed} shards were finished before")), "{said}");
    assert!(content(&folder.path().join("x")) == content(&folder.path().join("straight")), "other bytes");
    assert!(!partial.exists());
}

fn content_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
