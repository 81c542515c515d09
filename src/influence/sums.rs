//! Weighted sums of influence over the checkpoints.

use std::ops::Range;

use rayon::prelude::*;

use super::score::{Pass, ScoreSettings};
use super::scores::{ScoreRow, ScoreTable};
use crate::gradient::direction::GradientKind;
use crate::pool::table::TableRow;
use crate::store::gradient_store::{GradientStore, RowPlace};

/// Pool rows that a thread takes at once.
const BLOCK_ROWS: usize = 64;

/// Weighted sums over the checkpoints, in f64, in order of the table.
pub(super) struct Sums<'a> {
    settings: ScoreSettings<'a>,
    n_subtasks: usize,
    /// `[n × kinds × aggregations × n_subtasks]`.
    influence: Vec<f64>,
    /// `[n × kinds]`.
    norm: Vec<f64>,
    /// `[n]`.
    loss: Vec<f64>,
    /// `[n]`.
    flags: Vec<Option<String>>,
}

impl<'a> Sums<'a> {
    pub(super) fn new(n_rows: usize, n_subtasks: usize, settings: ScoreSettings<'a>) -> Self {
        let n_kinds = settings.kinds.len();
        let n_columns = n_kinds * settings.aggregations.len() * n_subtasks;
        Self {
            settings,
            n_subtasks,
            influence: vec![0.0; n_rows * n_columns],
            norm: vec![0.0; n_rows * n_kinds],
            loss: vec![0.0; n_rows],
            flags: vec![None; n_rows],
        }
    }

    /// Sums of influence that a row has.
    fn n_columns(&self) -> usize {
        self.settings.kinds.len() * self.settings.aggregations.len() * self.n_subtasks
    }

    /// Notes why rows must not be ranked; of several reasons, the first.
    pub(super) fn add_flags(&mut self, pool: &GradientStore, places: &[RowPlace]) {
        for (flag, place) in self.flags.iter_mut().zip(places) {
            if flag.is_none() {
                *flag = pool.shards()[place.shard].flag(place.row).map(str::to_owned);
            }
        }
    }

    /// Adds some rows of the table at one checkpoint, on the current rayon pool,
    /// and writes the cosines of the first kind to `cosines`,
    /// `[n × examples among the queries]`: NaN where flagged.
    pub(super) fn add(&mut self, pass: &Pass<'_>, rows: Range<usize>, cosines: &mut [f32]) {
        self.add_facts(pass, rows.clone());
        let (n_columns, kinds) = (self.n_columns(), self.settings.kinds);
        let n_examples = pass.first.len() - pass.others.len();
        let influence = &mut self.influence[rows.start * n_columns..rows.end * n_columns];
        let blocks: Vec<_> = influence.chunks_mut(BLOCK_ROWS * n_columns).collect();
        let mut cosines = cosines.chunks_mut((BLOCK_ROWS * n_examples).max(1));
        let cosines: Vec<_> = blocks.iter().map(|_| cosines.next().unwrap_or_default()).collect();
        let blocks = blocks.into_par_iter().zip(cosines).enumerate();
        blocks.for_each(|(block, (influence, cosines))| {
            let start = rows.start + block * BLOCK_ROWS;
            let own = start..start + influence.len() / n_columns;
            add_influence(pass, own.clone(), kinds, influence, cosines);
            let rows = self.flags[own].iter().zip(cosines.chunks_mut(n_examples.max(1)));
            for (_, cosines) in rows.filter(|(flag, _)| flag.is_some()) {
                cosines.fill(f32::NAN);
            }
        });
    }

    /// Adds what is known of some rows besides their influence.
    fn add_facts(&mut self, pass: &Pass<'_>, rows: Range<usize>) {
        let kinds = self.settings.kinds;
        for at in rows {
            let RowPlace { shard, row } = pass.places[at];
            let shard = &pass.pool.shards()[shard];
            self.loss[at] += pass.weight * f64::from(shard.loss()[row]);
            for (kind, norm) in kinds.iter().zip(&mut self.norm[at * kinds.len()..]) {
                let columns = shard.kind(*kind).expect("the store was asked for it");
                *norm += pass.weight * f64::from(columns.norms[row]);
            }
        }
    }

    /// A table a kind and aggregation.
    pub(super) fn into_tables(self, table: &[TableRow], subtasks: &[String]) -> Vec<ScoreTable> {
        let n_aggregations = self.settings.aggregations.len();
        let n_tables = self.settings.kinds.len() * n_aggregations;
        let of = |table_idx: usize| ScoreTable {
            subtasks: subtasks.to_vec(),
            rows: (0..table.len())
                .into_par_iter()
                .map(|at| self.row(&table[at], at, table_idx, table_idx / n_aggregations))
                .collect(),
        };
        (0..n_tables).map(of).collect()
    }

    fn row(&self, head: &TableRow, at: usize, table_idx: usize, kind_idx: usize) -> ScoreRow {
        let flag = self.flags[at].clone();
        let influence = &self.influence[at * self.n_columns()..][table_idx * self.n_subtasks..];
        let by_subtask = influence[..self.n_subtasks].iter().map(|sum| *sum as f32);
        ScoreRow {
            id: head.id,
            source: head.source.clone(),
            n_tokens: head.n_tokens,
            n_supervised: head.n_supervised,
            loss: self.loss[at] as f32,
            norm: self.norm[at * self.settings.kinds.len() + kind_idx] as f32,
            by_subtask: if flag.is_none() { by_subtask.collect() } else { Vec::new() },
            flag,
        }
    }
}

/// Adds the weighted influence of some rows of the table to `influence`,
/// `[n × kinds × centroids]`, and writes the cosines of the first kind with
/// single examples to `cosines`, `[n × examples]`. Rows that stand together in a
/// shard are multiplied together.
fn add_influence(
    pass: &Pass<'_>,
    own: Range<usize>,
    kinds: &[GradientKind],
    influence: &mut [f64],
    cosines: &mut [f32],
) {
    let n_centroids = pass.others.len();
    let n_examples = pass.first.len() - n_centroids;
    let n_columns = kinds.len() * n_centroids;
    let stand_together = |a: &RowPlace, b: &RowPlace| a.shard == b.shard && a.row + 1 == b.row;
    let mut done = 0;
    for run in pass.places[own.clone()].chunk_by(stand_together) {
        let shard = &pass.pool.shards()[run[0].shard];
        let rows = run[0].row..run[0].row + run.len();
        let influence = &mut influence[done * n_columns..][..run.len() * n_columns];
        for (kind_idx, kind) in kinds.iter().enumerate() {
            let queries = if kind_idx == 0 { &pass.first } else { &pass.others };
            let columns = shard.kind(*kind).expect("the store was asked for it");
            let mut products = columns.unit.inner_products(rows.clone(), queries);
            if let Some(lengths) = pass.lengths.filter(|_| kind_idx == 0) {
                divide(&mut products, &lengths[own.start + done..][..run.len()]);
            }
            let products = products.chunks_exact(queries.len());
            for (sums, products) in influence.chunks_exact_mut(n_columns).zip(products.clone()) {
                for (sum, product) in
                    sums[kind_idx * n_centroids..].iter_mut().zip(&products[..n_centroids])
                {
                    *sum += pass.weight * product;
                }
            }
            if kind_idx == 0 && n_examples > 0 {
                let cosines = cosines[done * n_examples..].chunks_exact_mut(n_examples);
                for (cosines, products) in cosines.zip(products) {
                    for (cosine, product) in cosines.iter_mut().zip(&products[n_centroids..]) {
                        *cosine = *product as f32;
                    }
                }
            }
        }
        done += run.len();
    }
}

/// Divides every row of `products`, as many as there are lengths, by its length; rows
/// of length zero become zeros.
fn divide(products: &mut [f64], lengths: &[f64]) {
    let n_queries = products.len() / lengths.len();
    for (products, length) in products.chunks_exact_mut(n_queries).zip(lengths) {
        for product in products {
            *product = if *length > 0.0 { *product / length } else { 0.0 };
        }
    }
}
