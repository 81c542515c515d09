//! Two sides beside each other.

use std::collections::BTreeMap;

use serde::Serialize;

use super::side::{Side, share_of};
use crate::pool::ExampleId;
use crate::report::spearman;

/// Budgets at which two sides are compared.
const SHARES: [f64; 4] = [0.01, 0.02, 0.05, 0.1];

/// Why two sides cannot be compared.
pub(super) const NOTHING_IN_COMMON: &str = "they have no row in common: they are of other pools, \
                                            or were read with another tokenizer or chat template";

/// What two sides have in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The names of both.
    pub names: [String; 2],
    /// Rows that both have ranked by score. All that follows is of these rows alone, but
    /// for `own`.
    pub n_common: usize,
    /// Why the two cannot be compared, if so: a sentence without a final period.
    pub incomparable: Option<String>,
    /// What both have in common of the rows that each takes first, at some shares of the
    /// common rows; empty where a side is no more than a subset.
    pub overlaps: Vec<Overlap>,
    /// The same of what each has selected. A table of scores selects as many rows as the
    /// other side.
    pub own: Option<Overlap>,
    /// Spearman's rank correlation of the scores, in `[-1, 1]`, equal scores sharing their
    /// ranks; none of fewer than two different ones.
    pub rank_correlation: Option<f64>,
}

/// What two sets of rows have in common.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Overlap {
    /// The share of the common rows; none of selections.
    pub budget: Option<f64>,
    /// Rows of each set.
    pub n_rows: [usize; 2],
    /// Rows in both.
    pub n_shared: usize,
    /// Rows in both over rows in either.
    pub jaccard: f64,
    /// Rows of each set past all that its side selected, which are there by score; none of
    /// a side without a selection.
    pub n_past_selection: [usize; 2],
}

impl Pair {
    pub(super) fn of(sides: [&Side; 2], names: [&str; 2]) -> Self {
        let names = names.map(str::to_owned);
        let common = Common::of(sides);
        let n_common = common.scores[0].len();
        if n_common == 0 {
            return Self {
                names,
                n_common,
                incomparable: Some(NOTHING_IN_COMMON.to_owned()),
                overlaps: Vec::new(),
                own: None,
                rank_correlation: None,
            };
        }
        let are_whole = sides.iter().all(|side| side.is_whole);
        let at = |share: f64| {
            let n = share_of(share, n_common);
            let first = common.orders.each_ref().map(|order| &order[..n.min(order.len())]);
            let past = |side: usize| {
                common.n_selected[side].map_or(0, |own| first[side].len().saturating_sub(own))
            };
            let n_past_selection = [0, 1].map(past);
            Overlap { budget: Some(share), n_past_selection, ..Overlap::of(first) }
        };
        Self {
            names,
            n_common,
            incomparable: None,
            overlaps: if are_whole { SHARES.map(at).to_vec() } else { Vec::new() },
            own: own_overlap(sides),
            rank_correlation: spearman(&common.scores[0], &common.scores[1]),
        }
    }
}

impl Overlap {
    fn of(sets: [&[ExampleId]; 2]) -> Self {
        let mut other = sets[1].to_vec();
        other.sort_unstable();
        let n_shared = sets[0].iter().filter(|id| other.binary_search(id).is_ok()).count();
        let n_rows = sets.map(<[ExampleId]>::len);
        let n_either = n_rows[0] + n_rows[1] - n_shared;
        let jaccard = n_shared as f64 / n_either.max(1) as f64;
        Self { budget: None, n_rows, n_shared, jaccard, n_past_selection: [0; 2] }
    }

    /// Whether a set of the two is larger than what its side selected.
    pub(super) fn is_past_selection(&self) -> bool {
        self.n_past_selection != [0; 2]
    }
}

/// What each side selected; of one that selected nothing, as many as the other.
fn own_overlap(sides: [&Side; 2]) -> Option<Overlap> {
    let n = sides.iter().find_map(|side| Some(side.selected.as_ref()?.len()))?;
    let selected = sides.map(|side| match &side.selected {
        Some(ids) => ids.clone(),
        None => side.best(n).iter().map(|row| row.id).collect(),
    });
    Some(Overlap::of(selected.each_ref().map(Vec::as_slice)))
}

/// The rows that both sides have ranked.
struct Common {
    /// Ids of each side, in the order in which budgets take them.
    orders: [Vec<ExampleId>; 2],
    /// How many of these each side selected; `None` if it has no selection.
    n_selected: [Option<usize>; 2],
    /// Scores of each side, in order of id.
    scores: [Vec<f64>; 2],
}

impl Common {
    fn of(sides: [&Side; 2]) -> Self {
        let scores_of = |side: &Side| -> BTreeMap<ExampleId, f64> {
            side.rows.iter().map(|row| (row.id, f64::from(row.score))).collect()
        };
        let by_id = sides.map(scores_of);
        let is_common = |id: &ExampleId| by_id.iter().all(|scores| scores.contains_key(id));
        let orders = sides.map(|side| side.order().into_iter().filter(is_common).collect());
        let n_selected = sides.map(|side| {
            let selected = side.selected.as_ref()?.iter();
            Some(selected.filter(|id| is_common(id)).count())
        });
        let scores = by_id.each_ref().map(|scores| {
            scores.iter().filter(|(id, _)| is_common(id)).map(|(_, score)| *score).collect()
        });
        Self { orders, n_selected, scores }
    }
}
