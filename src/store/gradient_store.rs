//! All shards of one table at one checkpoint.

use std::path::{Path, PathBuf};

use super::shard::{Shard, StoreHeader, shard_path};
use super::{StoreError, StoreErrorKind};
use crate::gradient::direction::GradientKind;
use crate::pool::ExampleId;

/// A complete store: every shard committed, proven whole and mapped. Rows
/// stand in order of id over all shards.
#[derive(Debug)]
pub struct GradientStore {
    dir: PathBuf,
    shards: Vec<Shard>,
}

impl GradientStore {
    /// Opens the store in `dir`. Reads every byte once to check it; the rows
    /// stay on disk. Shards beyond the header's number, left by an earlier
    /// collection, are no part of it.
    ///
    /// # Errors
    ///
    /// If a shard is missing or damaged, comes from another computation than
    /// the first, or holds rows of another place.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let first = Shard::open(dir, 0)?;
        let n_shards = first.header().n_shards;
        let mut shards = vec![first];
        for shard_idx in 1..n_shards {
            let shard = Shard::open(dir, shard_idx)?;
            check_follows(&shards[shard_idx - 1], &shard)
                .map_err(|kind| kind.at(&shard_path(dir, shard_idx)))?;
            shards.push(shard);
        }
        Ok(Self { dir: dir.to_owned(), shards })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the rows are.
    pub fn header(&self) -> &StoreHeader {
        self.shards[0].header()
    }

    /// 32 hex digits over what its shards were made from: equal for stores of
    /// equal rows.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("less-select gradient store v1");
        for shard in &self.shards {
            hasher.update(shard.fingerprint().as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// The shards, in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Number of rows in all shards.
    pub fn n_rows(&self) -> usize {
        self.shards.iter().map(Shard::n_rows).sum()
    }

    /// Number of rows that must not be ranked.
    pub fn n_flagged(&self) -> usize {
        self.shards.iter().map(Shard::n_flagged).sum()
    }

    /// The data files with their blake3 checksums.
    pub fn files(&self) -> impl Iterator<Item = (PathBuf, String)> + '_ {
        let path = |shard_idx| shard_path(&self.dir, shard_idx);
        self.shards
            .iter()
            .enumerate()
            .map(move |(idx, shard)| (path(idx), shard.checksum().to_owned()))
    }

    /// The identities of all rows, ascending.
    pub fn ids(&self) -> impl Iterator<Item = ExampleId> + '_ {
        self.shards.iter().flat_map(Shard::ids)
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

fn check_follows(before: &Shard, shard: &Shard) -> Result<(), StoreErrorKind> {
    before.header().check_comparable(shard.header(), "the shards before it")?;
    if before.header() != shard.header() {
        return Err(StoreErrorKind::Layout("has another header than the shards before it"));
    }
    if before.ids().next_back() > shard.ids().next() {
        return Err(StoreErrorKind::Order(0));
    }
    Ok(())
}
