//! A linear module with its adapter, forward and backward.
//!
//! With s = alpha / rank, x the input and δ the gradient by the output y, summed
//! over the positions of *one* example,
//!
//! ```text
//! y = x·Wᵀ + s·x·Aᵀ·Bᵀ        ∇B = δᵀ·(s·x·Aᵀ)        ∇A = (s·δ·B)ᵀ·x
//! ```
//!
//! which are two batched matrix products a parameter. No leaf is copied for an
//! example, and no gradient of a frozen weight is computed. In f32 the adapter is
//! merged into W, so that it costs nothing in between.

use tch::Tensor;

use crate::model::decoder::Linear;
use crate::model::modules::LinearModule;
use crate::model::{LoraDecoder, ModelError};

/// Takes a parameter's gradients, `[n_examples, rows, columns]`.
pub(super) type Sink<'a> = dyn FnMut(usize, Tensor) -> Result<(), ModelError> + 'a;

/// A linear module at work.
pub(super) struct Adapted<'a> {
    /// The adapter included if that is merged.
    linear: &'a Linear,
    adapter: Option<Adapter>,
}

struct Adapter {
    /// Where A stands in the layout, B behind it.
    first: usize,
    /// `[rank, d_in]`.
    a: Tensor,
    /// `[d_out, rank]`.
    b: Tensor,
    scale: f64,
    is_merged: bool,
}

/// The output of a module, `[n_examples, n, d_out]`, and s·x·Aᵀ where it was
/// needed for that.
pub(super) struct Out {
    pub(super) y: Tensor,
    pub(super) inner: Option<Tensor>,
}

impl<'a> Adapted<'a> {
    pub(super) fn new(model: &'a LoraDecoder, layer: usize, module: LinearModule) -> Self {
        let adapter = model.adapter.first(layer, module).map(|first| {
            let (a, b) = model.adapter_of(layer, module);
            let (scale, is_merged) = (model.adapter.scale, model.is_merged());
            Adapter { first, a, b, scale, is_merged }
        });
        Self { linear: model.linear(layer, module), adapter }
    }

    /// For an input `x`, `[n_examples, n, d_in]`.
    pub(super) fn forward(&self, x: &Tensor) -> Out {
        let y = self.linear.forward(x);
        let adapter = self.adapter.as_ref().filter(|adapter| !adapter.is_merged);
        let inner = adapter.map(|adapter| {
            let inner = adapter.inner(x);
            add_product(&y, &inner, &adapter.b.transpose(0, 1));
            inner
        });
        Out { y, inner }
    }

    /// The gradient by the input `x` from that by the output, `delta`; the
    /// adapter's own goes to `sink`. `inner` is what [`forward`](Self::forward)
    /// gave.
    pub(super) fn backward(
        &self,
        x: &Tensor,
        inner: Option<Tensor>,
        delta: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let by_input = delta.f_matmul(&self.linear.weight)?;
        if let Some(adapter) = &self.adapter {
            let inner = inner.unwrap_or_else(|| adapter.inner(x));
            sink(adapter.first + 1, delta.transpose(1, 2).f_matmul(&inner)?)?;
            let by_inner = delta.f_matmul(&adapter.b)?.f_mul_scalar_(adapter.scale)?;
            sink(adapter.first, by_inner.transpose(1, 2).f_matmul(x)?)?;
            if !adapter.is_merged {
                add_product(&by_input, &by_inner, &adapter.a);
            }
        }
        Ok(by_input)
    }
}

impl Adapter {
    /// s·x·Aᵀ, `[n_examples, n, rank]`.
    fn inner(&self, x: &Tensor) -> Tensor {
        x.matmul(&self.a.transpose(0, 1)).g_mul_scalar_(self.scale)
    }
}

/// Adds `rows`, `[n_examples, n, k]`, times `matrix` to `sum` in place.
fn add_product(sum: &Tensor, rows: &Tensor, matrix: &Tensor) {
    let _ = sum.flatten(0, 1).addmm_(&rows.flatten(0, 1), matrix);
}
