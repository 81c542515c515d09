//! RDS+: rows whose last hidden states are like a target example's.
//!
//! Ivison et al., 2025, *Large-Scale Data Selection for Instruction Tuning*: cosines of
//! position-weighted means of last hidden states ([`likeness`](crate::first_pass::likeness)),
//! by one forward pass of the model as it comes. A subtask's score is the mean over its
//! examples.

use std::path::{Path, PathBuf};

use super::compare::{columns, subtask_means};
use super::table_by_subtask;
use crate::first_pass::likeness::Likeness;
use crate::first_pass::{FirstPassError, Represent};
use crate::gradient::collect::ExampleSource;
use crate::influence::example_scores::{CosinesHeader, ExampleScores};
use crate::influence::example_scores_file::write_cosines;
use crate::influence::scores::ScoreTable;
use crate::method::Method;
use crate::pool::ExampleId;
use crate::pool::table::TableRow;
use crate::progress::Observer;

/// Compares every row of `pool` with every example of `target`, in batches of at most
/// `batch_tokens` tokens, and writes the cosines into the folder `dir`: NaN where a row
/// has no finite representation. Returns the file, its marker, and their checksums. In
/// memory are the target's representations and a block of rows.
///
/// # Errors
///
/// See [`FirstPassError`].
pub fn write_likeness<M: Represent>(
    model: &mut M,
    pool: &dyn ExampleSource,
    target: &dyn ExampleSource,
    batch_tokens: usize,
    dir: &Path,
    observer: &dyn Observer,
) -> Result<[(PathBuf, String); 2], FirstPassError<M::Error>> {
    let mut likeness = Likeness::new(model, batch_tokens, observer);
    let (targets, units) = columns(target.rows(), likeness.of_target(target)?);
    let ids: Vec<ExampleId> = pool.rows().iter().map(|row| row.id).collect();
    let header = CosinesHeader { checkpoint: Method::Rds.name().to_owned(), weight: 1.0, targets };
    write_cosines(dir, header, &ids, |rows, out| {
        let found = likeness.with(&units, pool, rows)?;
        out.iter_mut().zip(found.iter().flatten()).for_each(|(out, x)| *out = *x as f32);
        Ok(())
    })
}

/// The table of `cosines` with the rows of the pool's table.
///
/// # Panics
///
/// If they are of fewer rows.
pub fn rds(cosines: &ExampleScores, rows: &[TableRow]) -> ScoreTable {
    const BLOCK_ROWS: usize = 4096;
    let n_subtasks = cosines.targets.subtasks.len();
    let mut by_subtask = vec![f32::NAN; rows.len() * n_subtasks];
    let mut blocks = by_subtask.chunks_mut(BLOCK_ROWS * n_subtasks);
    for start in (0..rows.len()).step_by(BLOCK_ROWS) {
        let block = start..rows.len().min(start + BLOCK_ROWS);
        let by_example = cosines.total(block);
        let by_example = by_example.chunks_exact(cosines.n_targets());
        let by_subtask = blocks.next().expect("a block a block").chunks_exact_mut(n_subtasks);
        for (by_example, by_subtask) in by_example.zip(by_subtask) {
            subtask_means(&cosines.targets, by_example, by_subtask);
        }
    }
    table_by_subtask(rows, cosines.targets.subtasks.clone(), &by_subtask)
}
