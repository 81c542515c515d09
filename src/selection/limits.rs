//! From an order of rows to a subset: the budget, and what a source may have.

use std::collections::{BTreeMap, BTreeSet};

use super::selector::{Pick, Picks};
use super::{Budget, Fraction, Selected};
use crate::influence::scores::{ScoreRow, ScoreTable};

/// The least and the most of the subset that may be of a pool source, by its
/// name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceLimits {
    /// Shares of the subset, in `(0, 1]`.
    pub caps: BTreeMap<String, Fraction>,
    /// Shares of the subset, in `(0, 1]`: of rows, or of tokens where the budget is
    /// of tokens.
    pub floors: BTreeMap<String, Fraction>,
}

/// What else may refuse a row.
pub trait Gate {
    /// Whether the row may be taken. One that may is.
    fn admit(&mut self, pick: Pick) -> bool;

    /// What was refused so far was for good.
    fn keep(&mut self);

    /// Forgets what was taken, and what was refused since it was kept.
    fn reset(&mut self);
}

/// Refuses nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Gate for Open {
    fn admit(&mut self, _pick: Pick) -> bool {
        true
    }

    fn keep(&mut self) {}

    fn reset(&mut self) {}
}

/// What was taken, and what gave way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// In order of rank.
    pub rows: Vec<Selected>,
    /// A sentence each, without a final period.
    pub notes: Vec<String>,
    /// Sources of which rows were refused for their cap, in order of name.
    pub capped: Vec<String>,
}

impl Budget {
    /// How much that is of a pool: rows, or tokens.
    pub(super) fn amount(self, n_pool: usize) -> u64 {
        match self {
            Self::Fraction(fraction) => fraction.of(n_pool) as u64,
            Self::Examples(n) | Self::Tokens(n) => n.get(),
        }
    }
}

/// Takes rows in the order of `picks` until `budget` is spent: a share is of all
/// the pool's examples, flagged ones included; tokens buy the longest beginning
/// of the order that fits, and at least one example. `gate` may refuse a row, and
/// the next moves up.
///
/// A source at its cap gives no more rows. Where what is left of the budget is
/// what floors still need, only their sources give rows. Both hold to the token:
/// a row that would pass a cap, or take what a floor needs, is passed over. A floor
/// that is not reached is lowered to how far it came, and `picks` is asked for a new
/// order: with a note where the pool has too few rows, without one where the next
/// row would have been too long.
pub fn take<P: Picks>(
    scores: &ScoreTable,
    mut picks: impl FnMut() -> P,
    budget: Budget,
    limits: &SourceLimits,
    gate: &mut dyn Gate,
) -> Taken {
    let mut ledger = Ledger::new(scores, budget, limits);
    let mut lacking: BTreeSet<String> = BTreeSet::new();
    loop {
        let rows = fill(scores, &mut picks(), &mut ledger, gate);
        let unmet = ledger.unmet();
        if unmet.is_empty() {
            let notes = lacking.iter().map(|source| ledger.lacks(source, limits));
            let notes = notes.chain(ledger.unspent()).collect();
            return Taken { rows, notes, capped: ledger.capped.into_iter().collect() };
        }
        lacking.extend(unmet.keys().filter(|source| !ledger.has_more(source)).cloned());
        ledger.floors.extend(unmet);
        ledger.spent.clear();
        ledger.capped.clear();
        ledger.short.clear();
        gate.reset();
    }
}

fn fill(
    scores: &ScoreTable,
    picks: &mut dyn Picks,
    ledger: &mut Ledger,
    gate: &mut dyn Gate,
) -> Vec<Selected> {
    let mut rows = Vec::new();
    while !ledger.is_spent() {
        let next = picks.next(&mut |pick| {
            let row = &scores.rows[pick.position];
            // One that ends the subset is not taken, and the gate must not think so.
            ledger.has_room(row) && (!ledger.can_pay(row) || gate.admit(pick))
        });
        let Some(Pick { position, subtask, example }) = next else { break };
        let row = &scores.rows[position];
        if !ledger.can_pay(row) {
            ledger.short.insert(row.source.clone());
            break;
        }
        ledger.pay(row);
        rows.push(Selected {
            position,
            rank: rows.len() + 1,
            score: row.by_subtask[subtask],
            subtask,
            example,
        });
    }
    rows
}

/// What was spent, in rows or tokens.
struct Ledger {
    total: u64,
    is_tokens: bool,
    caps: BTreeMap<String, u64>,
    floors: BTreeMap<String, u64>,
    spent: BTreeMap<String, u64>,
    /// Sources of which a row would have passed the cap.
    capped: BTreeSet<String>,
    /// Sources of which a row cost more than there was for it.
    short: BTreeSet<String>,
}

impl Ledger {
    fn new(scores: &ScoreTable, budget: Budget, limits: &SourceLimits) -> Self {
        let total = budget.amount(scores.rows.len());
        let shares = |shares: &BTreeMap<String, Fraction>| -> BTreeMap<String, u64> {
            let of =
                |share: &Fraction| share.of(usize::try_from(total).unwrap_or(usize::MAX)) as u64;
            shares.iter().map(|(source, share)| (source.clone(), of(share))).collect()
        };
        // A share is of one row at least, and a small budget may have fewer than floors.
        let mut left = total;
        let mut floors = shares(&limits.floors);
        for floor in floors.values_mut() {
            *floor = left.min(*floor);
            left -= *floor;
        }
        Self {
            total,
            is_tokens: matches!(budget, Budget::Tokens(_)),
            caps: shares(&limits.caps),
            floors,
            spent: BTreeMap::new(),
            capped: BTreeSet::new(),
            short: BTreeSet::new(),
        }
    }

    fn all_spent(&self) -> u64 {
        self.spent.values().sum()
    }

    fn of(&self, source: &str) -> u64 {
        self.spent.get(source).copied().unwrap_or(0)
    }

    fn left(&self) -> u64 {
        self.total.saturating_sub(self.all_spent())
    }

    fn is_spent(&self) -> bool {
        self.left() == 0
    }

    fn cost(&self, row: &ScoreRow) -> u64 {
        if self.is_tokens { u64::from(row.n_tokens) } else { 1 }
    }

    /// What the floor of a source still needs.
    fn needed(&self, source: &str) -> u64 {
        let floor = self.floors.get(source).copied().unwrap_or(0);
        floor.saturating_sub(self.of(source))
    }

    /// Whether a row may be taken. Once it may not, it never may again: what is left
    /// for it only becomes less.
    fn has_room(&mut self, row: &ScoreRow) -> bool {
        let ScoreRow { source, .. } = row;
        let cost = self.cost(row);
        if self.caps.get(source).is_some_and(|cap| self.of(source).saturating_add(cost) > *cap) {
            self.capped.insert(source.clone());
            return false;
        }
        let others = self.floors.keys().filter(|other| *other != source);
        let reserved: u64 = others.map(|other| self.needed(other)).sum::<u64>()
            + self.needed(source).saturating_sub(cost);
        let has_room = reserved == 0 || cost.saturating_add(reserved) <= self.left();
        if !has_room {
            self.short.insert(source.clone());
        }
        has_room
    }

    /// Whether there is enough left. The first row is always paid for.
    fn can_pay(&self, row: &ScoreRow) -> bool {
        self.spent.is_empty() || self.cost(row) <= self.left()
    }

    fn pay(&mut self, row: &ScoreRow) {
        let cost = self.cost(row);
        *self.spent.entry(row.source.clone()).or_default() += cost;
    }

    /// Floors that were not reached, and how far they came.
    fn unmet(&self) -> BTreeMap<String, u64> {
        let unmet = self.floors.keys().filter(|source| self.needed(source) > 0);
        unmet.map(|source| (source.clone(), self.of(source))).collect()
    }

    /// Whether a row of a source was left that would have passed its cap, or cost more
    /// than there was for it.
    fn has_more(&self, source: &str) -> bool {
        self.short.contains(source) || self.capped.contains(source)
    }

    /// That the pool has too few rows of a source for its floor.
    fn lacks(&self, source: &str, limits: &SourceLimits) -> String {
        let asked = limits.floors.get(source).map_or(0.0, |floor| 100.0 * floor.value());
        let share = 100.0 * self.of(source) as f64 / self.total as f64;
        format!(
            "source `{source}` was to have {asked} % of the subset and has rows for {share:.1} %"
        )
    }

    /// Whether caps kept the budget from being spent.
    fn unspent(&self) -> Option<String> {
        let left = self.left();
        (left > 0 && !self.is_tokens && !self.capped.is_empty()).then(|| {
            format!("caps of sources leave {left} rows of the budget: no other source has more")
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::selector::Top;
    use super::super::toy::table;
    use super::super::view::View;
    use super::*;

    /// Rows of the sources given, each a letter, worth less from row to row.
    fn pool(sources: &str) -> ScoreTable {
        let values: Vec<f32> = (0..sources.len()).map(|row| 1.0 - row as f32 / 100.0).collect();
        let rows: Vec<&[f32]> = values.chunks(1).collect();
        let mut scores = table(&["t"], &rows);
        for (row, source) in scores.rows.iter_mut().zip(sources.chars()) {
            row.source = source.to_string();
        }
        scores
    }

    fn limits(caps: &[(&str, f64)], floors: &[(&str, f64)]) -> SourceLimits {
        let of = |shares: &[(&str, f64)]| {
            let one = |(source, share): &(&str, f64)| {
                ((*source).to_owned(), Fraction::new(*share).unwrap())
            };
            shares.iter().map(one).collect()
        };
        SourceLimits { caps: of(caps), floors: of(floors) }
    }

    fn taken(scores: &ScoreTable, budget: &str, limits: &SourceLimits) -> (Vec<usize>, String) {
        let view = View::plain(scores);
        let budget = budget.parse().unwrap();
        let taken = take(scores, || Top::new(&view), budget, limits, &mut Open);
        assert!(taken.rows.iter().zip(1..).all(|(row, rank)| row.rank == rank));
        (taken.rows.iter().map(|row| row.position).collect(), taken.notes.join("\n"))
    }

    #[test]
    fn a_source_at_its_cap_gives_way_to_the_next_best() {
        let scores = pool("aaaaaabbcc");
        let limits = limits(&[("a", 0.5)], &[]);
        assert_eq!(taken(&scores, "4", &limits), (vec![0, 1, 6, 7], String::new()));
        let view = View::plain(&scores);
        let found = take(&scores, || Top::new(&view), "4".parse().unwrap(), &limits, &mut Open);
        assert_eq!(found.capped, ["a"]);
        assert_eq!(taken(&scores, "40 tokens", &limits).0, [0, 1, 6, 7]);
    }

    #[test]
    fn a_source_gets_its_floor_and_no_more_than_it_earns() {
        let scores = pool("aaaaaabbcc");
        let limits = limits(&[], &[("c", 0.25), ("a", 0.25)]);
        assert_eq!(taken(&scores, "4", &limits), (vec![0, 1, 2, 8], String::new()));
        assert_eq!(taken(&scores, "40 tokens", &limits).0, [0, 1, 2, 8]);
    }

    #[test]
    fn caps_that_leave_budget_are_told() {
        let (rows, notes) = taken(&pool("aaaab"), "4", &limits(&[("a", 0.5)], &[]));
        assert_eq!(rows, [0, 1, 4]);
        insta::assert_snapshot!(notes, @"caps of sources leave 1 rows of the budget: no other source has more");
    }

    #[test]
    fn a_floor_that_the_pool_cannot_reach_gives_way_and_is_told() {
        let (rows, notes) = taken(&pool("aaaaaab"), "4", &limits(&[], &[("b", 0.5)]));
        assert_eq!(rows, [0, 1, 2, 6]);
        insta::assert_snapshot!(notes, @"source `b` was to have 50 % of the subset and has rows for 25.0 %");
    }

    /// Tokens of every row, in order.
    fn with_tokens(sources: &str, n_tokens: &[u32]) -> ScoreTable {
        let mut scores = pool(sources);
        for (row, n_tokens) in scores.rows.iter_mut().zip(n_tokens) {
            row.n_tokens = *n_tokens;
        }
        scores
    }

    #[test]
    fn a_floor_in_tokens_is_kept_free_of_the_last_row_of_others() {
        // 20 % of 1,000 tokens are more than two of b's rows of 90.
        let scores = with_tokens(&("a".repeat(20) + "bbbb"), &[90; 24]);
        let (rows, notes) = taken(&scores, "1000 tokens", &limits(&[], &[("b", 0.2)]));
        assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22]);
        assert_eq!(notes, "", "the pool has more rows of b");
    }

    #[test]
    fn a_row_that_would_pass_its_cap_in_tokens_gives_way_to_a_shorter_one() {
        let scores = with_tokens("aaab", &[30, 40, 20, 50]);
        let limits = limits(&[("a", 0.5)], &[]);
        assert_eq!(taken(&scores, "100 tokens", &limits), (vec![0, 2, 3], String::new()));
    }

    #[test]
    fn floors_of_more_sources_than_the_budget_has_rows_leave_some_without() {
        let scores = pool("aabbcc");
        let limits = limits(&[], &[("b", 0.3), ("c", 0.3)]);
        assert_eq!(taken(&scores, "1", &limits), (vec![2], String::new()));
    }

    struct NotTheSecond;

    impl Gate for NotTheSecond {
        fn admit(&mut self, pick: Pick) -> bool {
            pick.position != 1
        }

        fn keep(&mut self) {}

        fn reset(&mut self) {}
    }

    /// Lets everything in and remembers it.
    #[derive(Default)]
    struct Seen(Vec<usize>);

    impl Gate for Seen {
        fn admit(&mut self, pick: Pick) -> bool {
            self.0.push(pick.position);
            true
        }

        fn keep(&mut self) {}

        fn reset(&mut self) {
            self.0.clear();
        }
    }

    #[test]
    fn a_row_that_is_too_long_for_what_is_left_is_not_admitted() {
        let scores = with_tokens("aaa", &[50, 60, 10]);
        let view = View::plain(&scores);
        let mut seen = Seen::default();
        let none = SourceLimits::default();
        let budget = "100 tokens".parse().unwrap();
        let taken = take(&scores, || Top::new(&view), budget, &none, &mut seen);
        assert_eq!(taken.rows.len(), 1);
        assert_eq!(seen.0, [0]);
    }

    #[test]
    fn the_next_moves_up_for_a_row_that_is_refused() {
        let scores = pool("aaaaaa");
        let view = View::plain(&scores);
        let budget = "3".parse().unwrap();
        let none = SourceLimits::default();
        let taken = take(&scores, || Top::new(&view), budget, &none, &mut NotTheSecond);
        assert_eq!(taken.rows.iter().map(|row| row.position).collect::<Vec<_>>(), [0, 2, 3]);
    }

    proptest! {
        #[test]
        fn budget_caps_and_floors_hold_whatever_the_pool(
            sources in "[abc]{1,40}",
            n in 1..50_u64,
            cap in 0.05..1.0_f64,
            floor in 0.01..0.5_f64,
        ) {
            let scores = pool(&sources);
            let limits = limits(&[("a", cap)], &[("b", floor)]);
            let (rows, _) = taken(&scores, &n.to_string(), &limits);
            prop_assert!(rows.len() as u64 <= n);
            let of = |name: &str| rows.iter().filter(|row| scores.rows[**row].source == name).count();
            let share = |share: f64| Fraction::new(share).unwrap().of(n as usize);
            prop_assert!(of("a") <= share(cap));
            let n_b = sources.matches('b').count();
            prop_assert!(of("b") >= share(floor).min(n_b), "{} of {n_b}", of("b"));
            // Nothing is left that could have been taken.
            let others = sources.len() - sources.matches('a').count();
            prop_assert!(rows.len() as u64 == n || rows.len() >= others);
        }

        #[test]
        fn budget_caps_and_floors_hold_to_the_token(
            rows in prop::collection::vec(("[abc]", 1..60_u32), 1..40),
            n in 60..2000_u64,
            cap in 0.05..1.0_f64,
            floors in (0.01..0.5_f64, 0.01..0.5_f64),
        ) {
            let sources: String = rows.iter().map(|(source, _)| source.as_str()).collect();
            let n_tokens: Vec<u32> = rows.iter().map(|(_, n_tokens)| *n_tokens).collect();
            let scores = with_tokens(&sources, &n_tokens);
            let limits = limits(&[("a", cap)], &[("b", floors.0), ("c", floors.1)]);
            let (taken, notes) = taken(&scores, &format!("{n} tokens"), &limits);
            let of = |name: &str, rows: &mut dyn Iterator<Item = usize>| -> u64 {
                let own = rows.map(|row| &scores.rows[row]).filter(|row| row.source == name);
                own.map(|row| u64::from(row.n_tokens)).sum()
            };
            let share = |share: f64| Fraction::new(share).unwrap().of(n as usize) as u64;
            let taken_of = |name: &str| of(name, &mut taken.iter().copied());
            prop_assert!(["a", "b", "c"].map(taken_of).iter().sum::<u64>() <= n);
            prop_assert!(taken_of("a") <= share(cap));
            for (name, floor) in [("b", share(floors.0)), ("c", share(floors.1))] {
                let there = of(name, &mut (0..scores.rows.len()));
                // A row too long for what its floor needs is passed over, none other.
                let missed = floor.min(there).saturating_sub(taken_of(name));
                prop_assert!(missed < 60, "{name}: {} of {floor}", taken_of(name));
                let is_told = notes.contains(&format!("source `{name}`"));
                let lacks = there < floor && taken_of(name) == there;
                prop_assert!(lacks || !is_told, "{}", notes);
            }
        }
    }
}
