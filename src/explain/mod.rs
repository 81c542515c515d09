//! Why a row was selected or was not, and which rows a target example brought in.
//!
//! Everything is looked up in the files of a complete run: the score table, the
//! selection, the cosines with single target examples, and the stored rows of the few
//! that are compared. Nothing is computed anew, and a method that takes no gradients
//! has fewer things to say.

mod lists;
mod lookup;
mod row;
mod target;
mod text;

use serde::Serialize;

use crate::influence::example_scores::ExampleScores;
use crate::influence::scores::ScoreTable;
use crate::pool::table::{ExampleTable, Record};
use crate::pool::{ExampleId, PoolError};
use crate::selection::selector::RowCosines;
use crate::selection::{Selected, SelectionFile};

pub use lists::{Lists, Standing};
pub use lookup::{ExplainError, find};
pub use row::{CheckpointWeight, Place, RowExplained, SubtaskScore, TargetNeighbor};
pub use target::{Served, TargetExplained};
pub use text::{row_text, target_text};

/// Neighbors of each kind.
const N_NEIGHBORS: usize = 5;

/// What is looked at.
pub struct Run<'a> {
    /// The scores; rows that the selection left out have a flag.
    pub scores: &'a ScoreTable,
    /// The selection as it was recorded.
    pub selection: &'a SelectionFile,
    /// What was selected of the scores, in order of rank.
    pub selected: &'a [Selected],
    /// The pool's table, in the order of the scores.
    pub pool: &'a ExampleTable,
    /// The target's.
    pub target: &'a ExampleTable,
    /// The cosines with single target examples, if the method has such.
    pub examples: Option<&'a ExampleScores>,
    /// The likeness of pool rows to each other, if gradients are stored.
    pub rows: Option<&'a dyn RowCosines>,
    /// The nearest rows of a target example that count for `knn` and `knn-kde`.
    pub n_neighbors: usize,
}

/// A row of the pool beside the one that is explained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowNeighbor {
    /// Identity by content.
    pub id: ExampleId,
    /// The pool source it came from.
    pub source: String,
    /// Its likeness.
    pub cosine: f32,
    /// Its place in the selection, from 1, if it is in it.
    pub rank: Option<usize>,
    /// Its first user turn.
    pub prompt: String,
    /// Its first assistant turn.
    pub answer: String,
}

impl Run<'_> {
    /// Rows at `positions`, with their cosines.
    fn neighbors(&self, found: &[(usize, f32)]) -> Result<Vec<RowNeighbor>, PoolError> {
        let positions: Vec<usize> = found.iter().map(|(position, _)| *position).collect();
        let said = said(self.pool, &positions)?;
        let neighbor = |((position, cosine), (prompt, answer)): (&(usize, f32), _)| {
            let row = &self.scores.rows[*position];
            RowNeighbor {
                id: row.id,
                source: row.source.clone(),
                cosine: *cosine,
                rank: self.place(*position).map(|place| place.rank),
                prompt,
                answer,
            }
        };
        Ok(found.iter().zip(said).map(neighbor).collect())
    }

    /// Its place in the selection.
    fn place(&self, position: usize) -> Option<&Selected> {
        self.selected.iter().find(|place| place.position == position)
    }
}

/// The first user turn and the first assistant turn of rows in any order.
fn said(table: &ExampleTable, positions: &[usize]) -> Result<Vec<(String, String)>, PoolError> {
    let mut ascending = positions.to_vec();
    ascending.sort_unstable();
    ascending.dedup();
    let records = table.records(&ascending)?;
    let first = |record: &Record, role: &str| {
        let turn = record.messages.iter().find(|message| message.role == role);
        turn.map_or_else(String::new, |turn| turn.content.clone())
    };
    let of = |position: &usize| {
        let record = &records[ascending.partition_point(|other| other < position)];
        (first(record, "user"), first(record, "assistant"))
    };
    Ok(positions.iter().map(of).collect())
}

/// The `n` of `found` with the highest cosines, the first of equal ones in order of
/// position, which is that of ids. What is not a number is no neighbor.
fn nearest(found: impl IntoIterator<Item = (usize, f32)>, n: usize) -> Vec<(usize, f32)> {
    let mut found: Vec<_> = found.into_iter().filter(|(_, cosine)| !cosine.is_nan()).collect();
    found.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    found.truncate(n);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_and_equal_ones_in_order_of_position() {
        let found = [(4, 0.5), (1, 0.25), (7, f32::NAN), (2, 0.5), (3, -1.0)];
        assert_eq!(nearest(found, 3), [(2, 0.5), (4, 0.5), (1, 0.25)]);
    }
}
