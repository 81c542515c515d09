//! Where and how precisely the model computes.

use serde::{Deserialize, Serialize};

/// A device that holds a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// CUDA if libtorch finds a device, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl std::str::FromStr for Device {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|n| n.parse().ok()).map(Self::Cuda).ok_or(()),
        }
    }
}

/// The number type of the frozen model's weights and activations. LoRA
/// weights, optimizer moments and everything after the backward pass are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// Settled by [`ComputeSettings::precision`].
    Auto,
    /// 32-bit floating point.
    F32,
    /// bfloat16.
    Bf16,
}

impl std::str::FromStr for Dtype {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(()),
        }
    }
}

/// How a stage that needs the model uses the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputeSettings {
    /// Where the model lives.
    pub device: Device,
    /// Precision of the frozen model.
    pub dtype: Dtype,
    /// Threads of libtorch and of rayon (never both at once); `None` is all
    /// cores this process may use.
    pub threads: Option<std::num::NonZeroUsize>,
    /// Most tokens in a batch, padding included: rows are batched by length
    /// until one more would pass it. One row alone may. `None` is 16384 on a CUDA
    /// device and 1024 elsewhere.
    pub batch_tokens: Option<std::num::NonZeroUsize>,
    /// Whether a layer's activations are computed again for its backward pass
    /// instead of kept: a third more operations, and of a batch's activations
    /// only one layer's in memory.
    pub recompute: bool,
}

impl ComputeSettings {
    /// The CPU, all of its cores, batches of the default size.
    #[must_use]
    pub fn cpu(dtype: Dtype) -> Self {
        Self { device: Device::Cpu, dtype, threads: None, batch_tokens: None, recompute: false }
    }

    /// The precision these settings come to, never `Auto`, which is bf16 on a
    /// CUDA device that is asked for by number and where this CPU has matrix
    /// instructions for it (AMX or AVX-512 BF16); elsewhere libtorch emulates
    /// it more slowly than f32.
    ///
    /// Fingerprints hold it, so it must be known without libtorch: a CUDA
    /// device that `auto` happens to find changes nothing.
    #[must_use]
    pub fn precision(&self) -> Dtype {
        match (self.dtype, self.device) {
            (Dtype::Auto, Device::Cuda(_)) => Dtype::Bf16,
            (Dtype::Auto, _) if has_fast_bf16() => Dtype::Bf16,
            (Dtype::Auto, _) => Dtype::F32,
            (settled, _) => settled,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_fast_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_fast_bf16() -> bool {
    false
}
