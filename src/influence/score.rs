//! The pool's rows against the target's centroids.

use std::num::NonZeroUsize;
use std::ops::Range;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::index::TargetIndex;
use super::scores::{ScoreRow, ScoreTable};
use super::{Aggregation, InfluenceError, places};
use crate::gradient::direction::GradientKind;
use crate::pool::table::TableRow;
use crate::progress::{Event, Observer};
use crate::stage::Stage;
use crate::store::gradient_store::{GradientStore, RowPlace};
use crate::store::inner_products::Queries;
use crate::store::shard::Shard;

/// Pool rows that a thread takes at once.
const BLOCK_ROWS: usize = 64;

/// One checkpoint's part in the score.
#[derive(Clone, Copy, Debug)]
pub struct ScoredCheckpoint<'a> {
    /// The pool's gradients.
    pub pool: &'a GradientStore,
    /// The target's side.
    pub index: &'a TargetIndex,
    /// The mean learning rate of the checkpoint's epoch. Only its share of the
    /// sum over checkpoints matters.
    pub learning_rate: f64,
}

/// How scores are computed.
#[derive(Clone, Copy, Debug)]
pub struct ScoreSettings<'a> {
    /// Which of the stored gradients of the pool, at least one.
    pub kinds: &'a [GradientKind],
    /// How a subtask's examples are joined, at least one.
    pub aggregations: &'a [Aggregation],
    /// Threads; `None` is all cores.
    pub threads: Option<NonZeroUsize>,
}

/// Scores every row of the pool's `table` in one pass over the stores: a table
/// for every kind of gradient with every aggregation, by kind first.
///
/// A row flagged at any checkpoint is flagged in the result and has no score.
/// The stores are read from their memory maps, never copied; in memory are the
/// result and one f64 a row, subtask, kind and aggregation. The numbers do not
/// depend on threads, blocks or shards, nor on what else is scored.
///
/// # Errors
///
/// If a store lacks a row of the table, a store and its index were made with
/// different projections or models, or the checkpoints differ in their
/// subtasks; if learning rates are negative, not finite or all zero; or
/// [`InfluenceError::Interrupted`].
pub fn score(
    checkpoints: &[ScoredCheckpoint<'_>],
    table: &[TableRow],
    settings: ScoreSettings<'_>,
    observer: &dyn Observer,
) -> Result<Vec<ScoreTable>, InfluenceError> {
    let weights = weights(checkpoints)?;
    check(checkpoints, settings.kinds)?;
    let n_threads = settings.threads.map_or(0, NonZeroUsize::get);
    let threads = ThreadPoolBuilder::new().num_threads(n_threads).build()?;
    let subtasks: Vec<String> =
        checkpoints[0].index.subtasks.iter().map(|subtask| subtask.name.clone()).collect();
    let mut sums = Sums::new(table.len(), subtasks.len(), settings);
    for (checkpoint, weight) in checkpoints.iter().zip(weights) {
        let queries = queries(checkpoint.index, settings.aggregations);
        let listed = listed_rows(checkpoint.pool, &places(checkpoint.pool, table)?);
        let mut n_done = 0;
        // Several shards a thread, so that no thread waits long for the others.
        let shards: Vec<_> = checkpoint.pool.shards().iter().zip(&listed).collect();
        for shards in shards.chunks(8 * threads.current_num_threads()) {
            if observer.is_interrupted() {
                return Err(InfluenceError::Interrupted);
            }
            sums.add(shards, &queries, weight, &threads);
            n_done += shards.iter().map(|(_, rows)| rows.len()).sum::<usize>();
            observer.notify(Event::Progress {
                stage: Stage::Score,
                what: checkpoint.pool.header().checkpoint.clone(),
                done: n_done as u64,
                total: table.len() as u64,
                unit: "rows".to_owned(),
            });
        }
    }
    Ok(threads.install(|| sums.into_tables(table, &subtasks)))
}

/// A shard's row that the table has.
#[derive(Clone, Copy)]
struct ListedRow {
    /// Position in the shard.
    row: usize,
    /// Position in the table.
    at: usize,
}

/// The rows of each of a store's shards that the table has, given their places.
fn listed_rows(store: &GradientStore, places: &[RowPlace]) -> Vec<Vec<ListedRow>> {
    let mut listed = vec![Vec::new(); store.shards().len()];
    for (at, RowPlace { shard, row }) in places.iter().enumerate() {
        listed[*shard].push(ListedRow { row: *row, at });
    }
    listed
}

/// The centroids of all subtasks, by aggregation first.
fn queries(index: &TargetIndex, aggregations: &[Aggregation]) -> Queries {
    let centroids = aggregations.iter().flat_map(|aggregation| {
        let centroids = index.centroids(*aggregation).to_slice();
        centroids.expect("an index is in standard layout").chunks_exact(index.store.proj_dim)
    });
    Queries::new(centroids)
}

/// Learning rates as shares of their sum.
fn weights(checkpoints: &[ScoredCheckpoint<'_>]) -> Result<Vec<f64>, InfluenceError> {
    let rates: Vec<f64> = checkpoints.iter().map(|checkpoint| checkpoint.learning_rate).collect();
    let sum: f64 = rates.iter().sum();
    let are_shares = rates.iter().all(|rate| *rate >= 0.0) && sum > 0.0 && sum.is_finite();
    if are_shares {
        Ok(rates.iter().map(|rate| rate / sum).collect())
    } else {
        Err(InfluenceError::Weights(rates))
    }
}

/// After this, all inner products are between rows that belong together.
fn check(
    checkpoints: &[ScoredCheckpoint<'_>],
    kinds: &[GradientKind],
) -> Result<(), InfluenceError> {
    let names = |index: &TargetIndex| -> Vec<String> {
        index.subtasks.iter().map(|subtask| subtask.name.clone()).collect()
    };
    for ScoredCheckpoint { pool, index, .. } in checkpoints {
        kinds.iter().try_for_each(|kind| pool.require(*kind))?;
        index
            .store
            .check_comparable(pool.header(), "the target's index")
            .map_err(|kind| kind.at(pool.dir()))?;
        let first = checkpoints[0].index;
        if names(index) != names(first) {
            return Err(InfluenceError::OtherSubtasks {
                checkpoint: index.store.checkpoint.clone(),
                first: first.store.checkpoint.clone(),
            });
        }
    }
    Ok(())
}

/// Weighted sums over the checkpoints, in f64.
struct Sums<'a> {
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
    fn new(n_rows: usize, n_subtasks: usize, settings: ScoreSettings<'a>) -> Self {
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

    /// Adds some shards.
    fn add(
        &mut self,
        shards: &[(&Shard, &Vec<ListedRow>)],
        queries: &Queries,
        weight: f64,
        threads: &ThreadPool,
    ) {
        let (n_columns, kinds) = (self.n_columns(), self.settings.kinds);
        let influences: Vec<Vec<f64>> = threads.install(|| {
            let influence = |(shard, _): &(&Shard, _)| {
                let mut influence = vec![0.0; shard.n_rows() * n_columns];
                let blocks = influence.par_chunks_mut(BLOCK_ROWS * n_columns).enumerate();
                blocks.for_each(|(block, part)| {
                    let start = block * BLOCK_ROWS;
                    let rows = start..start + part.len() / n_columns;
                    write_influence(shard, rows, kinds, queries, weight, part);
                });
                influence
            };
            shards.par_iter().map(influence).collect()
        });
        for ((shard, rows), influence) in shards.iter().zip(influences) {
            for ListedRow { row, at } in *rows {
                let sums = &mut self.influence[at * n_columns..][..n_columns];
                let own = &influence[row * n_columns..][..n_columns];
                sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
            }
            self.add_facts(shard, rows, weight);
        }
    }

    /// Adds what is known of a shard's rows besides their influence.
    fn add_facts(&mut self, shard: &Shard, rows: &[ListedRow], weight: f64) {
        let kinds = self.settings.kinds;
        for &ListedRow { row, at } in rows {
            self.loss[at] += weight * f64::from(shard.loss()[row]);
            if self.flags[at].is_none() {
                self.flags[at] = shard.flag(row).map(str::to_owned);
            }
        }
        for (kind_idx, kind) in kinds.iter().enumerate() {
            let norms = shard.kind(*kind).expect("the store was asked for it").norms;
            for &ListedRow { row, at } in rows {
                self.norm[at * kinds.len() + kind_idx] += weight * f64::from(norms[row]);
            }
        }
    }

    /// A table a kind and aggregation.
    fn into_tables(self, table: &[TableRow], subtasks: &[String]) -> Vec<ScoreTable> {
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

/// Writes the weighted influence of some of a shard's rows to `out`,
/// `[n × kinds × queries.len()]`.
fn write_influence(
    shard: &Shard,
    rows: Range<usize>,
    kinds: &[GradientKind],
    queries: &Queries,
    weight: f64,
    out: &mut [f64],
) {
    for (kind_idx, kind) in kinds.iter().enumerate() {
        let columns = shard.kind(*kind).expect("the store was asked for it");
        let cosines = columns.unit.inner_products(rows.clone(), queries);
        let cosines = cosines.chunks_exact(queries.len());
        for (out, cosines) in out.chunks_exact_mut(kinds.len() * queries.len()).zip(cosines) {
            let out = &mut out[kind_idx * queries.len()..];
            for (out, cosine) in out.iter_mut().zip(cosines) {
                *out = weight * cosine;
            }
        }
    }
}
