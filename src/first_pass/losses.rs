//! How well the model knows each answer of the pool.

use std::path::Path;

use super::row_values::{self, RowValuesError};
use super::{Batches, FirstPassError, Predict};
use crate::gradient::collect::ExampleSource;
use crate::pool::ExampleId;
use crate::progress::Observer;

/// The column of the file.
const COLUMN: &str = "loss";

/// Mean losses of a pool's rows, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// The pool's examples.
    pub ids: Vec<ExampleId>,
    /// Mean cross-entropy of the supervised tokens, in nats; NaN where not finite.
    pub losses: Vec<f32>,
}

impl Losses {
    /// Computes them, in batches of at most `batch_tokens` tokens. In memory are the
    /// result and a block of examples.
    ///
    /// # Errors
    ///
    /// See [`FirstPassError`].
    pub fn of<M: Predict>(
        model: &mut M,
        pool: &dyn ExampleSource,
        batch_tokens: usize,
        observer: &dyn Observer,
    ) -> Result<Self, FirstPassError<M::Error>> {
        let batches = Batches { tokens: batch_tokens, observer };
        let rows = 0..pool.rows().len();
        let losses = batches.over_pool(pool, rows, |batch| model.mean_losses(batch))?;
        let losses = losses.into_iter().map(|x| if x.is_finite() { x } else { f32::NAN });
        Ok(Self { ids: pool.rows().iter().map(|row| row.id).collect(), losses: losses.collect() })
    }

    /// Writes `losses.parquet`, atomically.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), RowValuesError> {
        row_values::write(path, COLUMN, &self.ids, &self.losses)
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// If the file is missing, damaged or of something else.
    pub fn read(path: &Path) -> Result<Self, RowValuesError> {
        let (ids, losses) = row_values::read(path, COLUMN)?;
        Ok(Self { ids, losses })
    }
}
