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
    /// All, where layers have a window.
    windowed: Option<Sites>,
    /// Where the last layer's output is wanted.
    last: Sites,
}

/// What is kept of a layer until its backward pass.
pub(super) struct Tape<'a> {
    layer: usize,
    /// `[n_examples, n_inputs, hidden_size]`.
    input: Tensor,
    head_norms: Option<[Norm<'a>; 2]>,
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
        let all = |window| Sites::all(&rope, n_inputs, window, like);
        let windows = || model.config().attention.iter().map(|layer| layer.window.map(dim));
        let windowed = windows().flatten().next().map(|window| all(Some(window)));
        let last = windows().next_back().flatten();
        let last = Sites::some(&rope, batch.sites.shallow_clone(), n_inputs, last, like);
        Self { model, all: all(None), windowed, last, rope }
    }

    fn sites(&self, layer: usize) -> &Sites {
        let config = self.model.config();
        match config.attention[layer].window {
            _ if layer + 1 == config.n_layers => &self.last,
            Some(_) => self.windowed.as_ref().unwrap_or(&self.all),
            None => &self.all,
        }
    }

    /// Layer number `layer`: its output at its sites, `[n_examples, n_sites,
    /// hidden_size]`, and what its derivative needs.
    pub(super) fn record(&self, layer: usize, input: Tensor) -> (Tensor, Tape<'a>) {
        let (decoder, sites) = (&self.model.decoder, self.sites(layer));
        let mut inner = [const { None }; LinearModule::ALL.len()];
        let mut linear = |module: LinearModule, x: &Tensor| {
            let out = Adapted::new(self.model, layer, module).forward(x);
            inner[module as usize] = out.inner;
            out.y
        };
        let x = decoder.rms_norm(&input, &decoder.layers[layer].input_norm);
        let mut heads = Heads {
            q: self.by_head(&linear(LinearModule::QProj, &sites.of(&x))),
            k: self.by_head(&linear(LinearModule::KProj, &x)),
            v: self.by_head(&linear(LinearModule::VProj, &x)),
        };
        let head_norms = decoder.layers[layer].head_norms.as_ref().map(|norms| {
            let (q, of_q) = self.norm(&heads.q, &norms.q);
            let (k, of_k) = self.norm(&heads.k, &norms.k);
            (heads.q, heads.k) = (q, k);
            [of_q, of_k]
        });
        if self.is_rotary(layer) {
            heads.q = sites.rope.turn(&heads.q);
            heads.k = self.rope.turn(&heads.k);
        }
        let attention = Attention::new(heads, sites, self.model.is_fused);
        let middle = linear(LinearModule::OProj, &attention.y()).g_add_(&sites.of(&input));
        let x = decoder.rms_norm(&middle, &decoder.layers[layer].post_attention_norm);
        let gate = linear(LinearModule::GateProj, &x);
        let up = linear(LinearModule::UpProj, &x);
        let output = linear(LinearModule::DownProj, &(gate.silu() * &up)).g_add_(&middle);
        (output, Tape { layer, input, head_norms, attention, middle, gate, up, inner })
    }

    /// From the gradient by a layer's output to that by its input; the adapters'
    /// gradients go to `sink`.
    pub(super) fn differentiate(
        &self,
        mut tape: Tape<'a>,
        gradient: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let by_middle = self.through_mlp(&mut tape, gradient, sink)?;
        let sites = self.sites(tape.layer);
        let Tape { layer, input, head_norms, attention, mut inner, .. } = tape;
        let mut back = |module, x: &Tensor, delta: &Tensor| {
            self.back(layer, &mut inner, module, x, delta, sink)
        };
        let by_attended = back(LinearModule::OProj, &attention.y(), &by_middle)?;
        let by = attention.differentiate(sites, &by_attended);
        let by = self.through_heads(layer, head_norms, by);
        let (x, norm) = self.norm(&input, &self.model.decoder.layers[layer].input_norm);
        let by_v = back(LinearModule::VProj, &x, &as_rows(&by.v))?;
        let by_x = back(LinearModule::KProj, &x, &as_rows(&by.k))?.f_add_(&by_v)?;
        let by_q = back(LinearModule::QProj, &sites.of(&x), &as_rows(&by.q))?;
        Ok(sites.add(norm.differentiate(&sites.add(by_x, &by_q)), &by_middle))
    }

    /// From gradients by what attention is between to those by what projections gave.
    fn through_heads(&self, layer: usize, norms: Option<[Norm<'a>; 2]>, mut by: Heads) -> Heads {
        if self.is_rotary(layer) {
            by.q = self.sites(layer).rope.turn_back(&by.q);
            by.k = self.rope.turn_back(&by.k);
        }
        if let Some([q, k]) = norms {
            by.q = q.differentiate(&by.q);
            by.k = k.differentiate(&by.k);
        }
        by
    }

    fn is_rotary(&self, layer: usize) -> bool {
        self.model.config().attention[layer].is_rotary
    }

    /// From the gradient by a layer's output to that by the MLP's input.
    fn through_mlp(
        &self,
        tape: &mut Tape<'a>,
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
        let (x, norm) = self.norm(middle, &self.model.decoder.layers[*layer].post_attention_norm);
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

    fn norm(&self, x: &Tensor, weight: &'a Tensor) -> (Tensor, Norm<'a>) {
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
