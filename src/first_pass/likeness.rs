//! How like two examples are: RDS+ (Ivison et al., 2025, *Large-Scale Data Selection for
//! Instruction Tuning*).
//!
//! An example z of n tokens is represented by the mean of its last hidden states, later
//! positions weighing more, and two are as like as the cosine says:
//!
//! ```text
//! h(z) = Σ_i (i / Σ_j j) · h_i           i, j = 1..n
//! like(z, z') = cos( h(z), h(z') )
//! ```

use std::ops::Range;

use super::{Batches, FirstPassError, Represent};
use crate::gradient::collect::ExampleSource;
use crate::pool::Example;
use crate::progress::Observer;

/// A model that examples are represented with.
pub struct Likeness<'a, M> {
    model: &'a mut M,
    batches: Batches<'a>,
}

impl<'a, M: Represent> Likeness<'a, M> {
    /// With batches of at most `batch_tokens` tokens, padding included.
    pub fn new(model: &'a mut M, batch_tokens: usize, observer: &'a dyn Observer) -> Self {
        Self { model, batches: Batches { tokens: batch_tokens, observer } }
    }

    /// The target's representations, scaled to length one, f64 `[hidden_size]` a row, in
    /// order.
    ///
    /// # Errors
    ///
    /// See [`FirstPassError`].
    pub fn of_target(
        &mut self,
        target: &dyn ExampleSource,
    ) -> Result<Vec<Vec<f64>>, FirstPassError<M::Error>> {
        let heads = target.rows();
        let examples = target.examples(0..heads.len())?;
        let units = self.batches.over("target", &examples, |batch| units(self.model, batch))?;
        let unusable = heads.iter().zip(&units).find(|(_, unit)| !is_finite(unit));
        match unusable.map(|(head, _)| head.id) {
            Some(id) => Err(FirstPassError::Target(id)),
            None => Ok(units),
        }
    }

    /// Inner products of the unit representations of the pool's rows at `rows` with each
    /// of `queries`, f64 `[hidden_size]`: `[n × queries.len()]`, NaN where a row has no
    /// finite representation. In memory is a block of examples.
    ///
    /// # Errors
    ///
    /// See [`FirstPassError`].
    pub fn with(
        &mut self,
        queries: &[Vec<f64>],
        pool: &dyn ExampleSource,
        rows: Range<usize>,
    ) -> Result<Vec<Vec<f64>>, FirstPassError<M::Error>> {
        self.batches.over_pool(pool, rows, |batch| {
            let products = |unit: &Vec<f64>| queries.iter().map(|query| dot(unit, query)).collect();
            Ok(units(self.model, batch)?.iter().map(products).collect())
        })
    }
}

/// Representations of length one; not finite where there is none.
fn units<M: Represent>(model: &mut M, batch: &[&Example]) -> Result<Vec<Vec<f64>>, M::Error> {
    Ok(model.represent(batch)?.iter().map(|values| unit(values)).collect())
}

fn unit(values: &[f32]) -> Vec<f64> {
    let norm = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    values.iter().map(|x| f64::from(*x) / norm).collect()
}

fn is_finite(unit: &[f64]) -> bool {
    unit.iter().all(|x| x.is_finite())
}

fn dot(unit: &[f64], query: &[f64]) -> f64 {
    unit.iter().zip(query).map(|(a, b)| a * b).sum()
}
