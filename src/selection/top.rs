//! The highest scores within a budget.

use super::Budget;
use super::limits::{Open, SourceLimits, take};
use super::selector::Top;
use super::view::{Ranked, View};
use crate::influence::scores::ScoreTable;

/// A pool example's place in the ranking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selected {
    /// Position of its row in [`ScoreTable::rows`].
    pub position: usize,
    /// Its rank, from 1.
    pub rank: usize,
    /// Its influence on the subtask it is taken for.
    pub score: f32,
    /// Position in [`ScoreTable::subtasks`] of the subtask it is taken for: with
    /// [`Top`], the one it serves best.
    pub subtask: usize,
    /// Position among the target examples of the one it is taken for; `None` where
    /// rows are taken by score.
    pub example: Option<usize>,
}

/// Every example that can be ranked, best first.
///
/// The order is by score, descending ([`f32::total_cmp`]), then by id,
/// ascending, so it does not depend on the order of the rows. Rows that are
/// flagged, or whose score is not finite, have no rank.
pub fn ranking(scores: &ScoreTable) -> Vec<Selected> {
    let ranked = View::plain(scores).ranking();
    let place = |(rank, Ranked { position, subtask, value })| Selected {
        position,
        rank,
        score: value,
        subtask,
        example: None,
    };
    (1..).zip(ranked).map(place).collect()
}

/// The best examples within `budget`, best first: a prefix of the [`ranking`],
/// so the subset of a smaller budget is contained in that of a larger one.
///
/// - A share is of all the pool's examples, flagged ones included.
/// - Tokens buy the longest prefix of the ranking that fits, and at least one
///   example.
///
/// Empty only if no example can be ranked.
pub fn top(scores: &ScoreTable, budget: Budget) -> Vec<Selected> {
    let view = View::plain(scores);
    let limits = SourceLimits::default();
    take(scores, || Top::new(&view), budget, &limits, &mut Open).rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::influence::scores::ScoreRow;
    use crate::pool::ExampleId;

    fn row(id: u8, score: f32, n_tokens: u32) -> ScoreRow {
        ScoreRow {
            id: ExampleId([id; 16]),
            source: "pool".to_owned(),
            n_tokens,
            n_supervised: 1,
            loss: 1.0,
            norm: 1.0,
            flag: None,
            by_subtask: vec![score - 1.0, score],
        }
    }

    fn table(rows: impl IntoIterator<Item = ScoreRow>) -> ScoreTable {
        ScoreTable {
            subtasks: vec!["target/a".to_owned(), "target/b".to_owned()],
            rows: rows.into_iter().collect(),
        }
    }

    fn budget(text: &str) -> Budget {
        text.parse().unwrap()
    }

    /// First bytes of the ids that `top` keeps, in rank order.
    fn ids(scores: &ScoreTable, text: &str) -> Vec<u8> {
        top(scores, budget(text)).iter().map(|kept| scores.rows[kept.position].id.0[0]).collect()
    }

    #[test]
    fn the_best_come_first_and_know_their_subtask() {
        let scores = table([row(1, 0.1, 10), row(2, 0.3, 10), row(3, 0.2, 10)]);
        assert_eq!(
            top(&scores, budget("2")),
            [
                Selected { position: 1, rank: 1, score: 0.3, subtask: 1, example: None },
                Selected { position: 2, rank: 2, score: 0.2, subtask: 1, example: None },
            ]
        );
    }

    #[test]
    fn equal_scores_stand_in_order_of_id() {
        let scores = table([row(9, 0.5, 1), row(4, 0.5, 1), row(7, 0.5, 1)]);
        assert_eq!(ids(&scores, "1.0"), [4, 7, 9]);
    }

    #[test]
    fn rows_that_are_flagged_or_not_finite_are_never_ranked() {
        let mut flagged = row(1, 9.0, 1);
        flagged.flag = Some("zero gradient".to_owned());
        let mut empty = row(2, 9.0, 1);
        empty.by_subtask.clear();
        let scores =
            table([flagged, empty, row(3, f32::NAN, 1), row(4, f32::INFINITY, 1), row(5, -1.0, 1)]);
        assert_eq!(ids(&scores, "100%"), [5]);
        assert_eq!(ids(&scores, "1000 tokens"), [5]);
    }

    #[test]
    fn a_share_is_of_the_whole_pool() {
        let mut rows: Vec<_> = (0..20).map(|id| row(id, f32::from(id), 1)).collect();
        for flagged in &mut rows[..10] {
            flagged.flag = Some("zero gradient".to_owned());
        }
        assert_eq!(ids(&table(rows), "10%"), [19, 18]);
    }

    #[test]
    fn tokens_buy_a_prefix_and_at_least_one_row() {
        let scores = table([row(1, 0.4, 50), row(2, 0.3, 60), row(3, 0.2, 10)]);
        assert_eq!(ids(&scores, "110 tokens"), [1, 2]);
        // Row 3 would fit beside row 1, but then a larger budget would drop it again.
        assert_eq!(ids(&scores, "109 tokens"), [1]);
        assert_eq!(ids(&scores, "1 token"), [1]);
    }

    #[test]
    fn an_empty_pool_has_an_empty_subset() {
        for text in ["5%", "3", "10 tokens"] {
            assert_eq!(top(&table([]), budget(text)), []);
        }
    }

    /// Distinct ids, scores with many ties, some rows flagged.
    fn rows() -> impl Strategy<Value = Vec<ScoreRow>> {
        prop::collection::vec((0..6_u8, 0..40_u32, prop::bool::weighted(0.2)), 1..60).prop_map(
            |cells| {
                (0..)
                    .zip(cells)
                    .map(|(id, (score, n_tokens, is_flagged))| ScoreRow {
                        flag: is_flagged.then(|| "zero gradient".to_owned()),
                        ..row(id, f32::from(score), n_tokens)
                    })
                    .collect()
            },
        )
    }

    fn any_budget() -> impl Strategy<Value = Budget> {
        prop_oneof![
            (1..=1000_u32).prop_map(|mille| budget(&format!("{}%", f64::from(mille) / 10.0))),
            (1..80_u32).prop_map(|n| budget(&n.to_string())),
            (1..2000_u32).prop_map(|n| budget(&format!("{n} tokens"))),
        ]
    }

    proptest! {
        #[test]
        fn five_percent_is_contained_in_ten(rows in rows()) {
            let scores = table(rows);
            let (five, ten) = (top(&scores, budget("5%")), top(&scores, budget("10%")));
            prop_assert!(ten.starts_with(&five));
        }

        #[test]
        fn every_subset_is_a_prefix_of_the_ranking(rows in rows(), kept in any_budget()) {
            let scores = table(rows);
            prop_assert!(ranking(&scores).starts_with(&top(&scores, kept)));
        }

        #[test]
        fn the_order_of_the_rows_does_not_matter(rows in rows(), kept in any_budget(), turn in 0..60_usize) {
            let ids = |scores: &ScoreTable| -> Vec<_> {
                top(scores, kept).iter().map(|kept| scores.rows[kept.position].id).collect()
            };
            let mut turned = rows.clone();
            let turn = turn % turned.len();
            turned.rotate_left(turn);
            turned.reverse();
            prop_assert_eq!(ids(&table(rows)), ids(&table(turned)));
        }

        #[test]
        fn no_flagged_row_is_kept_and_ranks_count_from_one(rows in rows(), kept in any_budget()) {
            let scores = table(rows);
            for (rank, kept) in (1..).zip(top(&scores, kept)) {
                prop_assert_eq!(kept.rank, rank);
                prop_assert_eq!(&scores.rows[kept.position].flag, &None);
            }
        }

        #[test]
        fn a_token_budget_is_kept_unless_the_best_row_alone_is_longer(rows in rows(), n in 1..2000_u64) {
            let scores = table(rows);
            let kept = top(&scores, Budget::Tokens(std::num::NonZeroU64::new(n).unwrap()));
            let spent: u64 = kept.iter().map(|kept| u64::from(scores.rows[kept.position].n_tokens)).sum();
            prop_assert!(spent <= n || kept.len() == 1);
        }
    }
}
