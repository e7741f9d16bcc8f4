//! Layers, strictness and the resolved file, through [`load`].

use proptest::prelude::*;

use super::*;
use std::path::Path;

const LEAST: &str = "[data]\ntrain = \"shards\"\n[optimizer]\nplugin = \"adam\"\n[train]\nmax_steps = 10\n";

/// A folder with the files `a.toml`, `b.toml`, … of these contents.
struct Files(tempfile::TempDir, Vec<PathBuf>);

impl Files {
    fn new(contents: &[&[u8]]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |i: usize| folder.path().join(format!("{}.toml", (b'a' + i as u8) as char));
        let paths = (0..contents.len()).map(path).collect::<Vec<_>>();
        paths.iter().zip(contents).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
        Self(folder, paths)
    }

    /// The lines of all faults, without the folder, or none.
    fn faults(&self, sets: &[&str], env: &[(&str, &str)]) -> Vec<String> {
        let shown = |fault: &Fault| fault.to_string().replace(&format!("{}/", self.0.path().display()), "");
        self.load(sets, env).err().map(|faults| faults.iter().map(shown).collect()).unwrap_or_default()
    }

    fn load(&self, sets: &[&str], env: &[(&str, &str)]) -> Result<Loaded, Vec<Fault>> {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        load(&self.1, &sets, env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())))
    }
}

fn faults_of(toml: &str) -> Vec<String> {
    Files::new(&[toml.as_bytes()]).faults(&[], &[])
}

/// The least configuration with one more `--set`.
fn faults_with(set: &str) -> Vec<String> {
    Files::new(&[LEAST.as_bytes()]).faults(&[set], &[])
}

#[test]
fn the_least_configuration_gets_every_default() {
    let loaded = Files::new(&[LEAST.as_bytes()]).load(&[], &[]).unwrap();
    let config = loaded.config;
    assert_eq!((config.run.dir.as_path(), config.run.seed, config.run.dtype), (Path::new("runs/run"), 0, Dtype::F32));
    assert_eq!((config.run.device, config.run.threads, config.run.grace_seconds), (Device::Auto, 0, 25));
    assert_eq!((config.data.seq_len, config.data.batch_size, config.data.order), (128, 16, Order::Shuffled));
    assert_eq!(config.data.train.as_slice(), [ShardPath::Plain("shards".into())]);
    assert_eq!((config.eval, config.ema.decay), (Eval { every_steps: 100, batches: 8, batch_size: 16 }, None));
    assert_eq!(loaded.origins.get("eval.batches"), Some("default"));
}

#[test]
fn later_layers_win_key_by_key() {
    let second = b"[train]\nmax_steps = 20\non_error = \"skip\"\n[optimizer.config]\nlr = 0.5\nbetas = [0.9, 0.95]";
    let files = Files::new(&[LEAST.as_bytes(), second]);
    let env = [("GAUNTLET_TRAIN__MAX_STEPS", "30"), ("GAUNTLET_OPTIMIZER__CONFIG__LR", "0.25"), ("HOME", "/")];
    let loaded = files.load(&["train.max_steps=40", "train.max_steps=50", "model.preset=tiny"], &env).unwrap();
    assert_eq!((loaded.config.train.max_steps, loaded.config.train.on_error), (Some(50), OnError::Skip));
    assert_eq!(loaded.config.model["preset"], "tiny");
    assert_eq!(Value::Object(loaded.config.optimizer.config), serde_json::json!({"lr": 0.25, "betas": [0.9, 0.95]}));
    let origin = |key| loaded.origins.get(key).unwrap();
    assert_eq!(origin("train.max_steps"), "--set train.max_steps=50");
    assert_eq!(origin("optimizer.config.lr"), "environment `GAUNTLET_OPTIMIZER__CONFIG__LR`");
    assert!(origin("optimizer.config.betas[1]").ends_with("b.toml"));
    assert!(origin("data.train").ends_with("a.toml"));
}

#[test]
fn a_typo_of_every_known_key_gets_the_right_suggestion() {
    let schema = schema();
    let keys = known_keys(&schema, "");
    assert!(keys.len() > 35, "{keys:?}");
    for key in keys {
        let (at, name) = key.rsplit_once('.').unwrap_or(("", &key));
        for typo in typos(name) {
            let path = schema::join(at, &typo);
            let table = path.rsplit('.').fold(serde_json::json!(1), |value, name| serde_json::json!({ name: value }));
            let problems = check::validate(&schema, &table, "");
            let problem = problems.iter().find(|problem| problem.key == path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(problem.what, "unknown key");
            assert_eq!(problem.hint, Some(format!("did you mean `{key}`?")), "{path}");
        }
    }
}

/// The word with one letter doubled, with two letters swapped, and with its middle letter lost.
fn typos(word: &str) -> Vec<String> {
    let doubled = format!("{}{word}", &word[..1]);
    let lost = format!("{}{}", &word[..word.len() / 2], &word[word.len() / 2 + 1..]);
    let mut letters: Vec<char> = word.chars().collect();
    letters.swap(0, 1);
    [doubled, letters.into_iter().collect(), lost].into_iter().filter(|typo| typo != word).collect()
}

#[test]
fn everything_wrong_is_said_at_once() {
    let toml = "[data]\ntrain = \"x\"\nbatch_size = 0\n[optimizer]\nconfig.lr = inf\n[trian]\nmax_steps = 1\n\
                [train]\nmax_steps = \"9\"\n[schedule]\nkind = \"cosin\"\n[run]\ndevice = \"gpu\"\nthreads = -1\n\
                [ema]\ndecay = 1\n[plugins]\nsearch_path = [\"plugins\"]\n";
    let files = Files::new(&[toml.as_bytes()]);
    let faults = files.faults(&["eval.batch=3", "train.batch_size=8"], &[("GAUNTLET_SEED", "1")]);
    let expected = [
        "a.toml: `optimizer.config.lr`: not a finite number: found inf, expected a finite number",
        "environment `GAUNTLET_SEED`: `seed`: unknown key; hint: did you mean `run.seed`?",
        "a.toml: `data.batch_size`: out of range: found 0, expected an integer >= 1",
        "a.toml: `ema.decay`: out of range: found 1, expected a number > 0 and < 1",
        "--set eval.batch=3: `eval.batch`: unknown key; hint: did you mean `eval.batches`?",
        "configuration: `optimizer.plugin`: missing: expected a string; hint: add `plugin` to `[optimizer]`",
        "a.toml: `run.threads`: out of range: found -1, expected an integer >= 0 and <= 4096",
        "a.toml: `schedule.kind`: unknown choice: found the string `cosin`, expected one of `constant`, `cosine`, \
         `linear`, `wsd`; hint: did you mean `cosine`?",
        "--set train.batch_size=8: `train.batch_size`: unknown key; hint: did you mean `data.batch_size`?",
        "a.toml: `train.max_steps`: wrong type: found the string `9`, expected an integer >= 1; hint: write it without \
         quotes",
        "a.toml: `trian`: unknown key; hint: did you mean `train`?",
        "a.toml: `run.device`: unknown device: found `gpu`, expected `auto`, `cpu` or `cuda:N`",
        "a.toml: `plugins.search_path[0]`: not an absolute path: found `plugins`, expected a path that begins with `/`",
    ];
    let sorted = |lines: &[String]| {
        let mut lines = lines.to_vec();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&faults), sorted(&expected.map(str::to_owned)));
}

#[test]
fn conflicts_are_said_beside_wrong_values_unless_they_are_about_these() {
    let toml = format!("{LEAST}micro_batch_size = 17\n[schedule]\nwarmup_steps = 11\n[eval]\nbatches = 0\n");
    let files = Files::new(&[toml.as_bytes()]);
    let micro = "`train.micro_batch_size`: larger than `data.batch_size`: found 17, expected at most 16";
    let warmup = "`schedule.warmup_steps`: larger than `train.max_steps`: found 11, expected at most 10";
    let found = files.faults(&["runn.seed=1"], &[]);
    assert_eq!(found.len(), 4, "{found:?}");
    for line in [micro, warmup, "`runn`: unknown key", "`eval.batches`: out of range: found 0"] {
        assert!(found.iter().any(|found| found.contains(line)), "no `{line}` in {found:?}");
    }
    let wrong = files.faults(&["data.batch_size=x", "train.max_steps=0"], &[]);
    assert_eq!(wrong.len(), 3, "nothing is compared with a value that is wrong itself: {wrong:?}");
    let none = Files::new(&[b"[train]\nmax_skips = 200\n"]).faults(&[], &[]);
    assert!(none.iter().any(|found| found.contains("`train.max_skips`: larger than")), "{none:?}");
    assert!(none.iter().any(|found| found.contains("`train.max_steps`: the run would have no end")), "{none:?}");
}

#[test]
fn wrong_types_and_ranges() {
    let table = [
        ("train.max_steps=1.0", "wrong type: found 1.0, expected an integer >= 1"),
        ("train.max_steps=9223372036854775808", "wrong type: found the string `9223372036854775808`, expected"),
        ("train.target_loss=-0.5", "out of range: found -0.5, expected a number > 0"),
        ("train.target_loss=1e999", "wrong type: found the string `1e999`, expected a number > 0"),
        ("schedule.final_fraction=1.5", "out of range: found 1.5, expected a number >= 0.0 and <= 1.0"),
        ("run.seed=-1", "out of range: found -1, expected an integer >= 0 and <= 9223372036854775807"),
        ("run.dir=", "wrong length: found 0 characters, expected at least 1 characters"),
        ("run.dir=7", "wrong type: found 7, expected a string; hint: write it in quotes: `\"7\"`"),
        ("run.dtype=bf16", "unknown choice: found the string `bf16`, expected one of `f32`, `f64`"),
        ("run.dtype=1", "wrong type: found 1, expected one of `f32`, `f64`"),
        ("run=5", "wrong type: found 5, expected a table"),
        ("data.train=[1]", "wrong type: found 1, expected a string or a table"),
        ("data.train=[{path = 'a'}]", "`data.train[0].weight`: missing: expected a number > 0"),
        ("data.train=[{path = 'a', weight = 0}]", "out of range: found 0, expected a number > 0"),
        ("data.train=[{path = '~/a', weight = 1}]", "`data.train[0].path`: `~` stands for no folder here"),
        ("data.train=['a', {path = 'b', weight = 1}]", "some paths have weights and some have none: found 1 of 2"),
        ("data.validation=[{path = 'b', weight = 1}]", "weights are for training data"),
        ("data.train={x = 1}", "wrong type: found a table, expected a string or a list"),
        ("optimizer.config=3", "wrong type: found 3, expected a table"),
        ("run.dir=~/runs/a", "`~` stands for no folder here: found `~/runs/a`; hint: write the folder out"),
        ("data.train=~", "`~` stands for no folder here: found `~`"),
        (r#"run.dir="a\nb""#, r"a path with control characters: found `a\nb`, expected printable characters"),
        (r#"data.train="a\u0000""#, r"a path with control characters: found `a\u{0}`"),
        ("train.target_loss=nan", "not a finite number: found NaN, expected a finite number"),
        ("optimizer.sha256=abc", "not a SHA-256 hash: found `abc`, expected 64 hexadecimal digits; hint: `sha256sum`"),
        ("run.device=cuda:", "unknown device: found `cuda:`"),
        ("run.device=cuda:+1", "unknown device: found `cuda:+1`"),
        ("metrics.listen=9464", "wrong type: found 9464, expected a string"),
        ("metrics.listen=localhost:9464", "not an address: found `localhost:9464`, expected an IP address with a port"),
        ("metrics.push_gateway=https://x:9091", "not the address of a Pushgateway: found `https://x:9091`, expected"),
        ("metrics.push_gateway=http://x", "expected `http://HOST:PORT`; hint: it is reached without TLS"),
        ("metrics.push_gateway=http://a b:1", "found `http://a b:1`"),
        ("metrics.push_gateway=http://u@x:9091/path", "not the address of a Pushgateway"),
        ("metrics.linger_seconds=3601", "out of range: found 3601, expected an integer >= 0 and <= 3600"),
        ("metrics.textfile=~/x.prom", "`~` stands for no folder here"),
        ("eval.foo=1", "unknown key; hint: the keys here are `batch_size`, `batches`, `every_steps`"),
    ];
    for (set, expected) in table {
        let faults = faults_with(set);
        let key = set.split('=').next().unwrap();
        assert!(faults.len() == 1 && faults[0].contains(expected), "{set}: {faults:?}");
        assert!(faults[0].starts_with(&format!("--set {set}: `{key}")), "{faults:?}");
    }
}

#[test]
fn values_of_set_and_environment_are_toml_or_text() {
    let files = Files::new(&[LEAST.as_bytes()]);
    let sets =
        ["optimizer.config.a=1", "optimizer.config.b=[1, 2.5]", "optimizer.config.c=x y", "optimizer.config.d=a=b"];
    let more = ["optimizer.config.e=true", "optimizer.config.f='quoted'", "optimizer.config.g=1\n[run]\nseed = 2"];
    let loaded = files.load(&[&sets[..], &more[..]].concat(), &[("GAUNTLET_RUN__DEVICE", "cuda:1")]).unwrap();
    let expected = serde_json::json!({
        "a": 1, "b": [1, 2.5], "c": "x y", "d": "a=b", "e": true, "f": "quoted", "g": "1\n[run]\nseed = 2"
    });
    assert_eq!(Value::Object(loaded.config.optimizer.config), expected);
    assert_eq!((loaded.config.run.device, loaded.config.run.seed), (Device::Cuda(1), 0));
}

#[test]
fn a_value_where_another_layer_has_a_section_is_a_conflict() {
    let files = Files::new(&[LEAST.as_bytes()]);
    let line = |value: &str, key: &str, section: &str| {
        format!("{value}: `{key}` is a section: found a value, expected keys of it, as in {section}")
    };
    let (seed, run) = (("GAUNTLET_RUN__SEED", "2"), ("GAUNTLET_RUN", "1"));
    let expected = line("environment `GAUNTLET_RUN`", "run", "environment `GAUNTLET_RUN__SEED`");
    assert_eq!(files.faults(&[], &[seed, run]), [expected]);
    let config = ["optimizer.config=3", "optimizer.config.lr=1"];
    let expected = line("--set optimizer.config=3", "optimizer.config", "--set optimizer.config.lr=1");
    assert_eq!(files.faults(&config, &[]), [expected]);
    let named = ["optimizer.config.inner=muon", "optimizer.config.inner.muon.lr=1"];
    let inner = files.load(&named, &[]).unwrap().config.optimizer.config;
    assert_eq!(Value::Object(inner), serde_json::json!({ "inner": { "muon": { "lr": 1 } } }));
}

#[test]
fn paths_that_no_file_can_have_are_refused_and_strange_ones_are_taken_as_they_are() {
    let files = Files::new(&[LEAST.as_bytes()]);
    let long = format!("run.dir=/{}", "a/".repeat(2048));
    let line = "`run.dir`: too long for a path: found 4097 bytes, expected at most 4095 bytes";
    assert!(files.faults(&[&long], &[])[0].ends_with(line));
    let listed = files.faults(&["data.validation=['a', '~/b']"], &[]);
    assert!(listed.len() == 1 && listed[0].contains("`data.validation[1]`: `~` stands for no folder"), "{listed:?}");
    for dir in ["../a", "/", "a~", "..", "x y", "\u{e9}", "-x", "$HOME", "*"] {
        let config = files.load(&[&format!("run.dir='{dir}'")], &[]).unwrap().config;
        assert_eq!(config.run.dir, PathBuf::from(dir));
    }
}

#[test]
fn deep_values_of_set_and_environment_are_text_and_end_in_a_line() {
    let files = Files::new(&[LEAST.as_bytes()]);
    let deep = "[".repeat(100_000);
    let closed = format!("{deep}{}", "]".repeat(100_000));
    for value in [&deep, &closed] {
        let faults = files.faults(&[&format!("run.seed={value}")], &[("GAUNTLET_RUN__THREADS", value)]);
        assert!(faults.len() == 2 && faults.iter().all(|fault| fault.contains("wrong type: found the string")));
        assert!(faults.iter().all(|fault| fault.len() < 400), "{faults:?}");
    }
}

#[test]
fn what_is_no_key_is_refused_and_reserved_variables_are_not() {
    let key = "not a key: expected names of letters, digits, `_` and `-`, as in `train.max_steps`";
    let files = Files::new(&[LEAST.as_bytes()]);
    let deep = format!("a{}=1", ".a".repeat(layers::MAX_KEY_NAMES));
    for set in ["=1", "train.=1", ".x=1", "a b=1", deep.as_str()] {
        assert_eq!(files.faults(&[set], &[]), [format!("--set {set}: {key}")]);
    }
    assert_eq!(files.faults(&["train"], &[]), ["--set train: no value: expected `--set section.key=VALUE`"]);
    assert_eq!(files.faults(&[], &[("GAUNTLET_", "1")]), [format!("environment `GAUNTLET_`: {key}")]);
    assert_eq!(files.faults(&[], &[("GAUNTLET_RUN__", "1")]), [format!("environment `GAUNTLET_RUN__`: {key}")]);
    assert!(files.load(&[], &[("GAUNTLET_CACHE", "/tmp"), ("GAUNTLET_SKIPPED_LOG", "x")]).is_ok());
}

#[test]
fn conflicts_name_both_keys() {
    let wsd = "schedule={kind = 'wsd', decay_steps = 8, warmup_steps = 3}";
    let table = [
        (
            "schedule.warmup_steps=11",
            "`schedule.warmup_steps`: larger than `train.max_steps`: found 11, expected at most 10",
        ),
        (
            "schedule={horizon_steps = 5, warmup_steps = 6}",
            "larger than `schedule.horizon_steps`: found 6, expected at most 5",
        ),
        (
            wsd,
            "`schedule.warmup_steps` + `schedule.decay_steps`: larger than `train.max_steps`: found 11, expected at most 10",
        ),
        (
            "schedule.kind=wsd",
            "`schedule.decay_steps`: missing: expected an integer >= 1, since `schedule.kind` = `wsd`",
        ),
        ("schedule.decay_steps=4", "`schedule.decay_steps`: only `schedule.kind` = `wsd` has it: found 4"),
        ("train.micro_batch_size=17", "larger than `data.batch_size`: found 17, expected at most 16"),
        ("train.max_skips=101", "larger than `train.max_skips_window`: found 101, expected at most 100"),
        (
            "metrics={required = true, enabled = false}",
            "`metrics.required`: metrics are required, yet switched off: found `metrics.enabled` = false",
        ),
        ("train.target_loss=2", "`train.target_loss`: needs validation data: found no `data.validation`"),
    ];
    for (set, expected) in table {
        let faults = faults_with(set);
        assert!(faults.len() == 1 && faults[0].contains(expected), "{set}: {faults:?}");
    }
    let files = Files::new(&[LEAST.as_bytes()]);
    let sets = ["train.target_loss=2", "data.validation=v", "eval.every_steps=0"];
    assert!(files.faults(&sets, &[])[0].contains("found `eval.every_steps` = 0, expected `eval.every_steps` >= 1"));
    assert_eq!(files.faults(&sets[..2], &[]), [""; 0]);
    let endless = faults_of(&LEAST.replace("max_steps = 10", ""));
    let no_end = "`train.max_steps`: the run would have no end: expected one of `train.max_steps`, `train.max_tokens`";
    assert!(endless.len() == 1 && endless[0].contains(no_end), "{endless:?}");
    let horizon = faults_of(&LEAST.replace("max_steps = 10", "max_tokens = 10\n[schedule]\nkind = 'linear'"));
    assert!(
        horizon[0].contains("`schedule.horizon_steps`: missing, since `train.max_steps` is not set"),
        "{horizon:?}"
    );
}

#[test]
fn bad_files_give_line_and_column() {
    let large = vec![b'#'; MAX_FILE_LEN as usize + 1];
    let nested = format!("[model]\nx = {}", "[".repeat(100_000));
    let header = format!("[{}x]", "a.".repeat(100_000));
    let table: [(&[u8], &str); 9] = [
        (b"[run]\nseed = = 1\n", "a.toml:2:8: not TOML: "),
        (b"[run]\nseed = 1\nseed = 2\n", "a.toml:3:1: not TOML: duplicate key"),
        (b"[run]\nseed = 99999999999999999999\n", "a.toml:2:8: not TOML: "),
        (b"[run]\ndir = \"a\0b\"\n", "a.toml:2:9: not TOML: "),
        ("[run]\n# \u{e9}\ndir = \u{e9}\n".as_bytes(), "a.toml:3:7: not TOML: "),
        (b"[run]\n# \xff\n", "a.toml:2:3: not UTF-8; hint: save the file as UTF-8"),
        (
            &large,
            "a.toml: too large for a configuration: found more than 1048576 bytes, expected at most 1048576 bytes",
        ),
        (nested.as_bytes(), "a.toml:2:"),
        (header.as_bytes(), "a.toml:1:"),
    ];
    for (bytes, expected) in table {
        let faults = Files::new(&[bytes]).faults(&[], &[]);
        assert!(faults.len() == 1 && faults[0].starts_with(expected), "{expected}: {faults:?}");
        assert!(faults[0].len() < 300, "{faults:?}");
    }
    let missing = load(&["/nowhere/x.toml".into()], &[], []).unwrap_err();
    assert_eq!(missing[0].to_string(), "cannot read `/nowhere/x.toml`: no such file or directory");
    assert_eq!(missing[0].exit, Exit::Missing);
}

#[test]
fn byte_order_mark_and_carriage_returns_are_fine() {
    let windows = format!("\u{feff}{}", LEAST.replace('\n', "\r\n"));
    assert_eq!(faults_of(&windows), [""; 0]);
}

#[test]
fn the_resolved_file_loads_to_the_same_configuration() {
    let sets = [
        "run={seed = 7, init_from = 'runs/a/checkpoints/step-1', device = 'cuda:2', dtype = 'f64', threads = 3}",
        "model={preset = 'tiny', rope = {theta = 1e4}, list = [[1], [2.0]]}",
        "data={train = ['a', 'b'], validation = 'v'}",
        "optimizer={sha256 = '0000000000000000000000000000000000000000000000000000000000000000', config = {lr = 1e-30}}",
        "schedule={kind = 'wsd', decay_steps = 2, warmup_steps = 1, final_fraction = 0.1, horizon_steps = 9}",
        "train={target_loss = 1.75, max_tokens = 5, max_gradient_equivalents = 6.5, on_error = 'skip'}",
        "ema.decay=0.999",
        "plugins.search_path=['/opt/plugins']",
        "metrics={listen = '[::1]:9500', required = true, peak_flops = 1e11, push_gateway = 'http://[::1]:9091/'}",
        "metrics.textfile=run.prom",
    ];
    let config = Files::new(&[LEAST.as_bytes()]).load(&sets, &[]).unwrap().config;
    let text = to_resolved_toml(&config).unwrap();
    assert_eq!(Files::new(&[text.as_bytes()]).load(&[], &[]).unwrap().config, config, "{text}");
    let values = serde_json::to_value(&config).unwrap();
    for key in known_keys(&schema(), "") {
        assert!(values.pointer(&format!("/{}", key.replace('.', "/"))).is_some(), "{key} is not in the resolved file");
    }
    let mut config = config;
    config.model.insert("x".to_owned(), Value::Null);
    assert_eq!(to_resolved_toml(&config).map_err(|fault| fault.exit), Err(Exit::Internal));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn plugin_numbers_survive_the_resolved_file(lr in proptest::num::f64::NORMAL, n in any::<i64>(), text in ".{0,20}") {
        let mut config = Files::new(&[LEAST.as_bytes()]).load(&[], &[]).unwrap().config;
        config.optimizer.config = [("lr", lr.into()), ("n", n.into()), ("text", text.into())]
            .map(|(name, value): (&str, Value)| (name.to_owned(), value)).into_iter().collect();
        let text = to_resolved_toml(&config).unwrap();
        prop_assert_eq!(Files::new(&[text.as_bytes()]).load(&[], &[]).unwrap().config, config);
    }

    #[test]
    fn any_text_loads_or_fails_in_lines(text in "\\PC{0,80}", set in "[a-z.]{0,12}=\\PC{0,12}") {
        if let Err(faults) = Files::new(&[text.as_bytes()]).load(&[&set], &[]) {
            prop_assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.to_string().contains('\n')));
        }
    }
}
