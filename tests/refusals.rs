//! Files that the loader refuses: what they are, who could have changed them, where they are looked for.

use crate::built::{fixture, plugin};
use crate::corpus::Run;
use crate::program::gauntlet;
use crate::skipped::skipped;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The hint of files that are no plugin at all.
const MADE: &str = "hint: a plugin is a crate with `crate-type = [\"cdylib\"]` that calls `export_optimizer!`";

/// A folder for files that are not quite plugins.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    /// A file of mode 0644.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        path
    }

    /// A whole plugin.
    fn sgd(&self) -> PathBuf {
        self.file("libsgd.so", &fs::read(plugin("sgd")).unwrap())
    }

    /// `plugins inspect` of a name or path must end with this exit code and this one line.
    fn check(&self, plugin: impl AsRef<Path>, expected: &str) {
        let plugin = plugin.as_ref().to_str().unwrap();
        let outcome = gauntlet(&self.path(), &["plugins", "inspect", plugin]);
        assert_eq!(outcome.refusal(&self.path()), format!("{expected}\n"));
        assert_eq!(outcome.stdout, "");
    }

    fn accepts(&self, plugin: impl AsRef<Path>) {
        let stdout = gauntlet(&self.path(), &["plugins", "inspect", plugin.as_ref().to_str().unwrap()]).succeeded();
        assert!(stdout.starts_with("name     sgd\n"), "{stdout}");
    }
}

#[test]
fn files_that_are_no_library() {
    let place = Place::new();
    place.check(
        place.file("text.so", b"lr = 0.1\n"),
        &format!(
            "80: error: `[FOLDER]/text.so`: not an ELF file (9 bytes): found first bytes 6c 72 20 3d, expected a shared \
             library; {MADE}"
        ),
    );
    place.check(
        place.file("empty.so", b""),
        &format!("80: error: `[FOLDER]/empty.so`: not an ELF file (0 bytes): found no bytes, expected a shared library; {MADE}"),
    );
    let folder = place.path().join("folder.so");
    fs::create_dir(&folder).unwrap();
    place.check(
        &folder,
        "77: error: `[FOLDER]/folder.so`: a plugin must be a regular file: found another kind of file, expected a regular file",
    );
}

#[test]
fn a_named_pipe_does_not_make_the_program_wait() {
    let place = Place::new();
    let pipe = place.path().join("pipe.so");
    if !std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        return skipped("a named pipe as a plugin: no `mkfifo`");
    }
    fs::set_permissions(&pipe, Permissions::from_mode(0o644)).unwrap();
    place.check(
        &pipe,
        "77: error: `[FOLDER]/pipe.so`: a plugin must be a regular file: found another kind of file, expected a regular file",
    );
}

#[test]
fn a_system_library_is_no_plugin() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    let Some(libm) = paths.into_iter().find(|path| path.contains("/libm.so") || path.contains("/libm-")) else {
        return skipped("a system library as a plugin: no `libm` is loaded");
    };
    let place = Place::new();
    place.check(
        place.file("libm.so", &fs::read(libm).unwrap()),
        &format!(
            "80: error: `[FOLDER]/libm.so`: not an optimizer plugin: found no plugin note, expected the ELF note \
             `Gauntlet`; {MADE}"
        ),
    );
}

#[test]
fn an_executable_is_no_plugin() {
    let Ok(bytes) = fs::read("/bin/ls") else { return skipped("an executable as a plugin: no `/bin/ls`") };
    let place = Place::new();
    place.check(
        place.file("ls.so", &bytes),
        &format!(
            "80: error: `[FOLDER]/ls.so`: not a shared library: found a position-independent executable, expected a \
             shared library; {MADE}"
        ),
    );
}

#[test]
fn a_truncated_plugin_is_refused_wherever_it_ends() {
    let (place, bytes) = (Place::new(), fs::read(plugin("sgd")).unwrap());
    let whole = bytes.len();
    for len in [5, 40, 63, 64, 200, whole / 10, whole / 3, whole / 2, whole * 9 / 10, whole - 1] {
        let path = place.file("cut.so", &bytes[..len]);
        let outcome = gauntlet(&place.path(), &["plugins", "inspect", path.to_str().unwrap()]);
        let text = outcome.refusal(&place.path());
        let start = format!("80: error: `[FOLDER]/cut.so`: truncated: {len} bytes, headers end at ");
        let end = text.strip_prefix(&start).and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
        let end = end.unwrap_or_else(|| panic!("{len}: {text}"));
        assert!(len < end && end <= whole, "{text}");
        let rest =
            format!(": found {len} bytes, expected at least {end} bytes; hint: copy or build the plugin again\n");
        assert_eq!(text, format!("{start}{end}{rest}"));
    }
}

#[test]
fn a_plugin_for_another_cpu() {
    let (place, mut bytes) = (Place::new(), fs::read(plugin("sgd")).unwrap());
    bytes[18..20].copy_from_slice(&183_u16.to_le_bytes());
    place.check(
        place.file("arm.so", &bytes),
        "80: error: `[FOLDER]/arm.so`: built for another CPU: found 64-bit little-endian aarch64 (183), expected 64-bit \
         little-endian x86_64 (62); hint: build the plugin for `x86_64-unknown-linux-gnu`",
    );
}

#[test]
fn a_note_without_a_root_module() {
    Place::new().check(
        fixture("rootless"),
        "80: error: plugin `[FIXTURES]/librootless.so`: not an optimizer plugin: found no root module, expected \
         `export_optimizer!`; hint: call `export_optimizer!` in a crate with `crate-type = [\"cdylib\"]`",
    );
}

#[test]
fn a_library_that_the_system_cannot_load() {
    Place::new().check(
        fixture("unresolved"),
        "80: error: plugin `[FIXTURES]/libunresolved.so`: cannot be loaded: found undefined symbol: \
         gauntlet_fixture_symbol_that_nothing_has; hint: install the library that it needs, or build it again",
    );
}

#[test]
fn needs_that_the_host_does_not_meet() {
    let outcome = Run::of(fixture("needy")).train();
    assert_eq!(outcome.code, 80);
    let expected = "plugin `needy` needs what this host does not offer: found `visit_layer_io`, `Capability 4242`; hint: \
                    update gauntlet, or use another optimizer";
    assert_eq!(outcome.errors(), [expected]);
}

#[test]
fn modes_by_which_others_could_change_a_plugin() {
    let place = Place::new();
    let path = place.sgd();
    let table = [
        (0o666, "must not be writable by others: found mode 0666, expected mode 0664; hint: `chmod o-w"),
        (0o4755, "must not be set-user-id or set-group-id: found mode 4755, expected mode 0755; hint: `chmod ug-s"),
        (0o2755, "must not be set-user-id or set-group-id: found mode 2755, expected mode 0755; hint: `chmod ug-s"),
    ];
    for (mode, expected) in table {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let subject = "77: error: `[FOLDER]/libsgd.so`: a plugin";
        place.check(&path, &format!("{subject} {expected} [FOLDER]/libsgd.so`"));
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    place.accepts(&path);
}

#[test]
fn folders_in_which_others_could_replace_a_plugin() {
    let place = Place::new();
    let folder = place.path().join("shared");
    fs::create_dir(&folder).unwrap();
    let path = place.file("shared/libsgd.so", &fs::read(plugin("sgd")).unwrap());
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    place.check(
        &path,
        "77: error: `[FOLDER]/shared`: a folder above a plugin must not be writable by others: found mode 0777, expected \
         mode 0775, or the sticky bit; hint: `chmod o-w [FOLDER]/shared`",
    );
    fs::set_permissions(&folder, Permissions::from_mode(0o1777)).unwrap();
    place.accepts(&path);
}

#[test]
fn a_plugin_of_another_user_or_group() {
    if !rustix::process::geteuid().is_root() {
        return skipped("a plugin of another user: only root can give a file away");
    }
    let place = Place::new();
    let path = place.sgd();
    std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
    place.check(
        &path,
        "77: error: `[FOLDER]/libsgd.so`: a plugin must belong to root or to you: found owner 12345, expected root (0); \
         hint: `chown 0 [FOLDER]/libsgd.so`",
    );
    std::os::unix::fs::chown(&path, Some(0), Some(12345)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
    place.check(
        &path,
        "77: error: `[FOLDER]/libsgd.so`: a plugin must not be writable by group 12345: found mode 0664, expected mode \
         0644; hint: `chmod g-w [FOLDER]/libsgd.so`",
    );
}

#[test]
fn paths_that_are_not_absolute_or_lead_nowhere() {
    let place = Place::new();
    place.sgd();
    place.check(
        "./libsgd.so",
        "77: error: `./libsgd.so`: a plugin is not loaded by a relative path: expected an absolute path or a bare name; \
         hint: write `[FOLDER]/libsgd.so`",
    );
    place.check(
        place.path().join("x/../libsgd.so"),
        "77: error: `[FOLDER]/x/../libsgd.so`: a plugin is not loaded by a path with `..`: expected a path without `..`",
    );
    place.check(
        place.path().join("libnone.so"),
        "66: error: cannot read `[FOLDER]/libnone.so`: no such file or directory",
    );
    let link = place.path().join("link.so");
    symlink(place.path().join("libsgd.so"), &link).unwrap();
    place.accepts(&link);
}

#[test]
fn names_that_lead_to_no_file_or_to_two() {
    let place = Place::new();
    let inspect = |name: &str| {
        let path = place.path();
        gauntlet(&path, &["plugins", "inspect", name, "--search-path", path.to_str().unwrap()]).refusal(&path)
    };
    let unknown = inspect("unheard-of");
    let start = "66: error: plugin `unheard-of`: no such file: found no `libunheard_of.so` in `[PROGRAM]`, ";
    let end = "`[FOLDER]`; hint: build the plugin, add its folder to `plugins.search_path`, or name it by its absolute path\n";
    assert!(unknown.starts_with(start) && unknown.ends_with(end), "{unknown}");
    place.file("libmy_opt.so", b"");
    assert!(inspect("my-opd").ends_with("; hint: did you mean `my-opt`?\n"), "{}", inspect("my-opd"));
    place.check(
        "libsgd.so",
        "2: error: `libsgd.so`: not a plugin's name: expected lower-case letters, digits, `-` and `_`, or an absolute \
         path; hint: did you mean `sgd`?",
    );
    plugin("sgd");
    place.sgd();
    assert_eq!(
        inspect("sgd"),
        "77: error: plugin `sgd`: two files bear this name: found `[PROGRAM]/libsgd.so` and `[FOLDER]/libsgd.so`, expected \
         one file; hint: name the plugin by its absolute path, or remove one\n"
    );
}

#[test]
fn a_pin_holds_the_very_file() {
    let place = Place::new();
    let path = place.sgd();
    let sha256 = gauntlet::plugin::image::hex_sha256(&fs::read(&path).unwrap());
    let run = || Run::of(&path).set("optimizer.config.lr=0.1").set(format!("optimizer.sha256={sha256}"));
    run().finished();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    place.file("libsgd.so", &bytes);
    let outcome = run().train();
    let found = gauntlet::plugin::image::hex_sha256(&bytes);
    let expected = format!(
        "`{}`: the file is not the pinned one: found sha256 {found}, expected sha256 {sha256}; hint: if the change is \
         meant, set `optimizer.sha256` to the hash that was found",
        path.display()
    );
    assert_eq!((outcome.code, outcome.errors()), (77, vec![expected.as_str()]));
}

#[test]
fn a_refused_plugin_leaves_no_run_directory() {
    let place = Place::new();
    let run = Run::of(place.file("text.so", b"text"));
    let outcome = run.train();
    let expected = format!(
        "`{}`: not an ELF file (4 bytes): found first bytes 74 65 78 74, expected a shared library; {MADE}",
        place.path().join("text.so").display()
    );
    assert_eq!((outcome.code, outcome.errors()), (80, vec![expected.as_str()]));
    assert!(!run.file("").exists());
}

#[test]
fn the_list_shows_refused_plugins_and_passes_over_other_libraries() {
    let place = Place::new();
    fs::set_permissions(place.sgd(), Permissions::from_mode(0o646)).unwrap();
    place.file("libother.so", &fs::read(fixture("rootless")).unwrap());
    let path = place.path();
    let list = gauntlet(&path, &["plugins", "list", "--search-path", path.to_str().unwrap()]).succeeded();
    let of_place: Vec<&str> = list.lines().filter(|line| line.contains(path.to_str().unwrap())).collect();
    let expected = "sgd              refused: `[FOLDER]/libsgd.so`: a plugin must not be writable by others: found mode \
                    0646, expected mode 0644; hint: `chmod o-w [FOLDER]/libsgd.so`";
    assert_eq!(crate::program::filtered(&of_place.join("\n"), &path), expected);
}
