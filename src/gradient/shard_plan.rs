//! Which rows make a shard, who computes it, and in which batches.
//!
//! A plan follows from the table and the settings alone, so that every worker
//! finds the same one: the same shard has the same rows in the same batches
//! whoever computes it, and so the same bytes.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::ops::Range;

/// A worker's share of the shards: every `of`-th, from `index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    index: usize,
    of: NonZeroUsize,
}

impl Part {
    /// All shards.
    pub const WHOLE: Self = Self { index: 0, of: NonZeroUsize::MIN };

    /// Part `index`, from 0, of `of`; `None` if there is no such part.
    pub fn new(index: usize, of: NonZeroUsize) -> Option<Self> {
        (index < of.get()).then_some(Self { index, of })
    }

    /// Part `index`, from 0, of `of` parts of this one.
    ///
    /// # Panics
    ///
    /// If there is no such part, or there would be more than 2^64.
    #[must_use]
    pub fn nested(self, index: usize, of: NonZeroUsize) -> Self {
        assert!(index < of.get(), "a part among {of}");
        let all = self.of.checked_mul(of).expect("parts can be counted");
        Self { index: self.index + self.of.get() * index, of: all }
    }

    /// Whether the part has this shard.
    pub fn contains(self, shard: usize) -> bool {
        shard % self.of == self.index
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.of)
    }
}

/// Not a part of a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not I/N with I from 1 to N, such as 2/8")]
pub struct PartError(String);

impl std::str::FromStr for Part {
    type Err = PartError;

    /// Reads `I/N`, I counted from 1.
    fn from_str(text: &str) -> Result<Self, PartError> {
        let part = || {
            let (index, of) = text.split_once('/')?;
            let index: usize = index.trim().parse().ok()?;
            Self::new(index.checked_sub(1)?, of.trim().parse().ok()?)
        };
        part().ok_or_else(|| PartError(text.to_owned()))
    }
}

/// A table cut into shards: contiguous stretches of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    n_rows: usize,
    shard_rows: NonZeroUsize,
}

impl ShardPlan {
    /// Shards of `shard_rows` rows, the last one of what is left.
    pub fn new(n_rows: usize, shard_rows: NonZeroUsize) -> Self {
        Self { n_rows, shard_rows }
    }

    /// Number of shards.
    pub fn n_shards(&self) -> usize {
        self.n_rows.div_ceil(self.shard_rows.get())
    }

    /// The rows of a shard.
    pub fn rows(&self, shard: usize) -> Range<usize> {
        let start = self.n_rows.min(shard * self.shard_rows.get());
        start..self.n_rows.min(start + self.shard_rows.get())
    }

    /// Number of rows of a part.
    pub fn n_rows(&self, part: Part) -> usize {
        self.shards(part).map(|shard| self.rows(shard).len()).sum()
    }

    /// The shards of a part, ascending.
    pub fn shards(&self, part: Part) -> impl Iterator<Item = usize> + use<> {
        (part.index..self.n_shards()).step_by(part.of.get())
    }
}

/// Cuts rows into batches of at most `batch_tokens` tokens, padding included;
/// a longer row is a batch of its own.
///
/// `n_tokens` holds the rows' lengths in order of id. The longest rows come
/// first, so that little is padding and what does not fit into memory fails at
/// once; rows of equal length stay in order of id. Returns positions in
/// `n_tokens`.
pub fn plan_batches(n_tokens: &[u32], batch_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..n_tokens.len()).collect();
    order.sort_by_key(|row| Reverse(n_tokens[*row]));
    let mut rest = order.as_slice();
    let mut batches = Vec::new();
    while let [longest, ..] = rest {
        let padded_length = (n_tokens[*longest] as usize).max(1);
        let n_rows = (batch_tokens / padded_length).clamp(1, rest.len());
        let (batch, after) = rest.split_at(n_rows);
        batches.push(batch.to_vec());
        rest = after;
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(index: usize, of: usize) -> Part {
        Part::new(index, NonZeroUsize::new(of).unwrap()).unwrap()
    }

    #[test]
    fn a_part_beyond_the_last_does_not_exist() {
        assert_eq!(Part::new(2, NonZeroUsize::new(2).unwrap()), None);
        assert_eq!(part(0, 1), Part::WHOLE);
    }

    #[test]
    fn parts_are_counted_from_one() {
        assert_eq!("2/8".parse(), Ok(part(1, 8)));
        assert_eq!(part(1, 8).to_string(), "2/8");
        for wrong in ["0/8", "9/8", "2", "a/b", "1/0"] {
            assert_eq!(wrong.parse::<Part>(), Err(PartError(wrong.to_owned())));
        }
    }

    #[test]
    fn batches_are_by_length_with_ties_in_order() {
        assert_eq!(plan_batches(&[3, 9, 3, 5, 40], 10), [vec![4], vec![1], vec![3, 0], vec![2]]);
        assert!(plan_batches(&[], 10).is_empty());
    }

    proptest! {
        #[test]
        fn the_parts_cover_every_row_once(n_rows in 0usize..200, shard_rows in 1usize..50, of in 1usize..9) {
            let plan = ShardPlan::new(n_rows, NonZeroUsize::new(shard_rows).unwrap());
            let mut shards: Vec<usize> = (0..of).flat_map(|i| plan.shards(part(i, of))).collect();
            shards.sort_unstable();
            let rows: Vec<usize> = shards.into_iter().flat_map(|shard| plan.rows(shard)).collect();
            prop_assert_eq!(rows, (0..n_rows).collect::<Vec<_>>());
        }

        #[test]
        fn the_parts_of_a_part_are_its_shards(index in 0usize..4, of in 1usize..5, shard in 0usize..99) {
            let parts = NonZeroUsize::new(of).unwrap();
            let outer = part(index, 4);
            let owners = (0..of).filter(|i| outer.nested(*i, parts).contains(shard)).count();
            prop_assert_eq!(owners, usize::from(outer.contains(shard)));
        }

        #[test]
        fn a_batch_of_many_stays_within_its_tokens(
            n_tokens in prop::collection::vec(1u32..300, 0..60),
            batch_tokens in 1usize..1000,
        ) {
            let batches = plan_batches(&n_tokens, batch_tokens);
            for batch in &batches {
                let longest = batch.iter().map(|row| n_tokens[*row]).max().unwrap() as usize;
                prop_assert!(batch.len() == 1 || batch.len() * longest <= batch_tokens);
            }
            let mut rows = batches.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..n_tokens.len()).collect::<Vec<_>>());
        }
    }
}
