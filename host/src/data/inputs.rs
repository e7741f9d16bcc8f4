//! Which files a corpus is made of, found by paths, folders and patterns, and of what kind each is by its name.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use glob::MatchOptions;

use crate::error::{Exit, Fault, Result};

/// How documents lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The file is one document of UTF-8 text.
    Text,
    /// `.jsonl`: each line is a JSON object with a document.
    Lines,
    /// `.parquet`: each row has a document.
    Table,
}

/// What a file is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Nothing.
    Plain,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl Packing {
    /// The format's name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Plain => "plain",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        }
    }
}

/// A file to read documents from.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// Where it lies.
    pub path: PathBuf,
    /// Its path relative to the folder given, with `/` between the parts; its file name if it was given itself.
    pub name: String,
    pub kind: Kind,
    pub packing: Packing,
}

impl Input {
    /// A file that is read whatever its name: text, unless the name says otherwise.
    fn named(path: PathBuf, name: String) -> Self {
        let (inner, packing) = packing_of(OsStr::new(&name));
        let kind = kind_of(inner).unwrap_or(Kind::Text);
        Self { path, name, kind, packing }
    }
}

/// The files of all inputs. Files given are taken whatever their name; in folders, at every depth, regular files named
/// `.txt`, `.md`, `.jsonl` or `.parquet`, each also with `.gz` or `.zst` behind; of a pattern, the regular files that
/// match. Hidden files and folders, and symbolic links inside folders, are passed over. The order is that of the inputs,
/// within one that of names, byte by byte.
pub(super) fn find(inputs: &[PathBuf]) -> Result<Vec<Input>> {
    let mut files = Vec::new();
    for input in inputs {
        match fs::metadata(input) {
            Err(error) if is_pattern(input) && error.kind() == std::io::ErrorKind::NotFound => {
                files.extend(matching(input)?);
            }
            Err(error) => return Err(Fault::reading(input, &error)),
            Ok(metadata) if metadata.is_dir() => walk(input, "", &mut files)?,
            Ok(metadata) if metadata.is_file() => {
                let name = input.file_name().unwrap_or(input.as_os_str()).to_string_lossy().into_owned();
                files.push(Input::named(input.clone(), name));
            }
            Ok(_) => {
                let fault = Fault::new(Exit::Data, format!("`{}`: not a text", input.display()));
                return Err(fault.found("no regular file").expected("a file or a folder"));
            }
        }
    }
    Ok(files)
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

/// The regular files that a pattern matches, named relative to the folder before its first wildcard.
fn matching(pattern: &Path) -> Result<Vec<Input>> {
    let bad = |error: &dyn std::fmt::Display| {
        Fault::new(Exit::Usage, format!("`{}`: not a pattern", pattern.display())).found(error)
    };
    let options =
        MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let is_wild = |part: &Component| is_pattern(Path::new(part.as_os_str()));
    let folder: PathBuf = pattern.components().take_while(|part| !is_wild(part)).collect();
    let mut found = Vec::new();
    let text = pattern.to_str().ok_or_else(|| bad(&"a path that is not UTF-8"))?;
    for path in glob::glob_with(text, options).map_err(|error| bad(&error))? {
        let path = path.map_err(|error| Fault::reading(error.path(), error.error()))?;
        let metadata = fs::symlink_metadata(&path).map_err(|error| Fault::reading(&path, &error))?;
        if metadata.is_file() {
            let name = path.strip_prefix(&folder).unwrap_or(&path).to_string_lossy().into_owned();
            found.push(Input::named(path, name));
        }
    }
    if found.is_empty() {
        let fault = Fault::new(Exit::Missing, format!("`{}`: no file matches the pattern", pattern.display()));
        return Err(fault.hint("`*` stands for characters within a name, `**` for folders at every depth"));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<Input>) -> Result<()> {
    let failed = |error| Fault::reading(folder, &error);
    let mut entries = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
        let file_name = entry.file_name();
        let name = format!("{prefix}{}", file_name.to_string_lossy());
        if file_name.as_encoded_bytes().starts_with(b".") {
            continue;
        } else if kind.is_dir() {
            walk(&path, &format!("{name}/"), files)?;
        } else if kind.is_file() {
            let (inner, packing) = packing_of(&file_name);
            files.extend(kind_of(inner).map(|kind| Input { path, name, kind, packing }));
        }
    }
    Ok(())
}

/// A name without the ending of a compressed file, and what that ending says.
fn packing_of(name: &OsStr) -> (&Path, Packing) {
    let path = Path::new(name);
    let packing = match extension(path).as_deref() {
        Some("gz") => Packing::Gzip,
        Some("zst") => Packing::Zstd,
        _ => return (path, Packing::Plain),
    };
    (Path::new(path.file_stem().unwrap_or_default()), packing)
}

fn kind_of(name: &Path) -> Option<Kind> {
    match extension(name)?.as_str() {
        "txt" | "md" => Some(Kind::Text),
        "jsonl" => Some(Kind::Lines),
        "parquet" => Some(Kind::Table),
        _ => None,
    }
}

fn extension(path: &Path) -> Option<String> {
    path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        folder
    }

    fn names(inputs: &[PathBuf]) -> Vec<String> {
        find(inputs).unwrap().into_iter().map(|input| input.name).collect()
    }

    #[test]
    fn folders_are_walked_in_order_and_only_visible_files_of_known_names_count() {
        let folder =
            folder(&["b/two.md", "b/deep/three.TXT", "a.txt", "e.rs", ".f.txt", ".hidden/g.txt", "h.jsonl.zst"]);
        let root = folder.path();
        std::os::unix::fs::symlink(root, root.join("b/loop")).unwrap();
        std::os::unix::fs::symlink(root.join("e.rs"), root.join("z.txt")).unwrap();
        assert_eq!(
            names(&[root.to_owned(), root.join("e.rs")]),
            ["a.txt", "b/deep/three.TXT", "b/two.md", "h.jsonl.zst", "e.rs"]
        );
    }

    #[test]
    fn names_say_what_is_in_a_file() {
        for (name, kind, packing) in [
            ("a.txt", Kind::Text, Packing::Plain),
            ("a.md.gz", Kind::Text, Packing::Gzip),
            ("a.JSONL.GZ", Kind::Lines, Packing::Gzip),
            ("a.parquet", Kind::Table, Packing::Plain),
            ("a.parquet.zst", Kind::Table, Packing::Zstd),
            ("a.rs", Kind::Text, Packing::Plain),
            ("a.zst", Kind::Text, Packing::Zstd),
        ] {
            let input = Input::named(name.into(), name.into());
            assert_eq!((input.kind, input.packing), (kind, packing), "{name}");
        }
    }

    #[test]
    fn patterns_find_files_below_their_folder_and_none_is_an_error() {
        let folder = folder(&["s/a.rs", "s/b/c.rs", "s/b/d.txt", "s/.h/e.rs", "s/b[1].rs"]);
        let path = |pattern: &str| vec![folder.path().join(pattern)];
        assert_eq!(names(&path("s/**/*.rs")), ["a.rs", "b/c.rs", "b[1].rs"]);
        assert_eq!(names(&path("s/b/*")), ["c.rs", "d.txt"]);
        assert_eq!(names(&path("s/b[1].rs")), ["b[1].rs"], "a file of that name comes first");
        assert_eq!(find(&path("s/*.py")).unwrap_err().exit, Exit::Missing);
        assert_eq!(find(&path("s/[")).unwrap_err().exit, Exit::Usage);
    }
}
