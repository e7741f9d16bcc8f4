//! Finds a plugin file by name or absolute path, and checks who could have changed it.
//!
//! Loading a plugin runs its code with all of the user's rights. The checks stop accidents and other local users, not a
//! malicious author: the file and every folder above it must belong to root or to the user, and nobody else may write to
//! them (a sticky folder such as `/tmp` may be writable: there only owners rename and remove).
//!
//! Symbolic links are followed first; the file that they lead to is opened without following any, its folders are
//! checked, and so are the folders of the given spelling.

use std::collections::BTreeSet;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

use crate::config::check::nearest;
use crate::error::{Exit, Fault, Result};

/// The folders in which a plugin is looked for by its bare name, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath {
    folders: Vec<PathBuf>,
}

impl SearchPath {
    /// The executable's own folder, `lib/gauntlet/plugins` beside that folder, then the `configured` ones.
    ///
    /// # Errors
    /// [`Exit::Usage`] when a configured folder is not an absolute path.
    pub fn new(executable: &Path, configured: &[PathBuf]) -> Result<Self> {
        let own = executable.parent();
        let installed = own.and_then(Path::parent).map(|prefix| prefix.join("lib/gauntlet/plugins"));
        let mut folders: Vec<PathBuf> = own.map(Path::to_path_buf).into_iter().chain(installed).collect();
        for folder in configured {
            if !folder.is_absolute() {
                return Err(Fault::new(Exit::Usage, "`plugins.search_path`: a folder that is not absolute")
                    .found(format_args!("`{}`", folder.display()))
                    .expected("an absolute path")
                    .hint(spelled_absolutely(folder)));
            }
            if !folders.contains(folder) {
                folders.push(folder.clone());
            }
        }
        Ok(Self { folders })
    }

    /// As [`Self::new`], for the running program.
    ///
    /// # Errors
    /// As there, and [`Exit::Missing`] when the system does not tell where the program is.
    pub fn of_this_program(configured: &[PathBuf]) -> Result<Self> {
        let executable =
            std::env::current_exe().map_err(|error| Fault::reading(Path::new("/proc/self/exe"), &error))?;
        Self::new(&executable, configured)
    }

    /// The folders, in order.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Every `lib*.so` in the folders as (plugin name, path), sorted; not all of them need be plugins.
    pub fn libraries(&self) -> Vec<(String, PathBuf)> {
        let entries = self.folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten().flatten();
        let named = entries.filter_map(|entry| Some((plugin_name(entry.file_name().to_str()?)?, entry.path())));
        named.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The path of the plugin that a user names: an absolute path as it is, a bare name by the search path.
///
/// # Errors
/// [`Exit::Missing`] when there is none, with the places looked in; [`Exit::Usage`] for what is no name;
/// [`Exit::Refused`] for a relative path, and for a name that two different files bear.
pub fn find(name_or_path: &str, search: &SearchPath) -> Result<PathBuf> {
    if name_or_path.contains('/') {
        let path = Path::new(name_or_path);
        check_spelling(path)?;
        return path.symlink_metadata().map(|_| path.to_path_buf()).map_err(|error| Fault::reading(path, &error));
    }
    if !is_name(name_or_path) {
        let fault = Fault::new(Exit::Usage, format!("`{name_or_path}`: not a plugin's name"))
            .expected("lower-case letters, digits, `-` and `_`, or an absolute path");
        let meant = plugin_name(name_or_path).unwrap_or_else(|| name_or_path.to_lowercase());
        return Err(if is_name(&meant) { fault.hint(format_args!("did you mean `{meant}`?")) } else { fault });
    }
    let library = library_name(name_or_path);
    let mut found = search.folders.iter().map(|folder| folder.join(&library)).filter(|path| path.exists());
    let first = found.next().ok_or_else(|| not_found(name_or_path, &library, search))?;
    match found.find(|other| identity_of(other) != identity_of(&first)) {
        None => Ok(first),
        Some(other) => Err(Fault::new(Exit::Refused, format!("plugin `{name_or_path}`: two files bear this name"))
            .found(format_args!("`{}` and `{}`", first.display(), other.display()))
            .expected("one file")
            .hint("name the plugin by its absolute path, or remove one")),
    }
}

/// The file of the plugin `name`: `full-gn` is `libfull_gn.so`.
pub fn library_name(name: &str) -> String {
    format!("lib{}.so", name.replace('-', "_"))
}

/// The plugin that a file is named after: `libfull_gn.so` is `full-gn`; `None` for other files.
pub fn plugin_name(file: &str) -> Option<String> {
    let name = file.strip_prefix("lib")?.strip_suffix(".so")?.replace('_', "-");
    is_name(&name).then_some(name)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

/// Device and inode, by which the same file in two folders is known.
fn identity_of(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn not_found(name: &str, library: &str, search: &SearchPath) -> Fault {
    let places = search.folders.iter().map(|folder| format!("`{}`", folder.display())).collect::<Vec<_>>().join(", ");
    let known = search.libraries();
    let hint = match nearest(name, known.iter().map(|(name, _)| name.as_str())) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "build the plugin, add its folder to `plugins.search_path`, or name it by its absolute path".to_owned(),
    };
    Fault::new(Exit::Missing, format!("plugin `{name}`: no such file"))
        .found(format_args!("no `{library}` in {places}"))
        .hint(hint)
}

/// A path must say by itself where the file is: absolute, and without `..`.
fn check_spelling(path: &Path) -> Result<()> {
    let refused = |what: &str| Fault::new(Exit::Refused, format!("`{}`: {what}", path.display()));
    if !path.is_absolute() {
        let fault = refused("a plugin is not loaded by a relative path").expected("an absolute path or a bare name");
        return Err(fault.hint(spelled_absolutely(path)));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        let fault = refused("a plugin is not loaded by a path with `..`").expected("a path without `..`");
        return Err(match path.canonicalize() {
            Ok(real) => fault.hint(format_args!("write `{}`", real.display())),
            Err(_) => fault,
        });
    }
    Ok(())
}

fn spelled_absolutely(path: &Path) -> String {
    let absolute = path.canonicalize().or_else(|_| std::path::absolute(path));
    absolute.map_or_else(|_| "begin the path with `/`".to_owned(), |path| format!("write `{}`", path.display()))
}

/// A plugin file that passed the checks, open for reading.
#[derive(Debug)]
pub struct Checked {
    /// The file; what is read from it is what was checked, whatever happens to its path.
    pub file: File,
    /// The path without symbolic links.
    pub path: PathBuf,
    /// Size in bytes.
    pub len: u64,
}

/// Opens the plugin at `path`, an absolute path, and checks the opened file and all folders above it.
///
/// # Errors
/// [`Exit::Missing`] when it cannot be opened; [`Exit::Refused`] by the rule of [`check`], naming file or folder.
pub fn open_checked(path: &Path) -> Result<Checked> {
    check_spelling(path)?;
    let reading = |error: std::io::Error| Fault::reading(path, &error);
    let real = path.canonicalize().map_err(reading)?;
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK; // a named pipe must not make the host wait
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&real).map_err(reading)?;
    let you = Identity::effective();
    let metadata = file.metadata().map_err(reading)?;
    check(&real, Role::Plugin, Facts::of(&metadata), you)?;
    let given = path.parent().map(Path::canonicalize).transpose().map_err(reading)?;
    let folders = real.ancestors().skip(1).chain(given.iter().flat_map(|folder| folder.ancestors()));
    for folder in folders {
        let metadata = folder.symlink_metadata().map_err(|error| Fault::reading(folder, &error))?;
        check(folder, Role::Folder, Facts::of(&metadata), you)?;
    }
    Ok(Checked { file, path: real, len: metadata.len() })
}

/// What a path is checked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The plugin file itself.
    Plugin,
    /// A folder on the way to it.
    Folder,
}

/// What the rule needs to know of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether it is a regular file (for [`Role::Plugin`]) or a folder.
    pub regular: bool,
    /// Permission bits, with set-user-id, set-group-id and sticky: the low twelve bits of `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Facts {
    fn of(metadata: &Metadata) -> Self {
        let regular = metadata.is_file();
        Self { regular, mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() }
    }
}

/// Who loads the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

impl Identity {
    /// Of this process.
    pub fn effective() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

/// The rule: owned by root or by you; not writable by others nor by a group other than your own (a folder with the sticky
/// bit may be); a plugin is a regular file without set-user-id and set-group-id bits.
///
/// # Errors
/// [`Exit::Refused`], with the path, what was found, what is expected, and the command that repairs it.
pub fn check(path: &Path, role: Role, facts: Facts, you: Identity) -> Result<()> {
    let Facts { regular, mode, uid, gid } = facts;
    let subject = if role == Role::Plugin { "a plugin" } else { "a folder above a plugin" };
    let refused = |what: &str| Fault::new(Exit::Refused, format!("`{}`: {subject} {what}", path.display()));
    let repair = |command: String| format!("`{command} {}`", quoted(path));
    if role == Role::Plugin && !regular {
        return Err(refused("must be a regular file").found("another kind of file").expected("a regular file"));
    }
    if uid != 0 && uid != you.uid {
        let owners = if you.uid == 0 { "root (0)".to_owned() } else { format!("root (0) or you ({})", you.uid) };
        let fault = refused("must belong to root or to you").found(format_args!("owner {uid}")).expected(owners);
        return Err(fault.hint(repair(format!("chown {}", you.uid))));
    }
    if role == Role::Plugin && mode & 0o6000 != 0 {
        return Err(refused("must not be set-user-id or set-group-id")
            .found(format_args!("mode {mode:04o}"))
            .expected(format_args!("mode {:04o}", mode & 0o1777))
            .hint(repair("chmod ug-s".to_owned())));
    }
    let sticky = role == Role::Folder && mode & 0o1000 != 0;
    let foreign_group = mode & 0o020 != 0 && gid != you.gid;
    if sticky || (mode & 0o002 == 0 && !foreign_group) {
        return Ok(());
    }
    let (who, without, flag) = match (mode & 0o002 != 0, foreign_group) {
        (true, false) => ("others".to_owned(), 0o002, "o-w"),
        (false, _) => (format!("group {gid}"), 0o020, "g-w"),
        (true, true) => (format!("group {gid} and others"), 0o022, "go-w"),
    };
    let or_sticky = if role == Role::Folder { ", or the sticky bit" } else { "" };
    Err(refused(&format!("must not be writable by {who}"))
        .found(format_args!("mode {mode:04o}"))
        .expected(format_args!("mode {:04o}{or_sticky}", mode & !without))
        .hint(repair(format!("chmod {flag}"))))
}

/// The path as one word of a shell command.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,:=".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests;
