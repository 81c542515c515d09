//! From an order of rows to a subset: the budget, and what a source may have.

use std::collections::BTreeMap;

use super::selector::{Pick, Picks};
use super::{Budget, Fraction, Selected};
use crate::influence::scores::ScoreTable;

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

    /// Forgets what was taken.
    fn reset(&mut self);
}

/// Refuses nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Gate for Open {
    fn admit(&mut self, _pick: Pick) -> bool {
        true
    }

    fn reset(&mut self) {}
}

/// What was taken, and what gave way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// In order of rank.
    pub rows: Vec<Selected>,
    /// A sentence each, without a final period.
    pub notes: Vec<String>,
    /// Sources that reached their cap, in order of name.
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
/// what floors still need, only their sources give rows. A floor that the pool
/// cannot reach is lowered to what it can, with a note: `picks` is asked for a new
/// order then.
pub fn take<P: Picks>(
    scores: &ScoreTable,
    mut picks: impl FnMut() -> P,
    budget: Budget,
    limits: &SourceLimits,
    gate: &mut dyn Gate,
) -> Taken {
    let mut ledger = Ledger::new(scores, budget, limits);
    let mut notes = Vec::new();
    loop {
        let rows = fill(scores, &mut picks(), &mut ledger, gate);
        let unmet = ledger.unmet();
        if unmet.is_empty() || ledger.is_spent() {
            notes.extend(ledger.unspent());
            return Taken { rows, notes, capped: ledger.capped() };
        }
        for (source, reached) in unmet {
            let asked = limits.floors.get(&source).map_or(0.0, |floor| 100.0 * floor.value());
            let share = 100.0 * reached as f64 / ledger.total as f64;
            notes.push(format!(
                "source `{source}` was to have {asked} % of the subset and has rows for {share:.1} %"
            ));
            ledger.floors.insert(source, reached);
        }
        ledger.spent.clear();
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
            ledger.has_room(&scores.rows[pick.position].source) && gate.admit(pick)
        });
        let Some(Pick { position, subtask }) = next else { break };
        let row = &scores.rows[position];
        if !ledger.spend(&row.source, row.n_tokens) {
            break;
        }
        rows.push(Selected {
            position,
            rank: rows.len() + 1,
            score: row.by_subtask[subtask],
            subtask,
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
}

impl Ledger {
    fn new(scores: &ScoreTable, budget: Budget, limits: &SourceLimits) -> Self {
        let total = budget.amount(scores.rows.len());
        let shares = |shares: &BTreeMap<String, Fraction>| {
            let of =
                |share: &Fraction| share.of(usize::try_from(total).unwrap_or(usize::MAX)) as u64;
            shares.iter().map(|(source, share)| (source.clone(), of(share))).collect()
        };
        Self {
            total,
            is_tokens: matches!(budget, Budget::Tokens(_)),
            caps: shares(&limits.caps),
            floors: shares(&limits.floors),
            spent: BTreeMap::new(),
        }
    }

    fn all_spent(&self) -> u64 {
        self.spent.values().sum()
    }

    fn of(&self, source: &str) -> u64 {
        self.spent.get(source).copied().unwrap_or(0)
    }

    fn is_spent(&self) -> bool {
        self.all_spent() >= self.total
    }

    /// What floors still need.
    fn needed(&self) -> u64 {
        self.floors.iter().map(|(source, floor)| floor.saturating_sub(self.of(source))).sum()
    }

    /// Whether another row of `source` may be taken. Once it may not, it never may
    /// again.
    fn has_room(&self, source: &str) -> bool {
        if self.caps.get(source).is_some_and(|cap| self.of(source) >= *cap) {
            return false;
        }
        let is_needed = self.floors.get(source).is_some_and(|floor| self.of(source) < *floor);
        is_needed || self.total.saturating_sub(self.all_spent()) > self.needed()
    }

    /// Whether there was enough left. The first row is always paid for.
    fn spend(&mut self, source: &str, n_tokens: u32) -> bool {
        let cost = if self.is_tokens { u64::from(n_tokens) } else { 1 };
        let is_first = self.spent.is_empty();
        if !is_first && self.all_spent().saturating_add(cost) > self.total {
            return false;
        }
        *self.spent.entry(source.to_owned()).or_default() += cost;
        true
    }

    /// Floors that were not reached, and how far they came.
    fn unmet(&self) -> Vec<(String, u64)> {
        let reached = self.floors.iter().map(|(source, floor)| (source, floor, self.of(source)));
        let unmet = reached.filter(|(_, floor, reached)| reached < floor);
        unmet.map(|(source, _, reached)| (source.clone(), reached)).collect()
    }

    /// Sources that are at their cap.
    fn capped(&self) -> Vec<String> {
        let capped = self.caps.iter().filter(|(source, cap)| self.of(source) >= **cap);
        capped.map(|(source, _)| source.clone()).collect()
    }

    /// Whether caps kept the budget from being spent.
    fn unspent(&self) -> Option<String> {
        let left = self.total.saturating_sub(self.all_spent());
        (left > 0 && !self.is_tokens && !self.capped().is_empty()).then(|| {
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

    struct NotTheSecond;

    impl Gate for NotTheSecond {
        fn admit(&mut self, pick: Pick) -> bool {
            pick.position != 1
        }

        fn reset(&mut self) {}
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
    }
}
