//! How like the target each row of a pool is.

use std::collections::BTreeMap;
use std::path::Path;

use crate::first_pass::likeness::Likeness;
use crate::first_pass::row_values::{self, RowValuesError};
use crate::first_pass::{FirstPassError, Represent};
use crate::gradient::collect::ExampleSource;
use crate::pool::ExampleId;
use crate::pool::table::TableRow;
use crate::progress::Observer;

/// The column of `cascade.parquet`.
const COLUMN: &str = "similarity";

/// Rows whose cosines with all subtasks are in memory at once.
const BLOCK_ROWS: usize = 4096;

/// What the first pass found, in order of id.
#[derive(Clone, Debug, PartialEq)]
pub struct Similarities {
    /// The pool's examples.
    pub ids: Vec<ExampleId>,
    /// sim(z), a cosine each; NaN where a representation is zero or not finite.
    pub similarities: Vec<f32>,
}

impl Similarities {
    /// Compares every row of the pool with the target, in batches of at most
    /// `batch_tokens` tokens. In memory are the target's representations and a block of
    /// examples.
    ///
    /// # Errors
    ///
    /// See [`FirstPassError`].
    pub fn of<M: Represent>(
        model: &mut M,
        pool: &dyn ExampleSource,
        target: &dyn ExampleSource,
        batch_tokens: usize,
        observer: &dyn Observer,
    ) -> Result<Self, FirstPassError<M::Error>> {
        let mut likeness = Likeness::new(model, batch_tokens, observer);
        let centroids = centroids(target.rows(), &likeness.of_target(target)?);
        let n_rows = pool.rows().len();
        let mut similarities = Vec::with_capacity(n_rows);
        for start in (0..n_rows).step_by(BLOCK_ROWS) {
            let rows = start..n_rows.min(start + BLOCK_ROWS);
            let found = likeness.with(&centroids, pool, rows)?;
            similarities.extend(found.iter().map(|by_subtask| highest(by_subtask)));
        }
        Ok(Self { ids: pool.rows().iter().map(|row| row.id).collect(), similarities })
    }

    /// Writes `cascade.parquet`, atomically.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), RowValuesError> {
        row_values::write(path, COLUMN, &self.ids, &self.similarities)
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// If the file is missing, damaged or of something else.
    pub fn read(path: &Path) -> Result<Self, RowValuesError> {
        let (ids, similarities) = row_values::read(path, COLUMN)?;
        Ok(Self { ids, similarities })
    }
}

/// The mean of each subtask's unit representations: its inner product with a unit vector
/// is the mean of the cosines.
fn centroids(heads: &[TableRow], units: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut subtasks: BTreeMap<_, Vec<&Vec<f64>>> = BTreeMap::new();
    for (head, unit) in heads.iter().zip(units) {
        subtasks.entry((&head.source, &head.subtask)).or_default().push(unit);
    }
    subtasks.into_values().map(|units| mean(&units)).collect()
}

fn mean(units: &[&Vec<f64>]) -> Vec<f64> {
    let mut mean = vec![0.0; units[0].len()];
    for unit in units {
        mean.iter_mut().zip(*unit).for_each(|(sum, x)| *sum += x / units.len() as f64);
    }
    mean
}

/// NaN of none, or of NaN.
fn highest(by_subtask: &[f64]) -> f32 {
    let highest =
        by_subtask.iter().copied().reduce(|best, next| if next > best { next } else { best });
    highest.unwrap_or(f64::NAN) as f32
}
