//! Plugins and hosts of other versions of the ABI.
//!
//! Each version is a copy of `plugin-api` and of the plugin `sgd` with a few lines changed, in a workspace of its own
//! under the target folder. One minor version more or less loads, whichever side has it; everything else is refused.

use crate::built::{Built, REPORT, artifact, build, fixture, fixtures_dir, plugin, small, source_tree};
use crate::corpus::Run;
use crate::program::{filtered, gauntlet, outcome};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Text of a file that is replaced by another; it must be there once.
type Edit = (&'static str, &'static str, &'static str);

const CONFIG: &str = r#"{ "lr": 0.25, "momentum": 0.5 }"#;

/// One minor version more: a call of the host, a call of the module, and a method of the optimizer.
const MINOR: &[Edit] = &[
    ("plugin-api/abi/Cargo.toml", "version = \"1.0.0\"", "version = \"1.1.0\""),
    (
        "plugin-api/abi/src/host.rs",
        "    pub metric: for<'a> extern \"C\" fn(Ctx, RStr<'a>, f64) -> RT<()>,\n",
        "    pub metric: for<'a> extern \"C\" fn(Ctx, RStr<'a>, f64) -> RT<()>,\n    /// New in 1.1.\n    \
         #[sabi(missing_field(option))]\n    pub later: extern \"C\" fn(Ctx) -> u32,\n",
    ),
    (
        "plugin-api/abi/src/plugin.rs",
        "    pub state_bytes: for<'a> extern \"C\" fn(Host, RStr<'a>) -> RT<u64>,\n",
        "    pub state_bytes: for<'a> extern \"C\" fn(Host, RStr<'a>) -> RT<u64>,\n    /// New in 1.1.\n    \
         #[sabi(missing_field(option))]\n    pub later: extern \"C\" fn() -> u32,\n",
    ),
    (
        "plugin-api/abi/src/plugin.rs",
        "    fn evaluation_params(&self) -> RT<RVec<RawTensor>>;\n",
        "    fn evaluation_params(&self) -> RT<RVec<RawTensor>>;\n    /// New in 1.1.\n    fn later(&self) -> u32 {\n        \
         7\n    }\n",
    ),
    (
        "plugin-api/src/backend/table.rs",
        "            metric: metric::<B>,\n",
        "            metric: metric::<B>, later,\n",
    ),
    (
        "plugin-api/src/backend/table.rs",
        "struct Table<B>(PhantomData<B>);\n",
        "struct Table<B>(PhantomData<B>);\n\nextern \"C\" fn later(_: Ctx) -> u32 {\n    11\n}\n",
    ),
    ("plugin-api/src/export.rs", "state_bytes: state_bytes::<O> }", "state_bytes: state_bytes::<O>, later }"),
    (
        "plugin-api/src/export.rs",
        "        let link = Link(host);\n",
        "        let link = Link(host);\n        let later = host.ops.later().map(|later| later(host.ctx));\n        \
         link.log(LogLevel::INFO, \"abi\", &format!(\"later call of the host: {later:?}\"));\n",
    ),
    (
        "plugin-api/src/export.rs",
        "impl<O> Drop for Guarded<O> {\n",
        "extern \"C\" fn later() -> u32 {\n    11\n}\n\nimpl<O> Drop for Guarded<O> {\n",
    ),
    (
        "plugin-api/src/export.rs",
        "    fn evaluation_params(&self) -> RT<RVec<RawTensor>> {\n",
        "    fn later(&self) -> u32 {\n        11\n    }\n\n    fn evaluation_params(&self) -> RT<RVec<RawTensor>> {\n",
    ),
];

const MAJOR: &[Edit] = &[
    ("plugin-api/abi/Cargo.toml", "version = \"1.0.0\"", "version = \"2.0.0\""),
    ("Cargo.toml", "path = \"plugin-api/abi\", version = \"1.0.0\"", "path = \"plugin-api/abi\", version = \"2.0.0\""),
];

/// The loss of a report becomes optional, and nobody changed the version.
const LAYOUT: &[Edit] = &[
    ("plugin-api/abi/src/plugin.rs", "    pub loss: f64,\n", "    pub loss: abi_stable::std_types::ROption<f64>,\n"),
    ("plugin-api/src/export.rs", "        loss: report.loss,\n", "        loss: ROption::RSome(report.loss),\n"),
    ("plugin-api/src/backend/instance.rs", "loss: report.loss,", "loss: report.loss.unwrap_or(f64::NAN),"),
];

static MINOR_COPY: LazyLock<Built> = LazyLock::new(|| copy("1-1", MINOR, true));
static MAJOR_COPY: LazyLock<Built> = LazyLock::new(|| copy("2-0", MAJOR, false));
static LAYOUT_COPY: LazyLock<Built> = LazyLock::new(|| copy("layout", LAYOUT, false));

/// Builds the plugin `sgd-NAME`, and the program `mini-host-NAME` where it is asked for, with the edits applied.
fn copy(name: &str, edits: &[Edit], with_host: bool) -> Built {
    let (tree, to) = (source_tree(), fixtures_dir().join(format!("abi-{name}")));
    let mut files =
        vec![("Cargo.lock".into(), tree.join("Cargo.lock")), ("Cargo.toml".into(), tree.join("Cargo.toml"))];
    files.extend(files_below(tree, "plugin-api", ""));
    files.extend(files_below(&tree.join("plugins"), "sgd", ""));
    files.extend(files_below(&tree.join("tests/fixtures"), "mini-host", ""));
    let mut left: Vec<&Edit> = edits.iter().collect();
    for (path, source) in &files {
        let mut text = fs::read_to_string(source).unwrap();
        if path == "Cargo.toml" {
            text = with_members(&text, if with_host { &["sgd", "mini-host"] } else { &["sgd"] });
        }
        text = text.replace("name = \"sgd\"\n", &format!("name = \"sgd-{name}\"\n"));
        text = text.replace("name = \"mini-host\"\n", &format!("name = \"mini-host-{name}\"\n"));
        left.retain(|(file, from, to)| {
            let here = file == path;
            if here {
                assert_eq!(text.matches(from).count(), 1, "{file}: {from}");
                text = text.replace(from, to);
            }
            !here
        });
        write_if_changed(&to.join(path), &text);
    }
    assert!(left.is_empty(), "files that do not exist: {left:?}");
    let mut cargo = small(&to, &["build", REPORT, "--release", "--workspace"]);
    build(if with_host { cargo.args(["--features", &format!("mini-host-{name}/abi-1-1")]) } else { &mut cargo })
}

/// The manifest of a workspace of these crates and `plugin-api`.
fn with_members(manifest: &str, members: &[&str]) -> String {
    let members: Vec<String> = members.iter().map(|member| format!("\"{member}\"")).collect();
    let mut seen = false;
    let lines = manifest.lines().map(|line| match line.starts_with("members = ") {
        true => {
            seen = true;
            format!("members = [\"plugin-api\", \"plugin-api/abi\", {}]\n", members.join(", "))
        }
        false => format!("{line}\n"),
    });
    let manifest: String = lines.collect();
    assert!(seen, "the workspace's manifest has no line of members");
    manifest
}

/// The files below a folder, each by its path relative to `root` and as it lies on the disk; `target` is passed over.
fn files_below(root: &Path, name: &str, prefix: &str) -> Vec<(String, PathBuf)> {
    let (relative, folder) = (format!("{prefix}{name}"), root.join(name));
    let mut files = vec![];
    for entry in fs::read_dir(&folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true if name == "target" => {}
            true => files.extend(files_below(&folder, &name, &format!("{relative}/"))),
            false => files.push((format!("{relative}/{name}"), entry.path())),
        }
    }
    files
}

/// An unchanged file keeps its time, so that cargo does not compile it again.
fn write_if_changed(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// What the host without libtorch prints of three steps of a plugin, up to the lines that only a host of 1.1 has.
fn mini_host(host: &Path, plugin: &Path) -> String {
    outcome(Command::new(host).arg(plugin).args([CONFIG, "3"])).succeeded()
}

/// The lines that begin with one of these words.
fn lines(text: &str, starts: &[&str]) -> Vec<String> {
    text.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect()
}

#[test]
fn a_newer_plugin_trains_on_this_host() {
    let newer = artifact(&MINOR_COPY, "sgd-1-1");
    let inspected = gauntlet(source_tree(), &["plugins", "inspect", newer.to_str().unwrap()]).succeeded();
    assert!(inspected.contains("\nABI      1.1.0\n"), "{inspected}");
    let run = |plugin: &Path| {
        Run::of(plugin)
            .set("optimizer.config.lr=0.1")
            .set("optimizer.config.momentum=0.5")
            .set("train.max_steps=3")
            .finished()
    };
    let (ours, theirs) = (run(plugin("sgd")), run(newer));
    assert_eq!(theirs.events("log")[0]["message"], "later call of the host: None");
    assert!(theirs.saved(3, "params.safetensors") == ours.saved(3, "params.safetensors"));
    assert!(theirs.saved(3, "optimizer.safetensors") == ours.saved(3, "optimizer.safetensors"));
}

#[test]
fn the_shipped_plugin_runs_on_a_newer_host() {
    let newer = mini_host(artifact(&MINOR_COPY, "mini-host-1-1"), plugin("sgd"));
    assert_eq!(
        lines(&newer, &["host", "later"]),
        ["host ABI 1.1.0", "later call of the module: None", "later method of the optimizer: 7",]
    );
    let ours = mini_host(fixture("mini-host"), plugin("sgd"));
    let numbers = ["step", "[", "live"];
    assert_eq!(lines(&newer, &numbers).len(), 6, "{newer}");
    assert_eq!(lines(&newer, &numbers), lines(&ours, &numbers));
}

#[test]
fn equal_versions_reach_each_others_later_calls() {
    let both = mini_host(artifact(&MINOR_COPY, "mini-host-1-1"), artifact(&MINOR_COPY, "sgd-1-1"));
    assert_eq!(
        lines(&both, &["later", "log"]),
        [
            "later call of the module: Some(11)",
            "later method of the optimizer: 11",
            "log: later call of the host: Some(11)",
        ]
    );
}

#[test]
fn a_plugin_of_another_major_version_is_refused() {
    let path = artifact(&MAJOR_COPY, "sgd-2-0");
    let refused = gauntlet(source_tree(), &["plugins", "inspect", path.to_str().unwrap()]);
    let expected = "80: error: `[FIXTURES]/libsgd_2_0.so`: the major versions of the plugin ABI differ: found plugin ABI \
                    2.0.0, expected 1.x (host ABI 1.0.0); hint: rebuild the plugin against this host's \
                    gauntlet-plugin-api\n";
    assert_eq!(refused.refusal(source_tree()), expected);
}

#[test]
fn a_plugin_with_other_types_is_refused_in_one_line_and_compared_at_length_on_demand() {
    let path = artifact(&LAYOUT_COPY, "sgd-layout").to_str().unwrap();
    let expected = "error: plugin `[FIXTURES]/libsgd_layout.so`: its types are laid out differently at \
                    `0/create/create/__returns/field_0/obj/vtable/0/step/step/__returns/field_0/loss`: type ROption \
                    instead of f64; hint: build it again with this host's gauntlet-plugin-api; `--verbose` shows the \
                    whole comparison\n";
    let refused = gauntlet(source_tree(), &["plugins", "inspect", path]);
    assert_eq!((refused.code, filtered(&refused.stderr, source_tree()).as_str()), (80, expected));
    let verbose = gauntlet(source_tree(), &["--verbose", "plugins", "inspect", path]);
    let (first, rest) = verbose.stderr.split_once('\n').unwrap();
    assert_eq!((verbose.code, format!("{first}\n")), (80, refused.stderr));
    assert!(rest.lines().count() > 20 && rest.contains("RawReport"), "{rest}");
}

#[test]
fn a_plugin_for_a_later_host_is_refused() {
    let refused = gauntlet(source_tree(), &["plugins", "inspect", fixture("by-hand").to_str().unwrap()]);
    let expected = "80: error: plugin `[FIXTURES]/libby_hand.so`: needs a newer host: found host ABI 1.0.0, expected at \
                    least 1.7; hint: update gauntlet, or use an older version of the plugin\n";
    assert_eq!(refused.refusal(source_tree()), expected);
}

#[test]
fn a_plugin_that_aborts_on_a_panic_is_refused() {
    let refused = gauntlet(source_tree(), &["plugins", "inspect", fixture("aborting").to_str().unwrap()]);
    let expected = "80: error: `[FIXTURES]/libaborting.so`: optimizer plugins must be built with panic = \"unwind\": found \
                    panic = \"abort\", expected panic = \"unwind\"; hint: remove `panic = \"abort\"` from the plugin's \
                    Cargo profile and build it again\n";
    assert_eq!(refused.refusal(source_tree()), expected);
}

#[test]
fn the_macro_refuses_to_build_a_plugin_that_aborts_on_a_panic() {
    fixture("needy");
    let mut cargo = small(&source_tree().join("tests/fixtures"), &["rustc", "--release", "-p", "needy"]);
    let outcome = outcome(cargo.args(["--", "-C", "panic=abort"]));
    assert_ne!(outcome.code, 0);
    let expected = "error: optimizer plugins must be built with panic = \"unwind\"";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}
