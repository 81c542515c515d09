//! CUDA, where it is: its library is loaded when a device is asked for.
//!
//! The program links libtorch's CPU library alone, so that one binary runs with
//! either installation and starts fast. libtorch's CUDA library registers
//! itself when it is loaded, which has to be before libtorch is first asked for
//! a device.

use std::path::Path;
use std::sync::LazyLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::probe::loaded_library;

/// Loads libtorch's CUDA library once; what went wrong, if it did.
pub(super) fn load() -> Result<(), &'static str> {
    static LOADED: LazyLock<Result<(), String>> = LazyLock::new(|| {
        // A machine without a driver has no device, whatever libtorch brings.
        open(Path::new("libcuda.so.1"))?;
        let libtorch =
            loaded_library().ok_or("libtorch was not found among the loaded libraries")?;
        open(&libtorch.with_file_name("libtorch_cuda.so"))
    });
    LOADED.as_ref().copied().map_err(String::as_str)
}

fn open(path: &Path) -> Result<(), String> {
    #[expect(unsafe_code, reason = "a library's initializers run unchecked")]
    // SAFETY: NVIDIA's driver and libtorch's own library, both made to be
    // loaded by any thread at any time.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
    // Never unloaded: libtorch keeps pointers into it.
    library.map(std::mem::forget).map_err(|err| err.to_string())
}
