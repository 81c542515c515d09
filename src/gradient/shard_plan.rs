//! Which rows make a shard, who computes it, and in which batches.
//!
//! A row that is stored already stays where it is: only what no shard has is
//! cut into new ones. The plan is written down as the store's [`ShardList`]
//! before anybody works on it, so that the same shard has the same rows in the
//! same batches whoever computes it, and so the same bytes.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::path::Path;

use crate::pool::ExampleId;
use crate::pool::table::TableRow;
use crate::store::shard::{Shard, StoreHeader, committed};
use crate::store::shard_list::{ListedShard, ShardList, ranges, shard_fingerprint};
use crate::store::{StoreError, StoreErrorKind};

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

    /// The part's own of all `shards`.
    pub fn of<T>(self, shards: &[T]) -> impl Iterator<Item = &T> {
        let own = shards.iter().enumerate().filter(move |(shard, _)| self.contains(*shard));
        own.map(|(_, shard)| shard)
    }

    /// Whether the part has shard number `shard`.
    fn contains(self, shard: usize) -> bool {
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

/// Makes the list of the store in `dir`, whose shards are in the folder
/// `dir/folder`, for the rows of a table, unless it is there already.
///
/// Shards with one of `headers` that have some of the rows are taken over, those
/// with the first of them first, whatever else they have; the rest of the rows,
/// in order of id, make new ones of `shard_rows` rows with the first header. One
/// process at a time may do this.
///
/// # Errors
///
/// If the folder or a shard cannot be read, or the list cannot be written.
///
/// # Panics
///
/// If there is no header.
pub fn plan_shards(
    dir: &Path,
    folder: &Path,
    headers: &[StoreHeader],
    rows: &[TableRow],
    shard_rows: NonZeroUsize,
) -> Result<ShardList, StoreError> {
    let header = &headers[0];
    // A target may have an example twice.
    let mut positions: Vec<usize> = (0..rows.len()).collect();
    positions.dedup_by_key(|position| rows[*position].id);
    let ids = |positions: &[usize]| positions.iter().map(|at| rows[*at].id).collect::<Vec<_>>();
    let made_for = shard_fingerprint(header, ids(&positions));
    let earlier = ShardList::read(dir).ok().filter(|list| {
        list.made_for == made_for && list.folder == folder && list.has_only(headers)
    });
    if let Some(list) = earlier
        && can_be_completed(&list, dir, header, rows)?
    {
        return Ok(list);
    }
    let mut list = ShardList { folder: folder.to_owned(), made_for, shards: Vec::new() };
    let folder = list.folder(dir);
    for name in stored_shards(&folder, headers)? {
        // Opening a shard reads all of it.
        if positions.is_empty() {
            break;
        }
        let Some(shard) = Shard::open_made_from(&folder, &name)? else { continue };
        let stored: Vec<ExampleId> = shard.ids().collect();
        let is_stored = |position: &mut usize| stored.binary_search(&rows[*position].id).is_ok();
        let served: Vec<usize> = positions.extract_if(.., is_stored).collect();
        if !served.is_empty() {
            let fingerprint = shard.fingerprint().to_owned();
            list.shards.push(ListedShard { fingerprint, rows: ranges(&served) });
        }
    }
    list.shards.sort_by_key(|shard| shard.rows[0].start);
    list.shards.extend(positions.chunks(shard_rows.get()).map(|positions| ListedShard {
        fingerprint: shard_fingerprint(header, ids(positions)),
        rows: ranges(positions),
    }));
    list.write(dir)?;
    Ok(list)
}

/// The names of the shards in the folder `dir` that have one of `headers`, in their
/// order.
fn stored_shards(dir: &Path, headers: &[StoreHeader]) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for header in headers {
        names.extend(committed(dir, header).map_err(|err| StoreErrorKind::from(err).at(dir))?);
    }
    Ok(names)
}

/// Whether every listed shard is there, or can be computed: it is of nothing but
/// rows of the table.
fn can_be_completed(
    list: &ShardList,
    dir: &Path,
    header: &StoreHeader,
    rows: &[TableRow],
) -> Result<bool, StoreError> {
    let folder = list.folder(dir);
    for shard in &list.shards {
        let can_be_computed = shard.positions(rows.len()).is_some_and(|positions| {
            let ids = positions.into_iter().map(|at| rows[at].id);
            shard_fingerprint(header, ids) == shard.fingerprint
        });
        if !can_be_computed && Shard::open_made_from(&folder, &shard.fingerprint)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
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
        fn the_parts_cover_every_shard_once(shard in 0usize..200, of in 1usize..9) {
            let owners = (0..of).filter(|index| part(*index, of).contains(shard)).count();
            prop_assert_eq!(owners, 1);
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
