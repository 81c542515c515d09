//! What is selected by each half of the stored rows' coordinates: what another seed
//! of the projection would have changed, without a gradient.
//!
//! A half of a projected row is itself a projection, to half as many dimensions:
//! any half of the outputs of `rademacher` is one with other signs, and of `srht`
//! and `sjlt` those outputs have other coordinates and signs in them than the rest.
//! The halves of an `sjlt` share out a gradient's coordinates, each of which is in
//! one output; so the two see what it has in different places, and differ by that
//! as well, a little for a gradient that is spread over thousands of coordinates.
//! Over random vectors the errors of the two halves do not correlate (a test
//! computes that).
//!
//! Two halves with errors of σ each differ by √2·σ, and what is made from both of
//! them, half their sum, is off by σ/√2: half of the difference. So the error of
//! the whole is known from the halves alone, what storing rows in few bits adds
//! to it included.

use std::ops::Range;

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;
use serde::Serialize;

use super::{Sample, overlap};
use crate::gradient::direction::GradientKind;
use crate::influence::example_scores::TargetExamples;
use crate::influence::index::TargetIndex;
use crate::influence::score::ScoredCheckpoint;
use crate::influence::{Aggregation, InfluenceError};
use crate::selection::selector::TargetCosines;
use crate::store::Split;
use crate::store::gradient_store::{GradientStore, RowPlace};
use crate::store::inner_products::Queries;

/// Pool rows and target examples that the error of a cosine is estimated from.
const N_PAIR_ROWS: usize = 512;
const N_PAIR_EXAMPLES: usize = 16;

/// What selections by the halves of the stored rows have in common.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SketchHalves {
    /// The share of the rows that both halves select.
    pub between: f64,
    /// The share of the rows selected by the whole that each half selects, too.
    pub with_whole: [f64; 2],
    /// Standard error of a stored cosine of one pool row and one target example:
    /// the root of the mean of ((first half − second half)/2)².
    pub cosine_error: f64,
    /// Size of those cosines: the root of the mean of ((first half + second
    /// half)/2)².
    pub cosine_size: f64,
}

/// One checkpoint's side of the inner products.
struct Side<'a> {
    pool: &'a GradientStore,
    kind: GradientKind,
    /// Of the sample's rows.
    places: Vec<RowPlace>,
    weight: f64,
    index: &'a TargetIndex,
}

/// Selects from the sample by the halves of its stored rows.
///
/// # Errors
///
/// If a row of the sample is not in a store.
///
/// # Panics
///
/// If gradients of `kind` are not stored, or there is no checkpoint.
pub fn sketch_halves(
    checkpoints: &[ScoredCheckpoint<'_>],
    sample: &Sample<'_>,
    kind: GradientKind,
    aggregation: Aggregation,
) -> Result<SketchHalves, InfluenceError> {
    let side = |checkpoint: &_| Side::new(checkpoint, sample, kind);
    let sides: Vec<Side<'_>> = checkpoints.iter().map(side).collect::<Result<_, _>>()?;
    let by_half = Half::ALL.map(|half| {
        let scores = half_scores(&sides, half, aggregation);
        if sample.settings.selector.needs_examples() {
            sample.by(scores, Some(&HalfCosines::new(&sides, half)))
        } else {
            sample.by(scores, None)
        }
    });
    let by_all = sample.by_all();
    let (cosine_error, cosine_size) = errors(&sides);
    Ok(SketchHalves {
        between: overlap(&by_half[0], &by_half[1]),
        with_whole: by_half.map(|by_half| overlap(&by_all, &by_half)),
        cosine_error,
        cosine_size,
    })
}

/// Half of a row's coordinates.
#[derive(Clone, Copy)]
enum Half {
    First,
    Second,
}

impl Half {
    const ALL: [Self; 2] = [Self::First, Self::Second];

    /// The half of a row at unit length, with zeros for the other; one of zeros
    /// stays that.
    fn of(self, row: &[f32]) -> Vec<f32> {
        let length = self.length(row);
        let own = self.range(row.len());
        let mut half = vec![0.0; row.len()];
        if length > 0.0 {
            for (half, value) in half[own.clone()].iter_mut().zip(&row[own]) {
                *half = (f64::from(*value) / length) as f32;
            }
        }
        half
    }

    fn range(self, length: usize) -> Range<usize> {
        match self {
            Self::First => 0..length / 2,
            Self::Second => length / 2..length,
        }
    }

    /// The length of the half of a row, which itself has length one. Of a row in few
    /// bits, whose decoded length is not quite one, it is a share of that.
    fn length(self, row: &[f32]) -> f64 {
        let squares = |row: &[f32]| row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
        let all = squares(row);
        if all > 0.0 { (squares(&row[self.range(row.len())]) / all).sqrt() } else { 0.0 }
    }
}

impl<'a> Side<'a> {
    fn new(
        checkpoint: &ScoredCheckpoint<'a>,
        sample: &Sample<'_>,
        kind: GradientKind,
    ) -> Result<Self, InfluenceError> {
        let ScoredCheckpoint { pool, index, learning_rate, .. } = *checkpoint;
        let rows = &sample.from.scores.rows;
        let ids = sample.positions.iter().map(|position| rows[*position].id);
        let places = pool.places(ids).map_err(|id| InfluenceError::NoGradient {
            id,
            split: Split::Pool,
            checkpoint: pool.header().checkpoint.clone(),
        })?;
        Ok(Self { pool, kind, places, weight: learning_rate, index })
    }

    /// The cosines of a half of row number `at` of the sample with `queries`, which
    /// are of the same half.
    fn cosines(&self, at: usize, half: Half, queries: &Queries) -> Vec<f64> {
        let RowPlace { shard, row } = self.places[at];
        let shard = &self.pool.shards()[shard];
        let unit = shard.kind(self.kind).expect("the store was asked for it").unit;
        let length = half.length(&unit.decode(row..row + 1));
        let mut products = unit.inner_products(row..row + 1, queries);
        for product in &mut products {
            *product = if length > 0.0 { *product / length } else { 0.0 };
        }
        products
    }

    /// Some of the target's rows, as queries of a half.
    fn examples(&self, rows: &[usize], half: Half) -> Queries {
        let row = |row: &usize| row_of(self.index.rows.unit.view(), *row);
        Queries::new(
            rows.iter().map(|at| half.of(row(at))).collect::<Vec<_>>().iter().map(Vec::as_slice),
        )
    }
}

/// The cosines of a half of the sample's rows with single target examples, up to
/// one factor.
struct HalfCosines<'a> {
    sides: &'a [Side<'a>],
    half: Half,
    targets: TargetExamples,
    /// Of every side.
    queries: Vec<Queries>,
}

impl<'a> HalfCosines<'a> {
    fn new(sides: &'a [Side<'a>], half: Half) -> Self {
        let indices: Vec<&TargetIndex> = sides.iter().map(|side| side.index).collect();
        let targets = TargetExamples::usable_at_all(&indices);
        let of_side = |side: &Side<'_>| side.examples(&targets.rows_in(side.index), half);
        let queries = sides.iter().map(of_side).collect();
        Self { sides, half, targets, queries }
    }
}

impl TargetCosines for HalfCosines<'_> {
    fn targets(&self) -> &TargetExamples {
        &self.targets
    }

    fn n_rows(&self) -> usize {
        self.sides[0].places.len()
    }

    fn total(&self, rows: Range<usize>) -> Vec<f32> {
        sums(self.sides, self.half, &self.queries, rows).concat()
    }
}

/// The scores of every row of the sample on the subtasks by a half, up to one factor.
fn half_scores(sides: &[Side<'_>], half: Half, aggregation: Aggregation) -> Vec<Vec<f32>> {
    let queries = |side: &Side<'_>| subtask_queries(side.index, half, aggregation);
    let queries: Vec<Queries> = sides.iter().map(queries).collect();
    sums(sides, half, &queries, 0..sides[0].places.len())
}

/// The weighted sums over the sides of the cosines of some rows with each side's
/// queries.
fn sums(sides: &[Side<'_>], half: Half, queries: &[Queries], rows: Range<usize>) -> Vec<Vec<f32>> {
    let of_row = |at: usize| {
        let mut sums = vec![0.0; queries[0].len()];
        for (side, queries) in sides.iter().zip(queries) {
            for (sum, cosine) in sums.iter_mut().zip(side.cosines(at, half, queries)) {
                *sum += side.weight * cosine;
            }
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    };
    rows.into_par_iter().map(of_row).collect()
}

/// Error and size of the cosines of some pool rows with some target examples.
fn errors(sides: &[Side<'_>]) -> (f64, f64) {
    let (mut differences, mut sums, mut n) = (0.0, 0.0, 0_u64);
    for side in sides {
        let examples: Vec<usize> =
            (0..side.index.rows.unit.nrows()).take(N_PAIR_EXAMPLES).collect();
        let queries = Half::ALL.map(|half| side.examples(&examples, half));
        for at in 0..side.places.len().min(N_PAIR_ROWS) {
            let [first, second] = [0, 1].map(|of| side.cosines(at, Half::ALL[of], &queries[of]));
            for (first, second) in first.iter().zip(&second) {
                differences += ((first - second) / 2.0).powi(2);
                sums += f64::midpoint(*first, *second).powi(2);
                n += 1;
            }
        }
    }
    ((differences / n as f64).sqrt(), (sums / n as f64).sqrt())
}

/// A half of every subtask's centroid: of `mean-of-cosines` the mean of its
/// examples' halves, each at unit length.
fn subtask_queries(index: &TargetIndex, half: Half, aggregation: Aggregation) -> Queries {
    let of_examples = |subtask: usize| {
        let mut mean = vec![0.0_f64; index.store.proj_dim];
        let rows = index.rows.subtasks.iter().enumerate();
        for (row, _) in rows.filter(|(_, of)| **of as usize == subtask) {
            let half = half.of(row_of(index.rows.unit.view(), row));
            mean.iter_mut().zip(half).for_each(|(mean, value)| *mean += f64::from(value));
        }
        let n_examples = f64::from(index.subtasks[subtask].n_examples);
        mean.into_iter().map(|sum| (sum / n_examples) as f32).collect()
    };
    let of_centroid = |subtask: usize| half.of(row_of(index.centroids(aggregation), subtask));
    let subtasks = 0..index.subtasks.len();
    let by_subtask: Vec<Vec<f32>> = match aggregation {
        Aggregation::MeanOfCosines => subtasks.map(of_examples).collect(),
        Aggregation::CosineOfMean => subtasks.map(of_centroid).collect(),
    };
    Queries::new(by_subtask.iter().map(Vec::as_slice))
}

fn row_of(rows: ArrayView2<'_, f32>, row: usize) -> &[f32] {
    rows.index_axis_move(Axis(0), row).to_slice().expect("standard layout")
}
