//! What the machine and its libtorch can do.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::load::{device, kind, set_threads};
use crate::compute::ComputeSettings;

/// Facts for `doctor` and `plan`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// Version and place of libtorch, as far as it tells.
    pub libtorch: String,
    /// Number of CUDA devices that it can use.
    pub cuda_devices: i64,
    /// Threads it computes with.
    pub threads: i32,
    /// Speed of large matrix products in f32, in 10⁹ operations a second.
    pub gflops_f32: f64,
    /// The same in bfloat16.
    pub gflops_bf16: f64,
    /// The same in the precision that the settings come to.
    pub gflops: f64,
}

/// Finds out; multiplies matrices for less than a second. Where the device of
/// `compute` is missing, the CPU is measured.
pub fn probe(compute: &ComputeSettings) -> Facts {
    set_threads(compute);
    let device = device(compute.device).unwrap_or(Device::Cpu);
    let [gflops_f32, gflops_bf16] = [Kind::Float, Kind::BFloat16].map(|kind| gflops(kind, device));
    Facts {
        libtorch: libtorch(),
        cuda_devices: tch::Cuda::device_count(),
        threads: tch::get_num_threads(),
        gflops_f32,
        gflops_bf16,
        gflops: if kind(compute) == Kind::BFloat16 { gflops_bf16 } else { gflops_f32 },
    }
}

/// Products of square matrices for a quarter of a second, the first not counted.
fn gflops(kind: Kind, device: Device) -> f64 {
    const LIMIT: Duration = Duration::from_millis(250);
    // Enough to keep each busy.
    let size = if device.is_cuda() { 8192 } else { 1024 };
    // Of ones, a CUDA device multiplies faster: its clock follows its power.
    let a = Tensor::randn([size, size], (kind, device));
    // Reading a number waits for the device.
    let multiply = || a.matmul(&a).double_value(&[0, 0]);
    multiply();
    let start = Instant::now();
    let mut n_products = 0;
    while start.elapsed() < LIMIT {
        multiply();
        n_products += 1;
    }
    2e-9 * (size as f64).powi(3) * f64::from(n_products) / start.elapsed().as_secs_f64()
}

/// libtorch has no call that tells its version; the file beside it does.
fn libtorch() -> String {
    let Some(library) = loaded_library() else { return "unknown version".to_owned() };
    let root = library.parent().and_then(Path::parent).unwrap_or(&library);
    let version = version_in(root).unwrap_or_else(|| "unknown version".to_owned());
    format!("{version} at `{}`", library.display())
}

/// Where the system's loader found libtorch (Linux).
pub(super) fn loaded_library() -> Option<PathBuf> {
    let maps = fs_err::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    Path::new(&line[line.find('/')?..]).canonicalize().ok()
}

/// `version.py` of a Python wheel, or `build-version` of a plain libtorch.
fn version_in(root: &Path) -> Option<String> {
    if let Ok(text) = fs_err::read_to_string(root.join("version.py")) {
        let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        return Some(line.trim_matches(['\'', '"']).to_owned());
    }
    let text = fs_err::read_to_string(root.join("build-version")).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Dtype;

    #[test]
    fn this_libtorch_is_named_and_measured() {
        let facts = probe(&ComputeSettings::cpu(Dtype::F32));
        assert!(facts.libtorch.starts_with("2.11.0"), "{}", facts.libtorch);
        assert!(facts.gflops_f32 > 0.0 && facts.gflops_bf16 > 0.0);
        assert!(facts.gflops.to_bits() == facts.gflops_f32.to_bits());
    }

    #[test]
    fn both_kinds_of_installation_tell_their_version() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(version_in(root.path()), None);
        fs_err::write(root.path().join("build-version"), "2.11.0+cpu\n").unwrap();
        assert_eq!(version_in(root.path()).as_deref(), Some("2.11.0+cpu"));
        fs_err::write(root.path().join("version.py"), "x\n__version__ = '2.11.0+cu130'\n").unwrap();
        assert_eq!(version_in(root.path()).as_deref(), Some("2.11.0+cu130"));
    }
}
