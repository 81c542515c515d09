//! LoRA adapters in the forward pass.

use tch::Tensor;

use super::modules::LinearModule;

/// The LoRA weights that a forward pass uses.
///
/// A is `[rank, d_in]`, B `[d_out, rank]`.
pub(crate) struct LoraLeaves {
    /// The modules of a layer that have an adapter, in order of definition.
    pub(crate) modules: Vec<LinearModule>,
    /// In the order of the parameter layout.
    pub(crate) leaves: Vec<Tensor>,
    /// alpha / rank.
    pub(crate) scale: f64,
    /// Chance that a coordinate of a module's input is hidden from A in training.
    pub(crate) dropout: f64,
}

impl LoraLeaves {
    /// The output `out` of `module` in layer number `layer` for the input `x`,
    /// `[n_examples, n_inputs, d_in]`, with what the adapter adds to it, nothing of `x`
    /// being hidden.
    pub(crate) fn adapted(
        &self,
        out: Tensor,
        layer: usize,
        module: LinearModule,
        x: &Tensor,
    ) -> Tensor {
        let Some(a) = self.first(layer, module) else { return out };
        let [a, b] = [a, a + 1].map(|at| self.leaves[at].to_kind(x.kind()).transpose(-1, -2));
        out + (x.matmul(&a) * self.scale).matmul(&b)
    }

    /// Where A of a module stands in the parameter layout, B behind it; `None`
    /// if the module has no adapter.
    pub(crate) fn first(&self, layer: usize, module: LinearModule) -> Option<usize> {
        let slot = self.modules.iter().position(|&with_adapter| with_adapter == module)?;
        Some(2 * (layer * self.modules.len() + slot))
    }
}
