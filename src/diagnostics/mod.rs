//! How far a selection is what the target asks for, and how far chance.
//!
//! Each diagnostic selects again from a part of what the selection was made from,
//! and tells which share of the rows is selected again: with half of the
//! [target's examples](target), with half of every [stored row](sketch), without
//! a [checkpoint](target). Nothing is measured anew: all of it comes from the
//! stored rows and the cosines with single target examples.
//!
//! Rows are taken in the order of the selector ([`Sample`]), whatever limits,
//! budgets of single targets and near-duplicates made of that. Of a large pool
//! [`N_SAMPLE`] rows stand for all, so that time and memory have a bound however
//! large it is, but for the check of what is read: a score reads every stored row, this
//! compares at most so many of them, with two queries a subtask, or a target example
//! where the selector asks for those.
//!
//! # When a selection is mostly noise
//!
//! Two halves of a target that has nothing to do with the pool agree as two draws
//! do: on a share [`chance`](Diagnostics::chance). [`beyond_chance`] is what they
//! agree on above that, of what they could. Where a skill is planted in a pool and
//! the target so noisy that one half of the rows with the highest scores are the
//! skill's and the other are not, halves are at 0.06 to 0.09 of a budget between 1 and
//! 20 %: by a half, which is noisier by √2, two of five of them are the skill's, and
//! two halves share only few of those. [`NOISE`] is a little above that; where nine of
//! ten are the skill's, it is 0.5. Where target examples take turns, a half's rows are
//! as good as the whole's: halves are at 0.1 where two of five selected rows are the
//! skill's, and at 0.7 where nine of ten are. A test plants all four.

mod overlap;
pub mod sketch;
pub mod target;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::Range;

use serde::Serialize;

use crate::influence::example_scores::TargetExamples;
use crate::influence::scores::{ScoreRow, ScoreTable};
use crate::selection::selector::TargetCosines;
use crate::selection::{
    Budget, Open, SelectFrom, Selected, SelectionSettings, Selector, SourceLimits, ranking, select,
};
use overlap::{Chosen, overlap};

/// Most rows that are compared. A share of 5 % of them is known to 1.5 points.
pub const N_SAMPLE: usize = 20_000;

/// Halves that agree on less than this [beyond chance](beyond_chance) make a
/// selection of which about half or more is noise.
pub const NOISE: f64 = 0.1;

/// With fewer rows than this, halves that agree on none say nothing.
const FEW: u64 = 10;

/// What was found. A part that a method or a target has no material for is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnostics {
    /// Ranked rows that were compared.
    pub n_rows: u64,
    /// As many of them are selected, and overlaps are shares of that: as large a
    /// part of [`n_rows`](Self::n_rows) as the selection is of the ranked rows.
    pub n_selected: u64,
    /// The overlap of two draws: `n_selected / n_rows`.
    pub chance: f64,
    /// Random halves of the target's examples.
    pub target: Option<target::TargetHalves>,
    /// The halves of the stored rows.
    pub sketch: Option<sketch::SketchHalves>,
    /// Without one checkpoint; empty where there is only one.
    pub checkpoints: Vec<target::WithoutCheckpoint>,
}

impl Diagnostics {
    /// Nothing but what is compared.
    pub fn of(sample: &Sample<'_>) -> Self {
        let (n_rows, n_selected) = (sample.positions.len() as u64, sample.n_selected as u64);
        Self {
            n_rows,
            n_selected,
            chance: n_selected as f64 / n_rows as f64,
            target: None,
            sketch: None,
            checkpoints: Vec::new(),
        }
    }

    /// Whether the halves of the target agree on so little that about half of the
    /// selection or more is noise; `None` where that cannot be told.
    pub fn is_noise_of_target(&self) -> Option<bool> {
        self.is_noise(self.target.as_ref()?.mean)
    }

    /// The same of the halves of the stored rows.
    pub fn is_noise_of_sketch(&self) -> Option<bool> {
        self.is_noise(self.sketch.as_ref()?.between)
    }

    fn is_noise(&self, overlap: f64) -> Option<bool> {
        (self.n_selected >= FEW).then(|| beyond_chance(overlap, self.chance) < NOISE)
    }
}

/// What an overlap has above that of two draws, as a share of what it could have:
/// 0 for draws, 1 for equal selections.
pub fn beyond_chance(overlap: f64, chance: f64) -> f64 {
    (overlap - chance) / (1.0 - chance)
}

/// The rows that are compared, and how some of them are selected.
#[derive(Clone)]
pub struct Sample<'a> {
    from: SelectFrom<'a>,
    settings: SelectionSettings,
    /// Positions in the score table, ascending.
    positions: Vec<usize>,
    n_selected: usize,
}

impl<'a> Sample<'a> {
    /// The ranked rows of `from`, whose scores are in order of id; of more than
    /// [`N_SAMPLE`], those with the smallest ids, which are hashes. `None` where
    /// nothing or everything is `selected`.
    ///
    /// Where the selector compares rows of the pool with each other, its order is
    /// that of the one that does not: `knn` for `knn-kde`, `top` for `mmr`.
    pub fn of(
        from: SelectFrom<'a>,
        settings: &SelectionSettings,
        selected: &[Selected],
    ) -> Option<Self> {
        let mut positions: Vec<usize> =
            ranking(from.scores).iter().map(|place| place.position).collect();
        let share = selected.len() as f64 / positions.len().max(1) as f64;
        positions.sort_unstable();
        positions.truncate(N_SAMPLE);
        #[expect(clippy::cast_sign_loss, reason = "a product of two numbers above zero")]
        let n_selected = ((share * positions.len() as f64).round() as usize).max(1);
        let is_choice = !selected.is_empty() && n_selected < positions.len();
        // A number of rows is as large a part of the sample as it is of the pool.
        let neighbors = match settings.neighbors {
            Budget::Examples(n) => {
                let part = positions.len() as f64 / from.scores.rows.len() as f64;
                #[expect(clippy::cast_sign_loss, reason = "a product of two numbers above zero")]
                let scaled = (n.get() as f64 * part).round() as u64;
                Budget::Examples(NonZeroU64::new(scaled).unwrap_or(NonZeroU64::MIN))
            }
            others => others,
        };
        let settings = SelectionSettings {
            neighbors,
            selector: match settings.selector {
                Selector::KnnKde => Selector::Knn,
                Selector::Mmr => Selector::Top,
                others => others,
            },
            limits: SourceLimits::default(),
            target_budgets: BTreeMap::new(),
            ..settings.clone()
        };
        is_choice.then_some(Self { from, settings, positions, n_selected })
    }

    /// The rows that are selected by everything.
    fn by_all(&self) -> Chosen {
        let row = |position: &usize| self.from.scores.rows[*position].by_subtask.clone();
        let examples = self.from.examples.map(|all| OfSample { all, positions: &self.positions });
        let scores = self.positions.iter().map(row).collect();
        self.by(scores, examples.as_ref().map(|examples| examples as &dyn TargetCosines))
    }

    /// The rows that are selected by other scores, one a row of the sample and a
    /// subtask, and likenesses to target examples.
    fn by(&self, scores: Vec<Vec<f32>>, examples: Option<&dyn TargetCosines>) -> Chosen {
        let row = |(position, by_subtask): (&usize, Vec<f32>)| ScoreRow {
            by_subtask,
            ..self.from.scores.rows[*position].clone()
        };
        let rows = self.positions.iter().zip(scores).map(row).collect();
        let scores = &ScoreTable { subtasks: self.from.scores.subtasks.clone(), rows };
        let from = SelectFrom { scores, examples, ..self.from };
        let n_selected = NonZeroU64::new(self.n_selected as u64).expect("there is a choice");
        let budget = Budget::Examples(n_selected);
        let taken = select(from, &self.settings, budget, &mut Open).expect("names nothing");
        taken.rows.iter().map(|row| row.position).collect()
    }
}

/// The likeness of the sample's rows alone.
struct OfSample<'a> {
    all: &'a dyn TargetCosines,
    positions: &'a [usize],
}

impl TargetCosines for OfSample<'_> {
    fn targets(&self) -> &TargetExamples {
        self.all.targets()
    }

    fn n_rows(&self) -> usize {
        self.positions.len()
    }

    fn total(&self, rows: Range<usize>) -> Vec<f32> {
        self.positions[rows].iter().flat_map(|row| self.all.total(*row..*row + 1)).collect()
    }
}
