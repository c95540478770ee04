//! Registers the addon with Node and tells it where libtorch is.

use std::path::Path;

fn main() {
    napi_build::setup();
    // The addon finds libtorch by itself, never through LD_LIBRARY_PATH.
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(root) = std::env::var_os("LIBTORCH") {
        println!(
            "cargo:rustc-link-arg=-Wl,-rpath,{}",
            Path::new(&root).join("lib").display()
        );
    }
}
