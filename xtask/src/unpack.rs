//! Unpacking chosen members of a wheel, which is a zip file.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use zip::ZipArchive;

use crate::cache;
use crate::size::Size;

/// Where a member of a wheel goes, relative to the folder that is made; nothing for a member that is left out.
pub type Place = fn(&str) -> Option<String>;

/// Unpacks the members of `wheel` that `place` names, below `folder`.
pub fn unpack(wheel: &Path, folder: &Path, place: Place, progress: &mut Progress) -> Result<()> {
    let damaged = || format!("`{}`: not a sound wheel; hint: remove it and run this again", wheel.display());
    let file = File::open(wheel).with_context(damaged)?;
    let mut archive = ZipArchive::new(file).with_context(damaged)?;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).with_context(damaged)?;
        if member.is_dir() {
            continue;
        }
        let name = member.name().with_context(damaged)?.into_owned();
        let Some(to) = place(&name) else { continue };
        if member.enclosed_name().is_none() {
            bail!("`{}`: member `{}` lies outside the wheel", wheel.display(), name.escape_debug());
        }
        write_member(&mut member, &folder.join(to), progress, &damaged)?;
    }
    Ok(())
}

fn write_member(
    member: &mut impl Read,
    to: &Path,
    progress: &mut Progress,
    damaged: &dyn Fn() -> String,
) -> Result<()> {
    let failed = |error: io::Error| cache::writing(to, &error);
    to.parent().map(cache::create_folder).transpose()?;
    let mut file = File::create(to).map_err(failed)?;
    loop {
        let read = member.read(&mut progress.buffer).with_context(damaged)?;
        if read == 0 {
            return Ok(());
        }
        file.write_all(&progress.buffer[..read]).map_err(failed)?;
        progress.add(read as u64);
    }
}

/// Writes a file of the folder that is made.
pub fn write_file(path: &Path, content: &str) -> Result<()> {
    path.parent().map(cache::create_folder).transpose()?;
    fs::write(path, content).map_err(|error| cache::writing(path, &error))
}

/// Shows on a terminal how much of a known amount is unpacked.
pub struct Progress {
    total: u64,
    done: u64,
    percent: u64,
    terminal: bool,
    buffer: Vec<u8>,
}

impl Progress {
    /// Begins with nothing of `total` bytes.
    pub fn new(total: u64) -> Self {
        eprintln!("unpacking {}", Size(total));
        Self {
            total: total.max(1),
            done: 0,
            percent: 0,
            terminal: io::stderr().is_terminal(),
            buffer: vec![0; 1 << 20],
        }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let percent = (self.done * 100 / self.total).min(100);
        if self.terminal && percent > self.percent {
            eprint!("\r{percent:3} %");
        }
        self.percent = percent;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            eprint!("\r     \r");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    fn wheel(folder: &Path, members: &[(&str, &str)]) -> PathBuf {
        let path = folder.join("a.whl");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in members {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn plays(name: &str) -> Option<String> {
        name.strip_prefix("p/").map(|rest| format!("plays/{rest}"))
    }

    #[test]
    fn only_chosen_members_are_unpacked_and_placed() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel(folder.path(), &[("p/a/hamlet.md", "To be"), ("q/readme", "no")]);
        let made = folder.path().join("made");
        unpack(&wheel, &made, plays, &mut Progress::new(5)).unwrap();
        assert_eq!(fs::read_to_string(made.join("plays/a/hamlet.md")).unwrap(), "To be");
        assert_eq!(fs::read_dir(&made).unwrap().count(), 1);
    }

    #[test]
    fn a_member_that_leaves_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel(folder.path(), &[("p/../../../escaped", "x")]);
        let error = unpack(&wheel, &folder.path().join("made"), plays, &mut Progress::new(1)).unwrap_err();
        assert!(error.to_string().contains("lies outside the wheel"), "{error:#}");
    }

    #[test]
    fn a_cut_off_wheel_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel(folder.path(), &[("p/a", "some text")]);
        File::options().write(true).open(&wheel).unwrap().set_len(40).unwrap();
        let error = unpack(&wheel, &folder.path().join("made"), plays, &mut Progress::new(1)).unwrap_err();
        assert!(error.to_string().contains("not a sound wheel; hint: remove it"), "{error:#}");
    }
}
