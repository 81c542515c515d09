//! How like each other pool rows are, from their stored gradients.

use rayon::prelude::*;

use super::selector::RowCosines;
use crate::gradient::direction::GradientKind;
use crate::influence::scores::ScoreTable;
use crate::pool::ExampleId;
use crate::store::gradient_store::{GradientStore, RowPlace};
use crate::store::inner_products::Queries;

/// Rows that a thread takes at once.
const BLOCK_ROWS: usize = 64;

/// The stored rows of a pool at all checkpoints.
///
/// Two rows' likeness is the mean over the checkpoints, by weight, of the cosines
/// of their directions: the cosine of the checkpoints' rows one after the other,
/// each times the root of its weight. Of projected and quantized rows it is an
/// estimate, at most one. One of the two is decoded to f32; with one bit a
/// coordinate on both sides the estimate is too low.
pub struct StoredRows {
    kind: GradientKind,
    checkpoints: Vec<Checkpoint>,
}

struct Checkpoint {
    store: GradientStore,
    weight: f64,
    /// By position in the score table; none for rows without a score.
    places: Vec<Option<RowPlace>>,
}

impl StoredRows {
    /// The rows of `scores` that have a score, in the stores of all checkpoints,
    /// each with its weight.
    ///
    /// # Errors
    ///
    /// The first row that a store does not have.
    pub fn new(
        stores: Vec<(GradientStore, f64)>,
        kind: GradientKind,
        scores: &ScoreTable,
    ) -> Result<Self, ExampleId> {
        let all: Vec<usize> = (0..scores.rows.len()).collect();
        Self::of(stores, kind, scores, &all)
    }

    /// As [`new`](Self::new), of the rows at `positions` alone.
    ///
    /// # Errors
    ///
    /// The first row that a store does not have.
    pub fn of(
        stores: Vec<(GradientStore, f64)>,
        kind: GradientKind,
        scores: &ScoreTable,
        positions: &[usize],
    ) -> Result<Self, ExampleId> {
        let has_score = |position: &&usize| !scores.rows[**position].by_subtask.is_empty();
        let scored: Vec<usize> = positions.iter().filter(has_score).copied().collect();
        let checkpoint = |(store, weight): (GradientStore, f64)| {
            let mut places = vec![None; scores.rows.len()];
            let found = store.places(scored.iter().map(|position| scores.rows[*position].id))?;
            for (position, place) in scored.iter().zip(found) {
                places[*position] = Some(place);
            }
            Ok(Checkpoint { store, weight, places })
        };
        let checkpoints = stores.into_iter().map(checkpoint).collect::<Result<_, _>>()?;
        Ok(Self { kind, checkpoints })
    }
}

impl RowCosines for StoredRows {
    /// # Panics
    ///
    /// If a row has no score, or gradients of this kind are not stored.
    fn cosines(&self, queries: &[usize], rows: &[usize]) -> Vec<f32> {
        let mut sums = vec![0.0_f64; rows.len() * queries.len()];
        for checkpoint in &self.checkpoints {
            let unit = |position: &usize| {
                let RowPlace { shard, row } = checkpoint.places[*position].expect("it has a score");
                let shard = &checkpoint.store.shards()[shard];
                (shard.kind(self.kind).expect("it is stored").unit, row)
            };
            let decoded = queries.iter().map(|position| {
                let (unit, row) = unit(position);
                unit.decode(row..row + 1)
            });
            let decoded: Vec<Vec<f32>> = decoded.collect();
            let decoded = Queries::new(decoded.iter().map(Vec::as_slice));
            let blocks = sums.par_chunks_mut((BLOCK_ROWS * queries.len()).max(1));
            blocks.zip(rows.par_chunks(BLOCK_ROWS)).for_each(|(sums, rows)| {
                for (sums, position) in sums.chunks_exact_mut(queries.len()).zip(rows) {
                    let (unit, row) = unit(position);
                    let products = unit.inner_products(row..row + 1, &decoded);
                    for (sum, product) in sums.iter_mut().zip(products) {
                        *sum += checkpoint.weight * product;
                    }
                }
            });
        }
        sums.into_iter().map(|sum| (sum as f32).min(1.0)).collect()
    }
}
