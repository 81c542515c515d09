//! Scores against lengths, pool and subset.

use serde::Serialize;

use crate::influence::scores::ScoreTable;
use crate::selection::Selected;

/// Bins of a length.
const N_LENGTHS: usize = 36;

/// Bins of a score.
const N_SCORES: usize = 26;

/// How many ranked examples have which length and which score: a plot of points,
/// counted in cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LengthGrid {
    /// The fewest tokens that carry loss.
    pub shortest: u32,
    /// The most.
    pub longest: u32,
    /// The lowest score.
    pub low: f32,
    /// The highest.
    pub high: f32,
    /// Bins of lengths, of equal width in the logarithm, from `shortest` to
    /// `longest + 1`.
    pub n_lengths: usize,
    /// Bins of scores, of equal width, from `low` to `high`.
    pub n_scores: usize,
    /// The cells that have an example, by length, then by score.
    pub cells: Vec<GridCell>,
}

/// Examples of about one length and score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GridCell {
    /// Bin of the length, from 0.
    pub length: usize,
    /// Bin of the score, from 0.
    pub score: usize,
    /// Ranked examples.
    pub n_ranked: u64,
    /// Selected ones among them.
    pub n_selected: u64,
}

impl LengthGrid {
    /// Of `ranked`, best first.
    pub(super) fn of(scores: &ScoreTable, ranked: &[Selected], is_selected: &[bool]) -> Self {
        let length = |place: &Selected| scores.rows[place.position].n_supervised.max(1);
        let shortest = ranked.iter().map(length).min().unwrap_or(1);
        let longest = ranked.iter().map(length).max().unwrap_or(1);
        let high = ranked.first().map_or(0.0, |place| place.score);
        let low = ranked.last().map_or(0.0, |place| place.score);
        let range = (f64::from(longest) + 1.0).ln() - f64::from(shortest).ln();
        let mut counts = vec![(0, 0); N_LENGTHS * N_SCORES];
        for place in ranked {
            let along = (f64::from(length(place)).ln() - f64::from(shortest).ln()) / range;
            let up = f64::from(place.score - low) / f64::from(high - low).max(f64::MIN_POSITIVE);
            let cell = bin(along, N_LENGTHS) * N_SCORES + bin(up, N_SCORES);
            counts[cell].0 += 1;
            counts[cell].1 += u64::from(is_selected[place.position]);
        }
        let cell = |(at, (n_ranked, n_selected)): (usize, (u64, u64))| GridCell {
            length: at / N_SCORES,
            score: at % N_SCORES,
            n_ranked,
            n_selected,
        };
        let cells = counts.into_iter().enumerate().filter(|(_, (n_ranked, _))| *n_ranked > 0);
        let cells = cells.map(cell).collect();
        Self { shortest, longest, low, high, n_lengths: N_LENGTHS, n_scores: N_SCORES, cells }
    }
}

/// The bin of `along`, which goes from 0 to 1, both included.
pub(super) fn bin(along: f64, n_bins: usize) -> usize {
    #[expect(clippy::cast_sign_loss, reason = "nothing is below the lowest")]
    let bin = (along * n_bins as f64) as usize;
    bin.min(n_bins - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::influence::scores::ScoreRow;
    use crate::pool::ExampleId;
    use crate::selection::ranking;

    fn grid(rows: &[(u32, f32)], n_selected: usize) -> LengthGrid {
        let row = |(id, (n_supervised, score)): (u8, &(u32, f32))| ScoreRow {
            id: ExampleId([id; 16]),
            source: String::new(),
            n_tokens: n_supervised + 1,
            n_supervised: *n_supervised,
            loss: 1.0,
            norm: 1.0,
            flag: None,
            by_subtask: vec![*score],
        };
        let scores =
            ScoreTable { subtasks: vec!["t".to_owned()], rows: (0..).zip(rows).map(row).collect() };
        let ranked = ranking(&scores);
        let mut is_selected = vec![false; rows.len()];
        for place in &ranked[..n_selected] {
            is_selected[place.position] = true;
        }
        LengthGrid::of(&scores, &ranked, &is_selected)
    }

    #[test]
    fn short_rows_with_high_scores_are_left_and_on_top() {
        let grid = grid(&[(1, 1.0), (1, 1.0), (63, 0.0), (8, 0.5)], 1);
        let cell =
            |length, score, n_ranked, n_selected| GridCell { length, score, n_ranked, n_selected };
        // From 1 to 64 tokens, 8 is half of the way in the logarithm.
        assert_eq!(grid.cells, [cell(0, 25, 2, 1), cell(18, 13, 1, 0), cell(35, 0, 1, 0)]);
        assert_eq!((grid.shortest, grid.longest), (1, 63));
    }

    #[test]
    fn equal_rows_are_in_one_cell_and_no_rows_in_none() {
        assert_eq!(grid(&[(5, 0.5); 3], 0).cells.len(), 1);
        assert!(grid(&[], 0).cells.is_empty());
    }
}
