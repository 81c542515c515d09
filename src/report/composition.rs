//! What pool and subset are made of.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::quote::one_line;
use crate::influence::scores::ScoreRow;
use crate::selection::Selected;

/// Ids given for each reason that rows were not ranked.
const N_FLAGGED_IDS: usize = 10;

/// Characters of a name that the report keeps.
pub(crate) const NAME_CHARS: usize = 120;

/// A source's part of the pool and of the subset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceShare {
    /// The source.
    pub source: String,
    /// Its examples in the pool.
    pub n_pool: u64,
    /// As a share of the pool's examples.
    pub pool_share: f64,
    /// Its examples in the subset.
    pub n_selected: u64,
    /// As a share of the subset's examples.
    pub subset_share: f64,
    /// `subset_share / pool_share`.
    pub lift: f64,
}

/// A subtask's part of the ranked examples and of the subset: a ranked example
/// counts for the subtask it serves best, a selected one for the subtask it was taken
/// for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SubtaskShare {
    /// The subtask, `TARGET/SUBTASK`.
    pub subtask: String,
    /// Ranked examples of the pool that serve it best.
    pub n_ranked: u64,
    /// As a share of the ranked examples.
    pub ranked_share: f64,
    /// Examples of the subset that were taken for it.
    pub n_selected: u64,
    /// As a share of the subset's examples.
    pub subset_share: f64,
    /// `subset_share / ranked_share`; `None` of a subtask that no example serves best.
    pub lift: Option<f64>,
}

impl SourceShare {
    /// Of every source, the largest part of the subset first.
    pub(super) fn of(pool: &[&ScoreRow], subset: &[&ScoreRow]) -> Vec<Self> {
        let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for row in pool {
            counts.entry(&row.source).or_default().0 += 1;
        }
        for row in subset {
            counts.entry(&row.source).or_default().1 += 1;
        }
        let mut shares: Vec<Self> = counts
            .into_iter()
            .map(|(source, (n_pool, n_selected))| Self {
                source: one_line(source, NAME_CHARS),
                n_pool,
                pool_share: share(n_pool, pool.len()),
                n_selected,
                subset_share: share(n_selected, subset.len()),
                lift: share(n_selected, subset.len()) / share(n_pool, pool.len()),
            })
            .collect();
        // Stable: what is equal stays in order of name.
        shares.sort_by_key(|share| Reverse((share.n_selected, share.n_pool)));
        shares
    }
}

impl SubtaskShare {
    /// Of every subtask, the most selected first.
    pub(super) fn of(names: &[String], ranked: &[Selected], subset: &[Selected]) -> Vec<Self> {
        let mut counts = vec![(0, 0); names.len()];
        for place in ranked {
            counts[place.subtask].0 += 1;
        }
        for place in subset {
            counts[place.subtask].1 += 1;
        }
        let mut shares: Vec<Self> = names
            .iter()
            .zip(counts)
            .map(|(name, (n_ranked, n_selected))| Self {
                subtask: one_line(name, NAME_CHARS),
                n_ranked,
                ranked_share: share(n_ranked, ranked.len()),
                n_selected,
                subset_share: share(n_selected, subset.len()),
                lift: (n_ranked > 0)
                    .then(|| share(n_selected, subset.len()) / share(n_ranked, ranked.len())),
            })
            .collect();
        shares.sort_by_key(|share| Reverse((share.n_selected, share.n_ranked)));
        shares
    }
}

/// `n` of `n_all`, nothing of nothing.
pub(super) fn share(n: u64, n_all: usize) -> f64 {
    n as f64 / n_all.max(1) as f64
}

/// Examples that were not ranked for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flagged {
    /// `zero gradient`, `non-finite loss`, …
    pub reason: String,
    /// How many.
    pub n_rows: u64,
    /// The first of them.
    pub ids: Vec<String>,
}

impl Flagged {
    /// By reason, the most frequent first.
    pub(super) fn of(rows: &[ScoreRow]) -> Vec<Self> {
        let mut ids: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for row in rows {
            if let Some(reason) = &row.flag {
                ids.entry(reason).or_default().push(row.id.to_string());
            }
        }
        let mut flagged: Vec<Self> = ids
            .into_iter()
            .map(|(reason, mut ids)| {
                let n_rows = ids.len() as u64;
                ids.truncate(N_FLAGGED_IDS);
                Self { reason: one_line(reason, NAME_CHARS), n_rows, ids }
            })
            .collect();
        flagged.sort_by_key(|flagged| Reverse(flagged.n_rows));
        flagged
    }
}
