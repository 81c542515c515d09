//! Positions in attention: rotary embedding, and at which positions a layer's
//! output is wanted.

use tch::{Kind, Tensor};

use super::{DecoderConfig, dim};

/// Rotary position embedding: coordinates i and i + d/2 of a head of width d
/// at position p turn by the angle p · theta^(−2i / d).
pub(crate) struct Rope {
    /// `[.., n_inputs, head_dim]`, the two halves alike.
    cos: Tensor,
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
        let angles = Tensor::cat(&[&angles, &angles], -1);
        Self { cos: angles.cos().to_kind(like.kind()), sin: angles.sin().to_kind(like.kind()) }
    }

    /// The tables at `positions`, `[n_examples, n]`, for heads of those alone.
    fn at(&self, positions: &Tensor) -> Self {
        let rows = |table: &Tensor| {
            let rows = table.index_select(0, &positions.flatten(0, 1));
            rows.unflatten(0, positions.size()).unsqueeze(1)
        };
        Self { cos: rows(&self.cos), sin: rows(&self.sin) }
    }

    /// Turns heads `[n_examples, n_heads, n_inputs, head_dim]` by their positions.
    fn turn(&self, heads: &Tensor) -> Tensor {
        let halves = heads.chunk(2, -1);
        let crossed = Tensor::cat(&[&-&halves[1], &halves[0]], -1);
        heads * &self.cos + crossed * &self.sin
    }
}

/// Where the output of a layer is wanted.
pub(crate) enum Sites<'a> {
    /// At every position.
    All(&'a Rope),
    /// At some: all that is asked of a last layer is what predicts a label.
    Some(&'a SomeSites<'a>),
}

/// Positions of each example at which a layer's output is wanted.
pub(crate) struct SomeSites<'a> {
    rope: &'a Rope,
    own_rope: Rope,
    /// i64 `[n_examples, n_sites]`.
    positions: Tensor,
    /// Which keys a site sees: bool `[n_examples, 1, n_sites, n_inputs]`.
    mask: Tensor,
}

impl<'a> SomeSites<'a> {
    /// Sites `positions`, i64 `[n_examples, n_sites]`, of inputs of length
    /// `n_inputs`.
    pub(crate) fn new(rope: &'a Rope, positions: Tensor, n_inputs: i64) -> Self {
        let keys = Tensor::arange(n_inputs, (Kind::Int64, positions.device()));
        let mask = keys.less_equal_tensor(&positions.unsqueeze(-1)).unsqueeze(1);
        Self { rope, own_rope: rope.at(&positions), positions, mask }
    }
}

impl Sites<'_> {
    /// The sites' rows of `x`, `[n_examples, n_inputs, width]`.
    pub(crate) fn of(&self, x: &Tensor) -> Tensor {
        match self {
            Self::All(_) => x.shallow_clone(),
            Self::Some(sites) => {
                let width = *x.size().last().expect("hidden states have a width");
                x.gather(1, &sites.positions.unsqueeze(-1).expand([-1, -1, width], false), false)
            }
        }
    }

    /// Causal attention of queries at the sites, `[n_examples, n_heads,
    /// n_sites, head_dim]`, to keys and values at every position.
    pub(crate) fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let (rope, own_rope, mask) = match self {
            Self::All(rope) => (*rope, *rope, None),
            Self::Some(sites) => (sites.rope, &sites.own_rope, Some(&sites.mask)),
        };
        let (q, k) = (own_rope.turn(q), rope.turn(k));
        let is_grouped = k.size()[1] < q.size()[1];
        let is_causal = mask.is_none();
        Tensor::scaled_dot_product_attention(&q, &k, v, mask, 0.0, is_causal, None, is_grouped)
    }
}
