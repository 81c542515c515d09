//! The linear datamodeling score: do scores foretell what training does?
//!
//! Of n trainings on random halves `S_1..S_n` of the pool, and a target example z':
//!
//! ```text
//! foretold(z', S) = Σ_{z ∈ S} score(z, z')
//! LDS(z')         = Spearman_i( foretold(z', S_i), −loss(z'; trained on S_i) )
//! ```
//!
//! (Park et al., *TRAK: Attributing Model Behavior at Scale*, ICML 2023, section 4.) One
//! is a perfect forecast and zero is none. What is told is the mean over the target
//! examples, with an interval that is about them: the halves are the same for all.

use serde::Serialize;

use super::comparison::{Estimate, student};

/// How well scores foretell trainings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatamodelingScore {
    /// Trainings.
    pub n_halves: usize,
    /// Target examples, those left out whose loss or forecast never changes.
    pub n_targets: usize,
    /// The mean over them.
    pub score: Estimate,
}

/// One random half and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Half {
    /// By target example: the sum of the scores of the half's rows.
    pub foretold: Vec<f64>,
    /// By target example: its loss behind the training.
    pub losses: Vec<f64>,
}

/// The score over `halves`; `correlation` is Spearman's.
///
/// `None` if no target example has a correlation.
pub fn datamodeling_score(
    halves: &[Half],
    correlation: impl Fn(&[f64], &[f64]) -> Option<f64>,
) -> Option<DatamodelingScore> {
    let n_targets = halves.first()?.losses.len();
    let of = |target: usize| {
        let foretold: Vec<f64> = halves.iter().map(|half| half.foretold[target]).collect();
        let gains: Vec<f64> = halves.iter().map(|half| -half.losses[target]).collect();
        correlation(&foretold, &gains)
    };
    let found: Vec<f64> = (0..n_targets).filter_map(of).collect();
    (!found.is_empty()).then(|| DatamodelingScore {
        n_halves: halves.len(),
        n_targets: found.len(),
        score: student(&found),
    })
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;

    use super::*;

    /// The sign of Kendall's tau is enough here.
    fn agreement(xs: &[f64], ys: &[f64]) -> Option<f64> {
        let sign = (xs[0] - xs[1]) * (ys[0] - ys[1]);
        (sign != 0.0).then(|| sign.signum())
    }

    #[test]
    fn a_half_that_was_foretold_to_help_and_did_counts_for_the_scores() {
        // The first example's loss falls where it should, the second's rises, the
        // third's stays.
        let halves = [
            Half { foretold: vec![0.1, 0.1, 0.1], losses: vec![2.0, 2.0, 1.0] },
            Half { foretold: vec![0.2, 0.2, 0.2], losses: vec![1.0, 3.0, 1.0] },
        ];
        let found = datamodeling_score(&halves, agreement).unwrap();
        assert_eq!((found.n_halves, found.n_targets), (2, 2));
        assert_abs_diff_eq!(found.score.mean, 0.0);
        assert_eq!(datamodeling_score(&[], agreement), None);
    }
}
