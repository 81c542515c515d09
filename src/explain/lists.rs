//! Where a row stands among the rows that are nearest to a target example.
//!
//! A selector that serves single target examples takes rows from lists, one an example:
//! the pool's rows that can be taken, nearest first.

use serde::Serialize;

use super::Run;
use crate::influence::example_scores::ExampleScores;
use crate::pool::ExampleId;
use crate::selection::Selector;
use crate::selection::selector::by_nearness;

/// Rows whose cosines are in memory at once.
const BLOCK_ROWS: usize = 4096;

/// A row in the list of a target example: of the one that it was taken for, or of a row
/// that was not taken, in the one where it stands highest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The target example.
    pub example: ExampleId,
    /// The first of its subtasks.
    pub subtask: String,
    /// The row's place in the list, from 1.
    pub place: usize,
    /// With `round-robin`: the last place in the list of which the row was taken in the
    /// example's turns; `None` if there is none.
    pub taken_to: Option<usize>,
    /// With `knn` and `knn-kde`: in how many lists it stands high enough to count.
    pub lists: Option<Lists>,
}

/// In how many lists a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lists {
    /// Those in which it is among the nearest rows that count.
    pub n_in: usize,
    /// All lists, one a target example.
    pub n: usize,
    /// The nearest rows of a list that count.
    pub length: usize,
}

impl Standing {
    /// Of the row at `position`; `None` where rows are taken by score, and of one that
    /// cannot be taken.
    pub(super) fn of(run: &Run<'_>, position: usize) -> Option<Self> {
        let examples = run.examples.filter(|_| run.selection.selector.needs_examples())?;
        let is_listed = |row: usize| run.scores.rows[row].flag.is_none();
        if !is_listed(position) {
            return None;
        }
        let places = places(examples, position, &is_listed);
        let taken_for = run.place(position).and_then(|place| place.example);
        let highest = || (0..places.len()).min_by_key(|column| places[*column]);
        let column = taken_for.filter(|column| *column < places.len()).or_else(highest)?;
        let example = &examples.targets.examples[column];
        let is_in_turn = run.selection.selector == Selector::RoundRobin;
        let length = run.n_neighbors;
        let lists = || {
            let n_in = places.iter().filter(|place| **place <= length).count();
            Lists { n_in, n: places.len(), length }
        };
        Some(Self {
            example: example.id,
            subtask: examples.targets.subtasks[example.subtask as usize].clone(),
            place: places[column],
            taken_to: if is_in_turn { taken_to(run, examples, column, &is_listed) } else { None },
            lists: (!is_in_turn).then(lists),
        })
    }
}

/// The place of a row in every list, from 1.
fn places(
    examples: &ExampleScores,
    position: usize,
    is_listed: &dyn Fn(usize) -> bool,
) -> Vec<usize> {
    let own = examples.total(position..position + 1);
    let mut places = vec![1; own.len()];
    for start in (0..examples.n_rows()).step_by(BLOCK_ROWS) {
        let rows = start..examples.n_rows().min(start + BLOCK_ROWS);
        let cosines = examples.total(rows.clone());
        for (row, cosines) in rows.zip(cosines.chunks_exact(own.len())) {
            if !is_listed(row) {
                continue;
            }
            for (place, (other, own)) in places.iter_mut().zip(cosines.iter().zip(&own)) {
                *place += usize::from(is_before((*other, row), (*own, position)));
            }
        }
    }
    places
}

/// The last place in the list of the example of `column` of which it took the row.
fn taken_to(
    run: &Run<'_>,
    examples: &ExampleScores,
    column: usize,
    is_listed: &dyn Fn(usize) -> bool,
) -> Option<usize> {
    let cosines = examples.column(column);
    let of = |row: usize| (cosines[row], row);
    let taken = run.selected.iter().filter(|place| place.example == Some(column));
    let last = taken
        .map(|place| place.position)
        .reduce(|last, row| if is_before(of(last), of(row)) { row } else { last })?;
    let rows = (0..cosines.len()).filter(|row| is_listed(*row));
    Some(1 + rows.filter(|row| is_before(of(*row), of(last))).count())
}

/// Whether a row, its cosine and position, stands before another in a list.
fn is_before(row: (f32, usize), other: (f32, usize)) -> bool {
    row.0.is_finite() && by_nearness(&row, &other).is_lt()
}
