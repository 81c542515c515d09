//! In which order rows are taken, given the scores: one after the other, so that
//! a limit may refuse one and the next moves up.
//!
//! No order depends on threads, shards or the order of rows: ties are broken by
//! id. None depends on the budget, so a smaller subset is the beginning of a
//! larger one.

mod kde;
mod knn;
mod mmr;
mod neighbors;
mod round_robin;
mod top;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::influence::example_scores::{ExampleScores, TargetExamples};
use crate::method::Method;
use crate::selection::view::Ranked;

pub use kde::densities;
pub use knn::Knn;
pub use mmr::Mmr;
pub use neighbors::{Neighbors, by_nearness};
pub use round_robin::RoundRobin;
pub use top::Top;

/// The order in which rows are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// The highest scores ([`Top`]).
    #[default]
    Top,
    /// Every target example in turn its best row ([`RoundRobin`]).
    RoundRobin,
    /// Nearest neighbors of the target examples, all alike ([`Knn`]).
    Knn,
    /// Nearest neighbors, near-duplicates among them weighing less.
    KnnKde,
    /// Score less likeness to what is taken already ([`Mmr`]).
    Mmr,
}

impl Selector {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Top, Self::RoundRobin, Self::Knn, Self::KnnKde, Self::Mmr];

    /// The settings' words for them.
    pub const CHOICES: &str = "auto, top, round-robin, knn, knn-kde or mmr";

    /// The one that `auto` is for a method.
    pub fn by_default(method: Method) -> Self {
        // docs/quality.md says why.
        if method.has_target() { Self::RoundRobin } else { Self::Top }
    }

    /// The name in settings and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::RoundRobin => "round-robin",
            Self::Knn => "knn",
            Self::KnnKde => "knn-kde",
            Self::Mmr => "mmr",
        }
    }

    /// Whether it looks at single target examples ([`TargetCosines`]).
    pub fn needs_examples(self) -> bool {
        matches!(self, Self::RoundRobin | Self::Knn | Self::KnnKde)
    }

    /// Whether it compares pool rows with each other ([`RowCosines`]).
    pub fn needs_rows(self) -> bool {
        matches!(self, Self::KnnKde | Self::Mmr)
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Selector {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|selector| selector.name() == text).ok_or(())
    }
}

/// A row that is to be taken, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Position in [`ScoreTable::rows`](crate::influence::scores::ScoreTable::rows).
    pub position: usize,
    /// Position in [`ScoreTable::subtasks`](crate::influence::scores::ScoreTable::subtasks).
    pub subtask: usize,
    /// Position among the [target examples](TargetExamples::examples) of the one whose
    /// turn it is, or in whose list the row stands highest; `None` where rows are taken
    /// by score.
    pub example: Option<usize>,
}

impl Pick {
    /// A row that is taken by its score.
    pub fn by_score(Ranked { position, subtask, .. }: Ranked) -> Self {
        Self { position, subtask, example: None }
    }
}

/// Rows in the order in which they are to be taken.
pub trait Picks {
    /// The next row that `admit` lets in. One that it refuses is gone for good,
    /// and so is one that was taken.
    fn next(&mut self, admit: &mut dyn FnMut(Pick) -> bool) -> Option<Pick>;
}

/// The likeness of pool rows to single target examples.
pub trait TargetCosines: Sync {
    /// The columns.
    fn targets(&self) -> &TargetExamples;

    /// Number of pool rows, in the order of the score table.
    fn n_rows(&self) -> usize;

    /// Some rows, `[n × n_targets]`; NaN where flagged.
    fn total(&self, rows: Range<usize>) -> Vec<f32>;
}

impl TargetCosines for ExampleScores {
    fn targets(&self) -> &TargetExamples {
        &self.targets
    }

    fn n_rows(&self) -> usize {
        self.n_rows()
    }

    fn total(&self, rows: Range<usize>) -> Vec<f32> {
        self.total(rows)
    }
}

/// The likeness of pool rows to each other.
pub trait RowCosines: Sync {
    /// Cosines of `rows` with `queries`, both positions in the score table,
    /// `[rows × queries]`.
    fn cosines(&self, queries: &[usize], rows: &[usize]) -> Vec<f32>;
}
