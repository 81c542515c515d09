//! A linear module with its adapter, forward and backward.
//!
//! With s = alpha / rank, x the input and δ the gradient by the output y, summed
//! over the positions of *one* example, or of all where that is wanted,
//!
//! ```text
//! y = x·Wᵀ + s·x·Aᵀ·Bᵀ        ∇B = δᵀ·(s·x·Aᵀ)        ∇A = (s·δ·B)ᵀ·x
//! ```
//!
//! which are two matrix products a parameter, batched where every example has its
//! own. No leaf is copied for an example, and no gradient of a frozen weight is
//! computed. In f32 an adapter that does not move is merged into W, so that it costs
//! nothing in between. With dropout A sees x ⊙ m, with a mask m whose coordinates are
//! 0 with the chance p and 1/(1 − p) otherwise.

use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::dropout::mask;
use super::pass::Pass;
use crate::model::ModelError;
use crate::model::decoder::Linear;
use crate::model::modules::LinearModule;

/// Takes a parameter's gradients, `[n_examples, rows, columns]`, or `[1, rows, columns]`
/// where examples are summed.
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
    dropout: f64,
    is_merged: bool,
    is_summed: bool,
}

/// What a module keeps until its backward pass.
#[derive(Default)]
pub(super) struct Kept {
    /// s·x·Aᵀ where it was needed, `[n_examples, n, rank]`.
    inner: Option<Tensor>,
    /// What of x was seen by A, as x has it, where there is dropout.
    mask: Option<Tensor>,
}

impl<'a> Adapted<'a> {
    pub(super) fn new(pass: Pass<'a>, layer: usize, module: LinearModule) -> Self {
        let Pass { model, adapter, is_merged, is_summed, .. } = pass;
        let own = adapter.first(layer, module).map(|first| {
            let [a, b] = [first, first + 1].map(|at| adapter.leaves[at].to_kind(model.kind()));
            let (scale, dropout) = (adapter.scale, adapter.dropout);
            Adapter { first, a, b, scale, dropout, is_merged, is_summed }
        });
        let linear = if is_merged {
            model.linear(layer, module)
        } else {
            model.decoder.linear(layer, module)
        };
        Self { linear, adapter: own }
    }

    /// The output `[n_examples, n, d_out]` for an input `x`, `[n_examples, n, d_in]`.
    /// Masks are drawn from `rng`, if there is one.
    pub(super) fn forward(&self, x: &Tensor, rng: Option<&mut ChaCha8Rng>) -> (Tensor, Kept) {
        let y = self.linear.forward(x);
        let Some(adapter) = self.adapter.as_ref().filter(|adapter| !adapter.is_merged) else {
            return (y, Kept::default());
        };
        let mask = rng.map(|rng| mask(x, adapter.dropout, rng));
        let inner = adapter.inner(&seen(x, mask.as_ref()));
        add_product(&y, &inner, &adapter.b.transpose(0, 1));
        (y, Kept { inner: Some(inner), mask })
    }

    /// The gradient by the input `x` from that by the output, `delta`; the
    /// adapter's own goes to `sink`. `kept` is what [`forward`](Self::forward)
    /// gave.
    pub(super) fn backward(
        &self,
        x: &Tensor,
        kept: Kept,
        delta: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let by_input = delta.f_matmul(&self.linear.weight)?;
        let Some(adapter) = &self.adapter else { return Ok(by_input) };
        let Kept { inner, mask } = kept;
        let x = seen(x, mask.as_ref());
        let inner = inner.unwrap_or_else(|| adapter.inner(&x));
        sink(adapter.first + 1, adapter.product(delta, &inner)?)?;
        let by_inner = delta.f_matmul(&adapter.b)?.f_mul_scalar_(adapter.scale)?;
        sink(adapter.first, adapter.product(&by_inner, &x)?)?;
        match mask {
            _ if adapter.is_merged => {}
            None => add_product(&by_input, &by_inner, &adapter.a),
            Some(mask) => {
                let _ =
                    by_input.shallow_clone().f_addcmul_(&by_inner.f_matmul(&adapter.a)?, &mask)?;
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

    /// `rows`ᵀ · `columns`, of every example or of all together.
    fn product(&self, rows: &Tensor, columns: &Tensor) -> Result<Tensor, ModelError> {
        if self.is_summed {
            let rows = rows.flatten(0, 1).transpose(0, 1);
            return Ok(rows.f_matmul(&columns.flatten(0, 1))?.unsqueeze(0));
        }
        Ok(rows.transpose(1, 2).f_matmul(columns)?)
    }
}

fn seen(x: &Tensor, mask: Option<&Tensor>) -> Tensor {
    match mask {
        Some(mask) => x * mask,
        None => x.shallow_clone(),
    }
}

/// Adds `rows`, `[n_examples, n, k]`, times `matrix` to `sum` in place.
fn add_product(sum: &Tensor, rows: &Tensor, matrix: &Tensor) {
    let _ = sum.flatten(0, 1).addmm_(&rows.flatten(0, 1), matrix);
}
