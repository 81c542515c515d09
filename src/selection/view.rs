//! The scores as a selector sees them: of some subtasks, standardised or not.

use serde::{Deserialize, Serialize};

use crate::influence::scores::ScoreTable;

/// Whether subtasks are put on one scale before they are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalize {
    /// Influence as it is.
    #[default]
    None,
    /// (x − mean) / standard deviation over the pool's rows that can be ranked, a
    /// subtask at a time (BIDS, Dai et al., arXiv 2501.12147): a subtask whose
    /// influence is larger on everything does not take everything.
    PerTask,
}

impl Normalize {
    /// The settings' words for them.
    pub const CHOICES: &str = "none or per-task";
}

impl std::str::FromStr for Normalize {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(Self::None),
            "per-task" => Ok(Self::PerTask),
            _ => Err(()),
        }
    }
}

/// A score table, of which only some subtasks count.
#[derive(Clone, Debug)]
pub struct View<'a> {
    scores: &'a ScoreTable,
    /// Positions in [`ScoreTable::subtasks`], ascending.
    subtasks: Vec<usize>,
    /// Mean and standard deviation of every subtask of the table.
    scales: Vec<(f64, f64)>,
}

/// A row that can be ranked, by the subtask that it serves best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Position in [`ScoreTable::rows`].
    pub position: usize,
    /// Position in [`ScoreTable::subtasks`].
    pub subtask: usize,
    /// What it is compared by: influence, or standard deviations from the mean.
    pub value: f32,
}

impl<'a> View<'a> {
    /// All subtasks, as they are.
    pub fn plain(scores: &'a ScoreTable) -> Self {
        Self::of(scores, &|_| true, Normalize::None)
    }

    /// The subtasks that `counts` names.
    pub fn of(
        scores: &'a ScoreTable,
        counts: &dyn Fn(usize) -> bool,
        normalize: Normalize,
    ) -> Self {
        let n_subtasks = scores.subtasks.len();
        let scales = (0..n_subtasks).map(|subtask| match normalize {
            Normalize::None => (0.0, 1.0),
            Normalize::PerTask => mean_and_deviation(scores, subtask),
        });
        let scales = scales.collect();
        Self { scores, subtasks: (0..n_subtasks).filter(|at| counts(*at)).collect(), scales }
    }

    /// The table.
    pub fn scores(&self) -> &'a ScoreTable {
        self.scores
    }

    /// The subtasks that count, ascending.
    pub fn subtasks(&self) -> &[usize] {
        &self.subtasks
    }

    /// The row's best subtask, the first of equal ones; `None` if it cannot be
    /// ranked: it is flagged, or a value is not finite.
    pub fn ranked(&self, position: usize) -> Option<Ranked> {
        let row = &self.scores.rows[position];
        if row.flag.is_some() || row.by_subtask.is_empty() {
            return None;
        }
        let values = self.subtasks.iter().map(|subtask| {
            let (mean, deviation) = self.scales[*subtask];
            let value = (f64::from(row.by_subtask[*subtask]) - mean) / deviation;
            Ranked { position, subtask: *subtask, value: value as f32 }
        });
        let best = values.reduce(|best, next| if next.value > best.value { next } else { best });
        best.filter(|best| best.value.is_finite())
    }

    /// Every row that can be ranked, best first: by value, descending
    /// ([`f32::total_cmp`]), then by id, ascending.
    pub fn ranking(&self) -> Vec<Ranked> {
        let rows = 0..self.scores.rows.len();
        let mut ranking: Vec<Ranked> = rows.filter_map(|row| self.ranked(row)).collect();
        ranking.sort_unstable_by(|a, b| {
            let id = |ranked: &Ranked| self.scores.rows[ranked.position].id;
            b.value.total_cmp(&a.value).then_with(|| id(a).cmp(&id(b)))
        });
        ranking
    }
}

/// Over the rows that can be ranked, in order of id, so that no order of rows
/// changes a bit. A deviation of zero becomes one.
fn mean_and_deviation(scores: &ScoreTable, subtask: usize) -> (f64, f64) {
    let rows = scores.rows.iter().filter(|row| row.flag.is_none());
    let cell = |row: &crate::influence::scores::ScoreRow| {
        row.by_subtask.get(subtask).map(|value| (row.id, f64::from(*value)))
    };
    let mut cells: Vec<_> = rows.filter_map(cell).filter(|(_, value)| value.is_finite()).collect();
    cells.sort_unstable_by_key(|(id, _)| *id);
    let n = cells.len().max(1) as f64;
    let mean = cells.iter().map(|(_, value)| value).sum::<f64>() / n;
    let squares: f64 = cells.iter().map(|(_, value)| (value - mean).powi(2)).sum();
    let deviation = (squares / n).sqrt();
    (mean, if deviation > 0.0 { deviation } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::super::toy::table;
    use super::*;

    #[test]
    fn a_subtask_with_larger_influence_on_everything_does_not_take_everything() {
        // The first subtask's influence is ten times the second's on everything.
        let scores =
            table(&["loud", "quiet"], &[&[10.0, 1.2], &[11.0, 1.0], &[12.0, 1.1], &[13.0, 1.0]]);
        let subtasks = |normalize| {
            let view = View::of(&scores, &|_| true, normalize);
            view.ranking().iter().map(|row| (row.position, row.subtask)).collect::<Vec<_>>()
        };
        assert_eq!(subtasks(Normalize::None), [(3, 0), (2, 0), (1, 0), (0, 0)]);
        // 12's z is 0.45, 1.2's is 1.5, 13's is 1.34.
        assert_eq!(subtasks(Normalize::PerTask)[..2], [(0, 1), (3, 0)]);
    }

    #[test]
    fn a_subtask_without_spread_is_no_division_by_zero() {
        let scores = table(&["flat", "steep"], &[&[1.0, 0.0], &[1.0, 2.0]]);
        let ranking = View::of(&scores, &|_| true, Normalize::PerTask).ranking();
        assert_eq!(ranking.iter().map(|row| row.value).collect::<Vec<_>>(), [1.0, 0.0]);
    }

    #[test]
    fn only_the_subtasks_that_count_are_looked_at() {
        let scores = table(&["a", "b"], &[&[9.0, 0.1], &[0.0, 0.2]]);
        let ranking = View::of(&scores, &|subtask| subtask == 1, Normalize::None).ranking();
        assert_eq!(ranking.iter().map(|row| row.position).collect::<Vec<_>>(), [1, 0]);
    }
}
