//! An example of the target.

use serde::Serialize;

use super::row::one;
use super::{N_NEIGHBORS, RowNeighbor, Run, nearest};
use crate::influence::example_scores::ExampleScores;
use crate::influence::index::subtask_name;
use crate::pool::table::Origin;
use crate::pool::{ExampleId, Message, PoolError};

/// What there is to say of an example of the target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetExplained {
    /// Identity by content.
    pub id: ExampleId,
    /// The subtasks that it belongs to.
    pub subtasks: Vec<String>,
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
    /// What it is to the pool; `None` where cosines with it are not known, because the
    /// method has none or its gradient is of no use.
    pub served: Option<Served>,
}

/// What an example of the target is to the pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Served {
    /// Rows that were taken in its turns, or because they stand highest in its list;
    /// `None` where rows are taken by score.
    pub n_taken: Option<usize>,
    /// Selected rows that are more like it than like any other target example.
    pub n_nearest: usize,
    /// Rows selected.
    pub n_selected: usize,
    /// The mean cosine of the selected rows with it.
    pub mean_selected: f64,
    /// The mean cosine of all scored rows with it.
    pub mean_pool: f64,
    /// The selected rows that are most like it.
    pub nearest_selected: Vec<RowNeighbor>,
    /// The rows most like it of those that are not selected.
    pub nearest_left_out: Vec<RowNeighbor>,
}

impl TargetExplained {
    /// Of the example at `position` of the target.
    ///
    /// # Errors
    ///
    /// If a table cannot be read.
    ///
    /// # Panics
    ///
    /// If there is no such example, or the tables are not of one run.
    pub fn new(run: &Run<'_>, position: usize) -> Result<Self, PoolError> {
        let head = &run.target.rows()[position];
        let same = run.target.rows().iter().filter(|row| row.id == head.id);
        let [Origin { file, line }] = one(run.target.origins(&[position])?);
        let [record] = one(run.target.records(&[position])?);
        let column = |examples: &ExampleScores| {
            examples.targets.examples.iter().position(|example| example.id == head.id)
        };
        let column = run.examples.and_then(|examples| Some((examples, column(examples)?)));
        Ok(Self {
            id: head.id,
            subtasks: same.map(subtask_name).collect(),
            file,
            line,
            messages: record.messages,
            n_tokens: head.n_tokens,
            n_supervised: head.n_supervised,
            served: column.map(|(examples, at)| Served::of(run, examples, at)).transpose()?,
        })
    }
}

impl Served {
    fn of(run: &Run<'_>, examples: &ExampleScores, column: usize) -> Result<Self, PoolError> {
        let cosines = examples.column(column);
        let mut is_selected = vec![false; cosines.len()];
        for place in run.selected {
            is_selected[place.position] = true;
        }
        let scored = cosines.into_iter().enumerate().filter(|(_, cosine)| !cosine.is_nan());
        let (inside, outside): (Vec<_>, Vec<_>) = scored.partition(|(row, _)| is_selected[*row]);
        let id = examples.targets.examples[column].id;
        let is_nearest = |position: usize| {
            let row = examples.total(position..position + 1);
            let best = nearest(row.into_iter().enumerate(), 1);
            best.first().is_some_and(|(best, _)| examples.targets.examples[*best].id == id)
        };
        let is_own = |column: usize| {
            examples.targets.examples.get(column).is_some_and(|example| example.id == id)
        };
        let taken = run.selected.iter().filter(|place| place.example.is_some_and(is_own));
        Ok(Self {
            n_taken: run.selection.selector.needs_examples().then(|| taken.count()),
            n_nearest: run.selected.iter().filter(|place| is_nearest(place.position)).count(),
            n_selected: run.selected.len(),
            mean_selected: mean(inside.iter()),
            mean_pool: mean(inside.iter().chain(&outside)),
            nearest_selected: run.neighbors(&nearest(inside, N_NEIGHBORS))?,
            nearest_left_out: run.neighbors(&nearest(outside, N_NEIGHBORS))?,
        })
    }
}

/// Zero of no rows.
fn mean<'a>(rows: impl Iterator<Item = &'a (usize, f32)>) -> f64 {
    let (sum, n) = rows.fold((0.0, 0_u64), |(sum, n), (_, x)| (sum + f64::from(*x), n + 1));
    sum / n.max(1) as f64
}
