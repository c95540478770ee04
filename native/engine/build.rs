//! Compiles the C++ shim against libtorch's headers and sets the run path of this crate's binaries.
//!
//! `LIBTORCH` names an unpacked torch package (`include/`, `lib/`), as set by the project's set-up.

use std::path::PathBuf;
use std::{env, fs, process};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=shim");
    let Some(root) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        fail(
            "LIBTORCH is not set; run `npm run setup`, which fetches libtorch and writes .cargo/config.toml",
        );
    };
    let include = root.join("include");
    if !include.join("ATen/ATen.h").exists() {
        fail(&format!(
            "{} does not hold libtorch's headers; run `npm run setup`",
            include.display()
        ));
    }

    let mut sources: Vec<PathBuf> = match fs::read_dir("shim") {
        Ok(entries) => entries
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|x| x == "cpp"))
            .collect(),
        Err(error) => fail(&format!("native/engine/shim: {error}")),
    };
    sources.sort();
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .std("c++17")
        .opt_level(3)
        .warnings(false) // libtorch's headers are full of them
        .flag("-fopenmp")
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(&sources)
        .compile("oarlock_shim");

    // Binaries and tests of this package find libtorch by themselves, never through LD_LIBRARY_PATH;
    // libtorch's own run path then finds `../../nvidia/cu13/lib`.
    println!(
        "cargo:rustc-link-arg=-Wl,-rpath,{}",
        root.join("lib").display()
    );
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    process::exit(1);
}
