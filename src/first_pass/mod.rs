//! One forward pass of the model as it comes, without an adapter, over pool and target:
//! what an example is like ([`likeness`]), or how well the model knows its answer
//! ([`losses`]).
//!
//! The cascade ranks the pool by it, and so do two of the methods that LESS is compared
//! with.

pub mod likeness;
#[cfg(feature = "torch")]
mod lora;
pub mod losses;
pub mod row_values;

use std::ops::Range;

use crate::gradient::collect::ExampleSource;
use crate::gradient::shard_plan::plan_batches;
use crate::pool::{Example, PoolError};
use crate::progress::{Event, Observer};
use crate::stage::Stage;
use crate::store::StoreError;

/// Rows read at once.
const BLOCK_ROWS: usize = 512;

/// What the pass is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirstPass {
    /// How like the target each row is, for the cascade.
    Similarities,
    /// How like every target example each row is.
    Cosines,
    /// Each row's mean loss.
    Losses,
}

/// A model that represents an example by one vector.
pub trait Represent {
    /// Why a batch failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The representations h of a batch, f32, one an example, all of one length.
    ///
    /// # Errors
    ///
    /// When the computation itself fails.
    fn represent(&mut self, batch: &[&Example]) -> Result<Vec<Vec<f32>>, Self::Error>;
}

/// A model that predicts tokens.
pub trait Predict {
    /// Why a batch failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The mean cross-entropy of each example's supervised tokens, in nats, f32.
    ///
    /// # Errors
    ///
    /// When the computation itself fails.
    fn mean_losses(&mut self, batch: &[&Example]) -> Result<Vec<f32>, Self::Error>;
}

/// Why the first pass stopped. `E` is the model's error.
#[derive(Debug, thiserror::Error)]
pub enum FirstPassError<E: std::error::Error + 'static> {
    /// The model failed.
    #[error("the model failed on the {0}")]
    Model(&'static str, #[source] E),
    /// A target example cannot be compared with anything.
    #[error("target example {0} has no finite representation")]
    Target(crate::pool::ExampleId),
    /// A table could not be read.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// What was found could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// How the pass goes over examples.
#[derive(Clone, Copy)]
struct Batches<'a> {
    /// Most tokens of a batch, padding included.
    tokens: usize,
    observer: &'a dyn Observer,
}

impl Batches<'_> {
    /// What `compute` finds of each of `examples`, in their order, asked for batches of
    /// like lengths. `table` names them in an error.
    fn over<T: Clone + Default, E: std::error::Error>(
        self,
        table: &'static str,
        examples: &[Example],
        mut compute: impl FnMut(&[&Example]) -> Result<Vec<T>, E>,
    ) -> Result<Vec<T>, FirstPassError<E>> {
        let n_tokens: Vec<u32> = examples.iter().map(|row| row.token_ids.len() as u32).collect();
        let mut results = vec![T::default(); examples.len()];
        for positions in plan_batches(&n_tokens, self.tokens) {
            if self.observer.is_interrupted() {
                return Err(FirstPassError::Interrupted);
            }
            let batch: Vec<&Example> = positions.iter().map(|row| &examples[*row]).collect();
            let found = compute(&batch).map_err(|err| FirstPassError::Model(table, err))?;
            for (position, result) in positions.into_iter().zip(found) {
                results[position] = result;
            }
        }
        Ok(results)
    }

    /// The same of the rows of the pool at `rows`, block by block, telling how far it is.
    fn over_pool<T: Clone + Default, E: std::error::Error>(
        self,
        pool: &dyn ExampleSource,
        rows: Range<usize>,
        mut compute: impl FnMut(&[&Example]) -> Result<Vec<T>, E>,
    ) -> Result<Vec<T>, FirstPassError<E>> {
        let mut results = Vec::with_capacity(rows.len());
        for start in rows.clone().step_by(BLOCK_ROWS) {
            let end = rows.end.min(start + BLOCK_ROWS);
            results.extend(self.over("pool", &pool.examples(start..end)?, &mut compute)?);
            self.observer.notify(Event::Progress {
                stage: Stage::FirstPass,
                what: "pool".to_owned(),
                done: end as u64,
                total: pool.rows().len() as u64,
                unit: "rows".to_owned(),
            });
        }
        Ok(results)
    }
}
