//! A layer's linear modules and norms on their way forth and back.

use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::adapted::{Adapted, Kept, Sink};
use super::norm::Norm;
use super::pass::Pass;
use crate::model::decoder::{Layer, NormWeights};
use crate::model::modules::LinearModule;
use crate::model::{DecoderConfig, ModelError};

/// The modules of one layer, with what they keep until the backward pass.
pub(super) struct Modules<'a> {
    pub(super) pass: Pass<'a>,
    pub(super) layer: usize,
    /// Of dropout, where there is any.
    masks: Option<ChaCha8Rng>,
    /// By module.
    kept: [Kept; LinearModule::COUNT],
}

impl<'a> Modules<'a> {
    pub(super) fn new(pass: Pass<'a>, layer: usize) -> Self {
        let masks = pass.masks.map(|masks_of| masks_of(layer));
        Self { pass, layer, masks, kept: Default::default() }
    }

    pub(super) fn config(&self) -> &'a DecoderConfig {
        self.pass.model.config()
    }

    pub(super) fn weights(&self) -> &'a Layer {
        &self.pass.model.decoder.layers[self.layer]
    }

    /// The output of a module for the input `x`, `[n_examples, n, d_in]`.
    pub(super) fn forward(&mut self, module: LinearModule, x: &Tensor) -> Tensor {
        let (y, kept) = Adapted::new(self.pass, self.layer, module).forward(x, self.masks.as_mut());
        self.kept[module as usize] = kept;
        y
    }

    /// From the gradient by a module's output, `delta`, to that by its input, which
    /// was `x`; the adapter's own goes to `sink`.
    pub(super) fn back(
        &mut self,
        module: LinearModule,
        x: &Tensor,
        delta: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let kept = std::mem::take(&mut self.kept[module as usize]);
        Adapted::new(self.pass, self.layer, module).backward(x, kept, delta, sink)
    }

    /// The norm of `x` and its way back.
    pub(super) fn norm(&self, weights: &'a NormWeights, x: &Tensor) -> (Tensor, Norm<'a>) {
        let model = self.pass.model;
        Norm::new(&model.decoder, x, weights, model.is_fused)
    }

    /// `x` as it is without a norm, and with one as that makes it.
    pub(super) fn norm_if(
        &self,
        weights: Option<&'a NormWeights>,
        x: &Tensor,
    ) -> (Tensor, Option<Norm<'a>>) {
        match weights.map(|weights| self.norm(weights, x)) {
            Some((y, norm)) => (y, Some(norm)),
            None => (x.shallow_clone(), None),
        }
    }
}

/// The gradient by a norm's input from that by its output, if there is a norm.
pub(super) fn through(norm: Option<Norm<'_>>, gradient: Tensor) -> Tensor {
    match norm {
        Some(norm) => norm.differentiate(&gradient),
        None => gradient,
    }
}
