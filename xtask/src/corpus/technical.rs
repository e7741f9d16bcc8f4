//! Documentation from Debian's packages, fetched by the user's own apt without root and without touching the system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::files::{Files, Origin, hex};
use crate::cache::{self, Cache};
use crate::process;

/// A package, the folder of its texts, their licence, and which of them are wanted.
struct Package {
    name: &'static str,
    texts: &'static str,
    licence: &'static str,
    wanted: fn(&str) -> bool,
}

const PACKAGES: [Package; 2] = [
    Package {
        name: "linux-doc-6.1",
        texts: "usr/share/doc/linux-doc-6.1/html/_sources",
        licence: "GPL-2.0, mostly; see its copyright file",
        wanted: |name| name.ends_with(".txt") && !name.starts_with("translations/"),
    },
    Package {
        name: "python3.11-doc",
        texts: "usr/share/doc/python3.11/html/_sources",
        licence: "PSF-2.0, examples 0BSD; see its copyright file",
        wanted: |name| name.ends_with(".txt"),
    },
];

/// Adds the texts of all packages.
pub fn gather(cache: &Cache, files: &mut Files) -> Result<()> {
    require("apt-get", "--version")?;
    require("dpkg-deb", "--version")?;
    let work = cache.path("debian");
    let _lock = cache.lock()?;
    let fetched = fetch(&work);
    let added = fetched.and_then(|debs| {
        PACKAGES.iter().zip(debs).try_for_each(|(package, deb)| add(package, &deb, &work.join("unpacked"), files))
    });
    cache::remove_folder(&work)?;
    added
}

fn require(program: &str, argument: &str) -> Result<()> {
    let mut command = Command::new(program);
    match command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        _ => bail!(
            "corpus `technical` comes from Debian's packages: found no `{program}`; hint: make it on Debian or Ubuntu, or \
             take another corpus"
        ),
    }
}

/// Downloads the packages; apt checks them by the signed lists that it fetches before.
fn fetch(work: &Path) -> Result<Vec<PathBuf>> {
    cache::remove_folder(work)?;
    for folder in ["lists/partial", "cache/archives/partial", "debs"] {
        cache::create_folder(&work.join(folder))?;
    }
    let debs = work.join("debs");
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        let at = |option: &str, folder: &str| format!("{option}={}", work.join(folder).display());
        command.args(["-q", "-o", &at("Dir::State::lists", "lists"), "-o", &at("Dir::Cache", "cache")]);
        // As root, apt would hand downloads to a user who cannot write here.
        command.args(["-o", "APT::Sandbox::User="]).args(args).current_dir(&debs);
        process::run(command.stdout(Stdio::null()), &format!("apt-get {}", args.join(" ")))
    };
    eprintln!("downloading Debian's lists of packages (about 14 MB) and two packages (50 MB)");
    apt(&["update"])?;
    PACKAGES.iter().try_for_each(|package| apt(&["download", package.name]))?;
    PACKAGES.iter().map(|package| deb_of(&debs, package.name)).collect()
}

/// The file `NAME_VERSION_ARCH.deb`.
fn deb_of(folder: &Path, name: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    let start = format!("{name}_");
    let found = entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(&start));
    found.map(|entry| entry.path()).with_context(|| format!("apt downloaded no package `{name}`"))
}

fn add(package: &Package, deb: &Path, unpacked: &Path, files: &mut Files) -> Result<()> {
    cache::remove_folder(unpacked)?;
    process::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(unpacked), "dpkg-deb -x")?;
    let texts = unpacked.join(package.texts);
    files.add_folder(&texts, &format!("{}/", package.name), &package.wanted)?;
    let content = fs::read(deb).with_context(|| format!("cannot read `{}`", deb.display()))?;
    let version =
        deb.file_name().unwrap_or_default().to_string_lossy().split('_').nth(1).unwrap_or_default().to_owned();
    files.finish(Origin {
        source: format!("Debian package {}", package.name),
        version,
        licence: package.licence.to_owned(),
        sha256: hex(&Sha256::digest(&content)),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translations_and_other_files_are_left_out() {
        let wanted = PACKAGES[0].wanted;
        assert!(wanted("process/howto.rst.txt") && wanted("core-api/translations/x.rst.txt"));
        assert!(!wanted("translations/it_IT/index.rst.txt") && !wanted("process/howto.rst.gz"));
    }

    #[test]
    fn a_machine_without_apt_is_told_in_one_line() {
        let line = require("no-such-apt-get", "--version").unwrap_err().to_string();
        assert!(line.contains("found no `no-such-apt-get`; hint: make it on Debian"), "{line}");
        assert!(require("true", "").is_ok());
    }

    #[test]
    fn a_package_is_known_by_its_whole_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("python3.11-doc-extra_1_all.deb"), "").unwrap();
        assert!(deb_of(folder.path(), "python3.11-doc").is_err());
        fs::write(folder.path().join("python3.11-doc_3.11.2-6_all.deb"), "").unwrap();
        assert!(deb_of(folder.path(), "python3.11-doc").is_ok());
    }
}
