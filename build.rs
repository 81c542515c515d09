//! Passes libtorch's folder on to our binaries as an rpath; nothing else.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // torch-sys tells where the libraries are, but its own link arguments do
    // not reach the crates that depend on it.
    if let Some(folder) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") {
        // Resolved, so that an installed binary outlives the checkout.
        let folder = Path::new(&folder).canonicalize().unwrap_or_else(|_| folder.clone().into());
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
}
