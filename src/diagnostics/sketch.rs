//! The ranking by each half of the stored rows' coordinates: what another seed of
//! the projection would have changed, without a gradient.
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

use rayon::prelude::*;
use serde::Serialize;

use super::{Sample, overlap};
use crate::gradient::direction::GradientKind;
use crate::influence::index::TargetIndex;
use crate::influence::score::ScoredCheckpoint;
use crate::influence::scores::ScoreTable;
use crate::influence::{Aggregation, InfluenceError};
use crate::store::Split;
use crate::store::gradient_store::{GradientStore, RowPlace};
use crate::store::inner_products::Queries;

/// Pool rows and target examples that the error of a cosine is estimated from.
const N_PAIR_ROWS: usize = 512;
const N_PAIR_EXAMPLES: usize = 16;

/// What rankings by the halves of the stored rows have in common.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SketchHalves {
    /// The share of the best rows that both halves have.
    pub between: f64,
    /// The share of the best rows by the whole that each half has, too.
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

/// Ranks the sample of `scores` by the halves of its stored rows.
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
    scores: &ScoreTable,
    sample: &Sample,
    kind: GradientKind,
    aggregation: Aggregation,
) -> Result<SketchHalves, InfluenceError> {
    let side = |checkpoint: &_| Side::new(checkpoint, scores, sample, kind);
    let sides: Vec<Side<'_>> = checkpoints.iter().map(side).collect::<Result<_, _>>()?;
    let by_half = half_scores(&sides, aggregation);
    let best = [0, 1].map(|half| {
        let scores: Vec<f32> = by_half.iter().map(|halves| halves[half]).collect();
        sample.best(&scores)
    });
    let whole = sample.positions.iter().map(|position| {
        let (_, score) = scores.rows[*position].best().expect("the sample is of ranked rows");
        score
    });
    let whole = sample.best(&whole.collect::<Vec<_>>());
    let (cosine_error, cosine_size) = errors(&sides);
    Ok(SketchHalves {
        between: overlap(&best[0], &best[1]),
        with_whole: best.map(|half| overlap(&whole, &half)),
        cosine_error,
        cosine_size,
    })
}

impl<'a> Side<'a> {
    fn new(
        checkpoint: &ScoredCheckpoint<'a>,
        scores: &ScoreTable,
        sample: &Sample,
        kind: GradientKind,
    ) -> Result<Self, InfluenceError> {
        let ScoredCheckpoint { pool, index, learning_rate, .. } = *checkpoint;
        let ids = sample.positions.iter().map(|position| scores.rows[*position].id);
        let places = pool.places(ids).map_err(|id| InfluenceError::NoGradient {
            id,
            split: Split::Pool,
            checkpoint: pool.header().checkpoint.clone(),
        })?;
        Ok(Self { pool, kind, places, weight: learning_rate, index })
    }

    /// The cosines of both halves of row number `at` of the sample: `queries` are
    /// those of the first half, and then as many of the second.
    fn cosines(&self, at: usize, queries: &Queries) -> Vec<f64> {
        let RowPlace { shard, row } = self.places[at];
        let shard = &self.pool.shards()[shard];
        let unit = shard.kind(self.kind).expect("the store was asked for it").unit;
        let lengths = half_lengths(&unit.decode(row..row + 1));
        let mut products = unit.inner_products(row..row + 1, queries);
        for (products, length) in products.chunks_mut((queries.len() / 2).max(1)).zip(lengths) {
            for product in products {
                *product = if length > 0.0 { *product / length } else { 0.0 };
            }
        }
        products
    }
}

/// The scores of every row of the sample by the halves, up to one factor.
fn half_scores(sides: &[Side<'_>], aggregation: Aggregation) -> Vec<[f32; 2]> {
    let queries: Vec<Queries> =
        sides.iter().map(|side| subtask_queries(side.index, aggregation)).collect();
    let n_subtasks = sides[0].index.subtasks.len();
    let of_row = |at: usize| {
        let mut sums = vec![0.0; 2 * n_subtasks];
        for (side, queries) in sides.iter().zip(&queries) {
            for (sum, cosine) in sums.iter_mut().zip(side.cosines(at, queries)) {
                *sum += side.weight * cosine;
            }
        }
        let (first, second) = sums.split_at(n_subtasks);
        [first, second].map(|sums| sums.iter().copied().fold(f64::NEG_INFINITY, f64::max) as f32)
    };
    (0..sides[0].places.len()).into_par_iter().map(of_row).collect()
}

/// Error and size of the cosines of some pool rows with some target examples.
fn errors(sides: &[Side<'_>]) -> (f64, f64) {
    let (mut differences, mut sums, mut n) = (0.0, 0.0, 0_u64);
    for side in sides {
        let examples = side.index.rows.unit.rows().into_iter().take(N_PAIR_EXAMPLES);
        let examples: Vec<[Vec<f32>; 2]> =
            examples.map(|row| halves(row.to_slice().expect("standard layout"))).collect();
        let queries = queries(&examples);
        for at in 0..side.places.len().min(N_PAIR_ROWS) {
            let cosines = side.cosines(at, &queries);
            let (first, second) = cosines.split_at(examples.len());
            for (first, second) in first.iter().zip(second) {
                differences += ((first - second) / 2.0).powi(2);
                sums += f64::midpoint(*first, *second).powi(2);
                n += 1;
            }
        }
    }
    ((differences / n as f64).sqrt(), (sums / n as f64).sqrt())
}

/// The halves of every subtask's centroid: of `mean-of-cosines` the mean of its
/// examples' halves, each at unit length.
fn subtask_queries(index: &TargetIndex, aggregation: Aggregation) -> Queries {
    let centroids = index.centroids(aggregation);
    let of_centroid =
        |subtask: usize| halves(centroids.row(subtask).to_slice().expect("standard layout"));
    let of_examples = |subtask: usize| {
        let mut means = [(); 2].map(|()| vec![0.0_f64; index.store.proj_dim]);
        let rows = index.rows.unit.rows().into_iter().zip(&index.rows.subtasks);
        for (row, _) in rows.filter(|(_, of)| **of as usize == subtask) {
            for (mean, half) in
                means.iter_mut().zip(halves(row.to_slice().expect("standard layout")))
            {
                mean.iter_mut().zip(half).for_each(|(mean, value)| *mean += f64::from(value));
            }
        }
        let n_examples = f64::from(index.subtasks[subtask].n_examples);
        means.map(|mean| mean.into_iter().map(|sum| (sum / n_examples) as f32).collect())
    };
    let subtasks = 0..index.subtasks.len();
    let by_subtask: Vec<[Vec<f32>; 2]> = match aggregation {
        Aggregation::MeanOfCosines => subtasks.map(of_examples).collect(),
        Aggregation::CosineOfMean => subtasks.map(of_centroid).collect(),
    };
    queries(&by_subtask)
}

/// All first halves, then all second ones.
fn queries(halves: &[[Vec<f32>; 2]]) -> Queries {
    let of = |half: usize| halves.iter().map(move |halves| halves[half].as_slice());
    Queries::new(of(0).chain(of(1)))
}

/// A row's halves at unit length, each with zeros for the other; a half of zeros
/// stays one.
fn halves(row: &[f32]) -> [Vec<f32>; 2] {
    let lengths = half_lengths(row);
    let middle = row.len() / 2;
    let half = |range: std::ops::Range<usize>, length: f64| {
        let mut half = vec![0.0; row.len()];
        if length > 0.0 {
            for (half, value) in half[range.clone()].iter_mut().zip(&row[range]) {
                *half = (f64::from(*value) / length) as f32;
            }
        }
        half
    };
    [half(0..middle, lengths[0]), half(middle..row.len(), lengths[1])]
}

/// The lengths of a row's halves, of which the whole has length one. Of a row in
/// few bits, whose decoded length is not quite one, they are shares of that.
fn half_lengths(row: &[f32]) -> [f64; 2] {
    let squares = |half: &[f32]| half.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    let (first, second) = row.split_at(row.len() / 2);
    let (first, second) = (squares(first), squares(second));
    let all = first + second;
    if all > 0.0 { [(first / all).sqrt(), (second / all).sqrt()] } else { [0.0; 2] }
}
