//! The command `gauntlet`: run, print what went wrong, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    gauntlet::commands::main()
}
