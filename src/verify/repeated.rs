//! Rows taken again and again until there are enough tokens.

use rand_chacha::rand_core::Rng;

use crate::gradient::collect::ExampleSource;
use crate::pool::table::TableRow;
use crate::pool::{Example, PoolError};
use crate::seed::Seed;

/// Some rows of a source, each as often as it takes to come to a number of tokens:
/// all of them the same number of times, and some, drawn at random, once more.
pub struct Repeated<'a> {
    source: &'a dyn ExampleSource,
    /// Positions in the source, ascending, equal ones side by side.
    positions: Vec<usize>,
    rows: Vec<TableRow>,
}

impl<'a> Repeated<'a> {
    /// The rows of `source` at `positions`, which ascend, until they have `n_tokens`
    /// or the next row would be more than half too much; at least one row.
    ///
    /// # Panics
    ///
    /// If there is no position.
    pub fn new(
        source: &'a dyn ExampleSource,
        positions: &[usize],
        n_tokens: u64,
        seed: Seed,
    ) -> Self {
        let heads = source.rows();
        let length = |position: &usize| u64::from(heads[*position].n_tokens);
        let n_once: u64 = positions.iter().map(length).sum();
        let n_passes = usize::try_from(n_tokens / n_once).unwrap_or(usize::MAX);
        let mut repeated: Vec<usize> = positions
            .iter()
            .flat_map(|position| std::iter::repeat_n(*position, n_passes))
            .collect();
        let mut n_missing = n_tokens % n_once;
        for position in drawn(heads, positions, seed) {
            if length(&position) > 2 * n_missing && !repeated.is_empty() {
                break;
            }
            n_missing = n_missing.saturating_sub(length(&position));
            repeated.push(position);
        }
        repeated.sort_unstable();
        let rows = repeated.iter().map(|position| heads[*position].clone()).collect();
        Self { source, positions: repeated, rows }
    }

    /// Tokens in all.
    pub fn n_tokens(&self) -> u64 {
        self.rows.iter().map(|row| u64::from(row.n_tokens)).sum()
    }
}

/// `positions` in an order that depends on the rows' content and the seed.
fn drawn(heads: &[TableRow], positions: &[usize], seed: Seed) -> Vec<usize> {
    let draw = |position: &usize| {
        seed.stream(&["verify", "once more", &heads[*position].id.to_string()]).next_u64()
    };
    let mut order = positions.to_vec();
    order.sort_by_cached_key(|position| (draw(position), heads[*position].id));
    order
}

impl ExampleSource for Repeated<'_> {
    fn rows(&self) -> &[TableRow] {
        &self.rows
    }

    fn examples_at(&self, positions: &[usize]) -> Result<Vec<Example>, PoolError> {
        let wanted: Vec<usize> = positions.iter().map(|at| self.positions[*at]).collect();
        let mut distinct = wanted.clone();
        distinct.dedup();
        let examples = self.source.examples_at(&distinct)?;
        let at = |position: &usize| distinct.partition_point(|other| other < position);
        Ok(wanted.iter().map(|position| examples[at(position)].clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool::ExampleId;

    /// A row for each of some lengths.
    struct Rows(Vec<TableRow>);

    impl Rows {
        fn new(lengths: &[u32]) -> Self {
            let row = |(at, n_tokens): (usize, &u32)| TableRow {
                id: ExampleId([at as u8; 16]),
                source: "pool".to_owned(),
                subtask: None,
                n_tokens: *n_tokens,
                n_supervised: 1,
                truncated: false,
            };
            Self(lengths.iter().enumerate().map(row).collect())
        }
    }

    impl ExampleSource for Rows {
        fn rows(&self) -> &[TableRow] {
            &self.0
        }

        fn examples_at(&self, positions: &[usize]) -> Result<Vec<Example>, PoolError> {
            assert!(positions.is_sorted_by(|a, b| a < b), "a table is read in order");
            let example = |at: &usize| Example {
                id: self.0[*at].id,
                token_ids: vec![*at as u32; self.0[*at].n_tokens as usize],
                supervised: Vec::new(),
            };
            Ok(positions.iter().map(example).collect())
        }
    }

    #[test]
    fn whole_passes_take_every_row_as_often() {
        let rows = Rows::new(&[10, 20, 30]);
        let twice = Repeated::new(&rows, &[0, 2], 80, Seed(0));
        assert_eq!(twice.positions, [0, 0, 2, 2]);
        let examples = twice.examples(1..4).unwrap();
        assert_eq!(examples.iter().map(|row| row.token_ids[0]).collect::<Vec<_>>(), [0, 2, 2]);
    }

    #[test]
    fn of_too_many_rows_some_are_drawn_by_the_seed() {
        let rows = Rows::new(&[10; 100]);
        let positions: Vec<usize> = (0..100).collect();
        let [a, b] = [0, 1].map(|seed| Repeated::new(&rows, &positions, 200, Seed(seed)).positions);
        assert_eq!([a.len(), b.len()], [20, 20]);
        assert_ne!(a, b);
    }

    proptest! {
        #[test]
        fn tokens_are_as_many_as_asked_for_but_for_less_than_a_row(
            lengths in prop::collection::vec(1..50_u32, 1..30), n_tokens in 1..5000_u64,
        ) {
            let rows = Rows::new(&lengths);
            let positions: Vec<usize> = (0..lengths.len()).collect();
            let found = Repeated::new(&rows, &positions, n_tokens, Seed(3));
            let longest = u64::from(*lengths.iter().max().unwrap());
            prop_assert!(found.n_tokens().abs_diff(n_tokens) < longest.max(2));
            let counts: Vec<usize> =
                positions.iter().map(|at| found.positions.iter().filter(|p| *p == at).count()).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }
}
