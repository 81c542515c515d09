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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::ExampleId;

    fn row(n: u8, source: &str, flag: Option<&str>) -> ScoreRow {
        ScoreRow {
            id: ExampleId([n; 16]),
            source: source.to_owned(),
            n_tokens: 10,
            n_supervised: 1,
            loss: 1.0,
            norm: 1.0,
            flag: flag.map(str::to_owned),
            by_subtask: Vec::new(),
        }
    }

    fn for_subtask(subtask: usize) -> Selected {
        Selected { position: 0, rank: 1, score: 0.5, subtask, example: None }
    }

    #[test]
    fn a_source_has_the_lift_of_its_share() {
        let rows: Vec<ScoreRow> =
            "aaaabbcccd".chars().map(|of| row(0, &of.to_string(), None)).collect();
        let pool: Vec<&ScoreRow> = rows.iter().collect();
        // One of four a, both b, one of three c.
        let subset = [0, 4, 5, 6].map(|at| pool[at]);
        let found = SourceShare::of(&pool, &subset);
        let found: Vec<_> = found.iter().map(|of| (of.source.as_str(), of.lift)).collect();
        // A quarter of the subset over four tenths of the pool; a half over two tenths.
        let expected = [("b", 2.5), ("a", 0.625), ("c", 0.25 / 0.3), ("d", 0.0)];
        assert_eq!(found.len(), expected.len());
        for ((source, lift), expected) in found.into_iter().zip(expected) {
            assert_eq!(source, expected.0);
            approx::assert_relative_eq!(lift, expected.1, epsilon = 1e-12);
        }
    }

    #[test]
    fn a_subtask_has_the_lift_of_its_share_of_what_is_ranked() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let ranked: Vec<Selected> = [0, 1, 1, 1, 1, 0, 1, 1].map(for_subtask).to_vec();
        let subset = [0, 1, 0, 0].map(for_subtask);
        let found = SubtaskShare::of(&names, &ranked, &subset);
        let found: Vec<_> = found.into_iter().map(|of| (of.subtask, of.lift)).collect();
        // Three quarters over two eighths, a quarter over six.
        let expected = [("a", Some(3.0)), ("b", Some(1.0 / 3.0)), ("c", None)];
        assert_eq!(found, expected.map(|(name, lift)| (name.to_owned(), lift)));
    }

    #[test]
    fn nothing_selected_lifts_nothing() {
        let pool = row(0, "a", None);
        assert_eq!(SourceShare::of(&[&pool], &[])[0].lift.to_bits(), 0.0_f64.to_bits());
        let names = ["a".to_owned()];
        assert_eq!(SubtaskShare::of(&names, &[for_subtask(0)], &[])[0].lift, Some(0.0));
    }

    #[test]
    fn rows_without_a_rank_are_counted_by_reason_and_the_first_are_named() {
        let rows: Vec<ScoreRow> = (0..14)
            .map(|n| match n {
                0 => row(n, "a", None),
                1 | 2 => row(n, "a", Some("non-finite loss")),
                _ => row(n, "a", Some("zero gradient")),
            })
            .collect();
        let found = Flagged::of(&rows);
        let ids = |rows: &[ScoreRow]| rows.iter().map(|row| row.id.to_string()).collect();
        let flagged =
            |reason: &str, n_rows, ids| Flagged { reason: reason.to_owned(), n_rows, ids };
        let expected = [
            flagged("zero gradient", 11, ids(&rows[3..13])),
            flagged("non-finite loss", 2, ids(&rows[1..3])),
        ];
        assert_eq!(found, expected);
    }
}
