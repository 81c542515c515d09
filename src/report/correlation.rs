//! What goes along with the score.

use serde::Serialize;

use crate::influence::scores::ScoreRow;

/// Spearman's rank correlation of the score with what a row is like, in
/// `[-1, 1]`; `None` where it is not defined (fewer than two different values).
///
/// A strong correlation with length or norm says that the selection may follow
/// those instead of the skill.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Correlations {
    /// With the number of tokens that carry loss.
    pub n_supervised: Option<f64>,
    /// With the number of tokens.
    pub n_tokens: Option<f64>,
    /// With the norm of the projected direction.
    pub norm: Option<f64>,
    /// With the mean token loss.
    pub loss: Option<f64>,
}

impl Correlations {
    /// Of `rows`, each with its score.
    pub(super) fn of(rows: &[(&ScoreRow, f32)]) -> Self {
        let scores: Vec<f64> = rows.iter().map(|(_, score)| f64::from(*score)).collect();
        let with = |value: fn(&ScoreRow) -> f64| {
            let values: Vec<f64> = rows.iter().map(|(row, _)| value(row)).collect();
            spearman(&scores, &values)
        };
        Self {
            n_supervised: with(|row| f64::from(row.n_supervised)),
            n_tokens: with(|row| f64::from(row.n_tokens)),
            norm: with(|row| f64::from(row.norm)),
            loss: with(|row| f64::from(row.loss)),
        }
    }
}

/// Spearman's rank correlation: Pearson's of the ranks of `xs` and `ys`, equal
/// values sharing the mean of their ranks. `None` if either is constant.
pub fn spearman(xs: &[f64], ys: &[f64]) -> Option<f64> {
    let (xs, ys) = (ranks(xs), ranks(ys));
    let mean = f64::midpoint(1.0, xs.len() as f64);
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in xs.iter().zip(&ys) {
        xy += (x - mean) * (y - mean);
        xx += (x - mean) * (x - mean);
        yy += (y - mean) * (y - mean);
    }
    (xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut n_before = 0;
    for equal in order.chunk_by(|a, b| values[*a].total_cmp(&values[*b]).is_eq()) {
        let rank = n_before as f64 + f64::midpoint(1.0, equal.len() as f64);
        for position in equal {
            ranks[*position] = rank;
        }
        n_before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_values_share_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }

    #[test]
    fn it_is_what_scipy_computes() {
        // scipy 1.17.1: spearmanr([.3, .1, .4, .1, .5, .9], [2, 7, 1, 8, 2, 8]).statistic
        let found = spearman(&[0.3, 0.1, 0.4, 0.1, 0.5, 0.9], &[2.0, 7.0, 1.0, 8.0, 2.0, 8.0]);
        assert_relative_eq!(found.unwrap(), -0.134_343_322_655_969_7, epsilon = 1e-15);
    }

    #[test]
    fn a_constant_has_no_correlation() {
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[5.0, 5.0, 5.0]), None);
        assert_eq!(spearman(&[1.0], &[2.0]), None);
        assert_eq!(spearman(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn it_is_one_for_any_rising_function(xs in prop::collection::btree_set(-1000..1000_i32, 2..40)) {
            let xs: Vec<f64> = xs.into_iter().map(f64::from).collect();
            let rising: Vec<f64> = xs.iter().map(|x| x.powi(3) + x).collect();
            let falling: Vec<f64> = xs.iter().map(|x| -x).collect();
            prop_assert!((spearman(&xs, &rising).unwrap() - 1.0).abs() < 1e-12);
            prop_assert!((spearman(&xs, &falling).unwrap() + 1.0).abs() < 1e-12);
        }
    }
}
