//! All shards of one table at one checkpoint.

use std::path::{Path, PathBuf};

use super::shard::{Shard, ShardRows, StoreHeader, shard_path, write_shard};
use super::shard_list::{ListedShard, ShardList, shard_fingerprint};
use super::{Proof, StoreError, StoreErrorKind};
use crate::gradient::direction::GradientKind;
use crate::pool::ExampleId;

/// A complete store: every listed shard committed, proven whole and mapped.
/// Rows stand in order of id within a shard. Shards may hold rows that have
/// left the table, two of them the same one, and some of them gradients of more
/// kinds than others.
#[derive(Debug)]
pub struct GradientStore {
    dir: PathBuf,
    folder: PathBuf,
    header: StoreHeader,
    shards: Vec<Shard>,
}

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowPlace {
    /// Position among [`GradientStore::shards`].
    pub shard: usize,
    /// Row of that shard.
    pub row: usize,
}

impl GradientStore {
    /// Opens the store in `dir`. Reads every byte once to check it; the rows
    /// stay on disk. Shards that are not in its list are no part of it.
    ///
    /// # Errors
    ///
    /// If a shard is missing or damaged, or comes from another computation than
    /// the first.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Proof::Checksum)
    }

    /// As [`open`](Self::open), without reading what is not asked for: see
    /// [`Proof::Length`].
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but for a byte that was changed.
    pub fn glance(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Proof::Length)
    }

    fn open_with(dir: &Path, proof: Proof) -> Result<Self, StoreError> {
        let list = ShardList::read(dir)?;
        let folder = list.folder(dir);
        let open = |listed: &ListedShard| {
            Shard::open_with(&shard_path(&folder, &listed.fingerprint), proof)
        };
        let shards = list.shards.iter().map(open).collect::<Result<_, _>>()?;
        Self::of_shards(dir, &folder, shards)
    }

    /// The store in `dir` of these shards, which are in `folder` and in the order
    /// of its list.
    ///
    /// # Errors
    ///
    /// If there are none, or one comes from another computation than the first.
    pub fn of_shards(dir: &Path, folder: &Path, shards: Vec<Shard>) -> Result<Self, StoreError> {
        let Some(first) = shards.first() else {
            return Err(StoreErrorKind::Layout("lists no shards").at(&ShardList::path(dir)));
        };
        let mut header = first.header().clone();
        for shard in &shards {
            check_same_store(&header, shard.header())
                .map_err(|kind| kind.at(&shard_path(folder, shard.fingerprint())))?;
            header.kinds.retain(|kind| shard.header().kinds.contains(kind));
        }
        Ok(Self { dir: dir.to_owned(), folder: folder.to_owned(), header, shards })
    }

    /// Writes a whole store to `dir`, a shard for each of `shards`, and opens it.
    ///
    /// # Errors
    ///
    /// If it cannot be written, or rows are not `header`'s.
    pub fn write(
        dir: &Path,
        header: &StoreHeader,
        shards: impl IntoIterator<Item = ShardRows>,
    ) -> Result<Self, StoreError> {
        let (mut listed, mut all) = (Vec::new(), Vec::new());
        for rows in shards {
            all.extend_from_slice(&rows.ids);
            let fingerprint = shard_fingerprint(header, rows.ids.iter().copied());
            write_shard(dir, header, &fingerprint, rows)?;
            listed.push(ListedShard { fingerprint, rows: Vec::new() });
        }
        let made_for = shard_fingerprint(header, all);
        ShardList { folder: PathBuf::new(), made_for, shards: listed }.write(dir)?;
        Self::open(dir)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the rows are; its kinds are those that every shard has.
    pub fn header(&self) -> &StoreHeader {
        &self.header
    }

    /// 32 hex digits over what its shards were made from: equal for stores of
    /// equal shards.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("less-select gradient store v1");
        for shard in &self.shards {
            hasher.update(shard.fingerprint().as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// The shards, in the order of the list.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The identities of all rows, shard by shard.
    pub fn ids(&self) -> impl Iterator<Item = ExampleId> + '_ {
        self.shards.iter().flat_map(Shard::ids)
    }

    /// Number of rows in all shards.
    pub fn n_rows(&self) -> usize {
        self.shards.iter().map(Shard::n_rows).sum()
    }

    /// The list and the data files with their blake3 checksums.
    ///
    /// # Errors
    ///
    /// If the list cannot be read.
    pub fn files(&self) -> std::io::Result<Vec<(PathBuf, String)>> {
        let list = ShardList::path(&self.dir);
        let checksum = crate::fs::checksum(&list)?;
        let shards = self.shards.iter().map(|shard| {
            (shard_path(&self.folder, shard.fingerprint()), shard.checksum().to_owned())
        });
        Ok(std::iter::once((list, checksum)).chain(shards).collect())
    }

    /// Where the rows of `ids` are, in their order; of a row that is there twice,
    /// the first. `Err` is an id that is not there.
    ///
    /// # Errors
    ///
    /// The first id that is not there.
    pub fn places(
        &self,
        ids: impl IntoIterator<Item = ExampleId>,
    ) -> Result<Vec<RowPlace>, ExampleId> {
        let mut places: Vec<(ExampleId, RowPlace)> = Vec::with_capacity(self.n_rows());
        for (shard_idx, shard) in self.shards.iter().enumerate() {
            let rows = shard.ids().enumerate();
            places.extend(rows.map(|(row, id)| (id, RowPlace { shard: shard_idx, row })));
        }
        // Stable: of equal ids, the first shard's stays first.
        places.sort_by_key(|(id, _)| *id);
        places.dedup_by_key(|(id, _)| *id);
        let place = |id: ExampleId| {
            let found = places.binary_search_by_key(&id, |(id, _)| *id);
            found.map(|at| places[at].1).map_err(|_| id)
        };
        ids.into_iter().map(place).collect()
    }

    /// Fails if gradients of `kind` are not stored.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::NoKind`].
    pub fn require(&self, kind: GradientKind) -> Result<(), StoreError> {
        if self.header().kinds.contains(&kind) {
            Ok(())
        } else {
            Err(StoreErrorKind::NoKind(kind).at(&self.dir))
        }
    }
}

fn check_same_store(first: &StoreHeader, shard: &StoreHeader) -> Result<(), StoreErrorKind> {
    first.check_comparable(shard, "the first shard")?;
    if first.has_rows_of(shard) {
        Ok(())
    } else {
        Err(StoreErrorKind::Layout("has another header than the first shard"))
    }
}
