//! Which source serves which subtask.

use serde::Serialize;

use super::composition::{NAME_CHARS, SourceShare};
use super::quote::one_line;
use crate::influence::scores::ScoreTable;
use crate::selection::Selected;

/// Sources that stand for themselves; further ones are counted together.
const N_SOURCES: usize = 20;

/// The name under which further sources are counted.
const OTHERS: &str = "all other sources";

/// The influence of every source on every subtask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SubtasksBySource {
    /// The columns: sources in the order of [`Summary::sources`], at most twenty,
    /// and one for all others.
    ///
    /// [`Summary::sources`]: super::Summary::sources
    pub sources: Vec<String>,
    /// A row a subtask, in order of name.
    pub subtasks: Vec<SubtaskRow>,
    /// The largest size of a mean.
    pub largest: f64,
}

/// A subtask's row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SubtaskRow {
    /// The subtask, `TARGET/SUBTASK`.
    pub subtask: String,
    /// One a source.
    pub cells: Vec<Cell>,
}

/// What a source is to a subtask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cell {
    /// The source's ranked examples.
    pub n_ranked: u64,
    /// The mean of their influence on the subtask; `None` of none.
    pub mean: Option<f64>,
    /// Examples selected of the source for the subtask.
    pub n_selected: u64,
}

impl SubtasksBySource {
    /// `shares` says in which order sources stand. Rows are summed in the order of
    /// the table, which is that of their ids.
    pub(super) fn of(
        scores: &ScoreTable,
        ranked: &[Selected],
        subset: &[Selected],
        shares: &[SourceShare],
    ) -> Self {
        let n_own = if shares.len() <= N_SOURCES + 1 { shares.len() } else { N_SOURCES };
        let (own, others) = shares.split_at(n_own);
        let mut sources: Vec<String> = own.iter().map(|share| share.source.clone()).collect();
        if !others.is_empty() {
            sources.push(OTHERS.to_owned());
        }
        let column = |position: usize| {
            let name = one_line(&scores.rows[position].source, NAME_CHARS);
            own.iter().position(|share| share.source == name).unwrap_or(sources.len() - 1)
        };
        let mut cells = vec![vec![Cell::default(); sources.len()]; scores.subtasks.len()];
        add_means(&mut cells, scores, ranked, column);
        for place in subset {
            cells[place.subtask][column(place.position)].n_selected += 1;
        }
        let sizes = cells.iter().flatten().filter_map(|cell| cell.mean.map(f64::abs));
        let largest = sizes.fold(0.0, f64::max);
        let names = scores.subtasks.iter().map(|name| one_line(name, NAME_CHARS));
        let subtasks = names.zip(cells).map(|(subtask, cells)| SubtaskRow { subtask, cells });
        Self { sources, subtasks: subtasks.collect(), largest }
    }
}

fn add_means(
    cells: &mut [Vec<Cell>],
    scores: &ScoreTable,
    ranked: &[Selected],
    column: impl Fn(usize) -> usize,
) {
    let mut positions: Vec<usize> = ranked.iter().map(|place| place.position).collect();
    positions.sort_unstable();
    for position in positions {
        let column = column(position);
        for (cells, influence) in cells.iter_mut().zip(&scores.rows[position].by_subtask) {
            let cell = &mut cells[column];
            cell.n_ranked += 1;
            // The sum, until all are counted.
            *cell.mean.get_or_insert(0.0) += f64::from(*influence);
        }
    }
    for cell in cells.iter_mut().flatten() {
        cell.mean = cell.mean.map(|sum| sum / cell.n_ranked as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::influence::scores::ScoreRow;
    use crate::pool::ExampleId;
    use crate::selection::ranking;

    fn table(rows: &[(&str, [f32; 2])]) -> ScoreTable {
        let row = |(id, (source, by_subtask)): (u8, &(&str, [f32; 2]))| ScoreRow {
            id: ExampleId([id; 16]),
            source: (*source).to_owned(),
            n_tokens: 10,
            n_supervised: 5,
            loss: 1.0,
            norm: 1.0,
            flag: None,
            by_subtask: by_subtask.to_vec(),
        };
        ScoreTable {
            subtasks: vec!["t/a".to_owned(), "t/b".to_owned()],
            rows: (0..).zip(rows).map(row).collect(),
        }
    }

    fn of(scores: &ScoreTable, n_selected: usize) -> SubtasksBySource {
        let ranked = ranking(scores);
        let subset = &ranked[..n_selected];
        let all: Vec<_> = scores.rows.iter().collect();
        let kept: Vec<_> = subset.iter().map(|place| &scores.rows[place.position]).collect();
        SubtasksBySource::of(scores, &ranked, subset, &SourceShare::of(&all, &kept))
    }

    #[test]
    fn a_cell_is_the_mean_of_the_sources_ranked_rows() {
        let mut scores =
            table(&[("x", [0.5, -0.5]), ("y", [0.25, 0.75]), ("x", [1.0, 0.0]), ("x", [9.0, 9.0])]);
        scores.rows[3].flag = Some("zero gradient".to_owned());
        let found = of(&scores, 2);
        assert_eq!(found.sources, ["x", "y"]);
        let cell = |n_ranked, mean, n_selected| Cell { n_ranked, mean: Some(mean), n_selected };
        assert_eq!(found.subtasks[0].cells, [cell(2, 0.75, 1), cell(1, 0.25, 0)]);
        assert_eq!(found.subtasks[1].cells, [cell(2, -0.25, 0), cell(1, 0.75, 1)]);
        assert!((found.largest - 0.75).abs() < 1e-12);
    }

    #[test]
    fn small_sources_are_counted_together() {
        let names: Vec<String> = (0..40).map(|n| format!("source {n:02}")).collect();
        let rows: Vec<_> = names.iter().map(|name| (name.as_str(), [1.0, 0.5])).collect();
        let found = of(&table(&rows), 5);
        assert_eq!((found.sources.len(), found.sources[20].as_str()), (21, OTHERS));
        let last = found.subtasks[0].cells[20];
        assert_eq!(last, Cell { n_ranked: 20, mean: Some(1.0), n_selected: 0 });
        let n_selected: u64 = found.subtasks[0].cells.iter().map(|cell| cell.n_selected).sum();
        assert_eq!(n_selected, 5);
    }
}
