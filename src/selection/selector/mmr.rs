//! Score less likeness to what is taken already.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::{Pick, Picks, RowCosines};
use crate::selection::view::{Ranked, View};

/// Taken rows compared with one that waits at once.
const BLOCK_ROWS: usize = 256;

/// Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): the row with
/// the highest
///
/// ```text
/// value(z) − λ · max(0, max over taken z' of cos(z, z'))
/// ```
///
/// is taken, then the next, where the value is what rows are ranked by. What is
/// taken only ever makes a row worth less, so a row's last worth is an upper bound
/// of its worth now, and only rows whose bound is the highest are compared with
/// what was taken since. The result is that of comparing all; in memory are a few
/// numbers a row.
pub struct Mmr<'a> {
    cosines: &'a dyn RowCosines,
    penalty: f32,
    waiting: BinaryHeap<Waiting>,
    taken: Vec<usize>,
}

/// A row that is not taken yet.
struct Waiting {
    ranked: Ranked,
    /// The highest cosine with the first `n_compared` that were taken, 0 at least.
    likeness: f32,
    n_compared: usize,
    /// Its worth then.
    bound: f32,
}

impl Waiting {
    /// Higher is taken first: by bound, then by id, the lower one, which is the
    /// lower position.
    fn order(&self, other: &Self) -> Ordering {
        let by_id = other.ranked.position.cmp(&self.ranked.position);
        self.bound.total_cmp(&other.bound).then(by_id)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.order(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order(other)
    }
}

impl<'a> Mmr<'a> {
    /// `penalty` is λ, at least 0.
    pub fn new(view: &View<'_>, cosines: &'a dyn RowCosines, penalty: f32) -> Self {
        let waiting =
            |ranked: Ranked| Waiting { bound: ranked.value, ranked, likeness: 0.0, n_compared: 0 };
        let waiting = view.ranking().into_iter().map(waiting).collect();
        Self { cosines, penalty, waiting, taken: Vec::new() }
    }

    /// Compares a row with what was taken since it was last.
    fn compare(&self, mut row: Waiting) -> Waiting {
        for taken in self.taken[row.n_compared..].chunks(BLOCK_ROWS) {
            let found = self.cosines.cosines(&[row.ranked.position], taken);
            row.likeness = found.into_iter().fold(row.likeness, f32::max);
        }
        row.n_compared = self.taken.len();
        row.bound = row.ranked.value - self.penalty * row.likeness;
        row
    }
}

impl Picks for Mmr<'_> {
    fn next(&mut self, admit: &mut dyn FnMut(Pick) -> bool) -> Option<Pick> {
        while let Some(best) = self.waiting.pop() {
            if best.n_compared < self.taken.len() {
                let compared = self.compare(best);
                self.waiting.push(compared);
                continue;
            }
            let pick = Pick::by_score(best.ranked);
            if admit(pick) {
                self.taken.push(pick.position);
                return Some(pick);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::toy::{Vectors, table};
    use super::*;

    fn order(values: &[f32], vectors: &Vectors, penalty: f32) -> Vec<usize> {
        let rows: Vec<&[f32]> = values.chunks(1).collect();
        let scores = table(&["t"], &rows);
        let view = View::plain(&scores);
        let mut picks = Mmr::new(&view, vectors, penalty);
        std::iter::from_fn(|| picks.next(&mut |_| true)).map(|pick| pick.position).collect()
    }

    /// Compares every row with all that is taken, every time.
    fn plain_greedy(values: &[f32], vectors: &Vectors, penalty: f32) -> Vec<usize> {
        let mut taken: Vec<usize> = Vec::new();
        while taken.len() < values.len() {
            let worth = |row: usize| {
                let found = vectors.cosines(&[row], &taken);
                values[row] - penalty * found.into_iter().fold(0.0, f32::max)
            };
            let left = (0..values.len()).filter(|row| !taken.contains(row));
            let best = left.reduce(|best, row| if worth(row) > worth(best) { row } else { best });
            taken.extend(best);
        }
        taken
    }

    #[test]
    fn copies_wait_until_what_is_new_is_taken() {
        let axis = |at: usize| (0..3).map(|i| if i == at { 1.0 } else { 0.0 }).collect();
        let vectors = Vectors(vec![axis(0), axis(0), axis(1), axis(2)]);
        let values = [0.9, 0.8, 0.7, 0.6];
        assert_eq!(order(&values, &vectors, 0.5), [0, 2, 3, 1]);
        assert_eq!(order(&values, &vectors, 0.0), [0, 1, 2, 3]);
    }

    /// On orthogonal directions with copies the best subset of three is one of each
    /// direction, which no other subset of three equals.
    #[test]
    fn on_orthogonal_directions_the_greedy_subset_is_the_best_there_is() {
        let axis = |at: usize| (0..3).map(|i| if i == at { 1.0 } else { 0.0 }).collect();
        let vectors = Vectors((0..9).map(|row| axis(row / 3)).collect());
        let values: Vec<f32> = (0..9).map(|row| 0.9 - 0.05 * row as f32).collect();
        let worth = |rows: [usize; 3]| {
            let pairs =
                [[0, 1], [0, 2], [1, 2]].map(|[a, b]| vectors.cosines(&[rows[a]], &[rows[b]])[0]);
            rows.iter().map(|row| values[*row]).sum::<f32>() - pairs.iter().sum::<f32>()
        };
        let triples = (0..9).flat_map(|a| (0..a).flat_map(move |b| (0..b).map(move |c| [c, b, a])));
        let best = triples.max_by(|a, b| worth(*a).total_cmp(&worth(*b))).unwrap();
        let mut found = order(&values, &vectors, 1.0)[..3].to_vec();
        found.sort_unstable();
        assert_eq!(found, best);
        assert_eq!(best, [0, 3, 6]);
    }

    proptest! {
        #[test]
        fn the_lazy_order_is_that_of_comparing_all(
            rows in prop::collection::vec((0..8_u8, 0..360_u16), 1..25),
            penalty in 0.0..2.0_f32,
        ) {
            let values: Vec<f32> = rows.iter().map(|(value, _)| f32::from(*value) / 4.0).collect();
            let at = |degrees: &u16| {
                let angle = f32::from(*degrees).to_radians();
                vec![angle.cos(), angle.sin()]
            };
            let vectors = Vectors(rows.iter().map(|(_, degrees)| at(degrees)).collect());
            prop_assert_eq!(order(&values, &vectors, penalty), plain_greedy(&values, &vectors, penalty));
        }
    }
}
