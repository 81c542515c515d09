//! Target rows with the directions that all of the pool has in common taken down.
//!
//! A cosine follows whatever makes gradients alike: a format, a length, a language
//! that most of the pool shares. An influence function weighs a direction by the
//! inverse of how much the pool moves along it. TRAK (Park et al., ICML 2023) and
//! `TrackStar` (Chang et al., 2024) do so with the second moment of the projected
//! gradients themselves. With the pool's n stored rows x of unit length at a
//! checkpoint, d coordinates each, a target row q becomes
//!
//! ```text
//! R  = Σ xxᵀ / n
//! λ  = DAMPING · tr(R) / min(n, d)
//! q' = (R + λI)⁻¹ q,  at unit length
//! ```
//!
//! and the score is ⟨x, q'⟩, averaged as ever. The pool's rows stay as they are
//! (`TrackStar` multiplies both sides by R^(−1/2)), so nothing is stored anew. λ is a
//! part of the mean of those eigenvalues of R that can be above zero, and keeps
//! directions that hardly any row has from deciding everything. `DataInf` (Kwon et al.,
//! ICLR 2024) damps by a tenth of a mean, too.
//!
//! R has d² entries, and no more than its products with vectors is needed: the
//! equation is solved by conjugate gradients (Hestenes and Stiefel, 1952), which read
//! the stored rows once a step and keep 4 vectors a target row in memory. A step
//! costs about what [`score`](super::score) does with as many queries in f64; there
//! are a few dozen of them. Sums are in f64 and in an order that depends on the
//! table alone.

use rayon::prelude::*;

use super::index::TargetIndex;
use super::{InfluenceError, places};
use crate::gradient::direction::GradientKind;
use crate::pool::table::TableRow;
use crate::progress::Observer;
use crate::store::gradient_store::{GradientStore, RowPlace};

/// λ as a part of the mean eigenvalue.
const DAMPING: f64 = 0.1;

/// What is left of an equation when it counts as solved, relative to its right side.
const TOLERANCE: f64 = 1e-6;

/// More steps than any pool has needed; rounding alone keeps a solution away then.
const MOST_STEPS: usize = 2000;

/// Rows that a thread adds up, and such sums that are in memory at once.
const CHUNK_ROWS: usize = 256;
const CHUNKS: usize = 16;

/// Target rows that are solved for together.
const TOGETHER: usize = 16;

/// What target rows are multiplied by before they meet the pool's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precondition {
    /// Nothing.
    None,
    /// The inverse of the damped second moment of the pool's rows.
    Pool,
}

impl std::str::FromStr for Precondition {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(Self::None),
            "pool" => Ok(Self::Pool),
            _ => Err(()),
        }
    }
}

/// `index` with every target row q, and every centroid of
/// [`CosineOfMean`](super::Aggregation::CosineOfMean), as q' of the pool's `table`;
/// centroids of the mean of cosines are means of those rows. Flagged rows of the pool
/// count for nothing.
///
/// # Errors
///
/// If `pool` lacks a row of the table, the equation cannot be solved, or
/// [`InfluenceError::Interrupted`].
///
/// # Panics
///
/// If gradients of `kind` are not stored.
pub fn by_pool(
    index: &TargetIndex,
    pool: &GradientStore,
    table: &[TableRow],
    kind: GradientKind,
    observer: &dyn Observer,
) -> Result<TargetIndex, InfluenceError> {
    let moment = SecondMoment::new(pool, places(pool, table)?, kind);
    let mut index = index.clone();
    for rows in [&mut index.rows.unit, &mut index.cosine_of_mean] {
        let n_rows = rows.nrows();
        for start in (0..n_rows).step_by(TOGETHER) {
            let together = start..n_rows.min(start + TOGETHER);
            let right: Vec<Vec<f64>> =
                together.clone().map(|row| rows.row(row).mapv(f64::from).to_vec()).collect();
            for (row, solved) in together.zip(moment.solve(&right, observer)?) {
                let length = dot(&solved, &solved).sqrt();
                if length > 0.0 {
                    let unit = solved.iter().map(|value| (value / length) as f32);
                    rows.row_mut(row).assign(&unit.collect::<ndarray::Array1<f32>>());
                }
            }
        }
    }
    index.average_rows();
    Ok(index)
}

/// The damped second moment of some stored rows, as what it makes of vectors.
struct SecondMoment<'a> {
    pool: &'a GradientStore,
    places: Vec<RowPlace>,
    kind: GradientKind,
    damping: f64,
}

impl<'a> SecondMoment<'a> {
    fn new(pool: &'a GradientStore, mut places: Vec<RowPlace>, kind: GradientKind) -> Self {
        places.retain(|place| pool.shards()[place.shard].flag(place.row).is_none());
        let mut moment = Self { pool, places, kind, damping: 0.0 };
        let squares: Vec<f64> = moment
            .places
            .par_iter()
            .map(|place| {
                let row = moment.row(*place);
                dot(&row, &row)
            })
            .collect();
        let n_eigenvalues = moment.places.len().min(pool.header().proj_dim);
        let trace = squares.iter().sum::<f64>() / moment.places.len().max(1) as f64;
        moment.damping = DAMPING * trace / n_eigenvalues.max(1) as f64;
        moment
    }

    fn row(&self, RowPlace { shard, row }: RowPlace) -> Vec<f64> {
        let shard = &self.pool.shards()[shard];
        let unit = shard.kind(self.kind).expect("it is stored").unit;
        unit.decode(row..row + 1).into_iter().map(f64::from).collect()
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
            let row = self.row(*place);
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
        let checkpoint = self.pool.header().checkpoint.clone();
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
