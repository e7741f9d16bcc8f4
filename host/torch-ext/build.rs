//! Compiles `src/shim.cpp` against the libtorch that `LIBTORCH` names and links it.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=src/shim.cpp");
    println!("cargo::rerun-if-changed=src/kernels.cpp");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from).filter(|path| path.join("include").is_dir()) else {
        println!("cargo::error=`LIBTORCH` does not name a libtorch folder; hint: run `cargo xtask setup`");
        return ExitCode::FAILURE;
    };
    let lib = libtorch.join("lib");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(3).warnings(false); // libtorch's own headers are noisy
    build.include(libtorch.join("include")).include(libtorch.join("include/torch/csrc/api/include"));
    // Loops run on libtorch's own threads, which are those of GNU's OpenMP; clang would bring another library.
    if build.get_compiler().is_like_gnu() {
        build.flag("-fopenmp").flag("-fno-math-errno");
        println!("cargo::rustc-link-lib=dylib:+verbatim=libgomp.so.1");
    }
    build.file("src/shim.cpp").file("src/kernels.cpp").compile("gauntlet_torch_shim");
    println!("cargo::rustc-link-search=native={}", lib.display());
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display()); // for this crate's own tests
    ExitCode::SUCCESS
}
