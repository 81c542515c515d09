//! The target's side of every inner product: unit rows and subtask centroids.
//!
//! A subtask is named `SOURCE/SUBTASK`, or `SOURCE` where it has no other name.
//! For a subtask with usable target gradients g (projected, plain), any number
//! n of them, the centroids are
//!
//! ```text
//! mean-of-cosines   u = mean_i g_i/‖g_i‖          ⟨x, u⟩ = mean_i cos(x, g_i)        for ‖x‖ = 1
//! cosine-of-mean    u = ḡ/‖ḡ‖,  ḡ = mean_i g_i    ⟨x, u⟩ = cos(x, ḡ)
//! ```
//!
//! so that one inner product with a unit row is the influence at a checkpoint,
//! however many examples the subtask has.
//!
//! [`index_file`](super::index_file) keeps an index on disk.

use std::collections::BTreeSet;

use ndarray::{Array2, ArrayView2};

use super::{Aggregation, InfluenceError, places};
use crate::gradient::direction::GradientKind;
use crate::pool::ExampleId;
use crate::pool::table::TableRow;
use crate::store::gradient_store::{GradientStore, RowPlace};
use crate::store::shard::StoreHeader;

/// The target at one checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetIndex {
    /// Header of the target store it was made from.
    pub store: StoreHeader,
    /// Fingerprint of the target store it was made from.
    pub fingerprint: String,
    /// The subtasks, in order of name.
    pub subtasks: Vec<Subtask>,
    /// The usable target rows, in order of id.
    pub rows: TargetRows,
    /// Centroids for [`Aggregation::MeanOfCosines`], `[n_subtasks × proj_dim]`.
    pub(super) mean_of_cosines: Array2<f32>,
    /// Centroids for [`Aggregation::CosineOfMean`], `[n_subtasks × proj_dim]`;
    /// zeros where a subtask's gradients cancel.
    pub(super) cosine_of_mean: Array2<f32>,
}

/// One subtask of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtask {
    /// `SOURCE/SUBTASK`, or `SOURCE`.
    pub name: String,
    /// Target examples its centroids are of.
    pub n_examples: u32,
    /// Target examples left out because they are flagged.
    pub n_flagged: u32,
}

/// The usable target examples.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetRows {
    /// Identities, ascending.
    pub ids: Vec<ExampleId>,
    /// Positions in [`TargetIndex::subtasks`].
    pub subtasks: Vec<u32>,
    /// Unit rows, `[n × proj_dim]`.
    pub unit: Array2<f32>,
}

/// The name of the subtask a target row belongs to.
pub fn subtask_name(row: &TableRow) -> String {
    match &row.subtask {
        Some(subtask) if *subtask != row.source => format!("{}/{subtask}", row.source),
        _ => row.source.clone(),
    }
}

impl TargetIndex {
    /// Builds the index of one checkpoint from its target store, which must
    /// hold `sgd` gradients, and the target table. Flagged rows are left out and
    /// counted.
    ///
    /// # Errors
    ///
    /// If the store has no `sgd` gradients, or none of a row of the table, if
    /// there is no target row, or if a subtask has no usable one.
    pub fn build(store: &GradientStore, table: &[TableRow]) -> Result<Self, InfluenceError> {
        store.require(GradientKind::Sgd)?;
        let places = places(store, table)?;
        let mut subtasks = subtasks(table);
        let (rows, norms) = usable_rows(store, table, &places, &mut subtasks);
        let checkpoint = &store.header().checkpoint;
        if subtasks.is_empty() {
            return Err(InfluenceError::NoTarget { checkpoint: checkpoint.clone() });
        }
        if let Some(subtask) = subtasks.iter().find(|subtask| subtask.n_examples == 0) {
            return Err(InfluenceError::UnusableSubtask {
                subtask: subtask.name.clone(),
                checkpoint: checkpoint.clone(),
                n_flagged: subtask.n_flagged,
            });
        }
        let cosine_of_mean = unit_rows(&subtask_means(&rows, &norms, &subtasks));
        let mut index = Self {
            store: store.header().clone(),
            fingerprint: store.fingerprint(),
            mean_of_cosines: Array2::zeros(cosine_of_mean.dim()),
            subtasks,
            rows,
            cosine_of_mean,
        };
        index.average_rows();
        Ok(index)
    }

    /// Makes the centroids for [`Aggregation::MeanOfCosines`] of the rows.
    pub(super) fn average_rows(&mut self) {
        let weights = vec![1.0; self.rows.ids.len()];
        let means = subtask_means(&self.rows, &weights, &self.subtasks);
        self.mean_of_cosines = means.mapv(|sum| sum as f32);
    }

    /// The centroids, `[n_subtasks × proj_dim]`, f32.
    pub fn centroids(&self, aggregation: Aggregation) -> ArrayView2<'_, f32> {
        match aggregation {
            Aggregation::MeanOfCosines => self.mean_of_cosines.view(),
            Aggregation::CosineOfMean => self.cosine_of_mean.view(),
        }
    }
}

/// The subtasks a table names, in order of name, their examples uncounted.
fn subtasks(table: &[TableRow]) -> Vec<Subtask> {
    let names: BTreeSet<String> = table.iter().map(subtask_name).collect();
    names.into_iter().map(|name| Subtask { name, n_examples: 0, n_flagged: 0 }).collect()
}

/// Copies the rows that are not flagged, with their lengths, and counts both
/// sorts for their subtasks.
fn usable_rows(
    store: &GradientStore,
    table: &[TableRow],
    places: &[RowPlace],
    subtasks: &mut [Subtask],
) -> (TargetRows, Vec<f32>) {
    let proj_dim = store.header().proj_dim;
    let (mut ids, mut row_subtasks, mut norms) = (Vec::new(), Vec::new(), Vec::new());
    let mut unit = Vec::new();
    for (head, &RowPlace { shard, row }) in table.iter().zip(places) {
        let shard = &store.shards()[shard];
        let name = subtask_name(head);
        let subtask_idx = subtasks
            .binary_search_by(|subtask| subtask.name.cmp(&name))
            .expect("the subtasks are those of this table");
        if shard.flag(row).is_some() {
            subtasks[subtask_idx].n_flagged += 1;
            continue;
        }
        subtasks[subtask_idx].n_examples += 1;
        let sgd = shard.kind(GradientKind::Sgd).expect("the store was asked for it");
        ids.push(head.id);
        row_subtasks.push(subtask_idx as u32);
        norms.push(sgd.norms[row]);
        unit.extend(sgd.unit.decode(row..row + 1));
    }
    let unit = Array2::from_shape_vec((ids.len(), proj_dim), unit).expect("a row an id");
    (TargetRows { ids, subtasks: row_subtasks, unit }, norms)
}

/// The mean of `weight · unit row` over each subtask, `[n_subtasks × proj_dim]`,
/// summed in order of id.
fn subtask_means(rows: &TargetRows, weights: &[f32], subtasks: &[Subtask]) -> Array2<f64> {
    let mut means = Array2::zeros((subtasks.len(), rows.unit.ncols()));
    for ((row, subtask), weight) in rows.unit.rows().into_iter().zip(&rows.subtasks).zip(weights) {
        let mut mean = means.row_mut(*subtask as usize);
        mean.zip_mut_with(&row, |sum, value| *sum += f64::from(*weight) * f64::from(*value));
    }
    for (mut mean, subtask) in means.rows_mut().into_iter().zip(subtasks) {
        mean /= f64::from(subtask.n_examples);
    }
    means
}

/// Rows scaled to length one; zero rows stay.
fn unit_rows(rows: &Array2<f64>) -> Array2<f32> {
    let mut unit = Array2::zeros(rows.dim());
    for (row, mut unit) in rows.rows().into_iter().zip(unit.rows_mut()) {
        let norm = row.dot(&row).sqrt();
        if norm > 0.0 {
            unit.zip_mut_with(&row, |unit, value| *unit = (value / norm) as f32);
        }
    }
    unit
}
