//! `shards.json`: which shards make a store.
//!
//! A shard is named by what it is of: the store's header and its examples. So a
//! folder may hold more shards than its store needs: those of rows that have
//! left the table, of other settings, of another run. The list says which ones
//! count, and which rows those that are not there yet are to be of. It is made
//! once, before any worker starts, so that all of them have the same.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::shard::{StoreHeader, committed_fingerprint};
use super::{StoreError, StoreErrorKind};
use crate::pool::ExampleId;
use crate::sealed;

/// Most rows of a table: so many that sums over all shards fit.
const MAX_ROWS: usize = 1 << 40;

/// The shards of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardList {
    /// The folder that holds the shards, relative to the list's own.
    pub folder: PathBuf,
    /// [`shard_fingerprint`] of the whole store.
    pub made_for: String,
    /// The shards, in the order in which they are computed.
    pub shards: Vec<ListedShard>,
}

/// A shard that a store needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedShard {
    /// Its [`shard_fingerprint`], and its name.
    pub fingerprint: String,
    /// Where the rows that it is there for stand in the table, as ranges. A
    /// shard that was there before may have others, too.
    pub rows: Vec<Range<usize>>,
}

impl ListedShard {
    /// Positions of its rows in a table of `n_rows`, ascending; `None` if they
    /// are not in it.
    pub fn positions(&self, n_rows: usize) -> Option<Vec<usize>> {
        let is_inside = self.rows.last().is_none_or(|last| last.end <= n_rows);
        is_inside.then(|| self.rows.iter().cloned().flatten().collect())
    }

    /// Number of rows that it is there for.
    pub fn n_rows(&self) -> usize {
        self.rows.iter().map(Range::len).sum()
    }
}

/// Ascending positions as ranges.
pub(crate) fn ranges(positions: &[usize]) -> Vec<Range<usize>> {
    positions.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[run.len() - 1] + 1).collect()
}

/// Equal for the shards of one store, whatever their rows: 8 hex digits.
///
/// # Panics
///
/// Never: a header is plain JSON.
fn header_fingerprint(header: &StoreHeader) -> String {
    let json = serde_json::to_vec(header).expect("plain JSON");
    blake3::Hash::from(blake3::derive_key("less-select store header v1", &json)).to_hex()[..8]
        .to_owned()
}

/// Equal for equal rows in equal order: 16 hex digits.
pub fn rows_fingerprint(ids: impl IntoIterator<Item = ExampleId>) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("less-select shard rows v1");
    for id in ids {
        hasher.update(&id.0);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// What a shard is made from: the store it belongs to, and its examples. Not
/// the batch size, which changes nothing but rounding.
pub fn shard_fingerprint(header: &StoreHeader, ids: impl IntoIterator<Item = ExampleId>) -> String {
    shard_prefix(header) + &rows_fingerprint(ids)
}

/// How the [`shard_fingerprint`]s of a store with `header` begin.
pub(crate) fn shard_prefix(header: &StoreHeader) -> String {
    header_fingerprint(header) + "-"
}

impl ShardList {
    /// The file in a store's folder.
    pub const FILE: &str = "shards.json";

    /// Where the list of the store in `dir` is.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(Self::FILE)
    }

    /// Reads the list of the store in `dir`.
    ///
    /// # Errors
    ///
    /// If there is none, or it is damaged.
    pub fn read(dir: &Path) -> Result<Self, StoreError> {
        let path = Self::path(dir);
        let read = || match sealed::read_json::<Self>(&path) {
            Ok(list) => list.checked(),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Err(StoreErrorKind::NoList),
            Err(err) => Err(err.into()),
        };
        read().map_err(|kind: StoreErrorKind| kind.at(&path))
    }

    /// Refuses what is no list, whoever wrote it: names that lead elsewhere, rows
    /// in no order.
    fn checked(self) -> Result<Self, StoreErrorKind> {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        };
        let ascend = |rows: &[Range<usize>]| {
            let follow = rows.windows(2).all(|pair| pair[0].end < pair[1].start);
            follow && rows.iter().all(|range| range.start < range.end && range.end <= MAX_ROWS)
        };
        if !self.shards.iter().all(|shard| is_name(&shard.fingerprint)) {
            return Err(StoreErrorKind::Layout("names shards that can be none"));
        }
        if !self.shards.iter().all(|shard| ascend(&shard.rows)) {
            return Err(StoreErrorKind::Layout("has rows that are not in order"));
        }
        Ok(self)
    }

    /// Writes the list of the store in `dir`.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let path = Self::path(dir);
        sealed::write_json(&path, self).map_err(|err| StoreErrorKind::from(err).at(&path))
    }

    /// The folder that holds the shards of the store in `dir`.
    pub fn folder(&self, dir: &Path) -> PathBuf {
        if self.folder.as_os_str().is_empty() { dir.to_owned() } else { dir.join(&self.folder) }
    }

    /// Whether all shards are of stores with these headers.
    pub(crate) fn has_only(&self, headers: &[StoreHeader]) -> bool {
        let prefixes: Vec<String> = headers.iter().map(shard_prefix).collect();
        let is_of_one = |name: &String| prefixes.iter().any(|prefix| name.starts_with(prefix));
        self.shards.iter().all(|shard| is_of_one(&shard.fingerprint))
    }

    /// Shards that nobody has committed yet.
    pub fn missing<'a>(&'a self, dir: &Path) -> impl Iterator<Item = &'a ListedShard> {
        let folder = self.folder(dir);
        let is_committed = move |shard: &&ListedShard| {
            committed_fingerprint(&folder, &shard.fingerprint).as_ref() == Some(&shard.fingerprint)
        };
        self.shards.iter().filter(move |shard| !is_committed(shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_kept_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), [0..3, 5..6, 7..9]);
        assert!(ranges(&[]).is_empty());
        let shard = ListedShard { fingerprint: String::new(), rows: ranges(&[3, 4, 9]) };
        assert_eq!(shard.positions(10), Some(vec![3, 4, 9]));
        assert_eq!(shard.positions(9), None);
        assert_eq!(shard.n_rows(), 3);
    }
}
