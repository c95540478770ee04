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

    compile_kernels();
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .std("c++17")
        .opt_level(3)
        .warnings(false) // libtorch's headers are full of them
        .flag("-fopenmp") // at::parallel_for is inline and must match libtorch's
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        .include("shim")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(sources("shim"))
        .compile("oarlock_shim");

    // Binaries and tests of this package find libtorch by themselves, never through LD_LIBRARY_PATH;
    // libtorch's own run path then finds `../../nvidia/cu13/lib`.
    println!(
        "cargo:rustc-link-arg=-Wl,-rpath,{}",
        root.join("lib").display()
    );
}

/// The loops over plain memory, once for each instruction set; `shim/dispatch.cpp` picks at run time.
fn compile_kernels() {
    let x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|a| a == "x86_64");
    let avx512 = [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512vl",
        "-mavx512dq",
        "-mfma",
        "-mprefer-vector-width=512",
    ];
    let sets: [(&str, Vec<&str>); 4] = [
        ("base", vec![]),
        ("avx2", vec!["-mavx2", "-mfma", "-mf16c"]),
        ("avx512", avx512.to_vec()),
        (
            "avx512bf16",
            avx512.into_iter().chain(["-mavx512bf16"]).collect(),
        ),
    ];
    for (name, flags) in sets.iter().filter(|(name, _)| x86 || *name == "base") {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .pic(true)
            .std("c++17")
            .opt_level(3)
            .flag("-fno-math-errno")
            .flag("-fno-trapping-math")
            .warnings(false)
            .flag("-Wno-psabi");
        for flag in flags {
            build.flag(flag);
        }
        build
            .file(format!("shim/kernels/{name}.cpp"))
            .compile(&format!("oarlock_kernels_{name}"));
    }
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|x| x == "cpp"))
            .collect(),
        Err(error) => fail(&format!("{folder}: {error}")),
    };
    files.sort();
    files
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    process::exit(1);
}
