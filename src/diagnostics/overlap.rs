//! How many of some rows others have, too.

use std::collections::BTreeSet;

/// Rows of a sample that are selected from a part of what the selection was made
/// from, by their places in it.
pub(super) type Chosen = BTreeSet<usize>;

/// The share of `one` that `other` has, too; both have as many.
pub(super) fn overlap(one: &Chosen, other: &Chosen) -> f64 {
    one.intersection(other).count() as f64 / one.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlap_is_the_share_that_both_have() {
        let share = |one: [usize; 4], other: [usize; 4]| {
            overlap(&one.into_iter().collect(), &other.into_iter().collect())
        };
        approx::assert_relative_eq!(share([1, 2, 3, 4], [4, 2, 1, 3]), 1.0);
        approx::assert_relative_eq!(share([1, 2, 3, 4], [5, 4, 3, 9]), 0.5);
        approx::assert_relative_eq!(share([1, 2, 3, 4], [5, 6, 7, 8]), 0.0);
    }
}
