//! The longest answers first.
//!
//! A baseline that is hard to beat where answers are judged as a whole (Zhao et al.,
//! 2024, *Long Is More for Alignment*), and that says of a targeted method whether it
//! does more than follow length.

use crate::pool::table::TableRow;

/// The number of tokens that carry loss, one a row; equal below 2²⁴.
pub fn length(rows: &[TableRow]) -> Vec<f32> {
    rows.iter().map(|row| row.n_supervised as f32).collect()
}
