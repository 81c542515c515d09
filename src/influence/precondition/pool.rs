//! Target rows by the inverse of the pool's second moment.
//!
//! An influence function weighs a direction by the inverse of how much the pool moves
//! along it. TRAK (Park et al., ICML 2023) does so with the second moment of the
//! projected gradients themselves. With the pool's n stored rows x at a checkpoint, d
//! coordinates each, a target row q becomes
//!
//! ```text
//! q' = (R + λI)⁻¹ q,  at unit length
//! ```
//!
//! and the score is ⟨x, q'⟩, averaged as ever.
//!
//! R has d² entries, and no more than its products with vectors is needed: the
//! equation is solved by conjugate gradients (Hestenes and Stiefel, 1952), which read
//! the stored rows once a step, for many target rows together, and keep a few vectors a
//! target row in memory. There are some hundred steps (more for more rows). Sums are in f64 and in an order
//! that depends on the table alone.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::{PoolRows, Preconditioned, divide, with_rows};
use crate::influence::InfluenceError;
use crate::influence::index::TargetIndex;
use crate::progress::Observer;
use crate::store::gradient_store::RowPlace;

/// What is left of an equation when it counts as solved, relative to its right side.
const TOLERANCE: f64 = 1e-6;

/// More steps than any pool has needed; rounding alone keeps a solution away then.
const MOST_STEPS: usize = 2000;

/// Rows that a thread adds up, if they are no longer than 8192, and such sums that are in
/// memory at once.
const CHUNK_ROWS: usize = 256;
const CHUNKS: usize = 16;

/// Target rows that are solved for together, if they are no longer than 32,768.
const TOGETHER: usize = 64;

/// Values of rows that a thread has in memory: 16 MiB.
const BLOCK_VALUES: usize = 1 << 21;

/// As many of `most` rows of `dim` coordinates as are [`BLOCK_VALUES`] together, and one
/// at least. It decides the order of sums, and no machine changes it.
fn rows_at_once(dim: usize, most: usize) -> usize {
    (BLOCK_VALUES / dim.max(1)).clamp(1, most)
}

/// `index` for the pool's `rows`.
pub(super) fn apply(
    index: TargetIndex,
    rows: PoolRows<'_>,
    observer: &dyn Observer,
) -> Result<Preconditioned, InfluenceError> {
    let moment = SecondMoment::new(rows);
    let index = with_rows(index, |mut rows| {
        let together = rows_at_once(rows.ncols(), TOGETHER);
        for mut together in rows.axis_chunks_iter_mut(Axis(0), together) {
            let solved = moment.solve(together.view(), observer)?;
            for (mut row, solved) in together.rows_mut().into_iter().zip(solved) {
                row.assign(&solved);
                divide(row, solved.dot(&solved).sqrt());
            }
        }
        Ok(rows)
    })?;
    Ok(Preconditioned { index, lengths: None })
}

/// The damped second moment of some stored rows, as what it makes of vectors.
struct SecondMoment<'a> {
    rows: PoolRows<'a>,
    /// Of the rows that count.
    places: Vec<RowPlace>,
    damping: f64,
}

impl<'a> SecondMoment<'a> {
    fn new(rows: PoolRows<'a>) -> Self {
        let places = rows.unflagged();
        let damping = rows.damping(&places);
        Self { rows, places, damping }
    }

    /// (R + λI)·v of each of `vectors`, `[n × proj_dim]`.
    fn times(&self, vectors: ArrayView2<'_, f64>) -> Array2<f64> {
        // The sum of x⟨x, v⟩ over some rows.
        let part = |places: &[RowPlace]| {
            let rows = self.rows.block(places);
            vectors.dot(&rows.t()).dot(&rows)
        };
        let mut sums = Array2::zeros(vectors.dim());
        let n_rows = rows_at_once(self.rows.dim(), CHUNK_ROWS);
        for places in self.places.chunks(CHUNKS * n_rows) {
            let parts: Vec<Array2<f64>> = places.par_chunks(n_rows).map(part).collect();
            for part in &parts {
                sums += part;
            }
        }
        sums /= self.places.len().max(1) as f64;
        sums.scaled_add(self.damping, &vectors);
        sums
    }

    /// Solves (R + λI)·x = b for each b of `right`, `[n × proj_dim]`; a b of zeros gives
    /// zeros.
    fn solve(
        &self,
        right: ArrayView2<'_, f64>,
        observer: &dyn Observer,
    ) -> Result<Vec<Array1<f64>>, InfluenceError> {
        let mut equations: Vec<Equation> = right.rows().into_iter().map(Equation::new).collect();
        for _ in 0..MOST_STEPS {
            if observer.is_interrupted() {
                return Err(InfluenceError::Interrupted);
            }
            let mut open: Vec<&mut Equation> =
                equations.iter_mut().filter(|equation| !equation.is_solved()).collect();
            if open.is_empty() {
                return Ok(equations.into_iter().map(|equation| equation.solution).collect());
            }
            let mut directions = Array2::zeros((open.len(), right.ncols()));
            for (at, equation) in open.iter().enumerate() {
                directions.slice_mut(s![at, ..]).assign(&equation.direction);
            }
            let products = self.times(directions.view());
            for (equation, product) in open.iter_mut().zip(products.rows()) {
                equation.step(product);
            }
        }
        let checkpoint = self.rows.pool.header().checkpoint.clone();
        Err(InfluenceError::NotPreconditioned { checkpoint })
    }
}

/// An equation on its way to a solution by conjugate gradients.
struct Equation {
    solution: Array1<f64>,
    /// What is left of the right side.
    residual: Array1<f64>,
    /// Where the next step goes.
    direction: Array1<f64>,
    /// ‖residual‖², now and when the equation is solved.
    left: f64,
    enough: f64,
}

impl Equation {
    fn new(right: ArrayView1<'_, f64>) -> Self {
        let left = right.dot(&right);
        Self {
            solution: Array1::zeros(right.len()),
            residual: right.to_owned(),
            direction: right.to_owned(),
            left,
            enough: left * TOLERANCE * TOLERANCE,
        }
    }

    fn is_solved(&self) -> bool {
        self.left <= self.enough
    }

    /// A step, given the matrix times the direction.
    fn step(&mut self, product: ArrayView1<'_, f64>) {
        let length = self.left / self.direction.dot(&product);
        self.solution.scaled_add(length, &self.direction);
        self.residual.scaled_add(-length, &product);
        let left = self.residual.dot(&self.residual);
        self.direction *= left / self.left;
        self.direction += &self.residual;
        self.left = left;
    }
}
