//! Every row of a pool against every example of a target.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use super::table_by_subtask;
use crate::gradient::collect::ExampleSource;
use crate::influence::example_scores::{TargetExample, TargetExamples};
use crate::influence::index::subtask_name;
use crate::influence::scores::ScoreTable;
use crate::pool::table::TableRow;
use crate::pool::{Example, PoolError};
use crate::progress::{Event, Observer};
use crate::stage::Stage;

/// Rows read at once.
const BLOCK_ROWS: usize = 4096;

/// A method that compares an example with a target's.
pub trait Compare: Sync {
    /// The target's examples.
    fn targets(&self) -> &TargetExamples;

    /// Writes the scores of `example` with every target example, f32 `[n_targets]`, and
    /// with every subtask, f32 `[n_subtasks]`. They depend on nothing else.
    fn write(&self, example: &Example, by_example: &mut [f32], by_subtask: &mut [f32]);
}

/// A pool that is being compared, block by block.
pub struct Comparison<'a, C> {
    with: &'a C,
    pool: &'a dyn ExampleSource,
    observer: &'a dyn Observer,
    /// `[n_rows × n_subtasks]`.
    by_subtask: Vec<f32>,
}

impl<'a, C: Compare> Comparison<'a, C> {
    /// Of all rows of `pool`, none of them compared yet.
    pub fn new(with: &'a C, pool: &'a dyn ExampleSource, observer: &'a dyn Observer) -> Self {
        let n_subtasks = with.targets().subtasks.len();
        let by_subtask = vec![f32::NAN; pool.rows().len() * n_subtasks];
        Self { with, pool, observer, by_subtask }
    }

    /// Compares the rows at positions `rows` and writes their scores with every target
    /// example to `by_example`, f32 `[n × n_targets]`. In memory is a block of examples.
    ///
    /// # Errors
    ///
    /// If the pool cannot be read, or somebody asked to stop.
    pub fn fill(&mut self, rows: Range<usize>, by_example: &mut [f32]) -> Result<(), PoolError> {
        let targets = self.with.targets();
        let (n_targets, n_subtasks) = (targets.examples.len(), targets.subtasks.len());
        for (start, by_example) in
            rows.clone().step_by(BLOCK_ROWS).zip(by_example.chunks_mut(BLOCK_ROWS * n_targets))
        {
            if self.observer.is_interrupted() {
                return Err(PoolError::Interrupted);
            }
            let block = start..rows.end.min(start + BLOCK_ROWS);
            let examples = self.pool.examples(block.clone())?;
            let by_subtask = &mut self.by_subtask[start * n_subtasks..][..block.len() * n_subtasks];
            let rows = by_example.par_chunks_mut(n_targets);
            let rows = rows.zip(by_subtask.par_chunks_mut(n_subtasks)).zip(&examples);
            rows.for_each(|((by_example, by_subtask), example)| {
                self.with.write(example, by_example, by_subtask);
            });
            self.tell(block.end);
        }
        Ok(())
    }

    fn tell(&self, n_done: usize) {
        self.observer.notify(Event::Progress {
            stage: Stage::Score,
            what: "pool".to_owned(),
            done: n_done as u64,
            total: self.pool.rows().len() as u64,
            unit: "rows".to_owned(),
        });
    }

    /// The table of the subtasks' scores, when all rows were compared.
    pub fn into_table(self) -> ScoreTable {
        let subtasks = self.with.targets().subtasks.clone();
        table_by_subtask(self.pool.rows(), subtasks, &self.by_subtask)
    }
}

/// The scores of every row of `pool` by subtask; those by target example are dropped.
///
/// # Errors
///
/// If the pool cannot be read, or somebody asked to stop.
pub fn compare(
    with: &impl Compare,
    pool: &dyn ExampleSource,
    observer: &dyn Observer,
) -> Result<ScoreTable, PoolError> {
    let n_targets = with.targets().examples.len();
    let mut comparison = Comparison::new(with, pool, observer);
    for start in (0..pool.rows().len()).step_by(BLOCK_ROWS) {
        let rows = start..pool.rows().len().min(start + BLOCK_ROWS);
        let mut by_example = vec![f32::NAN; rows.len() * n_targets];
        comparison.fill(rows, &mut by_example)?;
    }
    Ok(comparison.into_table())
}

/// The target's rows as columns, and what there is one of a row, in the columns' order.
pub(super) fn columns<T>(rows: &[TableRow], of_rows: Vec<T>) -> (TargetExamples, Vec<T>) {
    let targets = TargetExamples::of_table(rows);
    let own = |(row, of_row)| (column_of(&targets, row), of_row);
    let mut by_column: Vec<_> = rows.iter().zip(of_rows).map(own).collect();
    by_column.sort_by(|(a, _), (b, _)| a.cmp(b));
    (targets, by_column.into_iter().map(|(_, of_row)| of_row).collect())
}

fn column_of(targets: &TargetExamples, row: &TableRow) -> TargetExample {
    let subtask = targets.subtasks.binary_search(&subtask_name(row));
    TargetExample { id: row.id, subtask: subtask.expect("a subtask of this table") as u32 }
}

/// A target's examples as the columns they are, in memory.
pub(super) fn read_columns(
    target: &dyn ExampleSource,
) -> Result<(TargetExamples, Vec<Example>), PoolError> {
    let examples = target.examples(0..target.rows().len())?;
    Ok(columns(target.rows(), examples))
}

/// The mean of `by_example`, `[n_targets]`, over each subtask's examples, in f64, to
/// `by_subtask`, `[n_subtasks]`.
pub(super) fn subtask_means(targets: &TargetExamples, by_example: &[f32], by_subtask: &mut [f32]) {
    let mut sums = vec![(0.0, 0_u32); by_subtask.len()];
    for (score, example) in by_example.iter().zip(&targets.examples) {
        let (sum, n) = &mut sums[example.subtask as usize];
        *sum += f64::from(*score);
        *n += 1;
    }
    for (out, (sum, n)) in by_subtask.iter_mut().zip(sums) {
        *out = (sum / f64::from(n)) as f32;
    }
}

/// Which columns have something of a key, such as a token, and how much: a sparse matrix
/// with a row a key.
pub(super) struct Postings {
    /// Where a key's entries start, and behind the last key, where they end.
    starts: Vec<usize>,
    /// Column and weight, by key and then by column.
    entries: Vec<(u32, f64)>,
}

impl Postings {
    /// Weights by key and column.
    pub(super) fn new(weights: &BTreeMap<(u32, u32), f64>) -> Self {
        let n_keys = weights.keys().next_back().map_or(0, |(key, _)| *key as usize + 1);
        let mut starts = vec![0; n_keys + 1];
        for (key, _) in weights.keys() {
            starts[*key as usize + 1] += 1;
        }
        for key in 0..n_keys {
            starts[key + 1] += starts[key];
        }
        let entries = weights.iter().map(|((_, column), weight)| (*column, *weight)).collect();
        Self { starts, entries }
    }

    /// The entries of a key.
    pub(super) fn of(&self, key: u32) -> &[(u32, f64)] {
        match self.starts.get(key as usize..key as usize + 2) {
            Some(ends) => &self.entries[ends[0]..ends[1]],
            None => &[],
        }
    }
}
