//! Keys and values of texts that are being continued.

use tch::{Kind, Tensor};

use super::{DecoderConfig, dim};

/// What the tokens of some texts read of those before them: keys, turned by their
/// positions, and values of every layer.
pub(crate) struct Cache {
    /// Keys and values by layer, `[n_examples, n_kv_heads, n_positions, head_dim]`. What
    /// no token was kept at is read by none.
    layers: Vec<[Tensor; 2]>,
}

impl Cache {
    /// Room for `n_positions` of every one of `n_examples`, of `like`'s kind.
    pub(crate) fn new(
        config: &DecoderConfig,
        n_examples: usize,
        n_positions: usize,
        like: &Tensor,
    ) -> Self {
        let shape = [n_examples, config.n_kv_heads, n_positions, config.head_dim].map(dim);
        let empty = || Tensor::zeros(shape, (like.kind(), like.device()));
        Self { layers: (0..config.n_layers).map(|_| [empty(), empty()]).collect() }
    }

    /// Keeps a layer's keys and values, `[n_examples, n_kv_heads, n, head_dim]`, of the
    /// tokens at `positions`, `[n_examples, n]`; returns those of all positions.
    pub(crate) fn keep(
        &mut self,
        layer: usize,
        new: [&Tensor; 2],
        positions: &Tensor,
    ) -> [&Tensor; 2] {
        let kept = &mut self.layers[layer];
        for (kept, new) in kept.iter_mut().zip(new) {
            let places = positions.to_kind(Kind::Int64).unsqueeze(1).unsqueeze(-1);
            let _ = kept.scatter_(2, &places.expand(new.size(), false), new);
        }
        kept.each_ref()
    }
}
