//! The forward pass of a Llama-like decoder with frozen weights.

use tch::{Kind, Tensor};

use super::batch::Batch;
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
    /// In the order of [`LinearModule::ALL`].
    pub(crate) linears: Vec<Linear>,
}

/// A linear map: weight `[d_out, d_in]`, bias `[d_out]`.
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

impl Decoder {
    /// Hidden states behind the last layer, `[n_examples, n_inputs, hidden_size]`.
    pub(crate) fn hidden(&self, token_ids: &Tensor, lora: &LoraLeaves) -> Tensor {
        let n_inputs = token_ids.size()[1];
        let rope = Rope::new(&self.config, n_inputs, &self.embeddings);
        let start = Tensor::embedding(&self.embeddings, token_ids, -1, false, false);
        (0..self.layers.len()).fold(start, |hidden, layer| {
            let pass = LayerPass { decoder: self, lora, layer, rope: &rope };
            pass.forward(&hidden)
        })
    }

    /// Logits, f32 `[.., vocab_size]`, of hidden states `[.., hidden_size]`.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Tensor {
        self.rms_norm(hidden, &self.norm).linear::<Tensor>(&self.lm_head, None).to_kind(Kind::Float)
    }

    /// Cross-entropy of every supervised token of the batch in nats,
    /// f32 `[n_supervised]`. Logits exist only where a label is.
    pub(crate) fn token_losses(&self, batch: &Batch, lora: &LoraLeaves) -> Tensor {
        let hidden = self.hidden(&batch.token_ids, lora).flatten(0, 1);
        let logits = self.logits(&hidden.index_select(0, &batch.positions));
        logits.cross_entropy_loss::<Tensor>(&batch.targets, None, tch::Reduction::None, -100, 0.0)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        x.rms_norm([weight.size()[0]], Some(weight), self.config.rms_norm_eps)
    }
}

/// One layer at work.
struct LayerPass<'a> {
    decoder: &'a Decoder,
    lora: &'a LoraLeaves,
    layer: usize,
    rope: &'a Rope,
}

impl LayerPass<'_> {
    fn forward(&self, hidden: &Tensor) -> Tensor {
        let layer = &self.decoder.layers[self.layer];
        let hidden = hidden + self.attention(&self.decoder.rms_norm(hidden, &layer.input_norm));
        &hidden + self.mlp(&self.decoder.rms_norm(&hidden, &layer.post_attention_norm))
    }

    fn attention(&self, x: &Tensor) -> Tensor {
        let config = &self.decoder.config;
        let q = self.rope.turn(&self.heads(LinearModule::QProj, config.n_heads, x));
        let k = self.rope.turn(&self.heads(LinearModule::KProj, config.n_kv_heads, x));
        let v = self.heads(LinearModule::VProj, config.n_kv_heads, x);
        let is_grouped = config.n_kv_heads < config.n_heads;
        let out = Tensor::scaled_dot_product_attention::<Tensor>(
            &q, &k, &v, None, 0.0, true, None, is_grouped,
        );
        self.linear(LinearModule::OProj, &out.transpose(1, 2).flatten(2, 3))
    }

    fn mlp(&self, x: &Tensor) -> Tensor {
        let gate = self.linear(LinearModule::GateProj, x).silu();
        self.linear(LinearModule::DownProj, &(gate * self.linear(LinearModule::UpProj, x)))
    }

    /// A projection of `x`, split by heads: `[n_examples, n_heads, n_inputs, head_dim]`.
    fn heads(&self, module: LinearModule, n_heads: usize, x: &Tensor) -> Tensor {
        let head_dim = dim(self.decoder.config.head_dim);
        self.linear(module, x).unflatten(-1, [dim(n_heads), head_dim]).transpose(1, 2)
    }

    fn linear(&self, module: LinearModule, x: &Tensor) -> Tensor {
        let Linear { weight, bias } = &self.decoder.layers[self.layer].linears[module as usize];
        let out = x.linear(weight, bias.as_ref());
        match self.lora.update(self.layer, module, x) {
            Some(update) => out + update,
            None => out,
        }
    }
}

/// Rotary position embedding: coordinates i and i + d/2 of a head of width d
/// at position p turn by the angle p · theta^(−2i / d).
struct Rope {
    /// `[n_inputs, head_dim]`, the two halves alike.
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// Angles in f32, as `transformers` has them; tables of `like`'s kind.
    fn new(config: &DecoderConfig, n_inputs: i64, like: &Tensor) -> Self {
        let head_dim = dim(config.head_dim);
        let options = (Kind::Float, like.device());
        let exponents = Tensor::arange_start_step(0, head_dim, 2, options) / head_dim as f64;
        let frequencies = Tensor::pow_scalar(config.rope_theta, &exponents).reciprocal();
        let angles = Tensor::arange(n_inputs, options).outer(&frequencies);
        let angles = Tensor::cat(&[&angles, &angles], -1);
        Self { cos: angles.cos().to_kind(like.kind()), sin: angles.sin().to_kind(like.kind()) }
    }

    /// Turns heads `[n_examples, n_heads, n_inputs, head_dim]` by their positions.
    fn turn(&self, heads: &Tensor) -> Tensor {
        let halves = heads.chunk(2, -1);
        let crossed = Tensor::cat(&[&-&halves[1], &halves[0]], -1);
        heads * &self.cos + crossed * &self.sin
    }
}
