//! What is selected by parts of the cosines with single target examples: by half of
//! the examples, and without a checkpoint.
//!
//! A row's score is here the mean of its cosines with a subtask's examples, the
//! best of the subtasks, whatever `aggregation` is.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::{Chosen, Sample, overlap};
use crate::influence::example_scores::{ExampleScores, TargetExamples};
use crate::influence::example_scores_file::CosinesFile;
use crate::seed::Seed;
use crate::selection::selector::TargetCosines;

/// Draws of two halves. The next draw is between the lowest and the highest of 20
/// with a probability of 19/21, or 90 %.
const N_DRAWS: usize = 20;

/// What selections by the two halves of a target have in common.
///
/// Every subtask of two examples and more is cut in two at random, the same
/// subtasks in both halves. A half has half of the examples, so the whole target
/// is steadier than this says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TargetHalves {
    /// Target examples in both halves together.
    pub n_examples: u64,
    /// Subtasks of a single example, which have no halves and are not looked at.
    pub n_single_subtasks: u64,
    /// How often the target was cut.
    pub n_draws: u64,
    /// The share of the rows that both halves select: the mean over the draws.
    pub mean: f64,
    /// The lowest of the draws.
    pub low: f64,
    /// The highest: nine of ten further draws would be between the two.
    pub high: f64,
}

/// What the selection without one checkpoint has in common with that of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WithoutCheckpoint {
    /// The checkpoint that is left out.
    pub checkpoint: String,
    /// The share of the rows that are selected again.
    pub overlap: f64,
}

/// The cosines of the sample's rows with some of the target's examples, at
/// checkpoints of these weights.
struct Part<'a> {
    examples: &'a ExampleScores,
    positions: &'a [usize],
    weights: Vec<f64>,
    /// Of the cosines.
    columns: Vec<usize>,
    targets: TargetExamples,
}

impl<'a> Part<'a> {
    fn new(
        examples: &'a ExampleScores,
        sample: &'a Sample<'_>,
        weights: Vec<f64>,
        mut columns: Vec<usize>,
    ) -> Self {
        columns.sort_unstable();
        let all = &examples.targets;
        let targets = TargetExamples {
            subtasks: all.subtasks.clone(),
            examples: columns.iter().map(|column| all.examples[*column].clone()).collect(),
        };
        Self { examples, positions: &sample.positions, weights, columns, targets }
    }

    /// The cosines of a row of the pool.
    fn cosines(&self, position: usize) -> impl Iterator<Item = f32> {
        let files = self.examples.checkpoints.iter();
        let rows: Vec<&[f32]> = files.map(|file| row_of(file, position)).collect();
        self.columns.iter().map(move |column| {
            let parts = self.weights.iter().zip(&rows);
            parts.map(|(weight, row)| weight * f64::from(row[*column])).sum::<f64>() as f32
        })
    }

    /// The mean of a row's cosines with each subtask's examples; below everything
    /// for a subtask that has none here.
    fn means(&self, position: usize) -> Vec<f32> {
        let mut sums = vec![(0.0, 0_u32); self.targets.subtasks.len()];
        for (example, cosine) in self.targets.examples.iter().zip(self.cosines(position)) {
            let (sum, n) = &mut sums[example.subtask as usize];
            *sum += f64::from(cosine);
            *n += 1;
        }
        let mean = |(sum, n): (f64, u32)| {
            if n == 0 { f32::NEG_INFINITY } else { (sum / f64::from(n)) as f32 }
        };
        sums.into_iter().map(mean).collect()
    }

    /// The rows of the sample that are selected by this part.
    fn select(&self, sample: &Sample<'_>) -> Chosen {
        let scores = self.positions.iter().map(|position| self.means(*position)).collect();
        sample.by(scores, Some(self))
    }
}

impl TargetCosines for Part<'_> {
    fn targets(&self) -> &TargetExamples {
        &self.targets
    }

    fn n_rows(&self) -> usize {
        self.positions.len()
    }

    fn total(&self, rows: Range<usize>) -> Vec<f32> {
        self.positions[rows].iter().flat_map(|position| self.cosines(*position)).collect()
    }
}

fn row_of(file: &CosinesFile, position: usize) -> &[f32] {
    file.slices(position..position + 1).next().expect("a row lies in one piece")
}

/// The target examples of every subtask that has any, as columns of the cosines.
fn subtasks(examples: &ExampleScores) -> Vec<Vec<usize>> {
    let mut subtasks = vec![Vec::new(); examples.targets.subtasks.len()];
    for (column, example) in examples.targets.examples.iter().enumerate() {
        subtasks[example.subtask as usize].push(column);
    }
    subtasks.retain(|columns| !columns.is_empty());
    subtasks
}

fn weights(examples: &ExampleScores) -> Vec<f64> {
    examples.checkpoints.iter().map(|file| file.header().weight).collect()
}

/// What is selected again without each checkpoint in turn. Nothing of a checkpoint
/// that has all the weight.
pub fn without_checkpoints(
    examples: &ExampleScores,
    sample: &Sample<'_>,
) -> Vec<WithoutCheckpoint> {
    let all = weights(examples);
    let without = |left_out: usize| {
        let mut weights = all.clone();
        weights[left_out] = 0.0;
        weights
    };
    let left_out: Vec<usize> =
        (0..all.len()).filter(|at| without(*at).iter().any(|weight| *weight > 0.0)).collect();
    if left_out.is_empty() {
        return Vec::new();
    }
    let columns = || (0..examples.n_targets()).collect();
    let by = |weights| Part::new(examples, sample, weights, columns()).select(sample);
    let by_all = by(all.clone());
    let without = left_out.into_par_iter().map(|at| WithoutCheckpoint {
        checkpoint: examples.checkpoints[at].header().checkpoint.clone(),
        overlap: overlap(&by_all, &by(without(at))),
    });
    without.collect()
}

/// What selections by random halves of the target have in common; `None` if no
/// subtask has two examples.
pub fn target_halves(
    examples: &ExampleScores,
    sample: &Sample<'_>,
    seed: Seed,
) -> Option<TargetHalves> {
    let subtasks = subtasks(examples);
    let (cut, single): (Vec<_>, Vec<_>) = subtasks.into_iter().partition(|of| of.len() > 1);
    if cut.is_empty() {
        return None;
    }
    let mut rng = seed.stream(&["diagnostics", "target halves"]);
    let draws: Vec<[Vec<usize>; 2]> = (0..N_DRAWS).map(|_| halves(&cut, &mut rng)).collect();
    let overlaps: Vec<f64> = draws
        .into_par_iter()
        .map(|halves| {
            let [one, other] = halves
                .map(|columns| Part::new(examples, sample, weights(examples), columns))
                .map(|part| part.select(sample));
            overlap(&one, &other)
        })
        .collect();
    Some(TargetHalves {
        n_examples: cut.iter().map(Vec::len).sum::<usize>() as u64,
        n_single_subtasks: single.len() as u64,
        n_draws: N_DRAWS as u64,
        mean: overlaps.iter().sum::<f64>() / N_DRAWS as f64,
        low: overlaps.iter().copied().fold(f64::INFINITY, f64::min),
        high: overlaps.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    })
}

/// Every subtask cut in two; of an odd number one half has one more.
fn halves(subtasks: &[Vec<usize>], rng: &mut ChaCha8Rng) -> [Vec<usize>; 2] {
    let mut halves = [Vec::new(), Vec::new()];
    for columns in subtasks {
        let mut columns = columns.clone();
        for at in (1..columns.len()).rev() {
            // Of so few, the remainder's bias is below one in a million.
            columns.swap(at, rng.next_u32() as usize % (at + 1));
        }
        halves[1].extend(columns.split_off(columns.len() / 2));
        halves[0].extend(columns);
    }
    halves
}
