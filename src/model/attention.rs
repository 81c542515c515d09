//! Attention, and positions in it: rotary embedding.

use tch::{Device, Kind, Tensor};

use super::{DecoderConfig, dim, flat};

/// Rotary position embedding: coordinates i and i + d/2 of a head of width d
/// at position p turn by the angle p · theta^(−2i / d).
pub(crate) struct Rope {
    /// `[.., n_inputs, head_dim]`, the two halves alike.
    cos: Tensor,
    /// The same, the first half negative.
    sin: Tensor,
}

impl Rope {
    /// Angles in f32, as `transformers` has them; tables of `like`'s kind.
    pub(crate) fn new(config: &DecoderConfig, n_inputs: i64, like: &Tensor) -> Self {
        let head_dim = dim(config.head_dim);
        let on_host = (Kind::Float, Device::Cpu);
        let exponents = Tensor::arange_start_step(0, head_dim, 2, on_host) / head_dim as f64;
        let frequencies = Tensor::pow_scalar(config.rope.theta, &exponents).reciprocal();
        let mut frequencies = flat(&[frequencies]);
        config.rope.scale(&mut frequencies);
        let frequencies = Tensor::from_slice(&frequencies).to_device(like.device());
        let angles = Tensor::arange(n_inputs, (Kind::Float, like.device())).outer(&frequencies);
        let (cos, sin) = (angles.cos(), angles.sin());
        let table = |halves: [&Tensor; 2]| Tensor::cat(&halves, -1).to_kind(like.kind());
        Self { cos: table([&cos, &cos]), sin: table([&-&sin, &sin]) }
    }

    /// The tables at `positions`, `[n_examples, n]`, for heads of those alone.
    pub(crate) fn at(&self, positions: &Tensor) -> Self {
        let rows = |table: &Tensor| {
            let rows = table.index_select(0, &positions.flatten(0, 1));
            rows.unflatten(0, positions.size()).unsqueeze(1)
        };
        Self { cos: rows(&self.cos), sin: rows(&self.sin) }
    }

    /// Turns heads `[n_examples, n_heads, n_inputs, head_dim]` by their positions;
    /// they come out laid out in memory as they went in.
    pub(crate) fn turn(&self, heads: &Tensor) -> Tensor {
        let turned = heads * &self.cos;
        let half = heads.size()[3] / 2;
        for (own, other) in [(0, half), (half, 0)] {
            let sin = self.sin.narrow(-1, own, half);
            let _ = turned.narrow(-1, own, half).addcmul_(&heads.narrow(-1, other, half), &sin);
        }
        turned
    }

    /// Turns them back, which is also how gradients go.
    pub(crate) fn turn_back(&self, heads: &Tensor) -> Tensor {
        Self { cos: self.cos.shallow_clone(), sin: -&self.sin }.turn(heads)
    }

    pub(crate) fn shallow_clone(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }
}

/// What every position reads of itself and those before it, `[n_examples,
/// n_inputs, n_heads · head_dim]`: queries `[n_examples, n_heads, n_inputs,
/// head_dim]`, keys and values of as many heads or of fewer. With a window it
/// reads of so many positions.
pub(crate) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor, window: Option<i64>) -> Tensor {
    let is_grouped = k.size()[1] < q.size()[1];
    let n_inputs = k.size()[2];
    let is_seen = window.filter(|window| *window < n_inputs).map(|window| {
        let positions = Tensor::arange(n_inputs, (Kind::Int64, k.device()));
        is_hidden(&positions, n_inputs, Some(window)).logical_not()
    });
    let is_causal = is_seen.is_none();
    let out =
        Tensor::scaled_dot_product_attention(q, k, v, is_seen, 0.0, is_causal, None, is_grouped);
    out.transpose(1, 2).flatten(2, 3)
}

/// Whether a query at each of `positions`, `[.., n]`, does not see a key: `[.., n,
/// n_keys]`. It sees keys up to its own position, and of those the last `window`.
pub(crate) fn is_hidden(positions: &Tensor, n_keys: i64, window: Option<i64>) -> Tensor {
    let keys = Tensor::arange(n_keys, (Kind::Int64, positions.device()));
    let positions = positions.unsqueeze(-1);
    let is_behind = keys.greater_tensor(&positions);
    match window {
        Some(window) => is_behind.logical_or(&keys.less_equal_tensor(&(positions - window))),
        None => is_behind,
    }
}
