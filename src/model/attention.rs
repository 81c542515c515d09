//! Attention, and positions in it: rotary embedding.

use tch::{Device, Kind, Tensor};

use super::architecture::Scores;
use super::config::LayerAttention;
use super::rope::RopeSettings;
use super::{DecoderConfig, dim, flat};

/// A model's ropes for the rows of one batch.
pub(crate) struct Ropes(Vec<Rope>);

impl Ropes {
    /// Of `n_inputs` positions, for rows of `lengths` tokens; tables of `like`'s kind.
    pub(crate) fn new(
        config: &DecoderConfig,
        n_inputs: i64,
        lengths: &[usize],
        like: &Tensor,
    ) -> Self {
        let rope = |settings| Rope::new(settings, config.head_dim, n_inputs, lengths, like);
        Self(config.ropes.iter().map(rope).collect())
    }

    /// The one that a layer's heads are turned by.
    pub(crate) fn of(&self, layer: LayerAttention) -> Option<&Rope> {
        layer.rope.map(|rope| &self.0[rope])
    }

    pub(crate) fn shallow_clone(&self) -> Self {
        let clone =
            |rope: &Rope| Rope { cos: rope.cos.shallow_clone(), sin: rope.sin.shallow_clone() };
        Self(self.0.iter().map(clone).collect())
    }

    /// The tables at `positions`, `[n_examples, n]`, for heads of those alone.
    pub(crate) fn at(&self, positions: &Tensor) -> Self {
        Self(self.0.iter().map(|rope| rope.at(positions)).collect())
    }
}

/// Rotary position embedding: of the first w coordinates of a head, i and i + w/2
/// turn at position p by the angle p · theta^(−2i / w).
pub(crate) struct Rope {
    /// `[1 or n_examples, 1, n_inputs, head_dim]`: the halves alike, and ones where
    /// nothing turns.
    cos: Tensor,
    /// `[1 or n_examples, 1, n_inputs, w]`, the first half negative.
    sin: Tensor,
}

impl Rope {
    fn new(
        settings: &RopeSettings,
        head_dim: usize,
        n_inputs: i64,
        lengths: &[usize],
        like: &Tensor,
    ) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let is_long = lengths.iter().map(|&n_tokens| settings.is_long(n_tokens));
        let angles = if settings.is_long(longest) {
            let is_long = Tensor::from_slice(&is_long.collect::<Vec<_>>()).to_device(like.device());
            let [short, long] = [0, longest].map(|n| angles(settings, n_inputs, n, like));
            long.where_self(&is_long.reshape([-1, 1, 1, 1]), &short)
        } else {
            angles(settings, n_inputs, longest, like)
        };
        let factor = settings.attention_factor();
        let (cos, sin) = (angles.cos() * factor, angles.sin() * factor);
        let mut rest = cos.size();
        rest[3] = dim(head_dim - settings.width);
        let rest = cos.new_ones(rest, (Kind::Float, like.device()));
        Self {
            cos: Tensor::cat(&[&cos, &cos, &rest], -1).to_kind(like.kind()),
            sin: Tensor::cat(&[&-&sin, &sin], -1).to_kind(like.kind()),
        }
    }

    fn at(&self, positions: &Tensor) -> Self {
        let n_examples = positions.size()[0];
        let rows = |table: &Tensor| {
            let table = table.squeeze_dim(1).expand([n_examples, -1, -1], false);
            let positions = positions.unsqueeze(-1).expand([-1, -1, table.size()[2]], false);
            table.gather(1, &positions, false).unsqueeze(1)
        };
        Self { cos: rows(&self.cos), sin: rows(&self.sin) }
    }

    /// Turns heads `[n_examples, n_heads, n_inputs, head_dim]` by their positions;
    /// they come out laid out in memory as they went in.
    pub(crate) fn turn(&self, heads: &Tensor) -> Tensor {
        let turned = heads * &self.cos;
        let half = self.sin.size()[3] / 2;
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
}

/// Angles, f32 `[1, 1, n_inputs, w / 2]`, in texts of `n_tokens`, as `transformers`
/// has them.
fn angles(settings: &RopeSettings, n_inputs: i64, n_tokens: usize, like: &Tensor) -> Tensor {
    let width = dim(settings.width);
    let exponents = Tensor::arange_start_step(0, width, 2, (Kind::Float, Device::Cpu));
    let exponents = exponents / width as f64;
    let frequencies = Tensor::pow_scalar(settings.theta, &exponents).reciprocal();
    let mut frequencies = flat(&[frequencies]);
    settings.scale(&mut frequencies, n_tokens);
    let frequencies = Tensor::from_slice(&frequencies).to_device(like.device());
    let positions = Tensor::arange(n_inputs, (Kind::Float, like.device()));
    positions.outer(&frequencies).unsqueeze(0).unsqueeze(0)
}

/// What every position reads of itself and those before it, `[n_examples,
/// n_inputs, n_heads · head_dim]`: queries `[n_examples, n_heads, n_inputs,
/// head_dim]`, keys and values of as many heads or of fewer. With a window it
/// reads of so many positions.
pub(crate) fn causal_attention(
    [q, k, v]: [&Tensor; 3],
    scores: Scores,
    window: Option<i64>,
) -> Tensor {
    let n_inputs = k.size()[2];
    let window = window.filter(|window| *window < n_inputs);
    // What is causal and no more is not asked for as a mask.
    let is_seen = (window.is_some() || scores.cap.is_some()).then(|| {
        let positions = Tensor::arange(n_inputs, (Kind::Int64, k.device()));
        is_hidden(&positions, n_inputs, window).logical_not()
    });
    attention([q, k, v], scores, is_seen)
}

/// As [`causal_attention`], of queries at `positions`, `[n_examples, n]`, alone: keys and
/// values are those of all positions.
pub(crate) fn attention_at(
    [q, k, v]: [&Tensor; 3],
    positions: &Tensor,
    scores: Scores,
    window: Option<i64>,
) -> Tensor {
    let is_seen = is_hidden(positions, k.size()[2], window).logical_not().unsqueeze(1);
    attention([q, k, v], scores, Some(is_seen))
}

/// What queries read of the keys that they see, which are those up to their own where
/// nothing is said.
fn attention([q, k, v]: [&Tensor; 3], scores: Scores, is_seen: Option<Tensor>) -> Tensor {
    let out = match (scores.cap, is_seen) {
        (Some(cap), Some(is_seen)) => capped_attention([q, k, v], scores.scale, cap, &is_seen),
        (_, is_seen) => {
            let is_grouped = k.size()[1] < q.size()[1];
            let (is_causal, scale) = (is_seen.is_none(), Some(scores.scale));
            Tensor::scaled_dot_product_attention(
                q, k, v, is_seen, 0.0, is_causal, scale, is_grouped,
            )
        }
    };
    out.transpose(1, 2).flatten(2, 3)
}

/// For scores that libtorch has no kernel for.
fn capped_attention([q, k, v]: [&Tensor; 3], scale: f64, cap: f64, is_seen: &Tensor) -> Tensor {
    let n_shared = q.size()[1] / k.size()[1];
    let [k, v] = [k, v].map(|heads| heads.repeat_interleave_self_int(n_shared, 1, None));
    let scores = (q.matmul(&k.transpose(2, 3)) * (scale / cap)).tanh() * cap;
    let scores = scores.masked_fill(&is_seen.logical_not(), f64::NEG_INFINITY);
    scores.softmax(-1, Kind::Float).to_kind(v.kind()).matmul(&v)
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
