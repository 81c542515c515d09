//! Attention, and positions in it: rotary embedding.

use tch::{Kind, Tensor};

use super::{DecoderConfig, dim};

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
        let options = (Kind::Float, like.device());
        let exponents = Tensor::arange_start_step(0, head_dim, 2, options) / head_dim as f64;
        let frequencies = Tensor::pow_scalar(config.rope_theta, &exponents).reciprocal();
        let angles = Tensor::arange(n_inputs, options).outer(&frequencies);
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
/// head_dim]`, keys and values of as many heads or of fewer.
pub(crate) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let is_grouped = k.size()[1] < q.size()[1];
    let out =
        Tensor::scaled_dot_product_attention::<Tensor>(q, k, v, None, 0.0, true, None, is_grouped);
    out.transpose(1, 2).flatten(2, 3)
}
