//! A decoder layer forward and backward, without autograd.
//!
//! libtorch's graph would keep every intermediate of every layer, in f32 where
//! the norms are, and would differentiate by what nobody asks for. Here a layer
//! keeps its inputs of products and what no cheap operation gives back; norms before
//! a block and the MLP's product are computed again. That these are the gradients of
//! [`Decoder::layer`](crate::model::decoder::Decoder::layer) is tested with
//! autograd.

use tch::Tensor;

use super::adapted::Sink;
use super::attention::Sites;
use super::attention_block::{AttentionBlock, Place};
use super::mlp_block::MlpBlock;
use super::modules::Modules;
use super::pass::Pass;
use crate::model::architecture::Placement;
use crate::model::attention::Ropes;
use crate::model::batch::Batch;
use crate::model::{ModelError, dim};

/// The layers of a model at work on one batch.
pub(super) struct Layers<'a> {
    pass: Pass<'a>,
    /// Of every position.
    ropes: Ropes,
    all: Sites,
    /// All, where layers have a window.
    windowed: Option<Sites>,
    /// Where the last layer's output is wanted.
    last: Sites,
}

/// What is kept of a layer until its backward pass.
pub(super) struct Tape<'a> {
    modules: Modules<'a>,
    /// `[n_examples, n_inputs, hidden_size]`.
    input: Tensor,
    attention: AttentionBlock<'a>,
    /// What the MLP's block reads, `[n_examples, n_sites, hidden_size]`.
    mlp_input: Tensor,
    mlp: MlpBlock<'a>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(pass: Pass<'a>, batch: &Batch) -> Self {
        let model = pass.model;
        let (n_inputs, like) = (batch.token_ids.size()[1], &model.decoder.embeddings);
        let ropes = Ropes::new(model.config(), n_inputs, &batch.lengths, like);
        let all = |window| Sites::all(ropes.shallow_clone(), n_inputs, window, like);
        let windows = || model.config().attention.iter().map(|layer| layer.window.map(dim));
        let windowed = windows().flatten().next().map(|window| all(Some(window)));
        let last = windows().next_back().flatten();
        let last = Sites::some(&ropes, batch.sites.shallow_clone(), n_inputs, last, like);
        Self { pass, all: all(None), windowed, last, ropes }
    }

    fn place(&self, layer: usize) -> Place<'_> {
        let config = self.pass.model.config();
        let sites = match config.attention[layer].window {
            _ if layer + 1 == config.n_layers => &self.last,
            Some(_) => self.windowed.as_ref().unwrap_or(&self.all),
            None => &self.all,
        };
        Place { ropes: &self.ropes, sites }
    }

    /// Layer number `layer`: its output at its sites, `[n_examples, n_sites,
    /// hidden_size]`, and what its derivative needs.
    pub(super) fn record(&self, layer: usize, input: Tensor) -> (Tensor, Tape<'a>) {
        let place = self.place(layer);
        let mut modules = Modules::new(self.pass, layer);
        let (mut attended, attention) = AttentionBlock::record(&mut modules, place, &input);
        let at_sites = place.sites.of(&input);
        let middle = attended.g_add_(&at_sites);
        let mlp_input = if self.is_parallel() { at_sites } else { middle.shallow_clone() };
        let (mut output, mlp) = MlpBlock::record(&mut modules, &mlp_input);
        let output = output.g_add_(&middle);
        (output, Tape { modules, input, attention, mlp_input, mlp })
    }

    /// From the gradient by a layer's output to that by its input; the adapters'
    /// gradients go to `sink`.
    pub(super) fn differentiate(
        &self,
        tape: Tape<'a>,
        gradient: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let Tape { mut modules, input, attention, mlp_input, mlp } = tape;
        let place = self.place(modules.layer);
        let mut by_mlp_input = mlp.differentiate(&mut modules, &mlp_input, gradient, sink)?;
        let by_stream = by_mlp_input.f_add_(gradient)?;
        let by_attended = if self.is_parallel() { gradient } else { &by_stream };
        let by_input = attention.differentiate(&mut modules, place, &input, by_attended, sink)?;
        Ok(place.sites.add(by_input, &by_stream))
    }

    /// Whether attention and MLP read the same.
    fn is_parallel(&self) -> bool {
        self.pass.model.config().placement == Placement::Parallel
    }
}
