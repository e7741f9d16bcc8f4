//! libtorch 2.13.0 from the torch wheel, for CPU or for CUDA, and the link through which every build finds it.
//!
//! On Linux x86_64 the wheel is the CUDA build. For CPU its `libtorch_cuda.so` is left out, which is what makes the
//! bindings link for CPU only, and `libtorch.so`, which needs it, becomes a linker script.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::bundle::Bundle;
use crate::cache::{self, Cache};
use crate::cargo;
use crate::pins;
use crate::process;

/// Which libtorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// For CPU.
    Cpu,
    /// For CUDA 13.0.
    Cuda,
}

const CPU: Bundle = Bundle {
    title: "libtorch 2.13.0 for CPU",
    folder: "libtorch-2.13.0-cpu",
    wheels: pins::CPU,
    unpacked: 484_400_166,
    place: place_cpu,
    written: &[("lib/libtorch.so", "INPUT(libtorch_cpu.so)\n"), ("build-version", "2.13.0\n")],
    sizes: &[
        ("lib/libtorch_cpu.so", 438_418_417),
        ("lib/libc10.so", 1_623_185),
        ("lib/libgomp.so.1", 254_009),
        ("lib/libcupti.so.13", 4_152_208),
        ("lib/libcudart.so.13", 704_288),
    ],
};

const CUDA: Bundle = Bundle {
    title: "libtorch 2.13.0 for CUDA 13.0",
    folder: "libtorch-2.13.0-cuda",
    wheels: pins::CUDA,
    // An upper estimate: the wheels do not tell their unpacked size before they are there.
    unpacked: 5_000_000_000,
    place: place_cuda,
    written: &[("torch/build-version", "2.13.0\n")],
    sizes: &[
        ("torch/lib/libtorch_cuda.so", 469_850_385),
        ("torch/lib/libtorch_cpu.so", 438_418_417),
        ("torch/lib/libtorch_cuda_linalg.so", 43_936_785),
        ("torch/lib/libtorch.so", 89_185),
        ("torch/lib/libc10.so", 1_623_185),
        ("torch/lib/libc10_cuda.so", 634_081),
    ],
};

impl Edition {
    /// The folder of the cache that it is made in.
    pub fn bundle(self) -> &'static Bundle {
        match self {
            Edition::Cpu => &CPU,
            Edition::Cuda => &CUDA,
        }
    }

    /// The folder that holds `include`, `lib` and `build-version`. The CUDA libraries find each other by the wheels' own
    /// layout, so there it is torch's folder beside theirs.
    fn home(self, cache: &Cache) -> PathBuf {
        let folder = self.bundle().path(cache);
        match self {
            Edition::Cpu => folder,
            Edition::Cuda => folder.join("torch"),
        }
    }

    /// The edition that a link to `home` stands for.
    fn of(home: &Path) -> Option<Self> {
        let is_in = |edition: &Edition| home.components().any(|part| part.as_os_str() == edition.bundle().folder);
        [Edition::Cpu, Edition::Cuda].into_iter().find(is_in)
    }

    /// The edition that this checkout uses now.
    pub fn linked() -> Option<Self> {
        Self::of(&fs::read_link(link_path()).ok()?)
    }

    /// Points this checkout at the edition in the cache. What was built with another edition is removed first, since the
    /// bindings do not notice that the folder behind the link is another one.
    pub fn link(self, cache: &Cache) -> Result<()> {
        if Self::linked().is_some_and(|edition| edition != self) {
            let args = ["clean", "--release", "--package", "torch-sys", "--package", "gauntlet-torch-ext"];
            process::run(&mut cargo::command(&args), &format!("cargo {}", args.join(" ")))?;
        }
        relink(&link_path(), &self.home(cache))
    }
}

/// The link that `.cargo/config.toml` names as LIBTORCH.
fn link_path() -> PathBuf {
    cargo::workspace_root().join(".deps/libtorch")
}

/// Makes `link` a symbolic link to `target`, in one step also where there is one already.
fn relink(link: &Path, target: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|found| found == target) {
        return Ok(());
    }
    link.parent().map(cache::create_folder).transpose()?;
    let new = link.with_extension(format!("new-{}", std::process::id()));
    let replaced = std::os::unix::fs::symlink(target, &new).and_then(|()| fs::rename(&new, link));
    replaced.map_err(|error| {
        // The first error is the one to report.
        let _ = fs::remove_file(&new);
        cache::writing(link, &error)
    })
}

fn place_cpu(member: &str) -> Option<String> {
    if let Some(header) = member.strip_prefix("torch/include/") {
        return Some(format!("include/{header}"));
    }
    let library = member.strip_prefix("torch/lib/").or_else(|| member.strip_prefix("nvidia/cu13/lib/"));
    match library {
        Some("libtorch_cpu.so" | "libc10.so" | "libgomp.so.1" | "libcupti.so.13" | "libcudart.so.13") => {
            library.map(|name| format!("lib/{name}"))
        }
        _ => place_licence(member),
    }
}

fn place_cuda(member: &str) -> Option<String> {
    let taken = ["torch/include/", "torch/lib/", "nvidia/"].iter().any(|folder| member.starts_with(folder));
    if taken { Some(member.to_owned()) } else { place_licence(member) }
}

/// `NAME-VERSION.dist-info/licenses/FILE` goes to `licenses/NAME-VERSION/FILE`.
fn place_licence(member: &str) -> Option<String> {
    let (wheel, file) = member.split_once(".dist-info/licenses/")?;
    Some(format!("licenses/{wheel}/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_takes_headers_five_libraries_and_licences() {
        for (member, expected) in [
            (
                "torch/include/torch/csrc/api/include/torch/version.h",
                Some("include/torch/csrc/api/include/torch/version.h"),
            ),
            ("torch/lib/libtorch_cpu.so", Some("lib/libtorch_cpu.so")),
            ("nvidia/cu13/lib/libcudart.so.13", Some("lib/libcudart.so.13")),
            ("torch-2.13.0.dist-info/licenses/LICENSE", Some("licenses/torch-2.13.0/LICENSE")),
            ("torch/lib/libtorch.so", None),
            ("torch/lib/libtorch_cuda.so", None),
            ("nvidia/cu13/lib/libnvperf_host.so", None),
            ("torch/__init__.py", None),
            ("torch-2.13.0.dist-info/RECORD", None),
        ] {
            assert_eq!(place_cpu(member).as_deref(), expected, "{member}");
        }
    }

    #[test]
    fn cuda_keeps_the_layout_of_the_wheels() {
        for member in ["torch/lib/libtorch_cuda.so", "torch/include/ATen/ATen.h", "nvidia/cudnn/lib/libcudnn.so.9"] {
            assert_eq!(place_cuda(member).as_deref(), Some(member));
        }
        assert_eq!(place_cuda("torch/nn/modules/linear.py"), None);
        assert_eq!(
            place_cuda("nvidia_nvtx-13.0.85.dist-info/licenses/License.txt").as_deref(),
            Some("licenses/nvidia_nvtx-13.0.85/License.txt")
        );
    }

    #[test]
    fn a_link_tells_its_edition() {
        assert_eq!(Edition::of(Path::new("/c/gauntlet/libtorch-2.13.0-cpu")), Some(Edition::Cpu));
        assert_eq!(Edition::of(Path::new("/c/gauntlet/libtorch-2.13.0-cuda/torch")), Some(Edition::Cuda));
        assert_eq!(Edition::of(Path::new("/opt/libtorch")), None);
    }

    #[test]
    fn a_link_is_made_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join(".deps/libtorch");
        for target in ["/c/a", "/c/b", "/c/b"] {
            relink(&link, Path::new(target)).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
        }
        assert_eq!(fs::read_dir(folder.path().join(".deps")).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_in_the_link_s_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("libtorch");
        fs::create_dir_all(link.join("lib")).unwrap();
        let line = relink(&link, Path::new("/c/a")).unwrap_err().to_string();
        assert!(line.contains("libtorch`: is a directory"), "{line}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
