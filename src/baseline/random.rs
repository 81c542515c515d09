//! Draws: what every method has to be better than.
//!
//! A row's draw comes from the seed and its id alone, so that it is the same in any
//! order of rows, and a row keeps it while the pool grows.

use std::collections::BTreeMap;

use rand_chacha::rand_core::Rng;

use crate::pool::ExampleId;
use crate::pool::table::TableRow;
use crate::seed::Seed;

/// A number in `[0, 1)`, one a row, f32: of 2²⁴ equally likely ones. Where two rows drew
/// the same, the lower id, itself a hash, ranks first.
pub fn random(rows: &[TableRow], seed: Seed) -> Vec<f32> {
    // 24 bits are what an f32 holds exactly.
    let number = |row: &TableRow| (draw(row.id, seed) >> 40) as f32 / (1_u32 << 24) as f32;
    rows.iter().map(number).collect()
}

/// A draw of equal numbers from every source, one score a row, f32, all of them
/// different below 2²⁴ rows.
///
/// Rows are drawn in rounds. In each, every source that has rows left gives one at
/// random, the sources in an order of the round's own. So any number of rows, taken
/// from the front, is as balanced as can be: a source that is used up leaves its part
/// to the others. The score is the share of all rows that come later.
pub fn random_balanced(rows: &[TableRow], seed: Seed) -> Vec<f32> {
    let mut sources: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (position, row) in rows.iter().enumerate() {
        sources.entry(&row.source).or_default().push(position);
    }
    let mut order = Vec::with_capacity(rows.len());
    for (source, mut positions) in sources {
        positions.sort_by_cached_key(|&position| {
            let id = rows[position].id;
            (draw(id, seed), id)
        });
        order.extend(
            (0..)
                .zip(positions)
                .map(|(round, position)| ((round, turn(source, round, seed), source), position)),
        );
    }
    order.sort_unstable();
    let mut scores = vec![0.0; rows.len()];
    for (place, (_, position)) in order.into_iter().enumerate() {
        scores[position] = (1.0 - (place + 1) as f64 / rows.len() as f64) as f32;
    }
    scores
}

/// A row's draw.
fn draw(id: ExampleId, seed: Seed) -> u64 {
    seed.stream(&["baseline", "random", &id.to_string()]).next_u64()
}

/// A source's turn in a round.
fn turn(source: &str, round: u64, seed: Seed) -> u64 {
    seed.stream(&["baseline", "turn", &round.to_string(), source]).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `counts` of rows a source, `a`, `b` and so on.
    fn rows(counts: &[u32]) -> Vec<TableRow> {
        let sources = counts.iter().zip("abcdefgh".chars());
        let mut rows: Vec<_> = sources
            .flat_map(|(&n, source)| (0..n).map(move |row| (row, source)))
            .map(|(row, source)| TableRow {
                id: ExampleId::of(&[row, u32::from(source)], &[false, true]),
                source: source.to_string(),
                subtask: None,
                n_tokens: 2,
                n_supervised: 1,
                truncated: false,
            })
            .collect();
        rows.sort_by_key(|row| row.id);
        rows
    }

    /// The rows with the `n` highest scores, best first.
    fn best<'a>(rows: &'a [TableRow], scores: &[f32], n: usize) -> Vec<&'a TableRow> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(rows[a].id.cmp(&rows[b].id)));
        order.into_iter().take(n).map(|position| &rows[position]).collect()
    }

    fn counts_of_best(counts: &[u32], n: usize, seed: u64) -> Vec<usize> {
        let rows = rows(counts);
        let best = best(&rows, &random_balanced(&rows, Seed(seed)), n);
        let of = |source: char| best.iter().filter(|row| row.source == source.to_string()).count();
        "abcdefgh".chars().take(counts.len()).map(of).collect()
    }

    #[test]
    fn every_source_gives_the_same_number() {
        assert_eq!(counts_of_best(&[1000, 50, 20], 30, 0), [10, 10, 10]);
    }

    #[test]
    fn what_a_small_source_lacks_the_others_give() {
        assert_eq!(counts_of_best(&[1000, 50, 4], 34, 0), [15, 15, 4]);
        assert_eq!(counts_of_best(&[3, 50, 4], 57, 0), [3, 50, 4]);
    }

    #[test]
    fn the_rest_of_a_round_goes_to_one_source_or_another() {
        let found: Vec<_> = (0..20).map(|seed| counts_of_best(&[100, 100], 5, seed)).collect();
        assert!(found.contains(&vec![3, 2]) && found.contains(&vec![2, 3]), "{found:?}");
        assert!(found.iter().all(|counts| counts.iter().sum::<usize>() == 5), "{found:?}");
    }

    #[test]
    fn a_draw_follows_the_row_whatever_stands_beside_it() {
        let many = rows(&[300, 200]);
        let scores = random(&many, Seed(7));
        let few: Vec<_> = many.iter().rev().step_by(3).cloned().collect();
        let expected: Vec<_> = scores.iter().rev().step_by(3).copied().collect();
        assert_eq!(random(&few, Seed(7)), expected);
        assert_ne!(random(&few, Seed(8)), expected);
    }

    #[test]
    fn a_balanced_draw_does_not_see_the_order_of_rows() {
        let forward = rows(&[40, 7, 90]);
        let backward: Vec<_> = forward.iter().rev().cloned().collect();
        let scores = random_balanced(&forward, Seed(1));
        let reversed: Vec<_> = random_balanced(&backward, Seed(1)).into_iter().rev().collect();
        assert_eq!(scores, reversed);
    }

    #[test]
    fn a_draw_is_fair_to_its_rows() {
        let rows = rows(&[4000]);
        let scores = random(&rows, Seed(3));
        let mean = scores.iter().map(|score| f64::from(*score)).sum::<f64>() / 4000.0;
        // Standard deviation of the mean: 1 / √(12 · 4000) = 0.0046.
        approx::assert_abs_diff_eq!(mean, 0.5, epsilon = 0.02);
        assert!(scores.iter().all(|score| (0.0..1.0).contains(score)));
    }
}
