//! The pool rows that are most like each target example.

use super::TargetCosines;
use crate::selection::view::View;

/// Values that are read at once: 16 MiB.
const BLOCK_VALUES: usize = 4 << 20;

/// For every target example the pool's rows, nearest first: by cosine, then by
/// position, which is the order of id. Rows that cannot be ranked are left out.
///
/// Only so many are in memory as were asked for; the lists are made again, twice
/// as long, when one comes to its end.
pub struct Neighbors<'a> {
    cosines: &'a dyn TargetCosines,
    view: &'a View<'a>,
    /// Positions among the target examples that count.
    examples: Vec<usize>,
    /// A list an example, each of `length` rows or all there are.
    lists: Vec<Vec<usize>>,
    length: usize,
    is_whole: bool,
}

impl<'a> Neighbors<'a> {
    /// The neighbors of the target examples whose subtask counts in `view`, the
    /// first `length` to begin with.
    ///
    /// # Panics
    ///
    /// If `cosines` is not of the rows of `view`.
    pub fn new(cosines: &'a dyn TargetCosines, view: &'a View<'a>, length: usize) -> Self {
        assert_eq!(cosines.n_rows(), view.scores().rows.len(), "rows of one table");
        let examples = cosines.targets().examples.iter().enumerate();
        let counts = |subtask: u32| view.subtasks().contains(&(subtask as usize));
        let examples = examples.filter(|(_, of)| counts(of.subtask)).map(|(at, _)| at).collect();
        let (lists, is_whole) = (Vec::new(), false);
        let mut this = Self { cosines, view, examples, lists, length: length.max(1), is_whole };
        this.fill();
        this
    }

    /// Number of target examples.
    pub fn n_examples(&self) -> usize {
        self.examples.len()
    }

    /// The position of an example among all target examples.
    pub fn column(&self, example: usize) -> usize {
        self.examples[example]
    }

    /// The subtask of an example.
    pub fn subtask(&self, example: usize) -> usize {
        self.cosines.targets().examples[self.column(example)].subtask as usize
    }

    /// The `nth` nearest row of an example, from 0.
    pub fn get(&mut self, example: usize, nth: usize) -> Option<usize> {
        while nth >= self.lists[example].len() {
            if self.is_whole {
                return None;
            }
            self.length *= 2;
            self.fill();
        }
        Some(self.lists[example][nth])
    }

    /// Reads all cosines once.
    fn fill(&mut self) {
        let n_rows = self.cosines.n_rows();
        let n_targets = self.cosines.targets().examples.len();
        let mut nearest: Vec<Vec<(f32, usize)>> = vec![Vec::new(); self.examples.len()];
        let block_rows = (BLOCK_VALUES / n_targets.max(1)).max(1);
        for start in (0..n_rows).step_by(block_rows) {
            let rows = start..n_rows.min(start + block_rows);
            let cosines = self.cosines.total(rows.clone());
            for (position, cosines) in rows.zip(cosines.chunks_exact(n_targets)) {
                if self.view.ranked(position).is_none() {
                    continue;
                }
                for (nearest, example) in nearest.iter_mut().zip(&self.examples) {
                    let cosine = cosines[*example];
                    if cosine.is_finite() {
                        nearest.push((cosine, position));
                        cut(nearest, self.length, 2 * self.length);
                    }
                }
            }
        }
        self.is_whole = nearest.iter().all(|nearest| nearest.len() <= self.length);
        let in_order = |mut nearest: Vec<(f32, usize)>| {
            cut(&mut nearest, self.length, self.length);
            nearest.sort_unstable_by(by_nearness);
            nearest.into_iter().map(|(_, position)| position).collect()
        };
        self.lists = nearest.into_iter().map(in_order).collect();
    }
}

/// The order of a list, given cosines and positions: the nearest first, of equally near
/// ones the lower position.
pub fn by_nearness(a: &(f32, usize), b: &(f32, usize)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Keeps the `length` nearest once there are more than `most`.
fn cut(nearest: &mut Vec<(f32, usize)>, length: usize, most: usize) {
    if nearest.len() > most {
        nearest.select_nth_unstable_by(length, by_nearness);
        nearest.truncate(length);
    }
}
