//! What the set-up needs of the machine: Linux x86_64 with glibc, a C++ compiler, and Python with pip for downloads.

use std::io::{ErrorKind, Write};
use std::process::{Command, Output, Stdio};

use anyhow::{Result, bail};

/// The Python that runs pip.
pub const PYTHON: &str = "python3";

const OLDEST_PYTHON: (u32, u32) = (3, 10);

/// One line for each thing that is missing; Python and pip are looked for only if something will be downloaded.
pub fn check(download: bool) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
        bail!(
            "unsupported platform: found {} on {}, expected Linux with glibc on x86_64; hint: use such a machine, or a \
             Debian container on one",
            std::env::consts::OS,
            std::env::consts::ARCH
        );
    }
    let compiler = check_compiler(&std::env::var("CXX").unwrap_or_default()).err();
    let python = if download { check_python(PYTHON).err() } else { None };
    let problems: Vec<String> = [compiler, python].into_iter().flatten().collect();
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("\nerror: ")) }
}

/// Compiles one line of C++ with the compiler named in `cxx`, by default `c++`.
fn check_compiler(cxx: &str) -> Result<(), String> {
    let mut words = cxx.split_whitespace();
    let program = words.next().unwrap_or("c++");
    let mut command = Command::new(program);
    command.args(words).args(["-std=c++17", "-fsyntax-only", "-x", "c++", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let compiled = command.spawn().and_then(|mut child| {
        // A compiler that fails at once does not read its input: its own message says more than a broken pipe.
        let _ = child.stdin.take().map(|mut input| input.write_all(b"#include <memory>\n"));
        child.wait_with_output()
    });
    match compiled {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "the C++ compiler `{program}` does not compile C++17: it says `{}`; hint: `sudo apt install g++`, or name \
             another compiler in CXX",
            first_line(&output.stderr)
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!(
            "no C++ compiler: found no program `{program}`, expected g++ or clang++; hint: `sudo apt install g++`"
        )),
        Err(error) => Err(format!("cannot run the C++ compiler `{program}`: {error}; hint: `sudo apt install g++`")),
    }
}

/// Looks for Python and for its pip.
fn check_python(python: &str) -> Result<(), String> {
    let version = output(Command::new(python).arg("--version")).map_err(|reason| {
        format!("no Python: {reason}, expected Python 3.10 or newer; hint: `sudo apt install python3 python3-pip`")
    })?;
    let text = first_line(&version.stdout);
    if parse_version(&text).is_none_or(|version| version < OLDEST_PYTHON) {
        return Err(format!(
            "`{python}` is too old: found `{text}`, expected Python 3.10 or newer; hint: put a newer `{python}` first on PATH"
        ));
    }
    let pip = output(Command::new(python).args(["-m", "pip", "--version"]));
    pip.map(drop).map_err(|reason| {
        format!("no pip for `{python}` ({text}): {reason}, expected pip; hint: `sudo apt install python3-pip`")
    })
}

/// The output of a program that ends well, or what was found instead.
fn output(command: &mut Command) -> Result<Output, String> {
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(output),
        Ok(output) => Err(format!("found `{}`", first_line(&output.stderr))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(format!("found no program `{}`", command.get_program().display()))
        }
        Err(error) => Err(format!("found `{error}`")),
    }
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().trim().to_owned()
}

/// Major and minor number in the line that `python3 --version` prints.
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.strip_prefix("Python ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_not_text() {
        for (line, expected) in [
            ("Python 3.11.7", Some((3, 11))),
            ("Python 3.9.2", Some((3, 9))),
            ("Python 3.14.0rc2", Some((3, 14))),
            ("Python 4.0", Some((4, 0))),
            ("Python 3", None),
            ("pyenv: python3: command not found", None),
            ("", None),
        ] {
            assert_eq!(parse_version(line), expected, "{line}");
        }
        assert!((3, 9) < OLDEST_PYTHON && OLDEST_PYTHON < (3, 11) && OLDEST_PYTHON < (4, 0));
    }

    #[test]
    fn a_missing_program_is_one_line_that_names_what_to_install() {
        let line = check_compiler("no-such-compiler -m64").unwrap_err();
        assert!(line.contains("found no program `no-such-compiler`") && line.contains("apt install g++"), "{line}");
        let line = check_python("no-such-python").unwrap_err();
        assert!(line.contains("found no program") && line.contains("apt install python3 python3-pip"), "{line}");
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let line = check_compiler("false").unwrap_err();
        assert!(line.starts_with("the C++ compiler `false` does not compile C++17"), "{line}");
        let line = check_python("true").unwrap_err();
        assert!(line.starts_with("`true` is too old: found `"), "{line}");
    }
}
