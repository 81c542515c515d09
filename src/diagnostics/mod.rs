//! How far a selection is what the target asks for, and how far chance.
//!
//! Each diagnostic ranks the pool again from a part of what the ranking was made
//! from, and tells which share of the best rows stay the best: with half of the
//! [target's examples](target), with half of every [stored row](sketch), without
//! a [checkpoint](target). Nothing is measured anew: all of it comes from the
//! stored rows and the cosines with single target examples.
//!
//! Rows are compared by score, the best of their subtasks, whatever the selector
//! and its limits made of that. Of a large pool [`N_SAMPLE`] rows stand for all, so
//! that time and memory have a bound however large it is: a score reads every
//! stored row, this at most so many of them, with two queries a subtask; in memory
//! are 50 numbers a row of the sample.
//!
//! # When a selection is mostly noise
//!
//! Two halves of a target that has nothing to do with the pool agree as two draws
//! do: on a share [`chance`](Diagnostics::chance). [`beyond_chance`] is what they
//! agree on above that, of what they could. Where a skill is planted in a pool and
//! the target so noisy that one half of the selected rows are the skill's and the
//! other are not, halves are at 0.06 to 0.09 of a budget between 1 and 20 %: by a
//! half, which is noisier by √2, two of five selected rows are the skill's, and
//! two halves share only few of those. [`NOISE`] is a little above that; where nine of
//! ten selected rows are the skill's, it is 0.5. A test plants both.

mod overlap;
pub mod sketch;
pub mod target;

use serde::Serialize;

use crate::influence::scores::ScoreTable;
use crate::selection::{Selected, ranking};
use overlap::{Best, overlap};

/// Most rows that are compared. A share of the best 5 % of them is known to 1.5
/// points.
pub const N_SAMPLE: usize = 20_000;

/// Halves that agree on less than this [beyond chance](beyond_chance) make a
/// selection of which half or more is noise.
pub const NOISE: f64 = 0.1;

/// With fewer rows than this, halves that agree on none say nothing.
const FEW: u64 = 10;

/// What was found. A part that a method or a target has no material for is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnostics {
    /// Ranked rows that were compared.
    pub n_rows: u64,
    /// The best of them, of which overlaps are shares: as large a part of
    /// [`n_rows`](Self::n_rows) as the selection is of the ranked rows.
    pub n_best: u64,
    /// The overlap of two draws: `n_best / n_rows`.
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
    pub fn of(sample: &Sample) -> Self {
        let (n_rows, n_best) = (sample.positions.len() as u64, sample.n_best as u64);
        Self {
            n_rows,
            n_best,
            chance: n_best as f64 / n_rows as f64,
            target: None,
            sketch: None,
            checkpoints: Vec::new(),
        }
    }

    /// Whether the halves of the target agree on so little that half of the
    /// selection or more is noise; `None` where that cannot be told.
    pub fn is_noise_of_target(&self) -> Option<bool> {
        self.is_noise(self.target.as_ref()?.mean)
    }

    /// The same of the halves of the stored rows.
    pub fn is_noise_of_sketch(&self) -> Option<bool> {
        self.is_noise(self.sketch.as_ref()?.between)
    }

    fn is_noise(&self, overlap: f64) -> Option<bool> {
        (self.n_best >= FEW).then(|| beyond_chance(overlap, self.chance) < NOISE)
    }
}

/// What an overlap has above that of two draws, as a share of what it could have:
/// 0 for draws, 1 for equal selections.
pub fn beyond_chance(overlap: f64, chance: f64) -> f64 {
    (overlap - chance) / (1.0 - chance)
}

/// The rows that are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Positions in the score table, ascending.
    positions: Vec<usize>,
    n_best: usize,
}

impl Sample {
    /// The ranked rows of `scores`, whose rows are in order of id; of more than
    /// [`N_SAMPLE`], those with the smallest ids, which are hashes. `None` where
    /// nothing or everything is selected.
    pub fn of(scores: &ScoreTable, selected: &[Selected]) -> Option<Self> {
        let mut positions: Vec<usize> =
            ranking(scores).iter().map(|place| place.position).collect();
        let share = selected.len() as f64 / positions.len().max(1) as f64;
        positions.sort_unstable();
        positions.truncate(N_SAMPLE);
        #[expect(clippy::cast_sign_loss, reason = "a product of two numbers above zero")]
        let n_best = ((share * positions.len() as f64).round() as usize).max(1);
        let is_choice = !selected.is_empty() && n_best < positions.len();
        is_choice.then_some(Self { positions, n_best })
    }

    /// The best of the sample by `scores`, one a row of it.
    fn best(&self, scores: &[f32]) -> Best {
        Best::of(scores, self.n_best)
    }
}
