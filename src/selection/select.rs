//! The rows that the settings ask for.

use std::collections::{BTreeMap, BTreeSet};

use super::limits::{Gate, Taken, take};
use super::selector::{
    Knn, Mmr, Neighbors, Pick, Picks, RoundRobin, RowCosines, Selector, TargetCosines, Top,
    densities,
};
use super::view::View;
use super::{Budget, Selected, SelectionSettings};
use crate::influence::scores::ScoreTable;

/// What rows are selected by.
#[derive(Clone, Copy)]
pub struct SelectFrom<'a> {
    /// The scores.
    pub scores: &'a ScoreTable,
    /// The target source of every subtask of the scores.
    pub target_sources: &'a [String],
    /// The likeness to single target examples, if the selector
    /// [needs](Selector::needs_examples) it.
    pub examples: Option<&'a dyn TargetCosines>,
    /// The likeness of rows, if the selector [needs](Selector::needs_rows) it.
    pub rows: Option<&'a dyn RowCosines>,
}

/// The settings name what is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` names the {what} `{name}`; there are {}", known.join(", "))]
pub struct UnknownName {
    /// The setting.
    pub setting: &'static str,
    /// A source of the pool or a target.
    pub what: &'static str,
    /// What was named.
    pub name: String,
    /// What there is.
    pub known: Vec<String>,
}

/// Selects within `budget`, or within each target's own.
///
/// With a budget for each target, the targets are served one after the other, in
/// order of name, each from the rows that the ones before left; then their rows
/// are ranked together, so that every beginning of the subset has the targets'
/// shares. Limits of sources hold for each target's part.
///
/// # Errors
///
/// If the settings name a source or a target that is not there.
///
/// # Panics
///
/// If something that the selector needs is not given.
pub fn select(
    from: SelectFrom<'_>,
    settings: &SelectionSettings,
    budget: Budget,
    gate: &mut dyn Gate,
) -> Result<Taken, UnknownName> {
    check_names(from, settings)?;
    if settings.target_budgets.is_empty() {
        return Ok(of_targets(from, settings, budget, &|_| true, gate));
    }
    let (mut parts, mut notes, mut capped) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut gate = Once { gate, is_taken: BTreeSet::new(), taken: Vec::new() };
    for (target, budget) in &settings.target_budgets {
        let counts = |subtask: usize| from.target_sources[subtask] == *target;
        let part = of_targets(from, settings, *budget, &counts, &mut gate);
        gate.serve(&part.rows);
        notes.extend(part.notes.into_iter().map(|note| format!("target `{target}`: {note}")));
        capped.extend(part.capped);
        parts.push(part.rows);
    }
    let without =
        from.target_sources.iter().filter(|name| !settings.target_budgets.contains_key(*name));
    for name in without.collect::<BTreeSet<_>>() {
        notes.push(format!("target `{name}` has no budget and gets no rows"));
    }
    let capped = capped.into_iter().collect();
    Ok(Taken { rows: ranked_together(parts), notes, capped })
}

/// Selects for one target alone, within its own budget or `budget`.
///
/// # Errors
///
/// As [`select`].
///
/// # Panics
///
/// As [`select`].
pub fn select_for_target(
    from: SelectFrom<'_>,
    settings: &SelectionSettings,
    target: &str,
    budget: Budget,
    gate: &mut dyn Gate,
) -> Result<Taken, UnknownName> {
    check_names(from, settings)?;
    let budget = settings.target_budgets.get(target).copied().unwrap_or(budget);
    let counts = |subtask: usize| from.target_sources[subtask] == target;
    Ok(of_targets(from, settings, budget, &counts, gate))
}

/// Selects for the subtasks that count.
fn of_targets(
    from: SelectFrom<'_>,
    settings: &SelectionSettings,
    budget: Budget,
    counts: &dyn Fn(usize) -> bool,
    gate: &mut dyn Gate,
) -> Taken {
    let view = View::of(from.scores, counts, settings.normalize);
    let begin = || order(from, settings, &view, budget);
    take(from.scores, begin, budget, &settings.limits, gate)
}

/// A selector's order from its beginning.
fn order<'a>(
    from: SelectFrom<'a>,
    settings: &SelectionSettings,
    view: &'a View<'a>,
    budget: Budget,
) -> Box<dyn Picks + 'a> {
    let n_rows = from.scores.rows.len();
    let rows = || from.rows.expect("given to a selector that needs it");
    let neighbors = |length: usize| {
        Neighbors::new(from.examples.expect("given to a selector that needs it"), view, length)
    };
    let k = settings.n_neighbors(n_rows);
    match settings.selector {
        Selector::Top => Box::new(Top::new(view)),
        Selector::RoundRobin => {
            // About what an example takes, and some rows that others have taken.
            let n_examples = from.examples.map_or(1, |of| of.targets().examples.len()).max(1);
            let wanted = budget.amount(n_rows).min(n_rows as u64) as usize;
            let neighbors = neighbors((4 * wanted / n_examples).max(64));
            Box::new(RoundRobin::new(neighbors, n_rows, &|of| from.target_sources[of].clone()))
        }
        Selector::Knn => Box::new(Knn::new(view, neighbors(k), k, &|rows| vec![1.0; rows.len()])),
        Selector::KnnKde => Box::new(Knn::new(view, neighbors(k), k, &|of| densities(rows(), of))),
        Selector::Mmr => Box::new(Mmr::new(view, rows(), settings.redundancy_penalty as f32)),
    }
}

impl Picks for Box<dyn Picks + '_> {
    fn next(&mut self, admit: &mut dyn FnMut(Pick) -> bool) -> Option<Pick> {
        (**self).next(admit)
    }
}

/// Lets a row be taken for one target only.
struct Once<'a> {
    gate: &'a mut dyn Gate,
    is_taken: BTreeSet<usize>,
    taken: Vec<Pick>,
}

impl Once<'_> {
    /// A target has its rows.
    fn serve(&mut self, rows: &[Selected]) {
        for row in rows {
            let Selected { position, subtask, example, .. } = *row;
            self.is_taken.insert(position);
            self.taken.push(Pick { position, subtask, example });
        }
        self.gate.keep();
    }
}

impl Gate for Once<'_> {
    fn admit(&mut self, pick: Pick) -> bool {
        !self.is_taken.contains(&pick.position) && self.gate.admit(pick)
    }

    fn keep(&mut self) {
        self.gate.keep();
    }

    fn reset(&mut self) {
        self.gate.reset();
        for pick in &self.taken {
            self.gate.admit(*pick);
        }
    }
}

/// Rows in order of how far down its part each is; of equally far ones, the part
/// that was first.
fn ranked_together(parts: Vec<Vec<Selected>>) -> Vec<Selected> {
    let mut rows: Vec<(u128, u128, usize, Selected)> = Vec::new();
    for (part, of) in parts.into_iter().enumerate() {
        let n = of.len() as u128;
        rows.extend(of.into_iter().map(|row| (row.rank as u128, n, part, row)));
    }
    rows.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)).then(a.2.cmp(&b.2)));
    let ranked =
        |(rank, (.., row)): (usize, (u128, u128, usize, Selected))| Selected { rank, ..row };
    (1..).zip(rows).map(ranked).collect()
}

fn check_names(from: SelectFrom<'_>, settings: &SelectionSettings) -> Result<(), UnknownName> {
    let sources: BTreeSet<&String> = from.scores.rows.iter().map(|row| &row.source).collect();
    let targets: BTreeSet<&String> = from.target_sources.iter().collect();
    let names = |of: &BTreeMap<String, super::Fraction>| of.keys().cloned().collect::<Vec<_>>();
    let target_budgets = settings.target_budgets.keys().cloned().collect();
    for (setting, what, names, known) in [
        ("source-cap", "source", names(&settings.limits.caps), &sources),
        ("source-floor", "source", names(&settings.limits.floors), &sources),
        ("target-budget", "target", target_budgets, &targets),
    ] {
        if let Some(name) = names.into_iter().find(|name| !known.contains(name)) {
            let known = known.iter().map(|name| format!("`{name}`")).collect();
            return Err(UnknownName { setting, what, name, known });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::limits::Open;
    use super::super::toy::{Matrix, Vectors};
    use super::super::{Fraction, Normalize, SourceLimits};
    use super::*;

    fn settings(selector: Selector) -> SelectionSettings {
        SelectionSettings {
            selector,
            normalize: Normalize::None,
            neighbors: "2".parse().unwrap(),
            redundancy_penalty: 0.5,
            limits: SourceLimits::default(),
            near_duplicates: None,
            target_budgets: BTreeMap::new(),
            subset_per_target: false,
            decontaminate_target: false,
            decontaminate: Vec::new(),
        }
    }

    /// Rows on a circle, three target examples in two subtasks of sources a and b;
    /// some rows flagged.
    #[derive(Debug)]
    struct World {
        matrix: Matrix,
        scores: ScoreTable,
        vectors: Vectors,
        sources: [String; 2],
    }

    impl World {
        fn new(rows: &[(u16, u16, bool)]) -> Self {
            let at = |degrees: u16| {
                let angle = f32::from(degrees).to_radians();
                vec![angle.cos(), angle.sin()]
            };
            let vectors: Vec<Vec<f32>> = rows.iter().map(|(degrees, ..)| at(*degrees)).collect();
            let cosines = |row: &Vec<f32>| -> Vec<f32> {
                let of = |degrees: u16| at(degrees).iter().zip(row).map(|(a, b)| a * b).sum();
                [0, 30, 120].map(of).to_vec()
            };
            let mut cosines: Vec<Vec<f32>> = vectors.iter().map(cosines).collect();
            let plain: Vec<&[f32]> = cosines.iter().map(Vec::as_slice).collect();
            let mut scores = Matrix::new(&[0, 0, 1], &plain).scores();
            for ((row, (_, n_tokens, is_flagged)), cosines) in
                scores.rows.iter_mut().zip(rows).zip(&mut cosines)
            {
                row.n_tokens = u32::from(*n_tokens);
                if *is_flagged {
                    row.flag = Some("zero gradient".to_owned());
                    row.by_subtask.clear();
                    cosines.fill(f32::NAN);
                }
            }
            let plain: Vec<&[f32]> = cosines.iter().map(Vec::as_slice).collect();
            let matrix = Matrix::new(&[0, 0, 1], &plain);
            let sources = ["a", "b"].map(str::to_owned);
            Self { matrix, scores, vectors: Vectors(vectors), sources }
        }

        /// Everything, by target sources a and b.
        fn from(&self) -> SelectFrom<'_> {
            SelectFrom {
                scores: &self.scores,
                target_sources: &self.sources,
                examples: Some(&self.matrix),
                rows: Some(&self.vectors),
            }
        }

        fn select(&self, settings: &SelectionSettings, budget: &str) -> Taken {
            select(self.from(), settings, budget.parse().unwrap(), &mut Open).unwrap()
        }
    }

    #[test]
    fn every_target_has_its_own_budget_and_no_row_serves_two() {
        // Rows at 0 and 15 degrees serve a best, those at 110 and 120 b.
        let rows = [0, 15, 110, 120, 60].map(|degrees| (degrees, 10, false));
        let mut settings = settings(Selector::Top);
        for (target, budget) in [("a", "1"), ("b", "3")] {
            settings.target_budgets.insert(target.to_owned(), budget.parse().unwrap());
        }
        let found = World::new(&rows).select(&settings, "5%");
        let found: Vec<_> =
            found.rows.iter().map(|row| (row.rank, row.position, row.subtask)).collect();
        assert_eq!(found, [(1, 3, 1), (2, 2, 1), (3, 1, 0), (4, 4, 1)]);

        settings.target_budgets.remove("b");
        let notes = World::new(&rows).select(&settings, "5%").notes.join("\n");
        insta::assert_snapshot!(notes, @"target `b` has no budget and gets no rows");
    }

    #[test]
    fn names_that_are_not_there_are_told_with_those_that_are() {
        let world = World::new(&[(0, 10, false)]);
        let sources = ["a".to_owned(), "b".to_owned()];
        let (scores, target_sources) = (&world.scores, &sources);
        let from = SelectFrom { scores, target_sources, examples: None, rows: None };
        let message = |settings: &SelectionSettings| {
            select(from, settings, "1".parse().unwrap(), &mut Open).unwrap_err().to_string()
        };
        let mut caps = settings(Selector::Top);
        caps.limits.caps.insert("p3".to_owned(), Fraction::new(0.5).unwrap());
        insta::assert_snapshot!(message(&caps), @"`source-cap` names the source `p3`; there are `pool`");
        let mut budgets = settings(Selector::Top);
        budgets.target_budgets.insert("c".to_owned(), "1".parse().unwrap());
        insta::assert_snapshot!(message(&budgets), @"`target-budget` names the target `c`; there are `a`, `b`");
    }

    fn world() -> impl Strategy<Value = World> {
        let row = (0..360_u16, 1..40_u16, prop::bool::weighted(0.2));
        prop::collection::vec(row, 1..25).prop_map(|rows| World::new(&rows))
    }

    fn selector() -> impl Strategy<Value = SelectionSettings> {
        (prop::sample::select(Selector::ALL.to_vec()), any::<bool>()).prop_map(
            |(selector, per_task)| {
                let normalize = if per_task { Normalize::PerTask } else { Normalize::None };
                SelectionSettings { normalize, ..settings(selector) }
            },
        )
    }

    proptest! {
        #[test]
        fn budgets_hold_and_no_row_is_flagged_or_taken_twice(
            world in world(),
            settings in selector(),
            n in 1..30_usize,
            n_tokens in 1..300_u64,
        ) {
            let n_ranked = world.scores.rows.iter().filter(|row| row.flag.is_none()).count();
            let rows = world.select(&settings, &n.to_string()).rows;
            prop_assert_eq!(rows.len(), n.min(n_ranked));
            let positions: BTreeSet<_> = rows.iter().map(|row| row.position).collect();
            prop_assert_eq!(positions.len(), rows.len());
            prop_assert!(rows.iter().all(|row| world.scores.rows[row.position].flag.is_none()));
            prop_assert!(rows.iter().zip(1..).all(|(row, rank)| row.rank == rank));

            let rows = world.select(&settings, &format!("{n_tokens} tokens")).rows;
            let cost = |row: &Selected| u64::from(world.scores.rows[row.position].n_tokens);
            prop_assert!(rows.iter().map(cost).sum::<u64>() <= n_tokens || rows.len() == 1);
        }

        #[test]
        fn a_smaller_subset_is_the_beginning_of_a_larger_one(
            world in world(),
            settings in selector(),
            n in 1..30_usize,
        ) {
            let smaller = world.select(&settings, &n.to_string()).rows;
            prop_assert!(world.select(&settings, "100%").rows.starts_with(&smaller));
        }
    }

    impl World {
        /// Positions and subtasks, in order of rank.
        fn select_for(
            &self,
            settings: &SelectionSettings,
            target: &str,
            budget: &str,
        ) -> Vec<(usize, usize)> {
            let budget = budget.parse().unwrap();
            let taken =
                select_for_target(self.from(), settings, target, budget, &mut Open).unwrap();
            assert!(taken.rows.iter().zip(1..).all(|(row, rank)| row.rank == rank));
            taken.rows.iter().map(|row| (row.position, row.subtask)).collect()
        }
    }

    /// Target a asks at 0 and 30 degrees, b at 120. Rows at 0 and 15 degrees serve a best,
    /// those at 110 and 120 b; the one at 70 is second best for both.
    fn two_targets() -> World {
        World::new(&[0, 15, 110, 120, 70].map(|degrees| (degrees, 10, false)))
    }

    #[test]
    fn one_target_takes_the_rows_that_serve_it_whatever_the_selector() {
        let world = two_targets();
        for selector in Selector::ALL {
            for normalize in [Normalize::None, Normalize::PerTask] {
                let settings = SelectionSettings { normalize, ..settings(selector) };
                let mut for_a = world.select_for(&settings, "a", "2");
                for_a.sort_unstable();
                assert_eq!(for_a, [(0, 0), (1, 0)], "{selector}, {normalize:?}");
                let for_b = world.select_for(&settings, "b", "2");
                assert_eq!(for_b, [(3, 1), (2, 1)], "{selector}, {normalize:?}");
            }
        }
    }

    #[test]
    fn one_target_has_its_own_budget_and_leaves_no_row_to_another() {
        let world = two_targets();
        let mut settings = settings(Selector::Top);
        settings.target_budgets.insert("a".to_owned(), "2".parse().unwrap());
        assert_eq!(world.select_for(&settings, "a", "100%"), [(1, 0), (0, 0)]);
        // It has no budget of its own.
        assert_eq!(world.select_for(&settings, "b", "3"), [(3, 1), (2, 1), (4, 1)]);

        settings.target_budgets.insert("b".to_owned(), "100%".parse().unwrap());
        let for_b = [(3, 1), (2, 1), (4, 1), (1, 1), (0, 1)];
        assert_eq!(world.select_for(&settings, "b", "1"), for_b);
        // Of both together b has what a leaves.
        let together = world.select(&settings, "1").rows;
        assert_eq!(together.iter().filter(|row| row.subtask == 1).count(), 3);
    }

    #[test]
    fn limits_and_flags_hold_for_one_target_too() {
        let mut world =
            World::new(&[0, 15, 110, 120, 70].map(|degrees| (degrees, 10, degrees == 110)));
        for (row, source) in world.scores.rows.iter_mut().zip(["x", "x", "x", "x", "y"]) {
            row.source = source.to_owned();
        }
        let mut settings = settings(Selector::Top);
        assert_eq!(world.select_for(&settings, "b", "3"), [(3, 1), (4, 1), (1, 1)]);
        settings.limits.caps.insert("x".to_owned(), Fraction::new(0.5).unwrap());
        assert_eq!(world.select_for(&settings, "b", "2"), [(3, 1), (4, 1)]);
        assert_eq!(world.select_for(&settings, "a", "2"), [(1, 0), (4, 0)]);
        settings.limits.caps.clear();
        settings.limits.floors.insert("y".to_owned(), Fraction::new(0.5).unwrap());
        assert_eq!(world.select_for(&settings, "a", "2"), [(1, 0), (4, 0)]);
    }
}
