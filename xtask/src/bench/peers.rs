//! The peers' Python environment: pinned wheels unpacked into one folder, without CUDA.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::bundle::Bundle;
use crate::cache::{self, Cache};
use crate::cargo;
use crate::pins;
use crate::platform::PYTHON;
use crate::process;

/// torch 2.13.0 and curvlinops with what they import.
pub const PEERS: Bundle = Bundle {
    title: "PyTorch 2.13.0 and curvlinops (peers of the bench)",
    folder: "peers-2.13.0",
    wheels: pins::PEERS,
    unpacked: 880_000_000,
    place,
    written: &[("SOURCE", "torch 2.13.0, curvlinops 3.0.1\n")],
    sizes: &[("torch/lib/libtorch_cpu.so", 438_418_417), ("torch/lib/libtorch_python.so", 32_200_737)],
};

/// Libraries of CUDA that torch's Python part links.
const STAND_INS: [&str; 4] = ["libtorch_cuda.so", "libcudnn.so.9", "libcufile.so.0", "libnccl.so.2"];

/// A Python with the peers' packages.
pub struct Python {
    packages: PathBuf,
    stand_ins: PathBuf,
}

impl Python {
    /// Checks the version of Python and makes the stand-ins below `scratch`.
    pub fn prepare(cache: &Cache, scratch: &Path) -> Result<Self> {
        let version = Command::new(PYTHON).arg("--version").output().context("cannot run `python3 --version`")?;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        if !version.starts_with("Python 3.11.") {
            bail!(
                "the peers of the bench need another Python: found `{version}`, expected Python 3.11; hint: put it first on PATH"
            );
        }
        let stand_ins = scratch.join("no-cuda");
        make_stand_ins(&stand_ins)?;
        Ok(Self { packages: PEERS.path(cache), stand_ins })
    }

    /// `python3 bench/FILE`, seeing the peers' packages and no others.
    pub fn command(&self, file: &str) -> Command {
        let mut command = Command::new(PYTHON);
        command.args(["-S", "-s", "-B", "-W", "ignore"]).arg(cargo::workspace_root().join("bench").join(file));
        command.env("PYTHONPATH", &self.packages).env("LD_LIBRARY_PATH", library_path(&self.stand_ins));
        command
    }
}

/// One small library under the names of all.
fn make_stand_ins(folder: &Path) -> Result<()> {
    cache::create_folder(folder)?;
    let source = cargo::workspace_root().join("bench/no_cuda.s");
    for name in STAND_INS {
        let mut compiler = Command::new("c++");
        compiler.args(["-shared", "-nostartfiles", "-o"]).arg(folder.join(name)).arg(&source);
        process::run(&mut compiler, "c++ -shared bench/no_cuda.s")?;
    }
    Ok(())
}

/// The folder before those of the environment.
fn library_path(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    if let Some(present) = std::env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(present);
    }
    path
}

/// Everything but torch's CUDA libraries, headers and test programs.
fn place(member: &str) -> Option<String> {
    let cuda = ["torch/lib/libtorch_cuda", "torch/lib/libtorch_nvshmem", "torch/test/"];
    let left_out = cuda.iter().any(|start| member.starts_with(start));
    (!left_out).then(|| member.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_cuda_is_taken() {
        for member in
            ["torch/lib/libtorch_cpu.so", "torch/include/ATen/ATen.h", "curvlinops/ggn.py", "nvidia/cu13/lib/x"]
        {
            assert_eq!(place(member).as_deref(), Some(member));
        }
        for member in
            ["torch/lib/libtorch_cuda.so", "torch/lib/libtorch_cuda_linalg.so", "torch/lib/libtorch_nvshmem.so"]
        {
            assert_eq!(place(member), None);
        }
    }
}
