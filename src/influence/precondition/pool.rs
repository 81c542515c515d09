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
//! the stored rows once a step and keep 4 vectors a target row in memory. A step
//! decodes every row; there are a few dozen of them. Sums are in f64 and in an order
//! that depends on the table alone.

use ndarray::Array2;
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

/// Rows that a thread adds up, and such sums that are in memory at once.
const CHUNK_ROWS: usize = 256;
const CHUNKS: usize = 16;

/// Target rows that are solved for together.
const TOGETHER: usize = 16;

/// `index` for the pool's `rows`.
pub(super) fn apply(
    index: TargetIndex,
    rows: PoolRows<'_>,
    observer: &dyn Observer,
) -> Result<Preconditioned, InfluenceError> {
    let moment = SecondMoment::new(rows);
    let index = with_rows(index, |mut rows| {
        for start in (0..rows.nrows()).step_by(TOGETHER) {
            let together = start..rows.nrows().min(start + TOGETHER);
            let right: Vec<Vec<f64>> = together.clone().map(|row| rows.row(row).to_vec()).collect();
            for (at, solved) in together.zip(moment.solve(&right, observer)?) {
                let length = dot(&solved, &solved).sqrt();
                rows.row_mut(at).assign(&ndarray::aview1(&solved));
                divide(rows.row_mut(at), length);
            }
        }
        Ok::<Array2<f64>, _>(rows)
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

    /// (R + λI)·v of each of `vectors`.
    fn times(&self, vectors: &[&[f64]]) -> Vec<Vec<f64>> {
        let n_rows = self.places.len().max(1) as f64;
        let mut sums: Vec<Vec<f64>> =
            vectors.iter().map(|vector| vec![0.0; vector.len()]).collect();
        for places in self.places.chunks(CHUNKS * CHUNK_ROWS) {
            let parts: Vec<Vec<Vec<f64>>> =
                places.par_chunks(CHUNK_ROWS).map(|places| self.part(places, vectors)).collect();
            for part in parts {
                for (sum, part) in sums.iter_mut().zip(part) {
                    add(sum, 1.0, &part);
                }
            }
        }
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            for value in sum.iter_mut() {
                *value /= n_rows;
            }
            add(sum, self.damping, vector);
        }
        sums
    }

    /// The sum of x⟨x, v⟩ over some rows, of each of `vectors`.
    fn part(&self, places: &[RowPlace], vectors: &[&[f64]]) -> Vec<Vec<f64>> {
        let mut sums: Vec<Vec<f64>> =
            vectors.iter().map(|vector| vec![0.0; vector.len()]).collect();
        for place in places {
            let row = self.rows.row(*place);
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                add(sum, dot(&row, vector), &row);
            }
        }
        sums
    }

    /// Solves (R + λI)·x = b for each b of `right`; a b of zeros gives zeros.
    fn solve(
        &self,
        right: &[Vec<f64>],
        observer: &dyn Observer,
    ) -> Result<Vec<Vec<f64>>, InfluenceError> {
        let mut equations: Vec<Equation> = right.iter().map(|right| Equation::new(right)).collect();
        for _ in 0..MOST_STEPS {
            if observer.is_interrupted() {
                return Err(InfluenceError::Interrupted);
            }
            let mut open: Vec<&mut Equation> =
                equations.iter_mut().filter(|equation| !equation.is_solved()).collect();
            if open.is_empty() {
                return Ok(equations.into_iter().map(|equation| equation.solution).collect());
            }
            let directions: Vec<&[f64]> =
                open.iter().map(|equation| equation.direction.as_slice()).collect();
            let products = self.times(&directions);
            for (equation, product) in open.iter_mut().zip(products) {
                equation.step(&product);
            }
        }
        let checkpoint = self.rows.pool.header().checkpoint.clone();
        Err(InfluenceError::NotPreconditioned { checkpoint })
    }
}

/// An equation on its way to a solution by conjugate gradients.
struct Equation {
    solution: Vec<f64>,
    /// What is left of the right side.
    residual: Vec<f64>,
    /// Where the next step goes.
    direction: Vec<f64>,
    /// ‖residual‖², now and when the equation is solved.
    left: f64,
    enough: f64,
}

impl Equation {
    fn new(right: &[f64]) -> Self {
        let left = dot(right, right);
        Self {
            solution: vec![0.0; right.len()],
            residual: right.to_vec(),
            direction: right.to_vec(),
            left,
            enough: left * TOLERANCE * TOLERANCE,
        }
    }

    fn is_solved(&self) -> bool {
        self.left <= self.enough
    }

    /// A step, given the matrix times the direction.
    fn step(&mut self, product: &[f64]) {
        let length = self.left / dot(&self.direction, product);
        add(&mut self.solution, length, &self.direction);
        add(&mut self.residual, -length, product);
        let left = dot(&self.residual, &self.residual);
        let turn = left / self.left;
        for (direction, residual) in self.direction.iter_mut().zip(&self.residual) {
            *direction = residual + turn * *direction;
        }
        self.left = left;
    }
}

/// Partial sums, which become vector instructions; their order is fixed.
const LANES: usize = 8;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// `sum += times · row`.
fn add(sum: &mut [f64], times: f64, row: &[f64]) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += times * value);
}
