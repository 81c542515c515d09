//! Influence of every pool example on every subtask of the target.
//!
//! With the unit row x of a pool example and the centroid u of a subtask at
//! each of the checkpoints c = 1..C, whose epochs had mean learning rates η
//! (Xia et al., 2024, and its released `matching.py`),
//!
//! ```text
//! Inf(z, subtask) = Σ_c η̄_c · ⟨x_c, u_c⟩        η̄_c = η_c / Σ_c η_c
//! score(z)        = max over subtasks
//! ```
//!
//! [`index`] makes the centroids from the target's store, [`score`] streams the
//! pool's store past them, and [`scores`] is the table that comes out. In the same
//! pass come the cosines with every single target example, [`example_scores`].

pub mod example_scores;
pub mod example_scores_file;
pub mod index;
pub mod index_file;
pub mod precondition;
pub mod score;
pub mod scores;
pub mod scores_file;
mod sums;

use serde::{Deserialize, Serialize};

use crate::pool::ExampleId;
use crate::pool::table::TableRow;
use crate::store::gradient_store::{GradientStore, RowPlace};
use crate::store::shard::StoreHeader;
use crate::store::{Split, StoreError};

/// How a subtask's target examples are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// The mean of the cosines with each target example (the released code).
    MeanOfCosines,
    /// The cosine with the mean of the target gradients (the paper).
    CosineOfMean,
}

impl Aggregation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MeanOfCosines, Self::CosineOfMean];

    /// The name in settings and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::MeanOfCosines => "mean-of-cosines",
            Self::CosineOfMean => "cosine-of-mean",
        }
    }
}

impl std::fmt::Display for Aggregation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Aggregation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|aggregation| aggregation.name() == text).ok_or(())
    }
}

/// Why influence cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InfluenceError {
    /// A store or index could not be read, written or believed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table's example is not in its store.
    #[error("example {id} of the {split} has no gradient at `{checkpoint}`")]
    NoGradient {
        /// The first such example.
        id: ExampleId,
        /// `pool` or `target`.
        split: Split,
        /// The checkpoint.
        checkpoint: String,
    },
    /// There is no target example.
    #[error("the target has no example at `{checkpoint}`")]
    NoTarget {
        /// The checkpoint.
        checkpoint: String,
    },
    /// Every target example is flagged at some checkpoint.
    #[error("no target example is usable at every checkpoint")]
    NoTargetAtAll,
    /// A subtask has only flagged examples.
    #[error(
        "subtask `{subtask}` has no usable gradient at `{checkpoint}`: all of its {n_flagged} \
         examples are flagged"
    )]
    UnusableSubtask {
        /// The subtask.
        subtask: String,
        /// The checkpoint.
        checkpoint: String,
        /// How many examples it has, all flagged.
        n_flagged: u32,
    },
    /// Two checkpoints were indexed with different targets.
    #[error("the target's subtasks at `{checkpoint}` are not those at `{first}`")]
    OtherSubtasks {
        /// The checkpoint that differs.
        checkpoint: String,
        /// The first checkpoint.
        first: String,
    },
    /// Conjugate gradients did not come to an end.
    #[error("the pool's second moment at `{checkpoint}` could not be inverted")]
    NotPreconditioned {
        /// The checkpoint.
        checkpoint: String,
    },
    /// A matrix could not be factorized.
    #[cfg(feature = "linalg")]
    #[error("the gradients at `{checkpoint}` could not be decomposed")]
    NotDecomposed {
        /// The checkpoint.
        checkpoint: String,
        /// Why.
        source: ndarray_linalg::error::LinalgError,
    },
    /// Rows are too long for the square of their length to be in memory.
    #[error(
        "rows of {n_dims} coordinates are too long for `whiten`, which squares that: at most \
         {most}; `pool` does without"
    )]
    TooLong {
        /// Coordinates of a row.
        n_dims: usize,
        /// Most coordinates.
        most: usize,
    },
    /// No checkpoint, or learning rates that are no weights.
    #[error("learning rates {0:?} give the checkpoints no weights")]
    Weights(Vec<f64>),
    /// The system gave no threads.
    #[error("failed to start threads")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Where the rows of `table` are in `store`.
fn places(store: &GradientStore, table: &[TableRow]) -> Result<Vec<RowPlace>, InfluenceError> {
    store.places(table.iter().map(|row| row.id)).map_err(|id| {
        let StoreHeader { split, checkpoint, .. } = store.header().clone();
        InfluenceError::NoGradient { id, split, checkpoint }
    })
}
