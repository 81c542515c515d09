//! What gradients are taken by, and for whom.

use rand_chacha::ChaCha8Rng;

use crate::model::LoraDecoder;
use crate::model::lora::LoraLeaves;

/// The generator of a layer's dropout masks.
pub(crate) type MasksOf = dyn Fn(usize) -> ChaCha8Rng;

/// A forward and backward pass over a batch.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) model: &'a LoraDecoder,
    /// What gradients are taken by, f32.
    pub(super) adapter: &'a LoraLeaves,
    /// Whether the model's weights have the adapter in them.
    pub(super) is_merged: bool,
    /// Whether a parameter has one gradient, of all examples, instead of one each.
    pub(super) is_summed: bool,
    /// What a layer's masks are drawn from, where there is dropout: a layer that is
    /// computed again has the same.
    pub(super) masks: Option<&'a MasksOf>,
}

impl<'a> Pass<'a> {
    /// By the model's own adapter, every example for itself.
    pub(super) fn of_examples(model: &'a LoraDecoder) -> Self {
        let (adapter, is_merged) = (&model.adapter, model.is_merged());
        Self { model, adapter, is_merged, is_summed: false, masks: None }
    }

    /// By an adapter that is being trained, examples together.
    pub(super) fn of_training(
        model: &'a LoraDecoder,
        adapter: &'a LoraLeaves,
        masks: &'a MasksOf,
    ) -> Self {
        let masks = (adapter.dropout > 0.0).then_some(masks);
        Self { model, adapter, is_merged: false, is_summed: true, masks }
    }
}
