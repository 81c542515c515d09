//! Causal attention and its derivative, as products of whole matrices.
//!
//! libtorch's own kernel for a processor takes a third of a layer's time for rows
//! of 160 tokens, mostly on the way back. Here the heads that share keys are one
//! matrix, and nothing is kept but queries, keys and values: the weights
//! P = softmax(s·Q·Kᵀ) are computed again for
//!
//! ```text
//! O = P·V    ∇V = Pᵀ·∇O    ∇S = P ∘ (∇P − rowsum(P ∘ ∇P)), ∇P = ∇O·Vᵀ
//!            ∇Q = s·∇S·K   ∇K = s·∇Sᵀ·Q
//! ```
//!
//! A block of queries at a time, so that memory grows with the length of a row
//! and not with its square, and no block looks at keys behind it.

use tch::{Kind, Tensor};

use crate::model::attention::Rope;

/// Queries of a row whose weights are in memory at once.
const QUERIES: i64 = 256;

/// Where the output of a layer is wanted.
pub(super) struct Sites {
    /// i64 `[n_examples, n_sites]`; `None` is every position. All that is asked
    /// of a last layer is what predicts a label.
    positions: Option<Tensor>,
    /// For the sites alone.
    pub(super) rope: Rope,
    /// 0 where a site sees a key, −∞ elsewhere: `[1 or n_examples, 1, n_sites,
    /// n_inputs]`.
    mask: Tensor,
}

impl Sites {
    /// Every position of `n_inputs`; tensors of `like`'s kind.
    pub(super) fn all(rope: &Rope, n_inputs: i64, like: &Tensor) -> Self {
        let positions = Tensor::arange(n_inputs, (Kind::Int64, like.device())).unsqueeze(0);
        let mask = mask(&positions, n_inputs, like.kind());
        Self { positions: None, rope: rope.shallow_clone(), mask }
    }

    /// `positions`, i64 `[n_examples, n_sites]`, of `n_inputs`.
    pub(super) fn some(rope: &Rope, positions: Tensor, n_inputs: i64, like: &Tensor) -> Self {
        let mask = mask(&positions, n_inputs, like.kind());
        Self { rope: rope.at(&positions), positions: Some(positions), mask }
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

    fn places(&self, x: &Tensor) -> Option<Tensor> {
        let width = *x.size().last().expect("hidden states have a width");
        let positions = self.positions.as_ref()?;
        Some(positions.unsqueeze(-1).expand([-1, -1, width], false))
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        let (n_sites, n_inputs) = (self.mask.size()[2], self.mask.size()[3]);
        (0..n_sites).step_by(QUERIES as usize).map(move |start| {
            let n = QUERIES.min(n_sites - start);
            let n_keys = if self.positions.is_none() { start + n } else { n_inputs };
            let mask = self.mask.narrow(2, start, n).narrow(3, 0, n_keys);
            Block { start, n, n_keys, mask }
        })
    }
}

/// 0 at keys up to a site's own position, −∞ behind it.
fn mask(positions: &Tensor, n_inputs: i64, kind: Kind) -> Tensor {
    let keys = Tensor::arange(n_inputs, (Kind::Int64, positions.device()));
    let is_hidden = keys.greater_tensor(&positions.unsqueeze(-1)).unsqueeze(1);
    is_hidden.zeros_like().to_kind(kind).masked_fill(&is_hidden, f64::NEG_INFINITY)
}

/// Some consecutive sites and the keys that they may see.
struct Block {
    start: i64,
    n: i64,
    n_keys: i64,
    /// `[1 or n_examples, 1, n, n_keys]`.
    mask: Tensor,
}

impl Block {
    /// What the block sees of keys or values, as a view:
    /// `[n_examples · n_kv_heads, n_keys, head_dim]`.
    fn seen(&self, keys: &Tensor) -> Tensor {
        keys.flatten(0, 1).narrow(1, 0, self.n_keys)
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

impl Heads {
    /// What every site reads, `[n_examples, n_sites, n_heads · head_dim]`.
    pub(super) fn attend(&self, sites: &Sites) -> Tensor {
        let out = self.q.transpose(1, 2).empty_like();
        for block in sites.blocks() {
            let own = self.weights(&block).bmm(&block.seen(&self.v));
            let own = self.by_head(&own, &block).transpose(1, 2);
            out.narrow(1, block.start, block.n).copy_(&own);
        }
        out.flatten(2, 3)
    }

    /// Gradients by queries, keys and values, each in its own shape, from that by
    /// what [`attend`](Self::attend) gives.
    pub(super) fn differentiate(&self, sites: &Sites, gradient: &Tensor) -> Self {
        let head_dim = self.q.size()[3];
        let gradient = gradient.unflatten(-1, [-1, head_dim]).transpose(1, 2);
        let by = Self { q: self.q.empty_like(), k: self.k.zeros_like(), v: self.v.zeros_like() };
        for block in sites.blocks() {
            let weights = self.weights(&block);
            let gradient = self.grouped(&gradient, &block);
            add_product(&block.seen(&by.v), &weights.transpose(1, 2), &gradient);
            let by_weights = gradient.bmm(&block.seen(&self.v).transpose(1, 2));
            let kind = self.q.kind();
            let by_sums = Tensor::internal_softmax_backward_data(&by_weights, &weights, -1, kind);
            let by_sums = by_sums * self.scale();
            let q = by_sums.bmm(&block.seen(&self.k));
            by.q.narrow(2, block.start, block.n).copy_(&self.by_head(&q, &block));
            let own = self.grouped(&self.q, &block);
            add_product(&block.seen(&by.k), &by_sums.transpose(1, 2), &own);
        }
        by
    }

    /// P of a block, `[n_examples · n_kv_heads, group · n, n_keys]`.
    fn weights(&self, block: &Block) -> Tensor {
        let keys = block.seen(&self.k).transpose(1, 2);
        let sums =
            self.mask(block).baddbmm(&self.grouped(&self.q, block), &keys, 1.0, self.scale());
        sums.softmax(-1, self.q.kind())
    }

    fn scale(&self) -> f64 {
        (self.q.size()[3] as f64).sqrt().recip()
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

/// Adds a batch of products to the view `sum`.
fn add_product(sum: &Tensor, left: &Tensor, right: &Tensor) {
    let _ = sum.shallow_clone().baddbmm_(left, right);
}
