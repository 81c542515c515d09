//! A layer's linear modules and norms on their way forth and back.

use tch::Tensor;

use super::adapted::{Adapted, Sink};
use super::norm::Norm;
use crate::model::decoder::{Layer, NormWeights};
use crate::model::modules::LinearModule;
use crate::model::{DecoderConfig, LoraDecoder, ModelError};

/// The modules of one layer, with what they keep until the backward pass.
pub(super) struct Modules<'a> {
    pub(super) model: &'a LoraDecoder,
    pub(super) layer: usize,
    /// By module, s·x·Aᵀ where it is known.
    inner: [Option<Tensor>; LinearModule::COUNT],
}

impl<'a> Modules<'a> {
    pub(super) fn new(model: &'a LoraDecoder, layer: usize) -> Self {
        Self { model, layer, inner: [const { None }; LinearModule::COUNT] }
    }

    pub(super) fn config(&self) -> &'a DecoderConfig {
        self.model.config()
    }

    pub(super) fn weights(&self) -> &'a Layer {
        &self.model.decoder.layers[self.layer]
    }

    /// The output of a module for the input `x`, `[n_examples, n, d_in]`.
    pub(super) fn forward(&mut self, module: LinearModule, x: &Tensor) -> Tensor {
        let out = Adapted::new(self.model, self.layer, module).forward(x);
        self.inner[module as usize] = out.inner;
        out.y
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
        let inner = self.inner[module as usize].take();
        Adapted::new(self.model, self.layer, module).backward(x, inner, delta, sink)
    }

    /// The norm of `x` and its way back.
    pub(super) fn norm(&self, weights: &'a NormWeights, x: &Tensor) -> (Tensor, Norm<'a>) {
        Norm::new(&self.model.decoder, x, weights, self.model.is_fused)
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
