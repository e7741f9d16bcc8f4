//! Compiles `src/shim.cpp` against the libtorch that `LIBTORCH` names and links it.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=src/shim.cpp");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from).filter(|path| path.join("include").is_dir()) else {
        println!("cargo::error=`LIBTORCH` does not name a libtorch folder; hint: run `cargo xtask setup`");
        return ExitCode::FAILURE;
    };
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        .warnings(false) // libtorch's own headers are noisy
        .file("src/shim.cpp")
        .compile("gauntlet_torch_shim");
    let lib = libtorch.join("lib");
    println!("cargo::rustc-link-search=native={}", lib.display());
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display()); // for this crate's own tests
    ExitCode::SUCCESS
}
