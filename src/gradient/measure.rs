//! From the gradients of a batch to rows of the store: direction, projection,
//! length.

use rayon::prelude::*;

use super::ExampleLoss;
use super::direction::{GradientKind, Moments, MomentsError};
use crate::pool::ExampleId;
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

/// The projected directions of one batch, growing parameter by parameter.
pub(super) struct BatchRows<'a> {
    measure: Measure<'a>,
    /// For each kind `[n × proj_dim]`.
    by_kind: Vec<Vec<f32>>,
    /// One a row.
    gradients: Vec<Seen>,
    /// One a parameter.
    is_added: Vec<bool>,
}

/// What was seen of one row's gradient so far.
#[derive(Clone, Copy)]
struct Seen {
    is_finite: bool,
    is_zero: bool,
}

impl<'a> BatchRows<'a> {
    pub(super) fn new(measure: Measure<'a>, n_rows: usize) -> Self {
        let n_sums = n_rows * measure.projection.proj_dim();
        Self {
            measure,
            by_kind: vec![vec![0.0; n_sums]; measure.kinds.len()],
            gradients: vec![Seen { is_finite: true, is_zero: true }; n_rows],
            is_added: vec![false; measure.projection.layout().params().len()],
        }
    }

    /// Takes one parameter's gradients, `[n × n_coordinates]`. Runs on the
    /// current rayon pool; each row's sums run in one order.
    ///
    /// # Panics
    ///
    /// If the shape is another, or the parameter came before.
    pub(super) fn add_param(&mut self, param_idx: usize, gradients: &[f32]) {
        let Measure { kinds, moments, projection } = self.measure;
        let param = &projection.layout().params()[param_idx];
        let len = param.n_coordinates();
        assert_eq!(gradients.len(), self.gradients.len() * len, "one gradient a row");
        let is_added = std::mem::replace(&mut self.is_added[param_idx], true);
        assert!(!is_added, "parameter `{}` comes once", param.name);
        let rows = gradients.par_chunks_exact(len.max(1));
        rows.zip(&mut self.gradients).for_each(|(row, seen)| seen.add(row));
        for (kind, sums) in kinds.iter().zip(&mut self.by_kind) {
            projection.accumulate(param_idx, sums, |row, range, out| {
                let gradient = &gradients[row * len..][range.clone()];
                let range = param.offset + range.start..param.offset + range.end;
                kind.write_direction(gradient, moments.map(|moments| moments.slice(range)), out);
            });
        }
    }

    /// Normalizes the rows and puts row i of the batch at `positions[i]` of the
    /// shard.
    ///
    /// # Panics
    ///
    /// If a parameter never came, or `losses` is not one a row.
    pub(super) fn finish(self, losses: &[ExampleLoss], positions: &[usize], shard: &mut ShardRows) {
        assert!(self.is_added.iter().all(|is_added| *is_added), "every parameter comes once");
        assert_eq!(losses.len(), positions.len(), "one loss a row");
        let proj_dim = self.measure.projection.proj_dim();
        for (row, (&position, loss)) in positions.iter().zip(losses).enumerate() {
            let range = row * proj_dim..(row + 1) * proj_dim;
            let norms: Vec<f32> =
                self.by_kind.iter().map(|sums| norm(&sums[range.clone()])).collect();
            let flag = self.gradients[row].flag(loss.loss, &norms);
            shard.loss[position] = loss.loss;
            shard.n_supervised[position] = loss.n_supervised;
            shard.flags[position] = flag;
            if flag.is_some() {
                continue;
            }
            for ((kind, sums), norm) in shard.kinds.iter_mut().zip(&self.by_kind).zip(norms) {
                kind.norms[position] = norm;
                let unit = &mut kind.unit[position * proj_dim..][..proj_dim];
                for (unit, sum) in unit.iter_mut().zip(&sums[range.clone()]) {
                    *unit = sum / norm;
                }
            }
        }
    }
}

impl Seen {
    fn add(&mut self, gradient: &[f32]) {
        self.is_finite &= gradient.iter().all(|value| value.is_finite());
        self.is_zero &= gradient.iter().all(|value| *value == 0.0);
    }

    /// Zero is told from the gradient itself: with momentum, the direction of a
    /// zero gradient is not zero.
    fn flag(self, loss: f32, norms: &[f32]) -> Option<Flag> {
        if !loss.is_finite() {
            Some(Flag::NonFiniteLoss)
        } else if !self.is_finite || norms.iter().any(|norm| !norm.is_finite()) {
            Some(Flag::NonFiniteGradient)
        } else if self.is_zero || norms.contains(&0.0) {
            Some(Flag::ZeroGradient)
        } else {
            None
        }
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
