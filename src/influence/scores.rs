//! `scores.parquet`: one row for every example of the pool.

use crate::pool::ExampleId;
use crate::pool::table::TableRow;

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

impl ScoreTable {
    /// The scores of a whole pool, `table`, of which these are some rows; the
    /// others are flagged.
    ///
    /// # Panics
    ///
    /// If a row is not in `table`.
    #[must_use]
    pub fn filled_up(self, table: &[TableRow]) -> Self {
        let mut scored = self.rows.into_iter().peekable();
        let row = |head: &TableRow| {
            scored.next_if(|row| row.id == head.id).unwrap_or_else(|| ScoreRow::passed_over(head))
        };
        let rows = table.iter().map(row).collect();
        assert!(scored.next().is_none(), "rows of the table, in its order");
        Self { subtasks: self.subtasks, rows }
    }
}

impl ScoreRow {
    /// A row that the cascade left out.
    fn passed_over(head: &TableRow) -> Self {
        Self {
            id: head.id,
            source: head.source.clone(),
            n_tokens: head.n_tokens,
            n_supervised: head.n_supervised,
            loss: f32::NAN,
            norm: 0.0,
            flag: Some("passed over by the cascade".to_owned()),
            by_subtask: Vec::new(),
        }
    }

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
