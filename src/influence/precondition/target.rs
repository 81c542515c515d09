//! Cosines in the subspace of the target's rows.
//!
//! What a pool's row does elsewhere than along some target row is left out, of its
//! length, too: GIST (2026) trains on what a target's gradients leave of a gradient and
//! finds the subspace by a singular value decomposition, here of the stored unit rows of
//! a checkpoint, all subtasks together. With `U S Vᵀ` the decomposition of the target's
//! rows, cut off where ENERGY of the sum of squares is reached, a row x becomes Vᵀx.
//!
//! A pool's row that is at right angles to all of the subspace scores zero.

use ndarray::{Array2, Axis, aview1, s};
use ndarray_linalg::{JobSvd, SVDDC};
use rayon::prelude::*;

use super::{PoolRows, Preconditioned, divide, lapack, with_rows};
use crate::influence::InfluenceError;
use crate::influence::index::TargetIndex;
use crate::progress::Observer;

/// The part of the sum of the squared singular values that is kept.
const ENERGY: f64 = 0.95;

/// `index` for the pool's `rows`.
pub(super) fn apply(
    index: TargetIndex,
    rows: &PoolRows<'_>,
    observer: &dyn Observer,
) -> Result<Preconditioned, InfluenceError> {
    lapack::stay_in_thread();
    let basis = basis(&index)?;
    if observer.is_interrupted() {
        return Err(InfluenceError::Interrupted);
    }
    let index = with_rows(index, |rows| {
        let inside = rows.dot(&basis.t());
        let mut found = inside.dot(&basis);
        for (row, inside) in found.rows_mut().into_iter().zip(inside.rows()) {
            divide(row, inside.dot(&inside).sqrt());
        }
        Ok(found)
    })?;
    let length = |place| {
        let inside = basis.dot(&aview1(&rows.row(place)));
        inside.dot(&inside).sqrt()
    };
    let lengths = rows.places.par_iter().map(|place| length(*place)).collect();
    Ok(Preconditioned { index, lengths: Some(lengths) })
}

/// The leading right singular vectors of the target's rows, `[k × proj_dim]`.
fn basis(index: &TargetIndex) -> Result<Array2<f64>, InfluenceError> {
    let rows = index.rows.unit.mapv(f64::from);
    let (_, values, vectors) = rows.svddc(JobSvd::Some).map_err(|source| {
        InfluenceError::NotDecomposed { checkpoint: index.store.checkpoint.clone(), source }
    })?;
    let squares = values.mapv(|value| value * value);
    let mut left = (1.0 - ENERGY) * squares.sum();
    let n_dropped = squares
        .iter()
        .rev()
        .take_while(|square| {
            left -= **square;
            left >= 0.0
        })
        .count();
    let n_kept = values.len() - n_dropped;
    let vectors = vectors.expect("they were asked for");
    debug_assert_eq!(vectors.len_of(Axis(0)), values.len(), "as many as there are values");
    Ok(vectors.slice_move(s![..n_kept, ..]))
}
