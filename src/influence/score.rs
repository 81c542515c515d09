//! The pool's rows against the target's centroids and its single examples.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::example_scores::{CosinesHeader, TargetExamples};
use super::example_scores_file::{block_rows, write_cosines};
use super::index::TargetIndex;
use super::scores::ScoreTable;
use super::sums::Sums;
use super::{Aggregation, InfluenceError, places};
use crate::gradient::direction::GradientKind;
use crate::pool::table::TableRow;
use crate::progress::{Event, Observer};
use crate::stage::Stage;
use crate::store::gradient_store::{GradientStore, RowPlace};
use crate::store::inner_products::Queries;

/// One checkpoint's part in the score.
#[derive(Clone, Copy, Debug)]
pub struct ScoredCheckpoint<'a> {
    /// The pool's gradients.
    pub pool: &'a GradientStore,
    /// The target's side.
    pub index: &'a TargetIndex,
    /// What inner products are divided by, for every row of the table, as
    /// [`Precondition`](super::precondition::Precondition) finds it for the first kind
    /// of gradient; where it is zero they are zero. `None` is one everywhere.
    pub lengths: Option<&'a [f64]>,
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
    let mut work = Work::new(checkpoints, table, settings, observer)?;
    for (checkpoint, weight) in checkpoints.iter().zip(weights(checkpoints)?) {
        let pass = work.pass(checkpoint, weight, None)?;
        for start in (0..table.len()).step_by(block_rows(1)) {
            let rows = start..table.len().min(start + block_rows(1));
            work.add(&pass, rows, &mut [])?;
        }
    }
    Ok(work.into_tables())
}

/// What [`score_examples`] found.
#[derive(Debug)]
pub struct ScoredExamples {
    /// As [`score`] returns them.
    pub tables: Vec<ScoreTable>,
    /// The files of cosines, and their markers, with their checksums.
    pub cosines: Vec<(PathBuf, String)>,
}

/// As [`score`], and in the same pass writes the cosines with every single target
/// example, for the first kind of gradient, into the folder `dir`
/// ([`example_scores`](super::example_scores)). They are in the order of `pool`, of
/// which `table` is a part; what is not in it is as if flagged.
///
/// # Errors
///
/// As [`score`]; if no target example is usable at every checkpoint; or if a file
/// cannot be written.
pub fn score_examples(
    checkpoints: &[ScoredCheckpoint<'_>],
    table: &[TableRow],
    pool: &[TableRow],
    dir: &Path,
    settings: ScoreSettings<'_>,
    observer: &dyn Observer,
) -> Result<ScoredExamples, InfluenceError> {
    let mut work = Work::new(checkpoints, table, settings, observer)?;
    let indices: Vec<&TargetIndex> = checkpoints.iter().map(|side| side.index).collect();
    let targets = TargetExamples::usable_at_all(&indices);
    if targets.examples.is_empty() {
        return Err(InfluenceError::NoTargetAtAll);
    }
    let ids: Vec<_> = pool.iter().map(|row| row.id).collect();
    let position = |at: usize| match ids.get(at) {
        Some(id) => table.partition_point(|row| row.id < *id),
        None => table.len(),
    };
    let n_targets = targets.examples.len();
    let mut cosines = Vec::new();
    for (checkpoint, weight) in checkpoints.iter().zip(weights(checkpoints)?) {
        let pass = work.pass(checkpoint, weight, Some(&targets))?;
        let header = CosinesHeader {
            checkpoint: checkpoint.index.store.checkpoint.clone(),
            weight,
            targets: targets.clone(),
        };
        cosines.extend(write_cosines(dir, header, &ids, |rows, out| {
            let own = position(rows.start)..position(rows.end);
            let mut found = vec![f32::NAN; own.len() * n_targets];
            work.add(&pass, own.clone(), &mut found)?;
            let mut found = table[own].iter().zip(found.chunks_exact(n_targets)).peekable();
            for (id, out) in ids[rows].iter().zip(out.chunks_exact_mut(n_targets)) {
                if let Some((_, found)) = found.next_if(|(row, _)| row.id == *id) {
                    out.copy_from_slice(found);
                }
            }
            Ok::<_, InfluenceError>(())
        })?);
    }
    Ok(ScoredExamples { tables: work.into_tables(), cosines })
}

/// Scores in the making.
struct Work<'a> {
    checkpoints: &'a [ScoredCheckpoint<'a>],
    table: &'a [TableRow],
    settings: ScoreSettings<'a>,
    threads: ThreadPool,
    sums: Sums<'a>,
    observer: &'a dyn Observer,
}

impl<'a> Work<'a> {
    fn new(
        checkpoints: &'a [ScoredCheckpoint<'a>],
        table: &'a [TableRow],
        settings: ScoreSettings<'a>,
        observer: &'a dyn Observer,
    ) -> Result<Self, InfluenceError> {
        // Before there is a first one.
        weights(checkpoints)?;
        check(checkpoints, settings.kinds)?;
        let n_threads = settings.threads.map_or(0, NonZeroUsize::get);
        let threads = ThreadPoolBuilder::new().num_threads(n_threads).build()?;
        let n_subtasks = checkpoints[0].index.subtasks.len();
        let mut sums = Sums::new(table.len(), n_subtasks, settings);
        // All flags before any cosine is written: a row is without everywhere.
        for ScoredCheckpoint { pool, .. } in checkpoints {
            sums.add_flags(pool, &places(pool, table)?);
        }
        Ok(Self { checkpoints, table, settings, threads, sums, observer })
    }

    /// What is needed to add one checkpoint; with `targets`, their cosines come
    /// along.
    fn pass(
        &self,
        checkpoint: &ScoredCheckpoint<'a>,
        weight: f64,
        targets: Option<&TargetExamples>,
    ) -> Result<Pass<'a>, InfluenceError> {
        let ScoredCheckpoint { pool, index, lengths, .. } = *checkpoint;
        let centroids = centroids(index, self.settings.aggregations);
        let examples = targets.map_or_else(Vec::new, |targets| targets.rows_in(index));
        let unit = index.rows.unit.view();
        let examples = examples
            .iter()
            .map(|row| unit.row(*row).to_slice().expect("an index is in standard layout"));
        Ok(Pass {
            pool,
            weight,
            places: places(pool, self.table)?,
            lengths,
            first: Queries::new(centroids.iter().copied().chain(examples)),
            others: Queries::new(centroids.iter().copied()),
        })
    }

    /// Adds some rows of the table at one checkpoint, and writes their cosines to
    /// `cosines`, `[n × n_targets]`.
    fn add(
        &mut self,
        pass: &Pass<'_>,
        rows: std::ops::Range<usize>,
        cosines: &mut [f32],
    ) -> Result<(), InfluenceError> {
        if self.observer.is_interrupted() {
            return Err(InfluenceError::Interrupted);
        }
        let done = rows.end as u64;
        self.threads.install(|| self.sums.add(pass, rows, cosines));
        self.observer.notify(Event::Progress {
            stage: Stage::Score,
            what: pass.pool.header().checkpoint.clone(),
            done,
            total: self.table.len() as u64,
            unit: "rows".to_owned(),
        });
        Ok(())
    }

    fn into_tables(self) -> Vec<ScoreTable> {
        let subtasks = &self.checkpoints[0].index.subtasks;
        let subtasks: Vec<String> = subtasks.iter().map(|subtask| subtask.name.clone()).collect();
        self.threads.install(|| self.sums.into_tables(self.table, &subtasks))
    }
}

/// One checkpoint's side of all inner products.
pub(super) struct Pass<'a> {
    pub(super) pool: &'a GradientStore,
    pub(super) weight: f64,
    /// Where the rows of the table are.
    pub(super) places: Vec<RowPlace>,
    /// Their lengths.
    pub(super) lengths: Option<&'a [f64]>,
    /// Queries of the first kind: the centroids, and then the target examples.
    pub(super) first: Queries,
    /// Queries of the others: the centroids.
    pub(super) others: Queries,
}

/// The centroids of all subtasks, by aggregation first.
fn centroids<'a>(index: &'a TargetIndex, aggregations: &[Aggregation]) -> Vec<&'a [f32]> {
    let of = |aggregation: &Aggregation| {
        let centroids = index.centroids(*aggregation).to_slice();
        centroids.expect("an index is in standard layout").chunks_exact(index.store.proj_dim)
    };
    aggregations.iter().flat_map(of).collect()
}

/// The checkpoints' weights.
fn weights(checkpoints: &[ScoredCheckpoint<'_>]) -> Result<Vec<f64>, InfluenceError> {
    shares(checkpoints.iter().map(|checkpoint| checkpoint.learning_rate).collect())
}

/// Learning rates as shares of their sum.
///
/// # Errors
///
/// If one is below zero, or they have no sum above zero.
pub fn shares(rates: Vec<f64>) -> Result<Vec<f64>, InfluenceError> {
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
