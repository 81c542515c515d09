//! A decoder layer forward and backward, without autograd.
//!
//! libtorch's graph would keep every intermediate of every layer, in f32 where
//! the norms are, and would differentiate by what nobody asks for. Here a layer
//! keeps its inputs of products and what no cheap operation gives back; norms and
//! the MLP's product are computed again. That these are the gradients of
//! [`Decoder::layer`](crate::model::decoder::Decoder::layer) is tested with
//! autograd.

use tch::Tensor;

use super::adapted::{Adapted, Sink};
use super::attention::{Attention, Heads, Sites};
use super::norm::Norm;
use crate::model::attention::Rope;
use crate::model::batch::Batch;
use crate::model::modules::LinearModule;
use crate::model::{LoraDecoder, ModelError, dim};

/// The layers of a model at work on one batch.
pub(super) struct Layers<'a> {
    model: &'a LoraDecoder,
    /// Of every position.
    rope: Rope,
    all: Sites,
    /// Where the last layer's output is wanted.
    last: Sites,
}

/// What is kept of a layer until its backward pass.
pub(super) struct Tape {
    layer: usize,
    /// `[n_examples, n_inputs, hidden_size]`.
    input: Tensor,
    attention: Attention,
    /// Between attention and MLP, `[n_examples, n_sites, hidden_size]`.
    middle: Tensor,
    /// `[n_examples, n_sites, intermediate_size]`.
    gate: Tensor,
    up: Tensor,
    inner: Inner,
}

/// By module, s·x·Aᵀ where it is known.
type Inner = [Option<Tensor>; LinearModule::ALL.len()];

impl<'a> Layers<'a> {
    pub(super) fn new(model: &'a LoraDecoder, batch: &Batch) -> Self {
        let (n_inputs, like) = (batch.token_ids.size()[1], &model.decoder.embeddings);
        let rope = Rope::new(model.config(), n_inputs, like);
        let all = Sites::all(&rope, n_inputs, like);
        let last = Sites::some(&rope, batch.sites.shallow_clone(), n_inputs, like);
        Self { model, rope, all, last }
    }

    fn sites(&self, layer: usize) -> &Sites {
        if layer + 1 == self.model.config().n_layers { &self.last } else { &self.all }
    }

    /// Layer number `layer`: its output at its sites, `[n_examples, n_sites,
    /// hidden_size]`, and what its derivative needs.
    pub(super) fn record(&self, layer: usize, input: Tensor) -> (Tensor, Tape) {
        let (decoder, sites) = (&self.model.decoder, self.sites(layer));
        let mut inner = [const { None }; LinearModule::ALL.len()];
        let mut linear = |module: LinearModule, x: &Tensor| {
            let out = Adapted::new(self.model, layer, module).forward(x);
            inner[module as usize] = out.inner;
            out.y
        };
        let x = decoder.rms_norm(&input, &decoder.layers[layer].input_norm);
        let heads = Heads {
            q: sites.rope.turn(&self.by_head(&linear(LinearModule::QProj, &sites.of(&x)))),
            k: self.rope.turn(&self.by_head(&linear(LinearModule::KProj, &x))),
            v: self.by_head(&linear(LinearModule::VProj, &x)),
        };
        let attention = Attention::new(heads, sites, self.model.is_fused);
        let middle = linear(LinearModule::OProj, &attention.y()).g_add_(&sites.of(&input));
        let x = decoder.rms_norm(&middle, &decoder.layers[layer].post_attention_norm);
        let gate = linear(LinearModule::GateProj, &x);
        let up = linear(LinearModule::UpProj, &x);
        let output = linear(LinearModule::DownProj, &(gate.silu() * &up)).g_add_(&middle);
        (output, Tape { layer, input, attention, middle, gate, up, inner })
    }

    /// From the gradient by a layer's output to that by its input; the adapters'
    /// gradients go to `sink`.
    pub(super) fn differentiate(
        &self,
        mut tape: Tape,
        gradient: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let by_middle = self.through_mlp(&mut tape, gradient, sink)?;
        let sites = self.sites(tape.layer);
        let Tape { layer, input, attention, mut inner, .. } = tape;
        let mut back = |module, x: &Tensor, delta: &Tensor| {
            self.back(layer, &mut inner, module, x, delta, sink)
        };
        let by_attended = back(LinearModule::OProj, &attention.y(), &by_middle)?;
        let by = attention.differentiate(sites, &by_attended);
        let norm = self.norm(&input, &self.model.decoder.layers[layer].input_norm);
        let x = norm.y();
        let (q, k) = (sites.rope.turn_back(&by.q), self.rope.turn_back(&by.k));
        let by_v = back(LinearModule::VProj, &x, &as_rows(&by.v))?;
        let by_x = back(LinearModule::KProj, &x, &as_rows(&k))?.f_add_(&by_v)?;
        let by_q = back(LinearModule::QProj, &sites.of(&x), &as_rows(&q))?;
        Ok(sites.add(norm.differentiate(&sites.add(by_x, &by_q)), &by_middle))
    }

    /// From the gradient by a layer's output to that by the MLP's input.
    fn through_mlp(
        &self,
        tape: &mut Tape,
        gradient: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let Tape { layer, middle, gate, up, inner, .. } = tape;
        let mut back =
            |module, x: &Tensor, delta: &Tensor| self.back(*layer, inner, module, x, delta, sink);
        let mut opened = gate.silu();
        let by_product = back(LinearModule::DownProj, &(&opened * &*up), gradient)?;
        let by_up = opened.g_mul_(&by_product);
        let by_gate = gate.silu_backward(&(by_product * &*up));
        let norm = self.norm(middle, &self.model.decoder.layers[*layer].post_attention_norm);
        let x = norm.y();
        let by_x = back(LinearModule::GateProj, &x, &by_gate)?;
        let by_x = by_x + back(LinearModule::UpProj, &x, &by_up)?;
        Ok(norm.differentiate(&by_x).g_add_(gradient))
    }

    /// Back through a linear module whose input was `x`; `inner` is the layer's.
    fn back(
        &self,
        layer: usize,
        inner: &mut Inner,
        module: LinearModule,
        x: &Tensor,
        delta: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let inner = inner[module as usize].take();
        Adapted::new(self.model, layer, module).backward(x, inner, delta, sink)
    }

    fn norm(&self, x: &Tensor, weight: &'a Tensor) -> Norm<'a> {
        Norm::new(&self.model.decoder, x, weight, self.model.is_fused)
    }

    /// A view of `rows`, `[n_examples, n, heads · head_dim]`, as
    /// `[n_examples, heads, n, head_dim]`.
    fn by_head(&self, rows: &Tensor) -> Tensor {
        rows.unflatten(-1, [-1, dim(self.model.config().head_dim)]).transpose(1, 2)
    }
}

/// `[n_examples, heads, n, head_dim]` as `[n_examples, n, heads · head_dim]`.
fn as_rows(heads: &Tensor) -> Tensor {
    heads.transpose(1, 2).flatten(2, 3)
}
