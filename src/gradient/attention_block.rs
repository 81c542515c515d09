//! Attention between its norms, from hidden states to what is added to them,
//! forward and backward.

use tch::Tensor;

use super::adapted::Sink;
use super::attention::{Attention, Heads, Sites};
use super::modules::{Modules, through};
use super::norm::Norm;
use crate::model::ModelError;
use crate::model::attention::Ropes;
use crate::model::decoder::NormWeights;
use crate::model::modules::LinearModule;

/// What is kept of attention until its backward pass.
pub(super) struct AttentionBlock<'a> {
    qk_norms: Option<[Norm<'a>; 2]>,
    attention: Attention,
    after: Option<Norm<'a>>,
}

/// Where a block is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Of every position.
    pub(super) ropes: &'a Ropes,
    /// Where the output is wanted.
    pub(super) sites: &'a Sites,
}

impl<'a> AttentionBlock<'a> {
    /// The block's output at its sites, `[n_examples, n_sites, hidden_size]`, for
    /// `input`, `[n_examples, n_inputs, hidden_size]`, and its way back.
    pub(super) fn record(
        modules: &mut Modules<'a>,
        Place { ropes, sites }: Place<'_>,
        input: &Tensor,
    ) -> (Tensor, Self) {
        let weights = modules.weights();
        let (x, _) = modules.norm_if(weights.attention_norms.before.as_ref(), input);
        let [mut q, mut k, v] = queries_keys_values(modules, sites, &x);
        let qk_norms = weights.qk_norms.as_ref().map(|[of_q, of_k]| {
            [(&mut q, of_q), (&mut k, of_k)].map(|(rows, weights)| {
                let (normed, norm) = modules.norm(weights, &vectors(rows, weights));
                *rows = normed.flatten(-2, -1);
                norm
            })
        });
        let [q, k, v] = [q, k, v].map(|rows| modules.pass.model.decoder.by_head(&rows));
        let mut heads = Heads { q, k, v };
        let own = modules.config().attention[modules.layer];
        if let Some((of_q, of_k)) = sites.ropes.of(own).zip(ropes.of(own)) {
            heads.q = of_q.turn(&heads.q);
            heads.k = of_k.turn(&heads.k);
        }
        let is_fused = modules.pass.model.is_fused;
        let attention = Attention::new(heads, sites, modules.config().scores, is_fused);
        let y = modules.forward(LinearModule::O, &attention.y());
        let (y, after) = modules.norm_if(weights.attention_norms.after.as_ref(), &y);
        (y, Self { qk_norms, attention, after })
    }

    /// From the gradient by the block's output to that by its input, at all positions.
    pub(super) fn differentiate(
        self,
        modules: &mut Modules<'a>,
        place: Place<'_>,
        input: &Tensor,
        gradient: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let Self { qk_norms, attention, after } = self;
        let gradient = through(after, gradient.shallow_clone());
        let by_attended = modules.back(LinearModule::O, &attention.y(), &gradient, sink)?;
        let by = attention.differentiate(place.sites, &by_attended);
        let by = turned_back(modules, place, by);
        let mut by = [by.q, by.k, by.v].map(|heads| heads.transpose(1, 2).flatten(2, 3));
        if let Some(norms) = qk_norms {
            let of_qk = modules.weights().qk_norms.iter().flatten();
            for ((by, norm), weights) in by.iter_mut().zip(norms).zip(of_qk) {
                *by = norm.differentiate(&vectors(by, weights)).flatten(-2, -1);
            }
        }
        let norms = &modules.weights().attention_norms;
        let (x, before) = modules.norm_if(norms.before.as_ref(), input);
        Ok(through(before, back_through(modules, place.sites, &x, by, sink)?))
    }
}

/// Queries at the sites, keys and values, of hidden states `x`.
fn queries_keys_values(modules: &mut Modules<'_>, sites: &Sites, x: &Tensor) -> [Tensor; 3] {
    if modules.config().has(LinearModule::Qkv) {
        let joined = modules.forward(LinearModule::Qkv, x);
        let [q, k, v] = modules.config().split_heads(&joined);
        return [sites.of(&q), k, v];
    }
    [
        modules.forward(LinearModule::Q, &sites.of(x)),
        modules.forward(LinearModule::K, x),
        modules.forward(LinearModule::V, x),
    ]
}

/// Back through what gave queries, keys and values.
fn back_through(
    modules: &mut Modules<'_>,
    sites: &Sites,
    x: &Tensor,
    [by_q, by_k, by_v]: [Tensor; 3],
    sink: &mut Sink<'_>,
) -> Result<Tensor, ModelError> {
    if modules.config().has(LinearModule::Qkv) {
        let by_q = sites.spread(by_q, x);
        let by_all = modules.config().join_heads(&[by_q, by_k, by_v]);
        return modules.back(LinearModule::Qkv, x, &by_all, sink);
    }
    let by_v = modules.back(LinearModule::V, x, &by_v, sink)?;
    let by_x = modules.back(LinearModule::K, x, &by_k, sink)?.f_add_(&by_v)?;
    let by_q = modules.back(LinearModule::Q, &sites.of(x), &by_q, sink)?;
    Ok(sites.add(by_x, &by_q))
}

fn turned_back(modules: &Modules<'_>, Place { ropes, sites }: Place<'_>, by: Heads) -> Heads {
    let own = modules.config().attention[modules.layer];
    match sites.ropes.of(own).zip(ropes.of(own)) {
        Some((of_q, of_k)) => Heads { q: of_q.turn_back(&by.q), k: of_k.turn_back(&by.k), v: by.v },
        None => by,
    }
}

/// Rows of queries or keys as the vectors that are normed: heads, or all of them.
fn vectors(rows: &Tensor, weights: &NormWeights) -> Tensor {
    rows.unflatten(-1, [-1, weights.weight.size()[0]])
}
