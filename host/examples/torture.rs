//! Saves checkpoints with the writer of real runs and nothing else, so that a test can do something at each of its system
//! calls: `torture CHECKPOINT FOLDER` writes the next three steps of that checkpoint into the folder, and keeps two.

use gauntlet::error::{Exit, Fault, Result};
use gauntlet::sinks::checkpoint::{self, Checkpoint, Snapshot};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use tch::Device;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::from(fault.exit as u8)
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let [from, folder] = arguments else { return Err(Fault::new(Exit::Usage, "expected `CHECKPOINT FOLDER`")) };
    let (from, folder) = (Checkpoint::open(Path::new(from))?, Path::new(folder));
    let names: Vec<String> = from.tensor_infos("params")?.into_keys().collect();
    let tensors = from.tensors("params", &names, Device::Cpu)?;
    let copies = names.iter().zip(&tensors).map(|(name, tensor)| checkpoint::copied(name, tensor));
    let params = copies.collect::<Result<_>>()?;
    let mut snapshot =
        Snapshot { manifest: from.manifest.clone(), lists: vec![("params", params)], optimizer: from.optimizer()? };
    say("begin");
    for _ in 0..3 {
        snapshot.manifest.step += 1;
        snapshot.manifest.files.clear();
        let (path, _) = checkpoint::save(folder, &snapshot)?;
        say(&format!("committed {}", snapshot.manifest.step));
        checkpoint::rotate(folder, 2, &path)?;
    }
    Ok(())
}

/// A line of standard output. Whether it can be said is not what is tested.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
