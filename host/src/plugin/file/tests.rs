//! The rule by tables, and real files and folders.

use std::fs::{Permissions, create_dir, create_dir_all, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const YOU: Identity = Identity { uid: 1000, gid: 100 };

fn text(fault: Fault) -> (Exit, String) {
    (fault.exit, fault.to_string())
}

fn judged(role: Role, mode: u32, uid: u32, gid: u32) -> String {
    match check(Path::new("/p/it's"), role, Facts { regular: role == Role::Plugin, mode, uid, gid }, YOU) {
        Ok(()) => "ok".to_owned(),
        Err(fault) => {
            assert_eq!(fault.exit, Exit::Refused);
            fault.to_string()
        }
    }
}

#[test]
fn who_may_have_changed_a_plugin() {
    let start = r"`/p/it's`: a plugin must";
    let path = r"'/p/it'\''s'";
    let table = [
        (0o644, 1000, 100, "ok".to_owned()),
        (0o755, 0, 0, "ok".to_owned()),
        (0o400, 1000, 7, "ok".to_owned()),
        (0o664, 1000, 100, "ok".to_owned()),
        (
            0o644,
            1001,
            100,
            format!(
                "{start} belong to root or to you: found owner 1001, expected root (0) or you (1000); hint: `chown 1000 {path}`"
            ),
        ),
        (
            0o664,
            1000,
            7,
            format!(
                "{start} not be writable by group 7: found mode 0664, expected mode 0644; hint: `chmod g-w {path}`"
            ),
        ),
        (
            0o664,
            0,
            0,
            format!(
                "{start} not be writable by group 0: found mode 0664, expected mode 0644; hint: `chmod g-w {path}`"
            ),
        ),
        (
            0o646,
            1000,
            100,
            format!("{start} not be writable by others: found mode 0646, expected mode 0644; hint: `chmod o-w {path}`"),
        ),
        (
            0o666,
            1000,
            7,
            format!(
                "{start} not be writable by group 7 and others: found mode 0666, expected mode 0644; hint: `chmod go-w {path}`"
            ),
        ),
        (
            0o1666,
            1000,
            7,
            format!(
                "{start} not be writable by group 7 and others: found mode 1666, expected mode 1644; hint: `chmod go-w {path}`"
            ),
        ),
        (
            0o4755,
            1000,
            100,
            format!(
                "{start} not be set-user-id or set-group-id: found mode 4755, expected mode 0755; hint: `chmod ug-s {path}`"
            ),
        ),
        (
            0o2755,
            0,
            0,
            format!(
                "{start} not be set-user-id or set-group-id: found mode 2755, expected mode 0755; hint: `chmod ug-s {path}`"
            ),
        ),
    ];
    for (mode, uid, gid, expected) in table {
        assert_eq!(judged(Role::Plugin, mode, uid, gid), expected, "{mode:o} {uid} {gid}");
    }
}

#[test]
fn who_may_have_changed_a_folder() {
    let start = r"`/p/it's`: a folder above a plugin must";
    let path = r"'/p/it'\''s'";
    let table = [
        (0o755, 0, 0, "ok".to_owned()),
        (0o1777, 0, 0, "ok".to_owned()),
        (0o2775, 1000, 100, "ok".to_owned()),
        (
            0o1777,
            1001,
            0,
            format!(
                "{start} belong to root or to you: found owner 1001, expected root (0) or you (1000); hint: `chown 1000 {path}`"
            ),
        ),
        (
            0o777,
            0,
            100,
            format!(
                "{start} not be writable by others: found mode 0777, expected mode 0775, or the sticky bit; hint: `chmod o-w {path}`"
            ),
        ),
        (
            0o775,
            1000,
            7,
            format!(
                "{start} not be writable by group 7: found mode 0775, expected mode 0755, or the sticky bit; hint: `chmod g-w {path}`"
            ),
        ),
    ];
    for (mode, uid, gid, expected) in table {
        assert_eq!(judged(Role::Folder, mode, uid, gid), expected, "{mode:o} {uid} {gid}");
    }
    let odd = Facts { regular: false, mode: 0o644, uid: 0, gid: 0 };
    let fault = check(Path::new("/dev/x"), Role::Plugin, odd, YOU).unwrap_err();
    assert_eq!(
        text(fault),
        (
            Exit::Refused,
            "`/dev/x`: a plugin must be a regular file: found another kind of file, expected a regular file".to_owned()
        )
    );
    let root = Identity { uid: 0, gid: 0 };
    let yours = Facts { regular: true, mode: 0o644, uid: 1000, gid: 0 };
    let fault = check(Path::new("/p"), Role::Plugin, yours, root).unwrap_err();
    assert!(fault.to_string().contains("found owner 1000, expected root (0); hint: `chown 0 /p`"), "{fault}");
}

/// A folder with `bin/`, `lib/gauntlet/plugins/` and `more/`, and its search path.
fn tree() -> (tempfile::TempDir, PathBuf, SearchPath) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for name in ["bin", "lib/gauntlet/plugins", "more"] {
        create_dir_all(root.join(name)).unwrap();
        set_permissions(root.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    let search = SearchPath::new(&root.join("bin/gauntlet"), &[root.join("more"), root.join("bin")]).unwrap();
    (folder, root, search)
}

fn plugin_at(path: &Path) {
    write(path, b"x").unwrap();
    set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn names_are_looked_up_in_order() {
    let (_folder, root, search) = tree();
    let expected = ["bin", "lib/gauntlet/plugins", "more"].map(|name| root.join(name));
    assert_eq!(search.folders(), expected);
    for (name, place) in
        [("adam", "bin/libadam.so"), ("full-gn", "lib/gauntlet/plugins/libfull_gn.so"), ("s_9", "more/libs_9.so")]
    {
        plugin_at(&root.join(place));
        assert_eq!(find(name, &search), Ok(root.join(place)));
    }
    write(root.join("bin/libBad.so"), b"").unwrap();
    write(root.join("bin/notes.txt"), b"").unwrap();
    let names: Vec<String> = search.libraries().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["adam", "full-gn", "s-9"]);
    let path = root.join("more/libs_9.so");
    assert_eq!(find(path.to_str().unwrap(), &search), Ok(path));
}

#[test]
fn what_is_not_found_says_where_and_what_was_meant() {
    let (_folder, root, search) = tree();
    plugin_at(&root.join("more/libfull_gn.so"));
    let at = |name: &str| root.join(name).display().to_string();
    let places = format!("`{}`, `{}`, `{}`", at("bin"), at("lib/gauntlet/plugins"), at("more"));
    let found =
        format!("plugin `ful-gn`: no such file: found no `libful_gn.so` in {places}; hint: did you mean `full-gn`?");
    assert_eq!(text(find("ful-gn", &search).unwrap_err()), (Exit::Missing, found));
    let (exit, line) = text(find("soap", &search).unwrap_err());
    assert_eq!(exit, Exit::Missing);
    assert!(
        line.ends_with(
            "hint: build the plugin, add its folder to `plugins.search_path`, or name it by its absolute path"
        ),
        "{line}"
    );
    let (exit, line) = text(find("/nowhere/libx.so", &search).unwrap_err());
    assert_eq!((exit, line.as_str()), (Exit::Missing, "cannot read `/nowhere/libx.so`: no such file or directory"));
}

#[test]
fn what_is_no_name_is_refused() {
    let (_folder, root, search) = tree();
    let letters = "expected lower-case letters, digits, `-` and `_`, or an absolute path";
    let here = std::env::current_dir().unwrap();
    let here = here.display();
    let relative = "a plugin is not loaded by a relative path: expected an absolute path or a bare name; hint: write";
    plugin_at(&root.join("more/libx.so"));
    let up = root.join("bin/../more/libx.so").display().to_string();
    let real = root.join("more/libx.so").display().to_string();
    let table = [
        ("", Exit::Usage, format!("``: not a plugin's name: {letters}")),
        ("Adam", Exit::Usage, format!("`Adam`: not a plugin's name: {letters}; hint: did you mean `adam`?")),
        (
            "libfull_gn.so",
            Exit::Usage,
            format!("`libfull_gn.so`: not a plugin's name: {letters}; hint: did you mean `full-gn`?"),
        ),
        ("a b", Exit::Usage, format!("`a b`: not a plugin's name: {letters}")),
        ("..", Exit::Usage, format!("`..`: not a plugin's name: {letters}")),
        ("./nothere/libx.so", Exit::Refused, format!("`./nothere/libx.so`: {relative} `{here}/nothere/libx.so`")),
        (
            &up,
            Exit::Refused,
            format!(
                "`{up}`: a plugin is not loaded by a path with `..`: expected a path without `..`; hint: write `{real}`"
            ),
        ),
    ];
    for (name, exit, expected) in table {
        assert_eq!(text(find(name, &search).unwrap_err()), (exit, expected));
    }
    let fault = SearchPath::new(Path::new("/usr/bin/gauntlet"), &["plugins".into()]).unwrap_err();
    let expected = format!(
        "`plugins.search_path`: a folder that is not absolute: found `plugins`, expected an absolute path; hint: write `{here}/plugins`"
    );
    assert_eq!(text(fault), (Exit::Usage, expected));
    assert!(SearchPath::new(Path::new("/usr/bin/gauntlet"), &["".into()]).is_err());
}

#[test]
fn two_files_of_one_name_are_refused_and_one_file_twice_is_not() {
    let (_folder, root, search) = tree();
    let (first, second) = (root.join("bin/libadam.so"), root.join("more/libadam.so"));
    plugin_at(&first);
    symlink(&first, &second).unwrap();
    assert_eq!(find("adam", &search), Ok(first.clone()));
    std::fs::remove_file(&second).unwrap();
    plugin_at(&second);
    let expected = format!(
        "plugin `adam`: two files bear this name: found `{}` and `{}`, expected one file; hint: name the plugin by its \
         absolute path, or remove one",
        first.display(),
        second.display()
    );
    assert_eq!(text(find("adam", &search).unwrap_err()), (Exit::Refused, expected));
}

/// Opens the plugin after one change of mode, and undoes the change.
fn opened_with(path: &Path, changed: &Path, mode: u32) -> Result<PathBuf> {
    let before = changed.metadata().unwrap().permissions();
    set_permissions(changed, Permissions::from_mode(mode)).unwrap();
    let opened = open_checked(path).map(|checked| checked.path);
    set_permissions(changed, before).unwrap();
    opened
}

#[test]
fn real_files_are_opened_or_refused_with_the_offending_part() {
    let (_folder, root, _) = tree();
    let (folder, path) = (root.join("more"), root.join("more/libx.so"));
    plugin_at(&path);
    assert_eq!(opened_with(&path, &path, 0o755), Ok(path.clone()));
    assert_eq!(opened_with(&path, &folder, 0o1777), Ok(path.clone()), "an own file in a sticky folder");
    for (changed, mode, what) in [
        (&path, 0o666, "a plugin must not"),
        (&path, 0o4755, "a plugin must not be set-user-id"),
        (&folder, 0o777, "a folder above a plugin must not"),
        (&root, 0o757, "a folder above a plugin must not"),
    ] {
        let fault = opened_with(&path, changed, mode).unwrap_err();
        assert!(
            fault.exit == Exit::Refused && fault.to_string().starts_with(&format!("`{}`: {what}", changed.display())),
            "{fault}"
        );
    }
}

#[test]
fn links_are_followed_and_both_ends_checked() {
    let (_folder, root, _) = tree();
    let (path, link) = (root.join("more/libx.so"), root.join("bin/libx.so"));
    plugin_at(&path);
    symlink(&path, &link).unwrap();
    let checked = open_checked(&link).unwrap();
    assert_eq!((checked.path, checked.len), (path.clone(), 1));
    for (changed, mode) in [(root.join("more"), 0o777), (root.join("bin"), 0o777)] {
        let fault = opened_with(&link, &changed, mode).unwrap_err();
        assert!(
            fault.exit == Exit::Refused && fault.to_string().contains(&format!("`{}`", changed.display())),
            "{fault}"
        );
    }
    symlink("loop.so", root.join("bin/loop.so")).unwrap();
    assert_eq!(open_checked(&root.join("bin/loop.so")).unwrap_err().exit, Exit::Missing);
}

#[test]
fn other_kinds_of_files_are_refused_without_waiting() {
    let (_folder, root, _) = tree();
    let pipe = root.join("more/pipe.so");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    create_dir(root.join("more/folder.so")).unwrap();
    for name in ["more/pipe.so", "more/folder.so"] {
        let fault = open_checked(&root.join(name)).unwrap_err();
        assert!(fault.exit == Exit::Refused && fault.to_string().contains("must be a regular file"), "{fault}");
    }
    assert_eq!(open_checked(&root.join("more/none.so")).unwrap_err().exit, Exit::Missing);
    assert_eq!(open_checked(Path::new("more/libx.so")).unwrap_err().exit, Exit::Refused);
}
