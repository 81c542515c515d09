//! The rows that go on to the gradient pass.

use super::Similarities;
use crate::gradient::collect::ExampleSource;
use crate::pool::table::{ExampleTable, TableRow};
use crate::pool::{Example, PoolError};

/// How many of `n_rows` rows a share in `(0, 1]` is: rounded up, at least one.
pub fn n_kept(n_rows: usize, share: f64) -> usize {
    // Not a row more for what f64 cannot write: 0.07 of 100 is 7.
    let exact = (share * n_rows as f64 - 1e-9).ceil();
    #[expect(clippy::cast_sign_loss, reason = "at least one")]
    let n_kept = exact.max(1.0) as usize;
    n_kept
}

impl Similarities {
    /// Positions of the `share` of the rows with the highest similarities,
    /// ascending: at least one row; the lower id wins a tie. A row without a
    /// finite similarity is among them: the gradient pass says what is wrong
    /// with it.
    pub fn kept(&self, share: f64) -> Vec<usize> {
        let n_rows = self.similarities.len();
        let key = |row: usize| {
            let similarity = self.similarities[row];
            if similarity.is_nan() { f32::INFINITY } else { similarity }
        };
        let mut order: Vec<usize> = (0..n_rows).collect();
        order.sort_by(|a, b| key(*b).total_cmp(&key(*a)));
        order.truncate(n_kept(n_rows, share));
        order.sort_unstable();
        order
    }
}

/// Some rows of a table, in its order.
#[derive(Debug)]
pub struct KeptRows<'a> {
    table: &'a ExampleTable,
    /// Ascending.
    positions: Vec<usize>,
    rows: Vec<TableRow>,
}

impl<'a> KeptRows<'a> {
    /// The rows of `table` at `positions`, ascending.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn new(table: &'a ExampleTable, positions: Vec<usize>) -> Self {
        let rows = positions.iter().map(|position| table.rows()[*position].clone()).collect();
        Self { table, positions, rows }
    }
}

impl ExampleSource for KeptRows<'_> {
    fn rows(&self) -> &[TableRow] {
        &self.rows
    }

    fn examples_at(&self, positions: &[usize]) -> Result<Vec<Example>, PoolError> {
        let positions: Vec<usize> = positions.iter().map(|at| self.positions[*at]).collect();
        self.table.examples_at(&positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::ExampleId;

    fn similarities(values: &[f32]) -> Similarities {
        let ids = (0..values.len()).map(|row| ExampleId([row as u8; 16])).collect();
        Similarities { ids, similarities: values.to_vec() }
    }

    #[test]
    fn the_most_similar_are_kept_and_ties_go_to_the_lower_id() {
        let found = similarities(&[0.1, 0.5, 0.5, -0.9, 0.5]);
        assert_eq!(found.kept(0.4), [1, 2]);
        assert_eq!(found.kept(1.0), [0, 1, 2, 3, 4]);
        assert_eq!(found.kept(0.001), [1]);
    }

    #[test]
    fn a_row_that_cannot_be_compared_goes_on() {
        assert_eq!(similarities(&[0.1, f32::NAN, 0.5]).kept(0.3), [1]);
    }

    #[test]
    fn a_share_is_not_rounded_past_what_was_said() {
        let found = similarities(&[0.0; 100]);
        assert_eq!(found.kept(0.07).len(), 7);
        assert_eq!(found.kept(0.071).len(), 8);
    }
}
