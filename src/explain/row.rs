//! A row of the pool.

use serde::Serialize;

use super::{N_NEIGHBORS, RowNeighbor, Run, Standing, nearest, said};
use crate::influence::example_scores::ExampleScores;
use crate::influence::example_scores_file::CosinesFile;
use crate::influence::scores::ScoreRow;
use crate::pool::table::{Origin, TableRow};
use crate::pool::{ExampleId, Message, PoolError};
use crate::selection::{Selected, ranking};

/// What there is to say of a row of the pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowExplained {
    /// Identity by content.
    pub id: ExampleId,
    /// The pool source it came from.
    pub source: String,
    /// The file it was read from.
    pub file: String,
    /// Its line or row in that file, from 1.
    pub line: u64,
    /// The conversation, whole.
    pub messages: Vec<Message>,
    /// Tokens the model sees.
    pub n_tokens: u32,
    /// Tokens that carry loss.
    pub n_supervised: u32,
    /// Whether tokens were cut off at the end.
    pub truncated: bool,
    /// Mean token loss, nats; `None` where it is not known.
    pub loss: Option<f32>,
    /// Norm of the projected direction; `None` where there is none.
    pub norm: Option<f32>,
    /// Whether it was selected, and why.
    pub place: Place,
    /// Where it stands among the rows nearest to a target example; `None` where that
    /// does not matter.
    pub standing: Option<Standing>,
    /// Its score, if it has one.
    pub score: Option<f32>,
    /// Rows that have a rank.
    pub n_ranked: usize,
    /// Rows selected.
    pub n_selected: usize,
    /// The lowest score of those.
    pub cut: Option<f32>,
    /// Its influence on every subtask, the highest first.
    pub subtasks: Vec<SubtaskScore>,
    /// The checkpoints of [`SubtaskScore::by_checkpoint`].
    pub checkpoints: Vec<CheckpointWeight>,
    /// The target examples that it is most like.
    pub nearest_targets: Vec<TargetNeighbor>,
    /// The selected rows that it is most like, without itself.
    pub nearest_selected: Vec<RowNeighbor>,
}

/// What became of a row. Ranks count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Place {
    /// It is in the subset.
    Selected {
        /// In the selection.
        rank: usize,
        /// By score.
        rank_by_score: Option<usize>,
    },
    /// It stood behind all that were taken.
    BelowCut {
        /// By score.
        rank: usize,
    },
    /// It stood before rows that were taken: by score, or in the list of a target
    /// example that takes its rows in turn.
    NotTaken {
        /// By score.
        rank: usize,
        /// Whether its source had reached its cap. If not, likeness to rows that were
        /// taken decided (`mmr`), or what other sources were to have at least.
        is_source_capped: bool,
    },
    /// It could not be ranked, or not be taken.
    LeftOut {
        /// Why.
        reason: String,
        /// The row that is kept of near-duplicates.
        #[serde(skip_serializing_if = "Option::is_none")]
        near_duplicate_of: Option<ExampleId>,
    },
}

/// A row's influence on one subtask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SubtaskScore {
    /// The subtask, `TARGET/SUBTASK`.
    pub subtask: String,
    /// The score.
    pub score: f32,
    /// The mean cosine with the subtask's examples at each checkpoint; empty where
    /// cosines are not known.
    pub by_checkpoint: Vec<f64>,
}

/// A checkpoint's part in the score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckpointWeight {
    /// Its name.
    pub name: String,
    /// Its share; the shares of all sum to one.
    pub weight: f64,
}

/// A target example beside a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetNeighbor {
    /// Identity by content.
    pub id: ExampleId,
    /// The first of its subtasks.
    pub subtask: String,
    /// The cosine with the row, weighted over the checkpoints.
    pub cosine: f32,
    /// Its first user turn.
    pub prompt: String,
    /// Its first assistant turn.
    pub answer: String,
}

impl RowExplained {
    /// Of the row at `position` of the pool.
    ///
    /// # Errors
    ///
    /// If a table cannot be read.
    ///
    /// # Panics
    ///
    /// If there is no such row, or the tables are not of one run.
    pub fn new(run: &Run<'_>, position: usize) -> Result<Self, PoolError> {
        let TableRow { id, source, n_tokens, n_supervised, truncated, .. } =
            run.pool.rows()[position].clone();
        let [Origin { file, line }] = one(run.pool.origins(&[position])?);
        let [record] = one(run.pool.records(&[position])?);
        let row = &run.scores.rows[position];
        let ranking = ranking(run.scores);
        let last = last_selected(run, &ranking);
        let standing = Standing::of(run, position);
        let known = |value: f32| Some(value).filter(|value| value.is_finite());
        Ok(Self {
            id,
            source,
            file,
            line,
            messages: record.messages,
            n_tokens,
            n_supervised,
            truncated,
            loss: known(row.loss),
            norm: known(row.norm).filter(|norm| *norm > 0.0),
            place: Place::of(run, position, &ranking, last, standing.as_ref()),
            standing,
            score: row.best().and_then(|(_, score)| known(score)),
            n_ranked: ranking.len(),
            n_selected: run.selected.len(),
            cut: last.map(|last| last.score),
            subtasks: subtasks(run, row, position),
            checkpoints: run.examples.map_or_else(Vec::new, weights),
            nearest_targets: nearest_targets(run, position)?,
            nearest_selected: nearest_selected(run, position)?,
        })
    }
}

impl Place {
    fn of(
        run: &Run<'_>,
        position: usize,
        ranking: &[Selected],
        last: Option<&Selected>,
        standing: Option<&Standing>,
    ) -> Self {
        let rank = ranking.iter().find(|place| place.position == position).map(|place| place.rank);
        if let Some(place) = run.place(position) {
            return Self::Selected { rank: place.rank, rank_by_score: rank };
        }
        let row = &run.scores.rows[position];
        let left_out = |reason: &str| Self::LeftOut {
            reason: reason.to_owned(),
            near_duplicate_of: run.selection.near_duplicate_of.get(&row.id).copied(),
        };
        match (&row.flag, rank) {
            (Some(reason), _) => left_out(reason),
            (None, None) => left_out("it has no score"),
            (None, Some(rank)) => {
                let is_before = match standing {
                    Some(Standing { place, taken_to, .. }) => {
                        taken_to.is_some_and(|last| *place < last)
                    }
                    None => last.is_some_and(|last| rank < last.rank),
                };
                let is_source_capped = run.selection.capped.contains(&row.source);
                if is_before || (standing.is_some() && is_source_capped) {
                    Self::NotTaken { rank, is_source_capped }
                } else {
                    Self::BelowCut { rank }
                }
            }
        }
    }
}

/// The last of the ranking that is selected.
fn last_selected<'a>(run: &Run<'_>, ranking: &'a [Selected]) -> Option<&'a Selected> {
    let mut is_selected = vec![false; run.scores.rows.len()];
    for place in run.selected {
        is_selected[place.position] = true;
    }
    ranking.iter().rev().find(|place| is_selected[place.position])
}

fn weights(examples: &ExampleScores) -> Vec<CheckpointWeight> {
    let weight = |file: &CosinesFile| {
        let header = file.header();
        CheckpointWeight { name: header.checkpoint.clone(), weight: header.weight }
    };
    examples.checkpoints.iter().map(weight).collect()
}

fn subtasks(run: &Run<'_>, row: &ScoreRow, position: usize) -> Vec<SubtaskScore> {
    let means = run.examples.map(|examples| means(examples, position));
    let subtask = |(at, (name, score)): (usize, (&String, &f32))| SubtaskScore {
        subtask: name.clone(),
        score: *score,
        by_checkpoint: means.iter().flatten().filter_map(|means| means[at]).collect(),
    };
    let scores = run.scores.subtasks.iter().zip(&row.by_subtask).enumerate();
    let mut subtasks: Vec<SubtaskScore> = scores.map(subtask).collect();
    // Stable: equal ones stay in order of name.
    subtasks.sort_by(|a, b| b.score.total_cmp(&a.score));
    subtasks
}

/// By checkpoint and subtask, the mean cosine of a row with the subtask's examples;
/// `None` of a subtask without any.
fn means(examples: &ExampleScores, position: usize) -> Vec<Vec<Option<f64>>> {
    let of_checkpoint = |file: &CosinesFile| {
        let mut sums = vec![(0.0, 0_u32); examples.targets.subtasks.len()];
        let cosines = file.slices(position..position + 1).flatten();
        for (example, cosine) in examples.targets.examples.iter().zip(cosines) {
            let (sum, n) = &mut sums[example.subtask as usize];
            *sum += f64::from(*cosine);
            *n += 1;
        }
        sums.into_iter().map(|(sum, n)| (n > 0).then(|| sum / f64::from(n))).collect()
    };
    examples.checkpoints.iter().map(of_checkpoint).collect()
}

fn nearest_targets(run: &Run<'_>, position: usize) -> Result<Vec<TargetNeighbor>, PoolError> {
    let Some(examples) = run.examples else { return Ok(Vec::new()) };
    let targets = &examples.targets;
    let cosines = examples.total(position..position + 1);
    // Of an example in several subtasks, the first.
    let mut columns: Vec<usize> = (0..cosines.len()).collect();
    columns.dedup_by_key(|column| targets.examples[*column].id);
    let found = nearest(columns.into_iter().map(|at| (at, cosines[at])), N_NEIGHBORS);
    let table_row = |column: usize| {
        let id = targets.examples[column].id;
        run.target.rows().partition_point(|row| row.id < id)
    };
    let positions: Vec<usize> = found.iter().map(|(column, _)| table_row(*column)).collect();
    let said = said(run.target, &positions)?;
    let neighbor = |(&(column, cosine), (prompt, answer)): (&(usize, f32), (String, String))| {
        let example = &targets.examples[column];
        TargetNeighbor {
            id: example.id,
            subtask: targets.subtasks[example.subtask as usize].clone(),
            cosine,
            prompt,
            answer,
        }
    };
    Ok(found.iter().zip(said).map(neighbor).collect())
}

fn nearest_selected(run: &Run<'_>, position: usize) -> Result<Vec<RowNeighbor>, PoolError> {
    let Some(rows) = run.rows else { return Ok(Vec::new()) };
    let others = run.selected.iter().map(|place| place.position);
    let others: Vec<usize> = others.filter(|other| *other != position).collect();
    let cosines = rows.cosines(&[position], &others);
    run.neighbors(&nearest(others.into_iter().zip(cosines), N_NEIGHBORS))
}

/// What was asked for by one position.
pub(super) fn one<T>(read: Vec<T>) -> [T; 1] {
    read.try_into().unwrap_or_else(|read: Vec<T>| panic!("{} rows for one", read.len()))
}
