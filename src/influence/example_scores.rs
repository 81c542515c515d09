//! The cosines of every pool example with every single target example.
//!
//! A subtask's score is a mean over its target examples; some selectors, and
//! whoever wants to know what a row is like, ask for the examples one by one.
//! [`example_scores_file`](super::example_scores_file) keeps them on disk: n pool
//! rows times m target examples are four bytes each a checkpoint, which may be
//! more than memory holds, so they are written in blocks and read from a memory
//! map.
//!
//! Nothing here knows of gradients: whatever gives a pool row and a target
//! example a similarity is a checkpoint of weight one.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::example_scores_file::CosinesFile;
use super::index::{TargetIndex, subtask_name};
use crate::pool::ExampleId;
use crate::pool::table::TableRow;

/// The target examples that pool rows are compared with: columns of the
/// matrices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetExamples {
    /// Names of the subtasks, sorted: those of the score table.
    pub subtasks: Vec<String>,
    /// The examples, in order of id, then of subtask.
    pub examples: Vec<TargetExample>,
}

/// One target example of one subtask. The same example in two subtasks is two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetExample {
    /// Identity by content.
    pub id: ExampleId,
    /// Position in [`TargetExamples::subtasks`].
    pub subtask: u32,
}

impl TargetExamples {
    /// All rows of the target's table.
    ///
    /// # Panics
    ///
    /// Never: the names it looks up are the table's.
    pub fn of_table(table: &[TableRow]) -> Self {
        let subtasks: BTreeSet<String> = table.iter().map(subtask_name).collect();
        let subtasks: Vec<String> = subtasks.into_iter().collect();
        let example = |row: &TableRow| {
            let name = subtask_name(row);
            let subtask = subtasks.binary_search(&name).expect("a name of this table");
            TargetExample { id: row.id, subtask: subtask as u32 }
        };
        let mut examples: Vec<_> = table.iter().map(example).collect();
        examples.sort_unstable();
        Self { subtasks, examples }
    }

    /// The examples that have a usable gradient at every checkpoint: one that is
    /// flagged at any of them has no sum over the checkpoints.
    pub(crate) fn usable_at_all(indices: &[&TargetIndex]) -> Self {
        let Some((first, others)) = indices.split_first() else {
            return Self { subtasks: Vec::new(), examples: Vec::new() };
        };
        let mut usable: Vec<_> = examples_of(first).collect();
        for index in others {
            let there: BTreeSet<_> = examples_of(index).collect();
            usable.retain(|example| there.contains(example));
        }
        usable.sort_unstable();
        let subtasks = first.subtasks.iter().map(|subtask| subtask.name.clone()).collect();
        Self { subtasks, examples: usable }
    }

    /// Where the examples stand among the rows of an index that has them all.
    ///
    /// # Panics
    ///
    /// If it lacks one.
    pub(crate) fn rows_in(&self, index: &TargetIndex) -> Vec<usize> {
        let mut rows: Vec<_> = examples_of(index).zip(0..).collect();
        rows.sort_unstable();
        let mut rows = rows.into_iter();
        let of = |example| rows.find(|(other, _)| other == example).expect("it was found in all").1;
        self.examples.iter().map(of).collect()
    }
}

fn examples_of(index: &TargetIndex) -> impl Iterator<Item = TargetExample> {
    let rows = index.rows.ids.iter().zip(&index.rows.subtasks);
    rows.map(|(id, subtask)| TargetExample { id: *id, subtask: *subtask })
}

/// What the cosines of one checkpoint are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosinesHeader {
    /// The checkpoint, such as `epoch-1`.
    pub checkpoint: String,
    /// Its share of the score; the shares of all checkpoints sum to one.
    pub weight: f64,
    /// The columns.
    pub targets: TargetExamples,
}

/// The cosines of all checkpoints, in memory maps. Rows stand in the order of
/// the score table, and are NaN where it has a flag.
#[derive(Debug)]
pub struct ExampleScores {
    /// What the columns are.
    pub targets: TargetExamples,
    /// The checkpoints, at least one, of the same rows and columns.
    pub checkpoints: Vec<CosinesFile>,
}

impl ExampleScores {
    /// Number of pool rows.
    pub fn n_rows(&self) -> usize {
        self.checkpoints[0].n_rows()
    }

    /// Number of target examples.
    pub fn n_targets(&self) -> usize {
        self.targets.examples.len()
    }

    /// The weighted sum over the checkpoints of all rows with one target example,
    /// summed as in [`total`](Self::total).
    ///
    /// # Panics
    ///
    /// If there is no such example.
    pub fn column(&self, target: usize) -> Vec<f32> {
        assert!(target < self.n_targets(), "a column of the file");
        let mut sums = vec![0.0_f64; self.n_rows()];
        for checkpoint in &self.checkpoints {
            let weight = checkpoint.header().weight;
            let rows = checkpoint.slices(0..self.n_rows());
            let cosines = rows.flat_map(|rows| rows.iter().skip(target).step_by(self.n_targets()));
            for (sum, cosine) in sums.iter_mut().zip(cosines) {
                *sum += weight * f64::from(*cosine);
            }
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    }

    /// The weighted sum over the checkpoints of some rows, `[n × n_targets]`:
    /// summed in f64 in order of the checkpoints. The mean of a row over a
    /// subtask's examples is its `mean-of-cosines` score, to the rounding of f32,
    /// if all of them are usable at every checkpoint.
    ///
    /// # Panics
    ///
    /// If `rows` passes the end.
    pub fn total(&self, rows: Range<usize>) -> Vec<f32> {
        let mut sums = vec![0.0; rows.len() * self.n_targets()];
        for checkpoint in &self.checkpoints {
            let mut sums = &mut sums[..];
            for cosines in checkpoint.slices(rows.clone()) {
                let (own, rest) = sums.split_at_mut(cosines.len());
                for (sum, cosine) in own.iter_mut().zip(cosines) {
                    *sum += checkpoint.header().weight * f64::from(*cosine);
                }
                sums = rest;
            }
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    }
}
