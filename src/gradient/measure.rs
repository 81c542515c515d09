//! What is measured of an example, and how it becomes a row of the store.
//!
//! [`MeasureBatches`] is the seam: gradient, direction and projection of a
//! batch, on the host ([`OnHost`](super::on_host::OnHost)) or where the model
//! is (`OnDevice`). What comes after is the same for both.

use super::ExampleLoss;
use super::direction::{GradientKind, Moments, MomentsError};
use crate::pool::{Example, ExampleId};
use crate::projection::Projection;
use crate::store::Flag;
use crate::store::shard::{KindRows, ShardRows};

/// What is measured of every example at one checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Measure<'a> {
    /// The kinds of gradient to store; one backward pass serves them all.
    pub kinds: &'a [GradientKind],
    /// The optimizer's moments, for the kinds that need them.
    pub moments: Option<&'a Moments>,
    /// The checkpoint's projection.
    pub projection: &'a Projection,
}

/// Why gradients cannot be turned into directions.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MeasureError {
    /// A kind needs moments and the checkpoint has none.
    #[error("`{0}` gradients need the optimizer's moments, and this checkpoint has none")]
    MissingMoments(GradientKind),
    /// The moments are not this model's.
    #[error("unusable optimizer state")]
    Moments(#[from] MomentsError),
}

impl Measure<'_> {
    /// Checks that there is what the kinds need.
    ///
    /// # Errors
    ///
    /// If moments are missing or do not fit.
    pub fn check(&self) -> Result<(), MeasureError> {
        let Some(kind) = self.kinds.iter().find(|kind| kind.needs_moments()) else {
            return Ok(());
        };
        let moments = self.moments.ok_or(MeasureError::MissingMoments(*kind))?;
        Ok(moments.check(self.projection.layout())?)
    }
}

/// Whoever differentiates a batch, and projects the directions.
pub trait MeasureBatches {
    /// Why a batch failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Measures every example of a batch.
    ///
    /// # Errors
    ///
    /// When the computation itself fails. Numbers that are not finite are no
    /// error: they flag their row.
    fn measure(&mut self, batch: &[&Example]) -> Result<BatchRows, Self::Error>;

    /// Whether `err` is about memory, so that a smaller batch may pass.
    fn is_out_of_memory(err: &Self::Error) -> bool;
}

/// The projected directions of one batch, not yet of unit length.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRows {
    /// f32 `[n × kinds × proj_dim]`, row-major.
    pub sums: Vec<f32>,
    /// Whether a coordinate of the gradient is not zero, one a row.
    pub is_nonzero: Vec<bool>,
    /// One a row.
    pub losses: Vec<ExampleLoss>,
}

impl BatchRows {
    /// Normalizes the rows and puts row i of the batch at `positions[i]` of the
    /// shard.
    ///
    /// # Panics
    ///
    /// If there is not one position a row.
    pub(super) fn write_to(&self, positions: &[usize], shard: &mut ShardRows) {
        assert_eq!(self.losses.len(), positions.len(), "one position a row");
        let n_kinds = shard.kinds.len();
        let proj_dim = self.sums.len() / positions.len() / n_kinds;
        for (row, (&position, loss)) in positions.iter().zip(&self.losses).enumerate() {
            let sums = &self.sums[row * n_kinds * proj_dim..][..n_kinds * proj_dim];
            let norms: Vec<f32> = sums.chunks_exact(proj_dim).map(norm).collect();
            let flag = flag(loss.loss, self.is_nonzero[row], &norms);
            shard.loss[position] = loss.loss;
            shard.n_supervised[position] = loss.n_supervised;
            shard.flags[position] = flag;
            if flag.is_some() {
                continue;
            }
            let sums = sums.chunks_exact(proj_dim);
            for ((kind, sums), norm) in shard.kinds.iter_mut().zip(sums).zip(norms) {
                kind.norms[position] = norm;
                let unit = &mut kind.unit[position * proj_dim..][..proj_dim];
                for (unit, sum) in unit.iter_mut().zip(sums) {
                    *unit = sum / norm;
                }
            }
        }
    }
}

/// Why a row must not be ranked.
///
/// A value of the gradient that is not finite makes one of every direction that
/// is not finite, and so the norm: nothing in the sums can make it finite again.
/// Zero is told from the gradient itself: with momentum, the direction of a zero
/// gradient is not zero.
fn flag(loss: f32, is_nonzero: bool, norms: &[f32]) -> Option<Flag> {
    if !loss.is_finite() {
        Some(Flag::NonFiniteLoss)
    } else if norms.iter().any(|norm| !norm.is_finite()) {
        Some(Flag::NonFiniteGradient)
    } else if !is_nonzero || norms.contains(&0.0) {
        Some(Flag::ZeroGradient)
    } else {
        None
    }
}

/// The L2 norm of a row, summed in f64 in order.
fn norm(row: &[f32]) -> f32 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32
}

/// A shard's rows before any is measured: all zero, none flagged.
pub(super) fn unmeasured(ids: Vec<ExampleId>, measure: Measure<'_>) -> ShardRows {
    let n_rows = ids.len();
    let kind = KindRows {
        unit: vec![0.0; n_rows * measure.projection.proj_dim()],
        norms: vec![0.0; n_rows],
    };
    ShardRows {
        ids,
        kinds: vec![kind; measure.kinds.len()],
        loss: vec![0.0; n_rows],
        n_supervised: vec![0; n_rows],
        flags: vec![None; n_rows],
    }
}
