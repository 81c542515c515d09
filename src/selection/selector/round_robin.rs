//! Every target example in turn.

use std::collections::BTreeMap;

use super::{Neighbors, Pick, Picks};

/// The target sources take turns; at a source's turn its subtasks take turns, and
/// at a subtask's its examples: the one whose turn it is takes the nearest row
/// that is not yet taken. So every source, every subtask of it and every example
/// of that serve themselves alike, however large their cosines are.
///
/// With one target of one subtask this is the round robin of RDS+ (Ivison et al.,
/// *Large-Scale Data Selection for Instruction Tuning*, arXiv 2503.01807).
pub struct RoundRobin<'a> {
    neighbors: Neighbors<'a>,
    /// How far each example has come down its list.
    next: Vec<usize>,
    turns: Turns,
    is_taken: Vec<bool>,
}

/// Whose turn it is: sources, in them subtasks, in them examples.
struct Turns {
    sources: Vec<Turn<Vec<Turn<Vec<usize>>>>>,
    at: usize,
}

struct Turn<T> {
    of: T,
    at: usize,
}

impl<'a> RoundRobin<'a> {
    /// `source_of` gives the target source of a subtask.
    pub fn new(
        neighbors: Neighbors<'a>,
        n_rows: usize,
        source_of: &dyn Fn(usize) -> String,
    ) -> Self {
        let mut sources: BTreeMap<String, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
        for example in 0..neighbors.n_examples() {
            let subtask = neighbors.subtask(example);
            let subtasks = sources.entry(source_of(subtask)).or_default();
            subtasks.entry(subtask).or_default().push(example);
        }
        let subtasks = |subtasks: BTreeMap<usize, Vec<usize>>| {
            subtasks.into_values().map(|of| Turn { of, at: 0 }).collect()
        };
        let sources = sources.into_values().map(|of| Turn { of: subtasks(of), at: 0 }).collect();
        Self {
            next: vec![0; neighbors.n_examples()],
            turns: Turns { sources, at: 0 },
            is_taken: vec![false; n_rows],
            neighbors,
        }
    }

    /// The next row of an example.
    fn take(&mut self, example: usize, admit: &mut dyn FnMut(Pick) -> bool) -> Option<Pick> {
        let subtask = self.neighbors.subtask(example);
        let column = self.neighbors.column(example);
        while let Some(position) = self.neighbors.get(example, self.next[example]) {
            self.next[example] += 1;
            if std::mem::replace(&mut self.is_taken[position], true) {
                continue;
            }
            let pick = Pick { position, subtask, example: Some(column) };
            if admit(pick) {
                return Some(pick);
            }
        }
        None
    }
}

impl Picks for RoundRobin<'_> {
    fn next(&mut self, admit: &mut dyn FnMut(Pick) -> bool) -> Option<Pick> {
        // All lists have the same rows: where one is at its end, all are.
        let example = self.turns.next()?;
        self.take(example, admit)
    }
}

impl Turns {
    fn next(&mut self) -> Option<usize> {
        let source = turn(&mut self.sources, &mut self.at)?;
        let subtask = turn(&mut source.of, &mut source.at)?;
        turn(&mut subtask.of, &mut subtask.at).copied()
    }
}

/// Whoever's turn it is, and the turn goes on.
fn turn<'a, T>(all: &'a mut [T], at: &mut usize) -> Option<&'a mut T> {
    let now = *at;
    *at = (now + 1) % all.len().max(1);
    all.get_mut(now)
}

#[cfg(test)]
mod tests {
    use super::super::super::toy::Matrix;
    use super::super::super::view::View;
    use super::*;

    fn order(matrix: &Matrix, sources: &[&str], refused: &[usize]) -> Vec<(usize, usize)> {
        let scores = matrix.scores();
        let view = View::plain(&scores);
        // So short that the lists are made again.
        let neighbors = Neighbors::new(matrix, &view, 1);
        let source = |subtask: usize| sources[subtask].to_owned();
        let mut picks = RoundRobin::new(neighbors, matrix.rows.len(), &source);
        let mut admit = |pick: Pick| !refused.contains(&pick.position);
        std::iter::from_fn(|| picks.next(&mut admit)).map(|p| (p.position, p.subtask)).collect()
    }

    #[test]
    fn every_example_takes_its_best_row_in_turn() {
        // Example 0 likes rows 0, 1, 2, 3 in this order, example 1 rows 0, 2, 1, 3.
        let rows: [&[f32]; 4] = [&[0.9, 0.8], &[0.8, 0.2], &[0.3, 0.5], &[0.1, 0.1]];
        let matrix = Matrix::new(&[0, 0], &rows);
        assert_eq!(order(&matrix, &["t"], &[]), [(0, 0), (2, 0), (1, 0), (3, 0)]);
        assert_eq!(order(&matrix, &["t"], &[2]), [(0, 0), (1, 0), (3, 0)]);
    }

    #[test]
    fn sources_and_subtasks_serve_themselves_alike_whatever_their_size() {
        // Three examples of subtask 0, one each of 1 and 2; 2 is of another source.
        // Rows 0 to 5 serve subtask 0 best, 6 and 7 subtask 1, 8 to 11 subtask 2.
        let rows: Vec<Vec<f32>> = (0..12)
            .map(|row| {
                let mine = |from: usize, to: usize| {
                    if (from..to).contains(&row) { 1.0 - row as f32 / 100.0 } else { -(row as f32) }
                };
                vec![mine(0, 6), mine(0, 6), mine(0, 6), mine(6, 8), mine(8, 12)]
            })
            .collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let matrix = Matrix::new(&[0, 0, 0, 1, 2], &rows);
        let order = order(&matrix, &["a", "a", "b"], &[]);
        let first: Vec<_> = order.iter().take(8).copied().collect();
        assert_eq!(first, [(0, 0), (8, 2), (6, 1), (9, 2), (1, 0), (10, 2), (7, 1), (11, 2)]);
        assert_eq!(order.len(), 12, "every row once");
    }
}
