//! The pool's rows against the target's centroids.

use std::num::NonZeroUsize;

use ndarray::ArrayView2;
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

use super::index::TargetIndex;
use super::scores::{ScoreRow, ScoreTable};
use super::{Aggregation, InfluenceError, check_same_rows};
use crate::gradient::direction::GradientKind;
use crate::pool::table::TableRow;
use crate::progress::{Event, Observer};
use crate::stage::Stage;
use crate::store::gradient_store::GradientStore;
use crate::store::shard::Shard;

/// Pool rows multiplied at once: with 8192 dimensions, 8 MB a thread where
/// rows are not read in place.
const BLOCK_ROWS: usize = 256;

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
pub struct ScoreSettings {
    /// Which of the stored gradients of the pool.
    pub kind: GradientKind,
    /// How a subtask's examples are joined.
    pub aggregation: Aggregation,
    /// Threads; `None` is all cores.
    pub threads: Option<NonZeroUsize>,
}

/// Scores every row of the pool's `table`.
///
/// A row flagged at any checkpoint is flagged in the result and has no score.
/// The stores are streamed from their memory maps in blocks; in memory are the
/// result, one f64 a row and subtask, and a block a thread. The numbers do not
/// depend on threads, blocks or shards.
///
/// # Errors
///
/// If a store's rows are not the table's, a store and its index were made with
/// different projections or models, or the checkpoints differ in their
/// subtasks; if learning rates are negative, not finite or all zero; or
/// [`InfluenceError::Interrupted`].
pub fn score(
    checkpoints: &[ScoredCheckpoint<'_>],
    table: &[TableRow],
    settings: ScoreSettings,
    observer: &dyn Observer,
) -> Result<ScoreTable, InfluenceError> {
    let weights = weights(checkpoints)?;
    check(checkpoints, table, settings.kind)?;
    let n_threads = settings.threads.map_or(0, NonZeroUsize::get);
    let threads = ThreadPoolBuilder::new().num_threads(n_threads).build()?;
    let subtasks = &checkpoints[0].index.subtasks;
    let mut sums = Sums::new(table.len(), subtasks.len());
    for (checkpoint, weight) in checkpoints.iter().zip(weights) {
        let mut n_done = 0;
        for shard in checkpoint.pool.shards() {
            if observer.is_interrupted() {
                return Err(InfluenceError::Interrupted);
            }
            let centroids = checkpoint.index.centroids(settings.aggregation);
            threads.install(|| sums.add(shard, n_done, settings.kind, centroids, weight));
            n_done += shard.n_rows();
            observer.notify(Event::Progress {
                stage: Stage::Score,
                what: checkpoint.pool.header().checkpoint.clone(),
                done: n_done as u64,
                total: table.len() as u64,
                unit: "rows".to_owned(),
            });
        }
    }
    let subtasks = subtasks.iter().map(|subtask| subtask.name.clone()).collect();
    Ok(ScoreTable { subtasks, rows: sums.into_rows(table) })
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
    table: &[TableRow],
    kind: GradientKind,
) -> Result<(), InfluenceError> {
    let names = |index: &TargetIndex| -> Vec<String> {
        index.subtasks.iter().map(|subtask| subtask.name.clone()).collect()
    };
    for ScoredCheckpoint { pool, index, .. } in checkpoints {
        pool.require(kind)?;
        index
            .store
            .check_comparable(pool.header(), "the target's index")
            .map_err(|kind| kind.at(pool.dir()))?;
        check_same_rows(pool, table)?;
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

/// Weighted sums over the checkpoints, one a row, in f64.
struct Sums {
    n_subtasks: usize,
    /// `[n × n_subtasks]`.
    influence: Vec<f64>,
    loss: Vec<f64>,
    norm: Vec<f64>,
    flags: Vec<Option<String>>,
}

impl Sums {
    fn new(n_rows: usize, n_subtasks: usize) -> Self {
        Self {
            n_subtasks,
            influence: vec![0.0; n_rows * n_subtasks],
            loss: vec![0.0; n_rows],
            norm: vec![0.0; n_rows],
            flags: vec![None; n_rows],
        }
    }

    /// Adds a shard whose first row is the pool's `first_row`. Blocks run in
    /// parallel on the current rayon pool; every inner product is one f32 sum
    /// in the order of dimensions.
    fn add(
        &mut self,
        shard: &Shard,
        first_row: usize,
        kind: GradientKind,
        centroids: ArrayView2<'_, f32>,
        weight: f64,
    ) {
        let columns = shard.kind(kind).expect("the store was asked for it");
        let (n_rows, proj_dim) = (shard.n_rows(), centroids.ncols());
        self.influence[first_row * self.n_subtasks..][..n_rows * self.n_subtasks]
            .par_chunks_mut(BLOCK_ROWS * self.n_subtasks)
            .enumerate()
            .for_each_init(Vec::new, |buffer, (block, sums)| {
                let start = block * BLOCK_ROWS;
                let end = start + sums.len() / self.n_subtasks;
                let unit = columns.unit.as_f32(start * proj_dim..end * proj_dim, buffer);
                let unit = ArrayView2::from_shape((end - start, proj_dim), unit)
                    .expect("a block is whole rows");
                for (sum, cosine) in sums.iter_mut().zip(&unit.dot(&centroids.t())) {
                    *sum += weight * f64::from(*cosine);
                }
            });
        for (row, at) in (first_row..).take(n_rows).enumerate() {
            self.loss[at] += weight * f64::from(shard.loss()[row]);
            self.norm[at] += weight * f64::from(columns.norms[row]);
            if self.flags[at].is_none() {
                self.flags[at] = shard.flag(row).map(str::to_owned);
            }
        }
    }

    fn into_rows(self, table: &[TableRow]) -> Vec<ScoreRow> {
        let influence = self.influence.chunks_exact(self.n_subtasks);
        let influence = influence.map(|row| row.iter().map(|sum| *sum as f32).collect());
        let flags = self.flags.into_iter().zip(influence);
        table
            .iter()
            .zip(flags)
            .zip(self.loss.iter().zip(&self.norm))
            .map(|((head, (flag, by_subtask)), (loss, norm))| ScoreRow {
                id: head.id,
                source: head.source.clone(),
                n_tokens: head.n_tokens,
                n_supervised: head.n_supervised,
                loss: *loss as f32,
                norm: *norm as f32,
                by_subtask: if flag.is_none() { by_subtask } else { Vec::new() },
                flag,
            })
            .collect()
    }
}
