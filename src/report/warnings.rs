//! What in the numbers should make a user look twice.

use super::numbers::{count, percent, signed};
use super::{Correlations, Flagged, Lengths, PoolAndSubset};
use crate::diagnostics::Diagnostics;
use crate::method::Method;

/// A correlation of this size and more is worth a warning.
const STRONG: f64 = 0.5;

/// Selected answers shorter than this share of the pool's are worth a warning.
const SHORT: f64 = 0.5;

/// One sentence for each, without a final period, after the run's own `notes`.
pub(super) fn warnings(
    method: Method,
    notes: &[String],
    lengths: &PoolAndSubset<Lengths>,
    correlations: &PoolAndSubset<Correlations>,
    flagged: &[Flagged],
) -> Vec<String> {
    let mut warnings = notes.to_vec();
    let (pool, subset) = (lengths.pool.mean_supervised, lengths.subset.mean_supervised);
    if subset < SHORT * pool {
        warnings.push(format!(
            "selected answers have {subset:.0} supervised tokens on average, the pool's {pool:.0}: \
             the selection may prefer short answers"
        ));
    }
    let Correlations { n_supervised, n_tokens, norm, loss: _ } = correlations.pool;
    for (what, value) in
        [("answer length", n_supervised), ("total length", n_tokens), ("gradient norm", norm)]
    {
        // Which is what `length` is.
        if method != Method::Length && value.is_some_and(|value| value.abs() >= STRONG) {
            let value = signed(value);
            warnings
                .push(format!("the score follows {what} (rank correlation {value} over the pool)"));
        }
    }
    if !flagged.is_empty() {
        let n_rows: u64 = flagged.iter().map(|flagged| flagged.n_rows).sum();
        let reasons: Vec<String> = (flagged.iter())
            .map(|flagged| format!("{} ({})", flagged.reason, count(flagged.n_rows)))
            .collect();
        let what = if n_rows == 1 { "example has" } else { "examples have" };
        warnings.push(format!("{} {what} no rank: {}", count(n_rows), reasons.join(", ")));
    }
    warnings
}

/// One sentence for each part of the selection's material of which a half says
/// something else than the other.
pub(super) fn noise(diagnostics: &Diagnostics) -> Vec<String> {
    let mut warnings = Vec::new();
    let chance = percent(diagnostics.chance);
    if let (Some(true), Some(target)) = (diagnostics.is_noise_of_target(), &diagnostics.target) {
        let overlap = percent(target.mean);
        warnings.push(format!(
            "the selection is mostly noise: halves of the target agree on {overlap} of the \
             selected rows, and chance on {chance}; more target examples, or a pool that has the \
             skill, would help"
        ));
    }
    if let (Some(true), Some(sketch)) = (diagnostics.is_noise_of_sketch(), &diagnostics.sketch) {
        let overlap = percent(sketch.between);
        warnings.push(format!(
            "the projection is too short: halves of the stored rows agree on {overlap} of the \
             selected rows, and chance on {chance}; a larger proj-dim would help"
        ));
    }
    warnings
}
