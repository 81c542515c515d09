//! How scores and lengths are spread.

use serde::Serialize;

use super::length_grid::bin;
use crate::influence::scores::ScoreRow;
use crate::selection::Selected;

/// Bars of the score histogram.
const N_BINS: usize = 48;

/// The quantiles that the report gives.
const SHARES: [f64; 9] = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0];

/// How scores are spread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// The lowest selected score.
    pub cut: f32,
    /// Quantiles of the ranked examples' scores, rising.
    pub quantiles: Vec<Quantile>,
    /// The ranked examples by score.
    pub histogram: Histogram,
}

/// `share` of the scores are at most `score`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantile {
    /// In `[0, 1]`.
    pub share: f64,
    /// Interpolated linearly between neighbors.
    pub score: f64,
}

/// Counts in bins of equal width.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Histogram {
    /// Lower end of the first bin.
    pub low: f32,
    /// Upper end of the last bin.
    pub high: f32,
    /// From low to high.
    pub bins: Vec<Bin>,
}

/// A bin of a [`Histogram`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// Examples in it.
    pub n_ranked: u64,
    /// Selected ones among them.
    pub n_selected: u64,
}

/// Lengths in tokens; zero of no examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// Mean number of tokens that carry loss.
    pub mean_supervised: f64,
    /// Median of the same.
    pub median_supervised: f64,
    /// Mean number of tokens.
    pub mean_tokens: f64,
    /// Median of the same.
    pub median_tokens: f64,
}

impl Scores {
    /// Of `ranked`, best first.
    pub(super) fn of(ranked: &[Selected], is_selected: &[bool]) -> Self {
        let rising: Vec<f64> = ranked.iter().rev().map(|place| f64::from(place.score)).collect();
        let lowest = ranked.iter().rev().find(|place| is_selected[place.position]);
        Self {
            cut: lowest.map_or(0.0, |place| place.score),
            quantiles: SHARES
                .into_iter()
                .map(|share| Quantile { share, score: quantile(&rising, share) })
                .collect(),
            histogram: Histogram::of(ranked, is_selected),
        }
    }
}

impl Histogram {
    fn of(ranked: &[Selected], is_selected: &[bool]) -> Self {
        let high = ranked.first().map_or(0.0, |place| place.score);
        let low = ranked.last().map_or(0.0, |place| place.score);
        let mut bins = vec![Bin::default(); N_BINS];
        for place in ranked {
            // Of no width, everything is in the first bin.
            let along = f64::from(place.score - low) / f64::from(high - low).max(f64::MIN_POSITIVE);
            let bin = &mut bins[bin(along, N_BINS)];
            bin.n_ranked += 1;
            bin.n_selected += u64::from(is_selected[place.position]);
        }
        Self { low, high, bins }
    }
}

impl Lengths {
    pub(super) fn of(rows: &[&ScoreRow]) -> Self {
        let rising = |length: fn(&ScoreRow) -> u32| {
            let mut lengths: Vec<f64> = rows.iter().map(|row| f64::from(length(row))).collect();
            lengths.sort_unstable_by(f64::total_cmp);
            lengths
        };
        let supervised = rising(|row| row.n_supervised);
        let tokens = rising(|row| row.n_tokens);
        let mean = |lengths: &[f64]| lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        Self {
            mean_supervised: mean(&supervised),
            median_supervised: quantile(&supervised, 0.5),
            mean_tokens: mean(&tokens),
            median_tokens: quantile(&tokens, 0.5),
        }
    }
}

/// The quantile at `share` of `rising` values, linear between neighbors (type 7
/// of Hyndman and Fan, as numpy has it); zero of no values.
fn quantile(rising: &[f64], share: f64) -> f64 {
    let Some(last) = rising.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    #[expect(clippy::cast_sign_loss, reason = "a share is not negative")]
    let below = (place as usize).min(last);
    let above = (below + 1).min(last);
    rising[below] + (rising[above] - rising[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    fn places(scores: &[f32]) -> Vec<Selected> {
        (0..)
            .zip(scores)
            .map(|(position, score)| Selected {
                position,
                rank: position + 1,
                score: *score,
                subtask: 0,
                example: None,
            })
            .collect()
    }

    #[test]
    fn quantiles_are_what_numpy_computes() {
        let rising = [1.0, 2.0, 4.0, 8.0];
        // numpy 2.4.6: quantile([1, 2, 4, 8], [0, .25, .5, .95, 1])
        for (share, expected) in [(0.0, 1.0), (0.25, 1.75), (0.5, 3.0), (0.95, 7.4), (1.0, 8.0)] {
            assert_relative_eq!(quantile(&rising, share), expected, epsilon = 1e-12);
        }
        assert_relative_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn every_ranked_example_is_in_one_bin() {
        let scores =
            Scores::of(&places(&[0.5, 0.4, 0.1, 0.0, 0.0]), &[true, true, false, false, false]);
        let bins = &scores.histogram.bins;
        assert_eq!(bins.len(), N_BINS);
        assert_eq!(bins.iter().map(|bin| bin.n_ranked).sum::<u64>(), 5);
        assert_eq!(bins.iter().map(|bin| bin.n_selected).sum::<u64>(), 2);
        assert_eq!(bins[0], Bin { n_ranked: 2, n_selected: 0 });
        assert_eq!(bins[N_BINS - 1], Bin { n_ranked: 1, n_selected: 1 });
        assert_relative_eq!(scores.cut, 0.4);
    }

    #[test]
    fn equal_scores_and_no_scores_have_a_histogram_too() {
        let equal = Scores::of(&places(&[0.2, 0.2]), &[true, false]);
        assert_eq!(equal.histogram.bins[0], Bin { n_ranked: 2, n_selected: 1 });
        assert_eq!(Scores::of(&[], &[]).histogram.bins, [Bin::default(); N_BINS]);
    }
}
