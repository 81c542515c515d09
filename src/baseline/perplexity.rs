//! Rows that the model finds neither easy nor hard.
//!
//! Of perplexity, which rises with the mean loss of a row's supervised tokens, the
//! middle is selected (*Mid-PPL*): Marion et al., 2023, *When Less is More*, found it
//! better than either end; Yin and Rush, 2025, *Compute-Constrained Data Selection*,
//! and Ivison et al., 2025, compare with it. The high end (*Top-PPL*) is the end of the
//! noise: rows that are cut off, of another language, or wrong.

use crate::pool::ExampleId;

/// How near each of `losses` is to their median, one a row, f32:
///
/// ```text
/// score = 1 − |2p + 1 − n| / n       p = 0..n, the place by loss, then by id
/// ```
///
/// of the n losses that are finite; NaN for the others. Depends on the order of losses
/// alone, so that one far off moves nothing.
///
/// # Panics
///
/// If there are more or fewer ids than losses.
pub fn perplexity(ids: &[ExampleId], losses: &[f32]) -> Vec<f32> {
    assert_eq!(ids.len(), losses.len(), "an id a loss");
    let mut order: Vec<usize> = (0..losses.len()).filter(|&row| losses[row].is_finite()).collect();
    order.sort_unstable_by(|&a, &b| {
        losses[a].total_cmp(&losses[b]).then_with(|| ids[a].cmp(&ids[b]))
    });
    let n = order.len() as f64;
    let mut scores = vec![f32::NAN; losses.len()];
    for (place, row) in order.into_iter().enumerate() {
        scores[row] = (1.0 - (2.0 * place as f64 + 1.0 - n).abs() / n) as f32;
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: u8) -> Vec<ExampleId> {
        (0..n).map(|row| ExampleId([row; 16])).collect()
    }

    #[test]
    fn the_median_is_best_and_both_ends_are_worst() {
        let scores = perplexity(&ids(5), &[9.0, 1.0, 2.0, 1000.0, 3.0]);
        assert_eq!(scores, [0.6, 0.2, 0.6, 0.2, 1.0]);
    }

    #[test]
    fn a_loss_that_is_not_finite_has_no_score_and_moves_no_median() {
        let scores = perplexity(&ids(4), &[f32::NAN, 1.0, 2.0, 3.0]);
        assert!(scores[0].is_nan());
        assert_eq!(scores[1..], perplexity(&ids(3), &[1.0, 2.0, 3.0]));
    }

    #[test]
    fn equal_losses_are_told_apart_by_id_in_any_order() {
        let forward = perplexity(&ids(4), &[1.0; 4]);
        let ids_back: Vec<_> = ids(4).into_iter().rev().collect();
        let backward = perplexity(&ids_back, &[1.0; 4]);
        assert_eq!(forward, backward.into_iter().rev().collect::<Vec<_>>());
    }
}
