//! `scores.parquet`: one row for every example of the pool.

use crate::pool::ExampleId;

/// The influence scores of a whole pool, in order of [`ExampleId`].
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreTable {
    /// Names of the subtasks, sorted: `TARGET/SUBTASK`.
    pub subtasks: Vec<String>,
    /// One row an example.
    pub rows: Vec<ScoreRow>,
}

/// What is known of one pool example after scoring.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// Identity by content.
    pub id: ExampleId,
    /// The pool source it came from.
    pub source: String,
    /// Tokens the model sees.
    pub n_tokens: u32,
    /// Tokens that carry loss.
    pub n_supervised: u32,
    /// Mean token loss, averaged over the checkpoints by weight.
    pub loss: f32,
    /// L2 norm of the projected direction, averaged over the checkpoints by weight.
    pub norm: f32,
    /// Why the row is not ranked (`zero gradient`, `non-finite loss`, …).
    pub flag: Option<String>,
    /// Influence on each subtask, in the order of [`ScoreTable::subtasks`];
    /// empty when flagged.
    pub by_subtask: Vec<f32>,
}

impl ScoreRow {
    /// The highest influence and the position of its subtask; `None` when flagged.
    /// The first of equal subtasks wins.
    pub fn best(&self) -> Option<(usize, f32)> {
        self.by_subtask
            .iter()
            .copied()
            .enumerate()
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}
