//! Cosines of rows that the pool's second moment made white.
//!
//! `TrackStar` (Chang et al., 2024) multiplies all rows by (R + λI)^(−1/2) and makes
//! them unit length. With the Cholesky factor L of R + λI that is
//!
//! ```text
//! ⟨L⁻¹x, L⁻¹q⟩ / (‖L⁻¹x‖ ‖L⁻¹q‖)
//! ```
//!
//! since L⁻¹ and R^(−1/2) differ by a rotation. R is made once a checkpoint, d² f64 in
//! memory, and every row of the pool is solved for once, which costs d² products, too:
//! about twice what making R does.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, Axis, s};
use ndarray_linalg::error::LinalgError;
use ndarray_linalg::{CholeskyInto, Diag, SolveTriangularInto, UPLO};
use rayon::prelude::*;

use super::{PoolRows, Preconditioned, divide, lapack, with_rows};
use crate::influence::InfluenceError;
use crate::influence::index::TargetIndex;
use crate::progress::Observer;

/// The longest rows whose second moment is made: 2 GiB.
const MOST_DIMS: usize = 1 << 14;

/// Rows that are decoded together.
const BLOCK_ROWS: usize = 512;
/// Columns of R, and rows that are solved for, which a thread takes at once.
const STRIPE: usize = 64;

/// `index` for the pool's `rows`.
pub(super) fn apply(
    index: TargetIndex,
    rows: &PoolRows<'_>,
    observer: &dyn Observer,
) -> Result<Preconditioned, InfluenceError> {
    if rows.dim() > MOST_DIMS {
        return Err(InfluenceError::TooLong { n_dims: rows.dim(), most: MOST_DIMS });
    }
    let fail = |source| InfluenceError::NotDecomposed {
        checkpoint: rows.pool.header().checkpoint.clone(),
        source,
    };
    lapack::stay_in_thread();
    let moment = second_moment(rows, observer)?;
    let factor = moment.cholesky_into(UPLO::Lower).map_err(fail)?;
    let index = with_rows(index, |rows| {
        let white = solve(factor.view(), UPLO::Lower, rows.reversed_axes()).map_err(fail)?;
        let found = solve(factor.t(), UPLO::Upper, white.clone()).map_err(fail)?;
        let mut found = found.reversed_axes();
        for (row, white) in found.rows_mut().into_iter().zip(white.columns()) {
            divide(row, white.dot(&white).sqrt());
        }
        Ok(found)
    })?;
    let mut lengths = Vec::with_capacity(rows.places.len());
    for places in rows.places.chunks(BLOCK_ROWS) {
        if observer.is_interrupted() {
            return Err(InfluenceError::Interrupted);
        }
        let stripes = places.par_chunks(STRIPE).map(|places| {
            let columns = rows.block(places).reversed_axes();
            let white = solve(factor.view(), UPLO::Lower, columns)?;
            let lengths = white.columns().into_iter().map(|row| row.dot(&row).sqrt());
            Ok(lengths.collect())
        });
        let stripes: Vec<Vec<f64>> = stripes.collect::<Result<_, _>>().map_err(fail)?;
        lengths.extend(stripes.into_iter().flatten());
    }
    Ok(Preconditioned { index, lengths: Some(lengths) })
}

/// The lower half of R + λI, by columns, as LAPACK has matrices.
fn second_moment(
    rows: &PoolRows<'_>,
    observer: &dyn Observer,
) -> Result<Array2<f64>, InfluenceError> {
    let places = rows.unflagged();
    let n_rows = places.len().max(1) as f64;
    let mut moment = Array2::<f64>::zeros((rows.dim(), rows.dim()));
    for places in places.chunks(BLOCK_ROWS) {
        if observer.is_interrupted() {
            return Err(InfluenceError::Interrupted);
        }
        let block = rows.block(places);
        let columns: Vec<_> = moment.axis_chunks_iter_mut(Axis(0), STRIPE).collect();
        columns.into_par_iter().enumerate().for_each(|(stripe, mut sums)| {
            let start = stripe * STRIPE;
            let own = block.slice(s![.., start..start + sums.nrows()]);
            let mut sums = sums.slice_mut(s![.., start..]);
            general_mat_mul(1.0 / n_rows, &own.t(), &block.slice(s![.., start..]), 1.0, &mut sums);
        });
    }
    let damping = rows.damping(&places);
    moment.diag_mut().mapv_inplace(|value| value + damping);
    Ok(moment.reversed_axes())
}

/// The solution of a triangular system for every column of `right`.
fn solve(
    factor: ArrayView2<'_, f64>,
    half: UPLO,
    right: Array2<f64>,
) -> Result<Array2<f64>, LinalgError> {
    factor.solve_triangular_into(half, Diag::NonUnit, right)
}
