//! One pinned wheel: its download through pip, and the check of what was downloaded before.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::cache::{self, MORE_SPACE};
use crate::platform::PYTHON;
use crate::size::Size;

/// The prefix of the folders in which downloads are in progress.
pub const INCOMING: &str = "incoming-";

/// A wheel as pinned. Its file name says name, version and platform: `NAME-VERSION-PYTHON-ABI-PLATFORM.whl`.
pub struct Wheel {
    /// The file name.
    pub file: &'static str,
    /// The file's size.
    pub bytes: u64,
    /// The file's SHA-256, in lower-case hexadecimal.
    pub sha256: &'static str,
}

impl Wheel {
    /// The distribution's name.
    pub fn name(&self) -> &'static str {
        self.part(0)
    }

    /// The distribution's version.
    pub fn version(&self) -> &'static str {
        self.part(1)
    }

    fn part(&self, index: usize) -> &'static str {
        self.file.trim_end_matches(".whl").split('-').nth(index).unwrap_or_default()
    }

    /// Puts the wheel into `folder`, unless it is there already and its hash is right. Called under the cache's lock.
    pub fn fetch(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(self.file);
        if self.is_intact(&path) {
            eprintln!("{} {} is already downloaded", self.name(), self.version());
            return Ok(path);
        }
        eprintln!("downloading {} {} ({})", self.name(), self.version(), Size(self.bytes));
        let incoming = folder.join(format!("{INCOMING}{}", std::process::id()));
        cache::create_folder(&incoming)?;
        let downloaded = self.download(&incoming).and_then(|file| {
            fs::rename(&file, &path).map_err(|error| cache::writing(&path, &error))?;
            Ok(path)
        });
        cache::remove_folder(&incoming)?;
        downloaded
    }

    /// Whether the file at `path` is this wheel, by size and hash.
    pub fn is_intact(&self, path: &Path) -> bool {
        let same_size = fs::metadata(path).is_ok_and(|metadata| metadata.len() == self.bytes);
        same_size && sha256(path).is_ok_and(|hash| hash == self.sha256)
    }

    /// Lets pip download the wheel into `incoming` and check its hash; returns the file's path.
    ///
    /// pip's own temporary files go there too, so that the cache's disk is the only one that needs room.
    fn download(&self, incoming: &Path) -> Result<PathBuf> {
        let requirements = incoming.join("requirements.txt");
        fs::write(&requirements, self.requirement()).map_err(|error| cache::writing(&requirements, &error))?;
        let mut pip = Command::new(PYTHON);
        pip.args([
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-cache-dir",
            "--no-deps",
            "--require-hashes",
        ]);
        pip.args(["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]);
        pip.args(self.platforms().flat_map(|platform| ["--platform", platform]));
        pip.arg("--requirement").arg(&requirements).arg("--dest").arg(incoming).env("TMPDIR", incoming);
        // pip's output is progress and goes to stderr: stdout is for results.
        let child = pip.stdin(Stdio::null()).stdout(io::stderr()).stderr(Stdio::piped()).spawn();
        let output =
            child.and_then(|child| child.wait_with_output()).context("cannot run `python3 -m pip download`")?;
        if !output.status.success() {
            let (cause, hint) = explain(&String::from_utf8_lossy(&output.stderr));
            bail!("cannot download {} {}: {cause}; hint: {hint}", self.name(), self.version());
        }
        let file = incoming.join(self.file);
        if !file.is_file() {
            bail!("cannot download {} {}: pip left no file `{}`", self.name(), self.version(), self.file);
        }
        Ok(file)
    }

    /// The wheel as a line of a requirements file.
    fn requirement(&self) -> String {
        format!("{}=={} --hash=sha256:{}\n", self.name(), self.version(), self.sha256)
    }

    /// The platform tags of the file name. None are named for a wheel that is the same everywhere.
    fn platforms(&self) -> impl Iterator<Item = &'static str> {
        self.part(4).split('.').filter(|tag| *tag != "any")
    }
}

/// The SHA-256 of a file in lower-case hexadecimal.
pub fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What in pip's error output tells a cause, with what to do about it; the first that is found counts.
const CAUSES: [(&[&str], &str, &str); 4] = [
    (&["No space left on device", "Disk quota exceeded"], "no space left on the disk", MORE_SPACE),
    (
        &["DO NOT MATCH THE HASHES"],
        "the package index served another file than the pinned one, or a damaged one",
        "run this again; if it stays so, see which index pip uses with `python3 -m pip config list`",
    ),
    (
        &["CERTIFICATE_VERIFY_FAILED", "CA certificate", "CA bundle"],
        "the package index's certificate is not trusted",
        "tell pip your network's certificates with `python3 -m pip config set global.cert FILE`, and run this again",
    ),
    (
        &[
            "Retrying (",
            "NewConnectionError",
            "Max retries exceeded",
            "timed out",
            "Connection broken",
            "Connection refused",
            "Connection reset",
            "ConnectionError",
            "ProxyError",
            "Network is unreachable",
            "Temporary failure in name resolution",
            "IncompleteRead",
            "not enough bytes were received",
            "RemoteDisconnected",
        ],
        "the package index cannot be reached",
        "check the network, the proxy variables and `python3 -m pip config list`, and run this again",
    ),
];

/// The cause of a failed download and what to do about it, from pip's error output.
fn explain(stderr: &str) -> (String, &'static str) {
    let known = CAUSES.iter().find(|(signs, _, _)| signs.iter().any(|sign| stderr.contains(sign)));
    if let Some((_, cause, hint)) = known {
        return ((*cause).to_owned(), hint);
    }
    let lines = || stderr.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    // Newer versions of pip mark the error with a cross and add hints below it.
    let error = lines().find_map(|line| line.strip_prefix("ERROR: ").or_else(|| line.strip_prefix("× ")));
    let said = error.or_else(|| lines().next()).unwrap_or("nothing");
    (format!("pip says `{said}`"), "see pip's settings with `python3 -m pip config list`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins;

    const HELLO: Wheel = Wheel {
        file: "hello_world-1.2-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        bytes: 5,
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    };

    #[test]
    fn the_file_name_tells_name_version_and_platforms() {
        assert_eq!((HELLO.name(), HELLO.version()), ("hello_world", "1.2"));
        assert_eq!(HELLO.platforms().collect::<Vec<_>>(), ["manylinux2014_x86_64", "manylinux_2_17_x86_64"]);
        assert_eq!(pins::TORCH.platforms().collect::<Vec<_>>(), ["manylinux_2_28_x86_64"]);
        assert_eq!(pins::CORPUS[0].platforms().count(), 0);
        assert_eq!(HELLO.requirement(), format!("hello_world==1.2 --hash=sha256:{}\n", HELLO.sha256));
    }

    #[test]
    fn a_wheel_is_intact_only_with_its_size_and_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(HELLO.file);
        assert!(!HELLO.is_intact(&path));
        for (content, intact) in [("hello", true), ("hell", false), ("hellO", false)] {
            fs::write(&path, content).unwrap();
            assert_eq!(HELLO.is_intact(&path), intact, "{content}");
        }
    }

    #[test]
    fn an_intact_wheel_is_not_downloaded_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(HELLO.file), "hello").unwrap();
        assert_eq!(HELLO.fetch(folder.path()).unwrap(), folder.path().join(HELLO.file));
    }

    #[test]
    fn causes_are_told_apart() {
        let refused = "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'\n\
                       ERROR: No matching distribution found for torch==2.13.0";
        for (stderr, expected) in [
            (refused, "the package index cannot be reached"),
            ("OSError: [Errno 28] No space left on device", "no space left on the disk"),
            ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "the package index served"),
            ("Retrying (…) SSLError(CERTIFICATE_VERIFY_FAILED)", "the package index's certificate"),
            ("ERROR: Could not find an activated virtualenv (required).\n", "pip says `Could not find an activated"),
            ("usage:\n\nno such option: --dest\n", "pip says `no such option: --dest`"),
            (
                "error: incomplete-download\n\n× Download failed because not enough bytes were received (5.0 MB/526.6 MB)\n",
                "the package index cannot",
            ),
            ("error: some-kind\n\n× It failed\n╰─> a URL\n\nhint: Try this", "pip says `It failed`"),
            ("", "pip says `nothing`"),
        ] {
            let (cause, hint) = explain(stderr);
            assert!(cause.starts_with(expected), "{stderr:?}: {cause}");
            assert!(!hint.is_empty());
        }
    }
}
