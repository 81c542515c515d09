//! The ranking by parts of the cosines with single target examples: by half of the
//! examples, and without a checkpoint.
//!
//! A row's score is here the mean of its cosines with a subtask's examples, the
//! best of the subtasks, whatever `aggregation` is.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::{Sample, overlap};
use crate::influence::example_scores::ExampleScores;
use crate::influence::example_scores_file::CosinesFile;
use crate::seed::Seed;

/// Draws of two halves. The next draw is between the lowest and the highest of 20
/// with a probability of 19/21, or 90 %.
const N_DRAWS: usize = 20;

/// What rankings by the two halves of a target have in common.
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
    /// The share of the best rows that both halves have: the mean over the draws.
    pub mean: f64,
    /// The lowest of the draws.
    pub low: f64,
    /// The highest: nine of ten further draws would be between the two.
    pub high: f64,
}

/// What the ranking without one checkpoint has in common with that of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WithoutCheckpoint {
    /// The checkpoint that is left out.
    pub checkpoint: String,
    /// The share of the best rows that stay the best.
    pub overlap: f64,
}

/// A ranking from a part of the cosines.
struct Part {
    /// Of the checkpoints.
    weights: Vec<f64>,
    /// The target examples of every subtask.
    subtasks: Vec<Vec<usize>>,
}

impl Part {
    /// The score of a row whose cosines at the checkpoints are `cosines`.
    fn score(&self, cosines: &[&[f32]]) -> f32 {
        let of_example = |at: &usize| -> f64 {
            let parts = self.weights.iter().zip(cosines);
            parts.map(|(weight, cosines)| weight * f64::from(cosines[*at])).sum()
        };
        let mean =
            |of: &Vec<usize>| (of.iter().map(of_example).sum::<f64>() / of.len() as f64) as f32;
        self.subtasks.iter().map(mean).fold(f32::NEG_INFINITY, f32::max)
    }
}

/// The scores of the sample's rows by each part.
fn scores_by(parts: &[Part], examples: &ExampleScores, sample: &Sample) -> Vec<Vec<f32>> {
    let of_row = |position: &usize| -> Vec<f32> {
        let files = examples.checkpoints.iter();
        let cosines: Vec<&[f32]> = files.map(|file| row_of(file, *position)).collect();
        parts.iter().map(|part| part.score(&cosines)).collect()
    };
    let by_row: Vec<Vec<f32>> = sample.positions.par_iter().map(of_row).collect();
    (0..parts.len()).map(|part| by_row.iter().map(|row| row[part]).collect()).collect()
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

/// What the ranking of the sample keeps of its best rows without each checkpoint in
/// turn. Nothing of a checkpoint that has all the weight.
pub fn without_checkpoints(examples: &ExampleScores, sample: &Sample) -> Vec<WithoutCheckpoint> {
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
    let weights = std::iter::once(all.clone()).chain(left_out.iter().map(|at| without(*at)));
    let parts: Vec<Part> =
        weights.map(|weights| Part { weights, subtasks: subtasks(examples) }).collect();
    let best: Vec<_> =
        scores_by(&parts, examples, sample).iter().map(|scores| sample.best(scores)).collect();
    let overlaps = best[1..].iter().map(|others| overlap(&best[0], others));
    let named = left_out.into_iter().zip(overlaps).map(|(at, overlap)| WithoutCheckpoint {
        checkpoint: examples.checkpoints[at].header().checkpoint.clone(),
        overlap,
    });
    named.collect()
}

/// What the rankings of the sample by random halves of the target have in common;
/// `None` if no subtask has two examples.
pub fn target_halves(
    examples: &ExampleScores,
    sample: &Sample,
    seed: Seed,
) -> Option<TargetHalves> {
    let subtasks = subtasks(examples);
    let (cut, single): (Vec<_>, Vec<_>) = subtasks.into_iter().partition(|of| of.len() > 1);
    if cut.is_empty() {
        return None;
    }
    let mut rng = seed.stream(&["diagnostics", "target halves"]);
    let parts: Vec<Part> = (0..N_DRAWS)
        .flat_map(|_| halves(&cut, &mut rng))
        .map(|subtasks| Part { weights: weights(examples), subtasks })
        .collect();
    let scores = scores_by(&parts, examples, sample);
    let best: Vec<_> = scores.iter().map(|scores| sample.best(scores)).collect();
    let overlaps: Vec<f64> =
        best.chunks_exact(2).map(|halves| overlap(&halves[0], &halves[1])).collect();
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
fn halves(subtasks: &[Vec<usize>], rng: &mut ChaCha8Rng) -> [Vec<Vec<usize>>; 2] {
    let mut halves = [Vec::new(), Vec::new()];
    for columns in subtasks {
        let mut columns = columns.clone();
        for at in (1..columns.len()).rev() {
            // Of so few, the remainder's bias is below one in a million.
            columns.swap(at, rng.next_u32() as usize % (at + 1));
        }
        let second = columns.split_off(columns.len() / 2);
        halves[0].push(columns);
        halves[1].push(second);
    }
    halves
}
