//! Nearest neighbors of the target examples.

use std::cmp::Reverse;

use super::{Neighbors, Pick, Picks};
use crate::selection::view::View;

/// Every target example spreads a probability of 1/m, m target examples, over its
/// K nearest rows; a row's weight is the sum of what it gets, and rows are taken
/// by weight, highest first:
///
/// ```text
/// w(z) = 1/m · Σ_t p_t(z)        p_t(z) = ρ(z)⁻¹ / Σ_{z' ∈ kNN(t)} ρ(z')⁻¹   for z in kNN(t), else 0
/// ```
///
/// With ρ = 1 that is `knn`: 1/(mK) for every list that a row is in. With ρ the
/// [density](super::densities) it is `knn-kde`. Of equal weights, the row
/// that is nearest to any example comes first, then the one of the higher score,
/// then the lower id. Rows that are in no list follow, by score.
///
/// The probabilities are those of TSDS (Liu et al., `NeurIPS` 2024) without its
/// optimal transport, which chooses K; it samples with them, here the largest are
/// taken: the same every time, no row twice.
pub struct Knn {
    order: std::vec::IntoIter<Pick>,
}

/// A row in some lists.
#[derive(Clone, Debug)]
struct Neighbor {
    pick: Pick,
    weight: f64,
    /// Its best place in a list, from 0.
    place: usize,
}

impl Knn {
    /// `k` is the length of a list; `density` gives ρ of rows, ascending
    /// positions.
    pub fn new(
        view: &View<'_>,
        mut neighbors: Neighbors<'_>,
        k: usize,
        density: &dyn Fn(&[usize]) -> Vec<f64>,
    ) -> Self {
        let lists: Vec<Vec<usize>> = (0..neighbors.n_examples())
            .map(|example| (0..k).map_while(|nth| neighbors.get(example, nth)).collect())
            .collect();
        let mut rows: Vec<usize> = lists.concat();
        rows.sort_unstable();
        rows.dedup();
        let densities = density(&rows);
        let mut near = weighted(view, &lists, &rows, &densities, &neighbors);
        let ranking = view.ranking();
        let mut by_score = vec![usize::MAX; view.scores().rows.len()];
        for (place, ranked) in ranking.iter().enumerate() {
            by_score[ranked.position] = place;
        }
        near.sort_by(|a, b| {
            let key = |n: &Neighbor| (n.place, by_score[n.pick.position]);
            b.weight.total_cmp(&a.weight).then_with(|| key(a).cmp(&key(b)))
        });
        let is_far = |position: usize| rows.binary_search(&position).is_err();
        let far = ranking.iter().filter(|ranked| is_far(ranked.position));
        let far = far.copied().map(Pick::by_score);
        let order: Vec<Pick> = near.iter().map(|neighbor| neighbor.pick).chain(far).collect();
        Self { order: order.into_iter() }
    }
}

/// The rows of all lists with their weights, and the subtask from which each has
/// most.
fn weighted(
    view: &View<'_>,
    lists: &[Vec<usize>],
    rows: &[usize],
    densities: &[f64],
    neighbors: &Neighbors<'_>,
) -> Vec<Neighbor> {
    let n_subtasks = view.scores().subtasks.len();
    let at = |position: &usize| rows.binary_search(position).expect("it is in a list");
    let mut parts = vec![0.0; rows.len() * n_subtasks];
    // The best place in a list, and whose list that is.
    let mut places = vec![(usize::MAX, 0); rows.len()];
    for (example, list) in lists.iter().enumerate() {
        let shares: Vec<f64> = list.iter().map(|row| 1.0 / densities[at(row)]).collect();
        let all: f64 = shares.iter().sum();
        for ((place, row), share) in list.iter().enumerate().zip(shares) {
            let row = at(row);
            parts[row * n_subtasks + neighbors.subtask(example)] +=
                share / all / lists.len() as f64;
            places[row] = places[row].min((place, example));
        }
    }
    let neighbor = |(row, position): (usize, &usize)| {
        let parts = &parts[row * n_subtasks..][..n_subtasks];
        let most = parts
            .iter()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(b.1).then_with(|| Reverse(a.0).cmp(&Reverse(b.0))));
        let subtask = most.map_or(0, |(subtask, _)| subtask);
        let (place, example) = places[row];
        let pick = Pick { position: *position, subtask, example: Some(neighbors.column(example)) };
        // Equal in theory must be equal in fact, or the order is that of rounding.
        let weight = (parts.iter().sum::<f64>() * 1e12).round();
        Neighbor { pick, weight, place }
    };
    rows.iter().enumerate().map(neighbor).collect()
}

impl Picks for Knn {
    fn next(&mut self, admit: &mut dyn FnMut(Pick) -> bool) -> Option<Pick> {
        self.order.by_ref().find(|pick| admit(*pick))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::toy::{Matrix, Vectors};
    use super::super::densities;
    use super::*;

    fn order(matrix: &Matrix, k: usize, density: &dyn Fn(&[usize]) -> Vec<f64>) -> Vec<usize> {
        let scores = matrix.scores();
        let view = View::plain(&scores);
        let mut picks = Knn::new(&view, Neighbors::new(matrix, &view, k), k, density);
        std::iter::from_fn(|| picks.next(&mut |_| true)).map(|pick| pick.position).collect()
    }

    fn uniform(rows: &[usize]) -> Vec<f64> {
        vec![1.0; rows.len()]
    }

    #[test]
    fn rows_near_to_more_examples_come_first() {
        // With K = 2: example 0 has rows 0 and 1, example 1 rows 1 and 2, example 2
        // rows 1 and 3. Row 1 is in three lists; 0, 2 and 3 are first or second.
        let rows: [&[f32]; 5] = [
            &[0.9, 0.0, 0.0],
            &[0.5, 0.5, 0.5],
            &[0.0, 0.4, 0.0],
            &[0.0, 0.0, 0.9],
            &[0.4, 0.1, 0.4],
        ];
        let matrix = Matrix::new(&[0, 0, 0], &rows);
        assert_eq!(order(&matrix, 2, &uniform), [1, 0, 3, 2, 4]);
    }

    #[test]
    fn near_duplicates_share_what_one_of_them_would_have() {
        // Rows 0, 1 and 2 are one and the same; row 3 is a little farther from both
        // examples, and alone.
        let rows: [&[f32]; 4] = [&[0.9, 0.9], &[0.9, 0.9], &[0.9, 0.9], &[0.8, 0.8]];
        let matrix = Matrix::new(&[0, 0], &rows);
        let twin = vec![1.0, 0.0];
        let vectors = Vectors(vec![twin.clone(), twin.clone(), twin, vec![0.0, 1.0]]);
        assert_eq!(order(&matrix, 4, &uniform), [0, 1, 2, 3]);
        assert_eq!(order(&matrix, 4, &|rows| densities(&vectors, rows)), [3, 0, 1, 2]);
    }
}
