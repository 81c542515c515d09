//! Where and how precisely the model computes.

use serde::{Deserialize, Serialize};

/// The device that holds the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// CUDA if libtorch finds a device, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
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
    /// `bf16` where the device multiplies it faster than f32, else `f32`.
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

impl Dtype {
    /// `Auto` settled for the CPU of this machine: bf16 only where it has
    /// matrix instructions for it (AMX or AVX-512 BF16), for elsewhere libtorch
    /// emulates it more slowly than f32.
    #[must_use]
    pub fn on_this_cpu(self) -> Self {
        match self {
            Self::Auto if has_fast_bf16() => Self::Bf16,
            Self::Auto => Self::F32,
            settled => settled,
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
    /// until one more would pass it. One row alone may.
    pub batch_tokens: usize,
}
