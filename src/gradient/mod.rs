//! Per-example gradients: what they are, and the seam behind which libtorch
//! computes them.
//!
//! [`PerExampleGradients`] is implemented by the LoRA model (through libtorch)
//! and, in closed form, by [`linear`] for tests and for reading: everything
//! after the backward pass is the same code for both. [`collect`](mod@collect)
//! is the stage: it cuts a table into shards ([`shard_plan`]), has each batch
//! differentiated and measured ([`measure`]: [`direction`], then projection),
//! on the host ([`on_host`]) or where the model is.

#[cfg(feature = "torch")]
mod adapted;
#[cfg(feature = "torch")]
mod attention;
#[cfg(feature = "torch")]
mod attention_block;
pub mod collect;
pub mod direction;
#[cfg(feature = "torch")]
mod dropout;
#[cfg(feature = "torch")]
mod fused;
pub mod independence;
#[cfg(feature = "torch")]
mod layer;
pub mod layout;
pub mod linear;
#[cfg(feature = "torch")]
mod lora;
pub mod measure;
#[cfg(feature = "torch")]
mod mlp_block;
#[cfg(feature = "torch")]
mod modules;
#[cfg(feature = "torch")]
mod norm;
#[cfg(feature = "torch")]
mod on_device;
pub mod on_host;
#[cfg(feature = "torch")]
mod pass;
pub mod shard_plan;
#[cfg(feature = "torch")]
pub mod speed;

use crate::pool::Example;
use layout::ParamLayout;
#[cfg(feature = "torch")]
pub(crate) use on_device::collect_lora;

/// One example's loss, as the backward pass found it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExampleLoss {
    /// Mean cross-entropy of the supervised tokens, in nats.
    pub loss: f32,
    /// How many tokens that mean is over.
    pub n_supervised: u32,
}

/// A model that yields one gradient an example.
pub trait PerExampleGradients {
    /// Why a batch failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The parameters a gradient is over, in the order they are handed out.
    fn layout(&self) -> &ParamLayout;

    /// Computes the gradient of every example's own mean token loss.
    ///
    /// Calls `sink(param, rows)` exactly once for every parameter of
    /// [`layout`](Self::layout), in any order: `rows` is `[batch.len() × len]`,
    /// f32, row-major, row `i` belonging to `batch[i]`, `len` that parameter's
    /// number of coordinates. A row depends on its own example alone, not on
    /// its neighbors, but for rounding. Returns a loss an example.
    ///
    /// # Errors
    ///
    /// When the computation itself fails. A loss or gradient that is not
    /// finite is not an error here: the caller flags the row.
    fn backward(
        &mut self,
        batch: &[&Example],
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Vec<ExampleLoss>, Self::Error>;

    /// Whether `err` is about memory, so that a smaller batch may pass.
    fn is_out_of_memory(_err: &Self::Error) -> bool {
        false
    }
}
