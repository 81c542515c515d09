//! What a smaller share would have kept.

use serde::Serialize;

use super::Similarities;

/// Shares of the pool at which recall is told.
const SHARES: [f64; 5] = [0.05, 0.1, 0.2, 0.3, 0.5];

/// How much of a selection a share of the first pass holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recall {
    /// The share of the pool.
    pub share: f64,
    /// The share of the selected rows that are in it.
    pub recall: f64,
}

/// The recall at some shares of the rows at positions `selected`, which were
/// chosen by the gradients of all rows.
pub fn recalls(similarities: &Similarities, selected: &[usize]) -> Vec<Recall> {
    let recall = |share| {
        let kept = similarities.kept(share);
        let n_found = selected.iter().filter(|row| kept.binary_search(row).is_ok()).count();
        Recall { share, recall: n_found as f64 / selected.len().max(1) as f64 }
    };
    SHARES.into_iter().map(recall).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::ExampleId;

    #[test]
    fn recall_is_the_part_of_the_selection_that_is_kept() {
        let n_rows: u8 = 20;
        let found = Similarities {
            ids: (0..n_rows).map(|row| ExampleId([row; 16])).collect(),
            similarities: (0..n_rows).map(|row| -f32::from(row)).collect(),
        };
        let recalls: Vec<f64> =
            recalls(&found, &[0, 1, 5, 19]).iter().map(|recall| recall.recall).collect();
        assert_eq!(recalls, [0.25, 0.5, 0.5, 0.75, 0.75]);
    }
}
