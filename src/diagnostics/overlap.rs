//! Which rows are the best, and how many of them others have, too.

/// Which rows of a sample are the best.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Best {
    is_in: Vec<bool>,
    n: usize,
}

impl Best {
    /// The `n` highest of `scores` ([`f32::total_cmp`]); of equal ones the first.
    pub(super) fn of(scores: &[f32], n: usize) -> Self {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]).then_with(|| a.cmp(b)));
        let mut is_in = vec![false; scores.len()];
        for row in order.into_iter().take(n) {
            is_in[row] = true;
        }
        Self { is_in, n }
    }
}

/// The share of the best that both have.
pub(super) fn overlap(one: &Best, other: &Best) -> f64 {
    let n_shared = one.is_in.iter().zip(&other.is_in).filter(|(a, b)| **a && **b).count();
    n_shared as f64 / one.n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlap_is_the_share_of_the_best_that_both_have() {
        let scores = [0.9, 0.1, 0.8, 0.7, 0.2];
        let others = [0.9, 0.8, 0.1, 0.7, 0.2];
        let share = |n| overlap(&Best::of(&scores, n), &Best::of(&others, n));
        approx::assert_relative_eq!(share(1), 1.0);
        approx::assert_relative_eq!(share(2), 0.5);
        approx::assert_relative_eq!(share(3), 2.0 / 3.0);
    }

    #[test]
    fn of_equal_scores_the_first_are_the_best() {
        assert_eq!(Best::of(&[0.5, 0.5, 0.5], 2).is_in, [true, true, false]);
    }
}
