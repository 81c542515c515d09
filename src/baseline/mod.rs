//! What LESS is compared with: simpler scores of the same pool, in the same tables.
//!
//! Methods with a target score every row against every example of it
//! ([`compare`]); the others give one number a row. None depends on the order of
//! rows or on threads.
//!
//! | method | score of a row |
//! |---|---|
//! | [`rds`] | cosine with the target's mean hidden states |
//! | [`bm25`] | Okapi BM25, the target example being the query |
//! | [`ngram`] | log importance weight of hashed n-grams |
//! | [`length`] | tokens that carry loss |
//! | [`perplexity`] | how near its loss is to the pool's median |
//! | [`random`] | a draw, from all rows alike or from all sources alike |

pub mod bm25;
pub mod compare;
pub mod length;
pub mod ngram;
pub mod perplexity;
pub mod random;
pub mod rds;

use crate::influence::scores::{ScoreRow, ScoreTable};
use crate::method::Method;
use crate::pool::table::TableRow;

/// The table of a method without a target: a column of the method's name.
///
/// `scores` is f32, one a row of `rows`; one that is not finite flags its row.
///
/// # Panics
///
/// If there are more or fewer scores than rows.
pub fn table(method: Method, rows: &[TableRow], scores: &[f32]) -> ScoreTable {
    table_by_subtask(rows, vec![method.name().to_owned()], scores)
}

/// The table of scores `by_subtask`, f32 `[n_rows × n_subtasks]`. A row with one
/// that is not finite is flagged.
///
/// # Panics
///
/// If `by_subtask` has another shape.
pub fn table_by_subtask(
    rows: &[TableRow],
    subtasks: Vec<String>,
    by_subtask: &[f32],
) -> ScoreTable {
    assert_eq!(by_subtask.len(), rows.len() * subtasks.len(), "a score a row and subtask");
    let rows = rows.iter().zip(by_subtask.chunks_exact(subtasks.len())).map(|(head, scores)| {
        let is_usable = scores.iter().all(|score| score.is_finite());
        ScoreRow {
            id: head.id,
            source: head.source.clone(),
            n_tokens: head.n_tokens,
            n_supervised: head.n_supervised,
            loss: f32::NAN,
            norm: 0.0,
            flag: (!is_usable).then(|| "non-finite score".to_owned()),
            by_subtask: if is_usable { scores.to_vec() } else { Vec::new() },
        }
    });
    ScoreTable { rows: rows.collect(), subtasks }
}
