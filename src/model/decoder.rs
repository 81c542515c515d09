//! The forward pass of a decoder with frozen weights.

use tch::{Kind, Tensor};

use super::architecture::{NormKind, Placement};
use super::attention::{Ropes, attention_at, causal_attention};
use super::cache::Cache;
use super::joined::split_gate;
use super::lora::LoraLeaves;
use super::modules::LinearModule;
use super::{DecoderConfig, dim};

/// A decoder's frozen weights, all of one kind on one device.
pub(crate) struct Decoder {
    pub(crate) config: DecoderConfig,
    /// `[vocab_size, hidden_size]`.
    pub(crate) embeddings: Tensor,
    /// `[n_positions, hidden_size]`, where positions are learned.
    pub(crate) positions: Option<Tensor>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: NormWeights,
    /// `[vocab_size, hidden_size]`; the embeddings themselves when tied.
    pub(crate) lm_head: Tensor,
}

/// The weights of one layer.
pub(crate) struct Layer {
    pub(crate) attention_norms: Norms,
    pub(crate) mlp_norms: Norms,
    /// Of queries and keys.
    pub(crate) qk_norms: Option<[NormWeights; 2]>,
    /// By module; a family has some of them.
    pub(crate) linears: [Option<Linear>; LinearModule::COUNT],
}

/// The norms before and after attention or the MLP.
pub(crate) struct Norms {
    pub(crate) before: Option<NormWeights>,
    pub(crate) after: Option<NormWeights>,
}

/// A norm's weight and bias, `[width]`. That of a norm around one is 1 + w, in f32.
pub(crate) struct NormWeights {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

/// A linear map: weight `[d_out, d_in]`, bias `[d_out]`.
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

/// Computes a linear module of a layer, adapter included, for an input
/// `[n_examples, .., d_in]`. Called once a module.
type LinearFn<'a> = dyn FnMut(LinearModule, &Tensor) -> Tensor + 'a;

/// What the queries of a layer read, `[n_examples, n, n_heads · head_dim]`, given
/// queries, keys and values, `[n_examples, heads, n, head_dim]`, turned by their
/// positions.
type AttendFn<'a> = dyn FnMut(usize, [&Tensor; 3]) -> Tensor + 'a;

impl Decoder {
    /// Embedded tokens, `[n_examples, n_inputs, hidden_size]`.
    pub(crate) fn embed(&self, token_ids: &Tensor) -> Tensor {
        let embedded = self.embed_words(token_ids);
        match &self.positions {
            Some(positions) => embedded + positions.narrow(0, 0, token_ids.size()[1]),
            None => embedded,
        }
    }

    /// Embedded tokens without their positions.
    fn embed_words(&self, token_ids: &Tensor) -> Tensor {
        let embedded = embedding(&self.embeddings, token_ids);
        match self.config.embedding_scale {
            // Rounded as the weights are, which in bf16 makes √3072 55.5.
            Some(scale) => embedded * Tensor::from(scale).to_kind(self.embeddings.kind()),
            None => embedded,
        }
    }

    /// Hidden states behind the last layer, `[n_examples, n_inputs, hidden_size]`, of
    /// rows that are `lengths` tokens long.
    pub(crate) fn hidden(
        &self,
        token_ids: &Tensor,
        lengths: &[usize],
        lora: &LoraLeaves,
    ) -> Tensor {
        let ropes = Ropes::new(&self.config, token_ids.size()[1], lengths, &self.embeddings);
        self.through_layers(self.embed(token_ids), &ropes, lora, &mut |layer, heads| {
            causal_attention(heads, self.config.scores, self.window(layer))
        })
    }

    /// Hidden states behind the last layer, `[n_examples, n, hidden_size]`, of tokens
    /// whose `positions` are given, `[n_examples, n]`. Those before them are in `cache`,
    /// and these are after it. `ropes` are of all positions.
    pub(crate) fn hidden_at(
        &self,
        token_ids: &Tensor,
        positions: &Tensor,
        ropes: &Ropes,
        lora: &LoraLeaves,
        cache: &mut Cache,
    ) -> Tensor {
        let words = self.embed_words(token_ids);
        let embedded = match &self.positions {
            Some(table) => words + embedding(table, positions),
            None => words,
        };
        self.through_layers(embedded, &ropes.at(positions), lora, &mut |layer, [q, k, v]| {
            let [k, v] = cache.keep(layer, [k, v], positions);
            attention_at([q, k, v], positions, self.config.scores, self.window(layer))
        })
    }

    fn window(&self, layer: usize) -> Option<i64> {
        self.config.attention[layer].window.map(dim)
    }

    fn through_layers(
        &self,
        embedded: Tensor,
        ropes: &Ropes,
        lora: &LoraLeaves,
        attend: &mut AttendFn<'_>,
    ) -> Tensor {
        (0..self.layers.len()).fold(embedded, |hidden, layer| {
            let mut linear = |module: LinearModule, x: &Tensor| {
                lora.adapted(self.linear(layer, module).forward(x), layer, module, x)
            };
            self.layer(layer, &hidden, ropes, &mut linear, attend)
        })
    }

    /// Layer number `layer`: from hidden states `[n_examples, n_inputs,
    /// hidden_size]` to the next ones.
    fn layer(
        &self,
        layer: usize,
        hidden: &Tensor,
        ropes: &Ropes,
        linear: &mut LinearFn<'_>,
        attend: &mut AttendFn<'_>,
    ) -> Tensor {
        let Layer { attention_norms, mlp_norms, .. } = &self.layers[layer];
        let attended = self
            .between(attention_norms, hidden, |x| self.attention(layer, x, ropes, linear, attend));
        let middle = hidden + attended;
        let is_parallel = self.config.placement == Placement::Parallel;
        let input = if is_parallel { hidden } else { &middle };
        let output = self.between(mlp_norms, input, |x| self.mlp(x, linear));
        middle + output
    }

    /// Attention or the MLP between its norms.
    fn between(&self, norms: &Norms, x: &Tensor, f: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        let y = match &norms.before {
            Some(before) => f(&self.normed_by(before, x)),
            None => f(x),
        };
        match &norms.after {
            Some(after) => self.normed_by(after, &y),
            None => y,
        }
    }

    fn mlp(&self, x: &Tensor, linear: &mut LinearFn<'_>) -> Tensor {
        let activation = self.config.activation;
        let inner = if self.config.has(LinearModule::GateUp) {
            let [gate, up] = split_gate(&linear(LinearModule::GateUp, x));
            activation.forward(&gate) * up
        } else if self.config.has(LinearModule::Gate) {
            activation.forward(&linear(LinearModule::Gate, x)) * linear(LinearModule::Up, x)
        } else {
            activation.forward(&linear(LinearModule::Up, x))
        };
        linear(LinearModule::Down, &inner)
    }

    fn attention(
        &self,
        layer: usize,
        x: &Tensor,
        ropes: &Ropes,
        linear: &mut LinearFn<'_>,
        attend: &mut AttendFn<'_>,
    ) -> Tensor {
        let [q, k, v] = if self.config.has(LinearModule::Qkv) {
            self.config.split_heads(&linear(LinearModule::Qkv, x))
        } else {
            [LinearModule::Q, LinearModule::K, LinearModule::V].map(|module| linear(module, x))
        };
        let [q, k] = match &self.layers[layer].qk_norms {
            Some([of_q, of_k]) => [self.qk_normed(of_q, &q), self.qk_normed(of_k, &k)],
            None => [q, k],
        };
        let [q, k, v] = [q, k, v].map(|rows| self.by_head(&rows));
        let (q, k) = match ropes.of(self.config.attention[layer]) {
            Some(rope) => (rope.turn(&q), rope.turn(&k)),
            None => (q, k),
        };
        linear(LinearModule::O, &attend(layer, [&q, &k, &v]))
    }

    /// Rows of queries or keys, normed over as many coordinates as the norm has
    /// weights.
    fn qk_normed(&self, norm: &NormWeights, rows: &Tensor) -> Tensor {
        let vectors = rows.unflatten(-1, [-1, norm.weight.size()[0]]);
        self.normed_by(norm, &vectors).flatten(-2, -1)
    }

    /// A view of `rows`, `[n_examples, n, heads · head_dim]`, as
    /// `[n_examples, heads, n, head_dim]`.
    pub(crate) fn by_head(&self, rows: &Tensor) -> Tensor {
        rows.unflatten(-1, [-1, dim(self.config.head_dim)]).transpose(1, 2)
    }

    /// A linear module of a layer.
    pub(crate) fn linear(&self, layer: usize, module: LinearModule) -> &Linear {
        let linear = &self.layers[layer].linears[module as usize];
        linear.as_ref().expect("only modules of the family are asked for")
    }

    /// What the output layer reads of hidden states behind the last layer.
    pub(crate) fn normed(&self, hidden: &Tensor) -> Tensor {
        self.normed_by(&self.norm, hidden)
    }

    /// Logits, f32 `[.., vocab_size]`, of hidden states `[.., hidden_size]`.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Tensor {
        let logits = self.normed(hidden).linear::<Tensor>(&self.lm_head, None);
        let logits = match self.config.logit_cap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        };
        logits.to_kind(Kind::Float)
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

    /// `x`, `[.., width]`, normed.
    pub(crate) fn normed_by(&self, norm: &NormWeights, x: &Tensor) -> Tensor {
        let (NormWeights { weight, bias }, eps) = (norm, self.config.norm_eps);
        match self.config.norm {
            NormKind::Rms => x.rms_norm(weight.size(), Some(weight), eps),
            // Its weight is in f32, and libtorch's kernel takes one kind.
            NormKind::RmsAroundOne => {
                let own = x.to_kind(weight.kind());
                own.rms_norm(weight.size(), Some(weight), eps).to_kind(x.kind())
            }
            NormKind::Layer => x.layer_norm(weight.size(), Some(weight), bias.as_ref(), eps, false),
        }
    }
}

/// Rows of `table` by number.
fn embedding(table: &Tensor, numbers: &Tensor) -> Tensor {
    Tensor::embedding(table, numbers, -1, false, false)
}

impl Linear {
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}
