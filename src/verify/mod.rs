//! Whether a subset helps: fresh adapters trained on it and on its rivals, and what
//! they make of held-out examples.
//!
//! A [`Trial`] trains one adapter from the warm-up's random start on one
//! contender's rows and assesses every evaluation example once. All trials of a
//! verification train on the same number of tokens, unless passes are asked for:
//! otherwise a subset of long answers would win by training longer. Each contender
//! has a trial a seed, which draws the adapter's start, the order of the rows and
//! what dropout hides; a `random` contender's rows are drawn by it, too.
//!
//! [`comparison`] makes intervals of the outcomes. [`datamodel`] asks the same of the
//! scores of all rows: trials on random halves of the pool show what they foretold.

pub mod answer;
pub mod comparison;
pub mod datamodel;
mod outcome;
pub mod repeated;
mod text;
#[cfg(feature = "torch")]
pub mod train;

use std::ops::Range;
use std::path::PathBuf;

pub use outcome::{EvalRow, Outcome};
use serde::{Deserialize, Serialize};
pub use text::text;

use crate::pool::{Example, ExampleId};
use crate::seed::Seed;

/// What a trial trains on: rows of a table that `ingest` wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrainingRows {
    /// The table.
    pub table: PathBuf,
    /// Its rows to train on, ascending; `None` is all of them.
    pub ids: Option<Vec<ExampleId>>,
}

/// One training and its evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trial {
    /// Who is tried.
    pub contender: String,
    /// What to train on; `None` is the model as it comes.
    pub rows: Option<TrainingRows>,
    /// The root of the trial's random numbers.
    pub seed: Seed,
    /// Tokens to train on, padding not counted: rows are taken again until there are
    /// so many.
    pub n_tokens: u64,
    /// Where the outcome is written.
    pub outcome: PathBuf,
}

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// In this order; those with an outcome are done.
    pub trials: Vec<Trial>,
    /// The table of the evaluation's examples.
    pub eval: PathBuf,
    /// Positions in it to assess, ascending.
    pub eval_rows: Vec<usize>,
    /// Most tokens of an answer that the model gives itself; `None` asks for none.
    pub answer_tokens: Option<usize>,
    /// Peak learning rate of the trainings.
    pub learning_rate: f64,
    /// Where trainings keep what they have while they are under way.
    pub scratch: PathBuf,
}

/// Where the last tokens that carry loss stand: the last answer, through the token that
/// ends it.
pub fn last_answer(example: &Example) -> Range<usize> {
    let end = example.supervised.iter().rposition(|set| *set).map_or(0, |last| last + 1);
    let start = example.supervised[..end].iter().rposition(|set| !*set).map_or(0, |at| at + 1);
    start..end
}
