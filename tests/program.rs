//! The program under test as a child process, and what it said.

use crate::built::GAUNTLET;
use std::path::Path;
use std::process::Command;

/// How a call of the program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; 128 + N where signal N killed it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs the program in a folder, with no variable of its own in the environment.
pub fn gauntlet(folder: &Path, args: &[&str]) -> Outcome {
    outcome(without_own(&mut program()).args(args).current_dir(folder))
}

/// The program, which shall hear of a hang-up also where these tests run under `nohup`.
pub fn program() -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").arg(GAUNTLET);
    command
}

/// Takes the variables of the program, and those that could lend it a libtorch, out of a command's environment.
pub fn without_own(command: &mut Command) -> &mut Command {
    let own = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("GAUNTLET_"));
    for name in own {
        command.env_remove(name);
    }
    command.env_remove("LIBTORCH").env_remove("LD_LIBRARY_PATH")
}

/// Runs any command.
pub fn outcome(command: &mut Command) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap());
    Outcome { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl Outcome {
    /// Standard output of a call that succeeded.
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }

    /// The lines that begin with `error: `, without it.
    pub fn errors(&self) -> Vec<&str> {
        self.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect()
    }

    /// Exit code and standard error, with paths and hashes replaced, as snapshots hold them.
    pub fn refusal(&self, folder: &Path) -> String {
        format!("{}: {}", self.code, filtered(&self.stderr, folder))
    }
}

/// The text with this folder as `[FOLDER]`, other known folders by their names, and hashes as `[SHA256]`.
pub fn filtered(text: &str, folder: &Path) -> String {
    let folders = [
        (crate::built::fixtures_dir().join("release"), "[FIXTURES]"),
        (crate::built::profile_dir().to_path_buf(), "[PROGRAM]"),
        (folder.to_path_buf(), "[FOLDER]"),
        (crate::built::source_tree().to_path_buf(), "[SOURCE]"),
    ];
    let text =
        folders.iter().fold(text.to_owned(), |text, (folder, name)| text.replace(&*folder.to_string_lossy(), name));
    let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split_inclusive(|c: char| !c.is_ascii_alphanumeric())
        .map(|word| {
            let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
            if is_hash(&word[..end]) { format!("[SHA256]{}", &word[end..]) } else { word.to_owned() }
        })
        .collect()
}
