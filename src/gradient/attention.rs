//! Causal attention and its derivative, on a processor as products of whole
//! matrices.
//!
//! libtorch's own kernel for a processor takes a third of a layer's time for rows
//! of 160 tokens, mostly on the way back. By hand, the heads that share keys are one
//! matrix, and nothing is kept but queries, keys and values: the weights
//! P = softmax(s·Q·Kᵀ) are computed again for
//!
//! ```text
//! O = P·V    ∇V = Pᵀ·∇O    ∇S = P ∘ (∇P − rowsum(P ∘ ∇P)), ∇P = ∇O·Vᵀ
//!            ∇Q = s·∇S·K   ∇K = s·∇Sᵀ·Q
//! ```
//!
//! and where scores are capped at c, ∇S ∘ (1 − t²) stands for ∇S, t = tanh(s·Q·Kᵀ/c).
//!
//! A block of queries at a time, so that memory grows with the length of a row
//! and not with its square, and no block looks at keys behind it.

use tch::{Kind, Tensor};

use super::fused::Fused;
use crate::model::architecture::Scores;
use crate::model::attention::{Ropes, causal_attention, is_hidden};

/// Queries of a row whose weights are in memory at once.
const QUERIES: i64 = 256;

/// Where the output of a layer is wanted.
pub(super) struct Sites {
    /// i64 `[n_examples, n_sites]`; `None` is every position. All that is asked
    /// of a last layer is what predicts a label.
    positions: Option<Tensor>,
    /// For the sites alone.
    pub(super) ropes: Ropes,
    /// 0 where a site sees a key, −∞ elsewhere: `[1 or n_examples, 1, n_sites,
    /// n_inputs]`.
    mask: Tensor,
    /// How many keys a site sees, where it does not see all before it.
    window: Option<i64>,
}

impl Sites {
    /// Every position of `n_inputs`; tensors of `like`'s kind.
    pub(super) fn all(ropes: Ropes, n_inputs: i64, window: Option<i64>, like: &Tensor) -> Self {
        let window = window.filter(|window| *window < n_inputs);
        let positions = Tensor::arange(n_inputs, (Kind::Int64, like.device())).unsqueeze(0);
        let mask = mask(&positions, n_inputs, window, like.kind());
        Self { positions: None, ropes, mask, window }
    }

    /// `positions`, i64 `[n_examples, n_sites]`, of `n_inputs`.
    pub(super) fn some(
        ropes: &Ropes,
        positions: Tensor,
        n_inputs: i64,
        window: Option<i64>,
        like: &Tensor,
    ) -> Self {
        let window = window.filter(|window| *window < n_inputs);
        let mask = mask(&positions, n_inputs, window, like.kind());
        Self { ropes: ropes.at(&positions), positions: Some(positions), mask, window }
    }

    /// The sites' rows of `x`, `[n_examples, n_inputs, width]`.
    pub(super) fn of(&self, x: &Tensor) -> Tensor {
        match self.places(x) {
            None => x.shallow_clone(),
            Some(places) => x.gather(1, &places, false),
        }
    }

    /// `all`, `[n_examples, n_inputs, width]`, with `own`, `[n_examples,
    /// n_sites, width]`, added at the sites.
    pub(super) fn add(&self, mut all: Tensor, own: &Tensor) -> Tensor {
        match self.places(&all) {
            None => all.g_add_(own),
            Some(places) => all.scatter_add_(1, &places, own),
        }
    }

    /// `own`, `[n_examples, n_sites, width]`, at the sites of `like`'s positions, and
    /// zero elsewhere.
    pub(super) fn spread(&self, own: Tensor, like: &Tensor) -> Tensor {
        if self.positions.is_none() {
            return own;
        }
        let mut size = like.size();
        size[2] = own.size()[2];
        self.add(own.new_zeros(size, (own.kind(), own.device())), &own)
    }

    fn places(&self, x: &Tensor) -> Option<Tensor> {
        let width = *x.size().last().expect("hidden states have a width");
        let positions = self.positions.as_ref()?;
        Some(positions.unsqueeze(-1).expand([-1, -1, width], false))
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        let (n_sites, n_inputs) = (self.mask.size()[2], self.mask.size()[3]);
        (0..n_sites).step_by(QUERIES as usize).map(move |start| {
            let n = QUERIES.min(n_sites - start);
            let (first_key, end) = match (&self.positions, self.window) {
                (Some(_), _) => (0, n_inputs),
                (None, None) => (0, start + n),
                (None, Some(window)) => ((start + 1 - window).max(0), start + n),
            };
            let n_keys = end - first_key;
            let mask = self.mask.narrow(2, start, n).narrow(3, first_key, n_keys);
            Block { start, n, first_key, n_keys, mask }
        })
    }
}

/// 0 at keys that a site sees, −∞ elsewhere.
fn mask(positions: &Tensor, n_inputs: i64, window: Option<i64>, kind: Kind) -> Tensor {
    let is_hidden = is_hidden(positions, n_inputs, window).unsqueeze(1);
    is_hidden.zeros_like().to_kind(kind).masked_fill(&is_hidden, f64::NEG_INFINITY)
}

/// Some consecutive sites and the keys that they may see.
struct Block {
    start: i64,
    n: i64,
    first_key: i64,
    n_keys: i64,
    /// `[1 or n_examples, 1, n, n_keys]`.
    mask: Tensor,
}

impl Block {
    /// What the block sees of keys or values, as a view:
    /// `[n_examples · n_kv_heads, n_keys, head_dim]`.
    fn seen(&self, keys: &Tensor) -> Tensor {
        keys.flatten(0, 1).narrow(1, self.first_key, self.n_keys)
    }
}

/// Attention on its way back.
pub(super) enum Attention {
    /// libtorch's kernel, which knows neither sites nor windows.
    Fused(Fused<3>),
    /// Products of matrices.
    ByHand {
        /// What it is between.
        heads: Heads,
        scores: Scores,
        /// What it gives.
        y: Tensor,
    },
}

impl Attention {
    /// Attention between `heads`.
    pub(super) fn new(heads: Heads, sites: &Sites, scores: Scores, is_fused: bool) -> Self {
        let is_plain = sites.positions.is_none() && sites.window.is_none() && scores.cap.is_none();
        if is_fused && is_plain {
            let Heads { q, k, v } = &heads;
            let attend = |[q, k, v]: &[Tensor; 3]| causal_attention([q, k, v], scores, None);
            return Self::Fused(Fused::new([q, k, v], attend));
        }
        // Heads that share keys are views as one matrix.
        let heads: Heads = [heads.q, heads.k, heads.v].map(|x| x.contiguous()).into();
        let y = heads.attend(sites, scores);
        Self::ByHand { heads, scores, y }
    }

    /// What every site reads, `[n_examples, n_sites, n_heads · head_dim]`.
    pub(super) fn y(&self) -> Tensor {
        match self {
            Self::Fused(fused) => fused.y(),
            Self::ByHand { y, .. } => y.shallow_clone(),
        }
    }

    /// Gradients by queries, keys and values, each in its own shape, from that by
    /// what every site reads.
    pub(super) fn differentiate(self, sites: &Sites, gradient: &Tensor) -> Heads {
        match self {
            Self::Fused(fused) => fused.differentiate(gradient).into(),
            Self::ByHand { heads, scores, .. } => heads.differentiate(sites, scores, gradient),
        }
    }
}

/// What attention is between.
pub(super) struct Heads {
    /// `[n_examples, n_heads, n_sites, head_dim]`, turned.
    pub(super) q: Tensor,
    /// `[n_examples, n_kv_heads, n_inputs, head_dim]`, turned.
    pub(super) k: Tensor,
    /// `[n_examples, n_kv_heads, n_inputs, head_dim]`.
    pub(super) v: Tensor,
}

impl From<[Tensor; 3]> for Heads {
    fn from([q, k, v]: [Tensor; 3]) -> Self {
        Self { q, k, v }
    }
}

impl Heads {
    /// As [`Attention::y`].
    fn attend(&self, sites: &Sites, scores: Scores) -> Tensor {
        let out = self.q.transpose(1, 2).empty_like();
        for block in sites.blocks() {
            let own = self.weights(&block, scores).p.bmm(&block.seen(&self.v));
            let own = self.by_head(&own, &block).transpose(1, 2);
            out.narrow(1, block.start, block.n).copy_(&own);
        }
        out.flatten(2, 3)
    }

    /// As [`Attention::differentiate`].
    fn differentiate(&self, sites: &Sites, scores: Scores, gradient: &Tensor) -> Self {
        let head_dim = self.q.size()[3];
        let gradient = gradient.unflatten(-1, [-1, head_dim]).transpose(1, 2);
        let by = Self { q: self.q.empty_like(), k: self.k.zeros_like(), v: self.v.zeros_like() };
        for block in sites.blocks() {
            let Weights { p, slope } = self.weights(&block, scores);
            let gradient = self.grouped(&gradient, &block);
            add_product(&block.seen(&by.v), &p.transpose(1, 2), &gradient);
            let by_p = gradient.bmm(&block.seen(&self.v).transpose(1, 2));
            let by_sums =
                Tensor::internal_softmax_backward_data(&by_p, &p, -1, self.q.kind()) * scores.scale;
            let by_sums = match slope {
                Some(slope) => by_sums * slope,
                None => by_sums,
            };
            let q = by_sums.bmm(&block.seen(&self.k));
            by.q.narrow(2, block.start, block.n).copy_(&self.by_head(&q, &block));
            let own = self.grouped(&self.q, &block);
            add_product(&block.seen(&by.k), &by_sums.transpose(1, 2), &own);
        }
        by
    }

    fn weights(&self, block: &Block, scores: Scores) -> Weights {
        let (queries, keys) = (self.grouped(&self.q, block), block.seen(&self.k).transpose(1, 2));
        let (sums, slope) = match scores.cap {
            None => (self.mask(block).baddbmm(&queries, &keys, 1.0, scores.scale), None),
            Some(cap) => {
                let capped = (queries.bmm(&keys) * (scores.scale / cap)).tanh_();
                let slope = 1.0 - capped.square();
                (capped * cap + self.mask(block), Some(slope))
            }
        };
        Weights { p: sums.softmax(-1, self.q.kind()), slope }
    }

    /// A block's mask for all heads, `[1 or n_examples · n_kv_heads, group · n,
    /// n_keys]`.
    fn mask(&self, block: &Block) -> Tensor {
        let (n_heads, n_kv_heads) = (self.q.size()[1], self.k.size()[1]);
        let is_shared = block.mask.size()[0] == 1;
        let n_own = if is_shared { n_heads / n_kv_heads } else { n_heads };
        let mask = block.mask.expand([-1, n_own, -1, -1], false);
        mask.reshape([-1, n_heads / n_kv_heads * block.n, block.n_keys])
    }

    /// A block of what is by head and site, the heads that share keys as one:
    /// `[n_examples · n_kv_heads, group · n, head_dim]`.
    fn grouped(&self, heads: &Tensor, block: &Block) -> Tensor {
        let (n_examples, n_kv_heads) = (self.k.size()[0], self.k.size()[1]);
        let own = heads.narrow(2, block.start, block.n);
        own.reshape([n_examples * n_kv_heads, -1, self.q.size()[3]])
    }

    /// The other way, as a view: `[n_examples, n_heads, n, head_dim]`.
    fn by_head(&self, grouped: &Tensor, block: &Block) -> Tensor {
        grouped.view([self.k.size()[0], self.q.size()[1], block.n, self.q.size()[3]])
    }
}

/// What a block's queries make of its keys, `[n_examples · n_kv_heads, group · n,
/// n_keys]` each.
struct Weights {
    /// P.
    p: Tensor,
    /// 1 − t², where scores are capped.
    slope: Option<Tensor>,
}

/// Adds a batch of products to the view `sum`.
fn add_product(sum: &Tensor, left: &Tensor, right: &Tensor) {
    let _ = sum.shallow_clone().baddbmm_(left, right);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::Device;

    use super::*;
    use crate::model::DecoderConfig;

    const HEAD_DIM: i64 = 16;

    const SCORES: Scores = Scores { scale: 0.25, cap: None };

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    /// Lengths on both sides of a block's end, one without and one with a block in
    /// the middle.
    const LENGTHS: [i64; 5] = [1, QUERIES - 1, QUERIES, QUERIES + 1, 2 * QUERIES + 88];

    /// Heads, and heads of keys.
    const GROUPS: [(i64, i64); 3] = [(9, 3), (4, 4), (8, 1)];

    /// Distances from f64, relative to its norm. f32 rounds sums of 16 to 2400 terms
    /// at 6e-8 a step: at most 4e-7 is found. bf16 rounds weights, their gradients
    /// and what comes out, each once, at 2e-3: at most 5e-3. A query of 600 that saw
    /// wrong keys would be 0.04.
    const TOLERANCES: [(Kind, f64); 2] = [(Kind::Float, 1e-6), (Kind::BFloat16, 1e-2)];

    /// Two examples' heads, of `kind`'s numbers.
    fn heads([n_heads, n_kv_heads]: [i64; 2], n_sites: i64, n_inputs: i64, kind: Kind) -> Heads {
        let heads = |n_heads, n| Tensor::randn([2, n_heads, n, HEAD_DIM], F64).to_kind(kind);
        let (q, k) = (heads(n_heads, n_sites), heads(n_kv_heads, n_inputs));
        Heads { q, k, v: heads(n_kv_heads, n_inputs) }
    }

    /// Output and gradients as libtorch gives them, in f64: all keys at once, those
    /// behind a query's own position hidden. `positions` is `[1 or 2, n_sites]`.
    fn plainly(heads: &Heads, positions: &Tensor, gradient: &Tensor) -> [Tensor; 4] {
        let leaf = |x: &Tensor| x.to_kind(Kind::Double).set_requires_grad(true);
        let leaves = [&heads.q, &heads.k, &heads.v].map(leaf);
        let keys = Tensor::arange(heads.k.size()[2], (Kind::Int64, Device::Cpu));
        let is_seen = keys.less_equal_tensor(&positions.unsqueeze(-1)).unsqueeze(1);
        let [q, k, v] = &leaves;
        let out =
            Tensor::scaled_dot_product_attention(q, k, v, Some(&is_seen), 0.0, false, None, true);
        let out = out.transpose(1, 2).flatten(2, 3);
        let sum = (&out * gradient.to_kind(Kind::Double)).sum(Kind::Double);
        let [by_q, by_k, by_v] = Tensor::run_backward(&[sum], &leaves, false, false)
            .try_into()
            .expect("a gradient a leaf");
        [out.detach(), by_q, by_k, by_v]
    }

    #[track_caller]
    fn assert_equal_to_autograd(heads: &Heads, sites: &Sites, positions: &Tensor, bound: f64) {
        assert_attention_equals_autograd(heads, sites, positions, bound, false);
    }

    #[track_caller]
    fn assert_attention_equals_autograd(
        heads: &Heads,
        sites: &Sites,
        positions: &Tensor,
        bound: f64,
        is_fused: bool,
    ) {
        let gradient = Tensor::randn(heads.q.transpose(1, 2).flatten(2, 3).size(), F64);
        let gradient = gradient.to_kind(heads.q.kind());
        let expected = plainly(heads, positions, &gradient);
        let own = [&heads.q, &heads.k, &heads.v].map(Tensor::shallow_clone);
        let attention = Attention::new(own.into(), sites, SCORES, is_fused);
        let y = attention.y();
        let Heads { q, k, v } = attention.differentiate(sites, &gradient);
        let found = [y, q, k, v];
        // Of one key there is nothing to choose from, and no gradient by queries
        // and keys: what is left of them is judged by that of the values.
        let norms = expected.each_ref().map(|x| x.norm().double_value(&[]));
        let floor = if is_fused { 0.1 } else { 1e-3 };
        for (at, what) in ["output", "by queries", "by keys", "by values"].iter().enumerate() {
            let error = (found[at].to_kind(Kind::Double) - &expected[at]).norm().double_value(&[]);
            let error = error / norms[at].max(floor * norms[3]);
            assert_eq!(found[at].size(), expected[at].size(), "{what}");
            assert!(error <= bound, "{what} of {:?}: {error:e}", heads.q);
        }
    }

    /// Any: sites have one, attention does not look at it.
    fn ropes(n_inputs: i64, like: &Tensor) -> Ropes {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        Ropes::new(&DecoderConfig::read(&dir).unwrap(), n_inputs, &[], like)
    }

    #[test]
    fn blocks_of_queries_attend_and_differentiate_as_autograd_does() {
        tch::manual_seed(0);
        for (kind, bound) in TOLERANCES {
            for (length, (n_heads, n_kv_heads)) in
                LENGTHS.into_iter().flat_map(|length| GROUPS.map(|group| (length, group)))
            {
                let heads = heads([n_heads, n_kv_heads], length, length, kind);
                let sites = Sites::all(ropes(length, &heads.q), length, None, &heads.q);
                let positions = Tensor::arange(length, (Kind::Int64, Device::Cpu)).unsqueeze(0);
                assert_equal_to_autograd(&heads, &sites, &positions, bound);
            }
        }
    }

    /// Laid out as a layer has them: position by position. Of one key, where products
    /// of matrices leave nothing, the kernel leaves 1e-6; of keys that eight heads
    /// share it adds eight gradients in bf16, 1.1e-2 off.
    #[test]
    fn libtorchs_kernel_is_given_what_it_expects() {
        tch::manual_seed(0);
        for (kind, bound) in [(Kind::Float, 4e-6), (Kind::BFloat16, 2e-2)] {
            for (length, (n_heads, n_kv_heads)) in
                LENGTHS.into_iter().flat_map(|length| GROUPS.map(|group| (length, group)))
            {
                let Heads { q, k, v } = heads([n_heads, n_kv_heads], length, length, kind);
                let by_position = |x: Tensor| x.transpose(1, 2).contiguous().transpose(1, 2);
                let heads: Heads = [q, k, v].map(by_position).into();
                let sites = Sites::all(ropes(length, &heads.q), length, None, &heads.q);
                let positions = Tensor::arange(length, (Kind::Int64, Device::Cpu)).unsqueeze(0);
                assert_attention_equals_autograd(&heads, &sites, &positions, bound, true);
            }
        }
    }

    #[test]
    fn sites_in_any_order_attend_and_differentiate_as_autograd_does() {
        tch::manual_seed(0);
        for (kind, bound) in TOLERANCES {
            for (n_sites, n_inputs) in [(1, 600), (5, 1), (257, 256), (300, 600), (600, 600)] {
                for (n_heads, n_kv_heads) in GROUPS {
                    let positions = positions(n_sites, n_inputs);
                    let heads = heads([n_heads, n_kv_heads], n_sites, n_inputs, kind);
                    let ropes = ropes(n_inputs, &heads.q);
                    let sites =
                        Sites::some(&ropes, positions.shallow_clone(), n_inputs, None, &heads.q);
                    assert_equal_to_autograd(&heads, &sites, &positions, bound);
                }
            }
        }
    }

    /// Unsorted and repeated, and for the second of two examples filled up with the
    /// first position, as a batch does it.
    fn positions(n_sites: i64, n_inputs: i64) -> Tensor {
        let positions = Tensor::randint(n_inputs, [2, n_sites], (Kind::Int64, Device::Cpu));
        let _ = positions.get(1).narrow(0, n_sites / 2, n_sites - n_sites / 2).zero_();
        positions
    }

    #[test]
    fn what_is_added_at_sites_is_added_where_it_was_taken_from() {
        let x = Tensor::arange(2 * 3 * 2, (Kind::Float, Device::Cpu)).reshape([2, 3, 2]);
        let positions = Tensor::from_slice(&[2_i64, 0, 2, 1, 0, 0]).reshape([2, 3]);
        let sites = Sites::some(&ropes(3, &x), positions, 3, None, &x);
        let taken: Vec<f32> = Vec::try_from(sites.of(&x).flatten(0, -1)).unwrap();
        assert_eq!(taken, [4.0, 5.0, 0.0, 1.0, 4.0, 5.0, 8.0, 9.0, 6.0, 7.0, 6.0, 7.0]);
        let own = Tensor::from_slice(&[1.0_f32, 2.0, 4.0, 8.0, 16.0, 32.0]);
        let own = own.reshape([2, 3, 1]).expand([-1, -1, 2], false);
        let added: Vec<f32> =
            Vec::try_from(sites.add(x.zeros_like(), &own).flatten(0, -1)).unwrap();
        assert_eq!(added, [2.0, 2.0, 0.0, 0.0, 5.0, 5.0, 48.0, 48.0, 8.0, 8.0, 0.0, 0.0]);
    }
}
