//! One forward pass over target and pool.

use std::collections::BTreeMap;

use super::{Represent, Similarities};
use crate::gradient::collect::ExampleSource;
use crate::gradient::shard_plan::plan_batches;
use crate::pool::{Example, PoolError};
use crate::progress::{Event, Observer};
use crate::stage::Stage;

/// Rows read at once.
const BLOCK_ROWS: usize = 512;

/// Why the first pass stopped. `E` is the model's error.
#[derive(Debug, thiserror::Error)]
pub enum FirstPassError<E: std::error::Error + 'static> {
    /// The model failed.
    #[error("failed to represent the {0}")]
    Represent(&'static str, #[source] E),
    /// A target example cannot be compared with anything.
    #[error("target example {0} has no finite representation")]
    Target(crate::pool::ExampleId),
    /// A table could not be read.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Compares every row of the pool with the target. In memory are the target's
/// representations and one batch.
///
/// # Errors
///
/// See [`FirstPassError`].
pub fn first_pass<M: Represent>(
    model: &mut M,
    pool: &dyn ExampleSource,
    target: &dyn ExampleSource,
    batch_tokens: usize,
    observer: &dyn Observer,
) -> Result<Similarities, FirstPassError<M::Error>> {
    let mut pass = Pass { model, batch_tokens, observer };
    let centroids = pass.centroids(target)?;
    let n_rows = pool.rows().len();
    let mut similarities = Vec::with_capacity(n_rows);
    for start in (0..n_rows).step_by(BLOCK_ROWS) {
        let examples = pool.examples(start..n_rows.min(start + BLOCK_ROWS))?;
        let units = pass.units("pool", &examples)?;
        similarities.extend(units.iter().map(|unit| similarity(unit, &centroids)));
        observer.notify(Event::Progress {
            stage: Stage::Cascade,
            what: "pool".to_owned(),
            done: similarities.len() as u64,
            total: n_rows as u64,
            unit: "rows".to_owned(),
        });
    }
    Ok(Similarities { ids: pool.rows().iter().map(|row| row.id).collect(), similarities })
}

struct Pass<'a, M> {
    model: &'a mut M,
    batch_tokens: usize,
    observer: &'a dyn Observer,
}

impl<M: Represent> Pass<'_, M> {
    /// The mean of each subtask's unit representations: its inner product with
    /// a unit vector is the mean of the cosines.
    fn centroids(
        &mut self,
        target: &dyn ExampleSource,
    ) -> Result<Vec<Vec<f64>>, FirstPassError<M::Error>> {
        let heads = target.rows();
        let units = self.units("target", &target.examples(0..heads.len())?)?;
        let mut subtasks: BTreeMap<_, Vec<&Vec<f64>>> = BTreeMap::new();
        for (head, unit) in heads.iter().zip(&units) {
            if unit.iter().any(|x| x.is_nan()) {
                return Err(FirstPassError::Target(head.id));
            }
            subtasks.entry((&head.source, &head.subtask)).or_default().push(unit);
        }
        Ok(subtasks.into_values().map(|units| mean(&units)).collect())
    }

    /// Representations of length one, in order; NaN where there is none.
    fn units(
        &mut self,
        table: &'static str,
        examples: &[Example],
    ) -> Result<Vec<Vec<f64>>, FirstPassError<M::Error>> {
        let n_tokens: Vec<u32> = examples.iter().map(|row| row.token_ids.len() as u32).collect();
        let mut units = vec![Vec::new(); examples.len()];
        for positions in plan_batches(&n_tokens, self.batch_tokens) {
            if self.observer.is_interrupted() {
                return Err(FirstPassError::Interrupted);
            }
            let batch: Vec<&Example> = positions.iter().map(|row| &examples[*row]).collect();
            let found = self.model.represent(&batch);
            let found = found.map_err(|err| FirstPassError::Represent(table, err))?;
            for (position, values) in positions.into_iter().zip(found) {
                units[position] = unit(&values);
            }
        }
        Ok(units)
    }
}

fn unit(values: &[f32]) -> Vec<f64> {
    let norm = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    values.iter().map(|x| f64::from(*x) / norm).collect()
}

fn mean(units: &[&Vec<f64>]) -> Vec<f64> {
    let mut mean = vec![0.0; units[0].len()];
    for unit in units {
        mean.iter_mut().zip(*unit).for_each(|(sum, x)| *sum += x / units.len() as f64);
    }
    mean
}

/// The highest of the subtasks'; NaN if `unit` is.
fn similarity(unit: &[f64], centroids: &[Vec<f64>]) -> f32 {
    let dot = |centroid: &Vec<f64>| unit.iter().zip(centroid).map(|(a, b)| a * b).sum::<f64>();
    centroids
        .iter()
        .map(dot)
        .reduce(|best, next| if next > best { next } else { best })
        .unwrap_or(f64::NAN) as f32
}
