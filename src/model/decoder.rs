//! The forward pass of a Llama-like decoder with frozen weights.

use tch::{Kind, Tensor};

use super::attention::{Rope, causal_attention};
use super::batch::Batch;
use super::config::LayerAttention;
use super::lora::LoraLeaves;
use super::modules::LinearModule;
use super::{DecoderConfig, dim};

/// A decoder's frozen weights, all of one kind on one device.
pub(crate) struct Decoder {
    pub(crate) config: DecoderConfig,
    /// `[vocab_size, hidden_size]`.
    pub(crate) embeddings: Tensor,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Tensor,
    /// `[vocab_size, hidden_size]`; the embeddings themselves when tied.
    pub(crate) lm_head: Tensor,
}

/// The weights of one layer.
pub(crate) struct Layer {
    pub(crate) input_norm: Tensor,
    pub(crate) post_attention_norm: Tensor,
    /// Of queries and keys, head by head, `[head_dim]`.
    pub(crate) head_norms: Option<HeadNorms>,
    /// In the order of [`LinearModule::ALL`].
    pub(crate) linears: Vec<Linear>,
}

/// The weights of the norms of queries and keys.
pub(crate) struct HeadNorms {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
}

/// A linear map: weight `[d_out, d_in]`, bias `[d_out]`.
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

impl Decoder {
    /// Embedded tokens, `[n_examples, n_inputs, hidden_size]`.
    pub(crate) fn embed(&self, token_ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.embeddings, token_ids, -1, false, false)
    }

    /// Hidden states behind the last layer, `[n_examples, n_inputs, hidden_size]`.
    pub(crate) fn hidden(&self, token_ids: &Tensor, lora: &LoraLeaves) -> Tensor {
        let rope = Rope::new(&self.config, token_ids.size()[1], &self.embeddings);
        (0..self.layers.len()).fold(self.embed(token_ids), |hidden, layer| {
            self.layer(layer, &hidden, &rope, &mut |module, x| {
                lora.adapted(self.linear(layer, module).forward(x), layer, module, x)
            })
        })
    }

    /// Layer number `layer`: from hidden states `[n_examples, n_inputs,
    /// hidden_size]` to the next ones.
    ///
    /// `linear` computes a linear module of the layer, adapter included, for an
    /// input `[n_examples, .., d_in]`. It is called once a module.
    pub(crate) fn layer(
        &self,
        layer: usize,
        hidden: &Tensor,
        rope: &Rope,
        linear: &mut dyn FnMut(LinearModule, &Tensor) -> Tensor,
    ) -> Tensor {
        let Layer { input_norm, post_attention_norm, .. } = &self.layers[layer];
        let attention = self.attention(layer, &self.rms_norm(hidden, input_norm), rope, linear);
        let hidden = hidden + attention;
        let x = self.rms_norm(&hidden, post_attention_norm);
        let gate = linear(LinearModule::GateProj, &x).silu();
        let up = linear(LinearModule::UpProj, &x);
        hidden + linear(LinearModule::DownProj, &(gate * up))
    }

    fn attention(
        &self,
        layer: usize,
        x: &Tensor,
        rope: &Rope,
        linear: &mut dyn FnMut(LinearModule, &Tensor) -> Tensor,
    ) -> Tensor {
        let DecoderConfig { n_heads, n_kv_heads, head_dim, .. } = self.config;
        // `[n_examples, n_heads, n_inputs, head_dim]`.
        let mut heads = |module, n_heads, x: &Tensor| {
            linear(module, x).unflatten(-1, [dim(n_heads), dim(head_dim)]).transpose(1, 2)
        };
        let q = heads(LinearModule::QProj, n_heads, x);
        let k = heads(LinearModule::KProj, n_kv_heads, x);
        let v = heads(LinearModule::VProj, n_kv_heads, x);
        let (q, k) = match &self.layers[layer].head_norms {
            Some(norms) => (self.rms_norm(&q, &norms.q), self.rms_norm(&k, &norms.k)),
            None => (q, k),
        };
        let LayerAttention { window, is_rotary } = self.config.attention[layer];
        let (q, k) = if is_rotary { (rope.turn(&q), rope.turn(&k)) } else { (q, k) };
        linear(LinearModule::OProj, &causal_attention(&q, &k, &v, window.map(dim)))
    }

    /// A linear module of a layer.
    pub(crate) fn linear(&self, layer: usize, module: LinearModule) -> &Linear {
        &self.layers[layer].linears[module as usize]
    }

    /// What the output layer reads of hidden states behind the last layer.
    pub(crate) fn normed(&self, hidden: &Tensor) -> Tensor {
        self.rms_norm(hidden, &self.norm)
    }

    /// Logits, f32 `[.., vocab_size]`, of hidden states `[.., hidden_size]`.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Tensor {
        self.normed(hidden).linear::<Tensor>(&self.lm_head, None).to_kind(Kind::Float)
    }

    /// Cross-entropy in nats, f32 `[n]`, of `targets` `[n]` behind the hidden
    /// states `[n, hidden_size]`.
    pub(crate) fn losses_at(&self, hidden: &Tensor, targets: &Tensor) -> Tensor {
        self.logits(hidden).cross_entropy_loss::<Tensor>(
            targets,
            None,
            tch::Reduction::None,
            -100,
            0.0,
        )
    }

    /// Cross-entropy of every supervised token of the batch in nats,
    /// f32 `[n_supervised]`. Logits exist only where a label is.
    pub(crate) fn token_losses(&self, batch: &Batch, lora: &LoraLeaves) -> Tensor {
        let hidden = self.hidden(&batch.token_ids, lora).flatten(0, 1);
        self.losses_at(&hidden.index_select(0, &batch.positions), &batch.targets)
    }

    pub(crate) fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        x.rms_norm([weight.size()[0]], Some(weight), self.config.rms_norm_eps)
    }
}

impl Linear {
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}
