//! A decoder layer forward and backward, without autograd.
//!
//! libtorch's graph would keep every intermediate of every layer, in f32 where
//! the norms are, and would differentiate by what nobody asks for. Here a layer
//! keeps its inputs of products and what no cheap operation gives back; norms and
//! the MLP's product are computed again. That these are the gradients of
//! [`Decoder::layer`](crate::model::decoder::Decoder::layer) is tested with
//! autograd.

use tch::{Kind, Tensor};

use super::adapted::{Adapted, Sink};
use super::attention::{Heads, Sites};
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
    heads: Heads,
    /// What attention gives, `[n_examples, n_sites, n_heads · head_dim]`.
    attended: Tensor,
    /// Between attention and MLP, `[n_examples, n_sites, hidden_size]`.
    middle: Tensor,
    /// `[n_examples, n_sites, intermediate_size]`.
    gate: Tensor,
    up: Tensor,
    /// By module, s·x·Aᵀ where it is known.
    inner: [Option<Tensor>; LinearModule::ALL.len()],
}

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
            v: self.by_head(&linear(LinearModule::VProj, &x)).contiguous(),
        };
        let attended = heads.attend(sites);
        let middle = linear(LinearModule::OProj, &attended).g_add_(&sites.of(&input));
        let x = decoder.rms_norm(&middle, &decoder.layers[layer].post_attention_norm);
        let gate = linear(LinearModule::GateProj, &x);
        let up = linear(LinearModule::UpProj, &x);
        let output = linear(LinearModule::DownProj, &(gate.silu() * &up)).g_add_(&middle);
        (output, Tape { layer, input, heads, attended, middle, gate, up, inner })
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
        let attended = tape.attended.shallow_clone();
        let by_attended = self.back(&mut tape, LinearModule::OProj, &attended, &by_middle, sink)?;
        let by = tape.heads.differentiate(sites, &by_attended);
        let norm = &self.model.decoder.layers[tape.layer].input_norm;
        let x = self.model.decoder.rms_norm(&tape.input, norm);
        let (q, k) = (sites.rope.turn_back(&by.q), self.rope.turn_back(&by.k));
        let mut back = |module, x: &Tensor, delta: &Tensor| {
            self.back(&mut tape, module, x, &as_rows(delta), sink)
        };
        let by_v = back(LinearModule::VProj, &x, &by.v)?;
        let by_x = back(LinearModule::KProj, &x, &k)?.f_add_(&by_v)?;
        let by_x = sites.add(by_x, &back(LinearModule::QProj, &sites.of(&x), &q)?);
        Ok(sites.add(self.through_norm(&tape.input, norm, &by_x), &by_middle))
    }

    /// From the gradient by a layer's output to that by the MLP's input.
    fn through_mlp(
        &self,
        tape: &mut Tape,
        gradient: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let Tape { gate, up, middle, .. } = &*tape;
        let [gate, up, middle] = [gate, up, middle].map(Tensor::shallow_clone);
        let mut opened = gate.silu();
        let by_product =
            self.back(tape, LinearModule::DownProj, &(&opened * &up), gradient, sink)?;
        let by_up = opened.g_mul_(&by_product);
        let by_gate = gate.silu_backward(&(by_product * up));
        let norm = &self.model.decoder.layers[tape.layer].post_attention_norm;
        let x = self.model.decoder.rms_norm(&middle, norm);
        let by_x = self.back(tape, LinearModule::GateProj, &x, &by_gate, sink)?;
        let by_x = by_x + self.back(tape, LinearModule::UpProj, &x, &by_up, sink)?;
        Ok(self.through_norm(&middle, norm, &by_x).g_add_(gradient))
    }

    /// Back through a linear module whose input was `x`.
    fn back(
        &self,
        tape: &mut Tape,
        module: LinearModule,
        x: &Tensor,
        delta: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let inner = tape.inner[module as usize].take();
        Adapted::new(self.model, tape.layer, module).backward(x, inner, delta, sink)
    }

    /// Back through RMS norm, y = w ∘ n with n = x / rms(x): with g = w ∘ ∇y,
    /// ∇x = (g − n · mean(g ∘ n)) / rms(x). In f32, as libtorch does it.
    fn through_norm(&self, x: &Tensor, weight: &Tensor, gradient: &Tensor) -> Tensor {
        let kind = x.kind();
        let [x, weight, gradient] = [x, weight, gradient].map(|tensor| tensor.to_kind(Kind::Float));
        let squares = x.square().mean_dim(-1, true, Kind::Float);
        let reciprocal = (squares + self.model.config().rms_norm_eps).rsqrt_();
        let normed = x * &reciprocal;
        let mut by_normed = gradient * weight;
        let mean = (&by_normed * &normed).mean_dim(-1, true, Kind::Float);
        let by_x = by_normed.addcmul_(&normed, &mean.neg()) * reciprocal;
        by_x.to_kind(kind)
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
