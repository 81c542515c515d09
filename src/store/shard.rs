//! One shard: some rows of a table at one checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Float32Array, RecordBatch, StringArray,
    UInt32Array,
};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, UInt32Type};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::checked_file::{Proof, marker_path, read_marker};
use super::shard_list::shard_prefix;
use super::unit_rows::{self, UnitRows};
use super::{CheckedFile, FORMAT, Flag, Split, StoreDtype, StoreError, StoreErrorKind, commit};
use crate::gradient::direction::GradientKind;
use crate::pool::ExampleId;

/// What a shard's rows are, in order of name: all shards of a store have the same, but
/// that some may have more kinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreHeader {
    /// The checkpoint, such as `epoch-1`.
    pub checkpoint: String,
    /// How coordinates are written.
    pub dtype: StoreDtype,
    /// [`FORMAT`].
    pub format: u32,
    /// Fingerprint of what the gradients are of: model, adapter, precision.
    pub gradient: String,
    /// The kinds of gradient stored, ascending.
    pub kinds: Vec<GradientKind>,
    /// Fingerprint of the parameter layout.
    pub layout: String,
    /// Length of a row.
    pub proj_dim: usize,
    /// Fingerprint of the projection.
    pub projection: String,
    /// The table.
    pub split: Split,
}

impl StoreHeader {
    /// Refuses, by name, a header whose rows cannot stand beside `self`'s in
    /// one inner product; `elsewhere` is what `self` is the header of.
    ///
    /// # Errors
    ///
    /// The first of checkpoint, layout, gradient and projection that differs.
    pub fn check_comparable(&self, other: &Self, elsewhere: &str) -> Result<(), StoreErrorKind> {
        let pairs = [
            ("checkpoint", &self.checkpoint, &other.checkpoint),
            ("parameter layout", &self.layout, &other.layout),
            ("gradient fingerprint", &self.gradient, &other.gradient),
            ("projection fingerprint", &self.projection, &other.projection),
        ];
        match pairs.into_iter().find(|(_, expected, found)| expected != found) {
            None => Ok(()),
            Some((what, expected, found)) => Err(StoreErrorKind::Mismatch {
                what,
                found: found.clone(),
                expected: expected.clone(),
                elsewhere: elsewhere.to_owned(),
            }),
        }
    }

    /// This header, then those of stores that have its rows and gradients of more
    /// kinds beside them, the fewest first.
    pub fn that_serve(&self) -> Vec<Self> {
        let more: Vec<_> =
            GradientKind::ALL.iter().filter(|kind| !self.kinds.contains(kind)).collect();
        let mut headers: Vec<Self> = (0..1_usize << more.len())
            .map(|chosen| {
                let added = more.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1);
                let mut kinds = self.kinds.clone();
                kinds.extend(added.map(|(_, kind)| **kind));
                kinds.sort_unstable();
                Self { kinds, ..self.clone() }
            })
            .collect();
        headers.sort_by_key(|header| header.kinds.len());
        headers
    }

    /// Whether the two are equal, but for the kinds of gradient.
    pub(super) fn has_rows_of(&self, other: &Self) -> bool {
        *self == Self { kinds: self.kinds.clone(), ..other.clone() }
    }

    fn schema(&self) -> Schema {
        let mut fields = vec![Field::new("id", DataType::FixedSizeBinary(16), false)];
        for kind in &self.kinds {
            fields.extend(unit_rows::fields(*kind, self.dtype, self.proj_dim));
            fields.push(Field::new(format!("{kind}.norm"), DataType::Float32, false));
        }
        fields.push(Field::new("loss", DataType::Float32, false));
        fields.push(Field::new("n_supervised", DataType::UInt32, false));
        fields.push(Field::new("flag", DataType::Utf8, true));
        Schema::new(fields)
    }
}

/// The rows of a shard on their way to its file, in order of id.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardRows {
    /// Identities, ascending.
    pub ids: Vec<ExampleId>,
    /// One entry for each of the header's kinds, in its order.
    pub kinds: Vec<KindRows>,
    /// Mean token loss in nats, one a row.
    pub loss: Vec<f32>,
    /// Supervised tokens, one a row.
    pub n_supervised: Vec<u32>,
    /// Why a row must not be ranked, one a row.
    pub flags: Vec<Option<Flag>>,
}

/// A shard's gradients of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct KindRows {
    /// Rows of unit length, or zeros where flagged: `[n × proj_dim]`, row-major.
    pub unit: Vec<f32>,
    /// Their lengths before, `[n]`.
    pub norms: Vec<f32>,
}

/// Where the shard made from `fingerprint` is in the folder `dir`.
pub fn shard_path(dir: &Path, fingerprint: &str) -> PathBuf {
    dir.join(format!("shard-{fingerprint}.arrow"))
}

/// What the shard at `path` was made from, going by its name; `None` if it is
/// no shard.
pub(crate) fn named_fingerprint(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?.strip_prefix("shard-")?;
    name.strip_suffix(".arrow").filter(|fingerprint| !fingerprint.is_empty())
}

/// Writes a shard and commits it, quantizing its rows on the current rayon pool
/// if the header's dtype asks for it. `fingerprint` says what it was made from
/// (see [`shard_fingerprint`](super::shard_list::shard_fingerprint)) and names
/// it.
///
/// # Errors
///
/// If the files cannot be written, or the rows are not `header`'s.
pub fn write_shard(
    dir: &Path,
    header: &StoreHeader,
    fingerprint: &str,
    rows: ShardRows,
) -> Result<(), StoreError> {
    let path = shard_path(dir, fingerprint);
    let batch = record_batch(header, rows).map_err(|err| StoreErrorKind::from(err).at(&path))?;
    commit(&path, header, fingerprint, &batch)
}

fn record_batch(header: &StoreHeader, rows: ShardRows) -> Result<RecordBatch, ArrowError> {
    let ids = rows.ids.iter().map(|id| id.0);
    let mut columns: Vec<ArrayRef> = vec![Arc::new(FixedSizeBinaryArray::try_from_iter(ids)?)];
    for KindRows { unit, norms } in rows.kinds {
        columns.extend(unit_rows::columns(header.dtype, header.proj_dim, unit)?);
        columns.push(Arc::new(Float32Array::from(norms)));
    }
    columns.push(Arc::new(Float32Array::from(rows.loss)));
    columns.push(Arc::new(UInt32Array::from(rows.n_supervised)));
    let reasons = rows.flags.into_iter().map(|flag| flag.map(Flag::reason));
    columns.push(Arc::new(reasons.collect::<StringArray>()));
    RecordBatch::try_new(Arc::new(header.schema()), columns)
}

/// The shards of the store with `header` that are committed in the folder
/// `dir`, going by their names, in order of name. No folder, no shards.
///
/// # Errors
///
/// If the folder cannot be read.
pub fn committed(dir: &Path, header: &StoreHeader) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    let prefix = shard_prefix(header);
    let entries = match fs_err::read_dir(dir) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let fingerprint = named_fingerprint(&path).filter(|name| name.starts_with(&prefix));
        let marked = fingerprint.filter(|name| committed_fingerprint(dir, name).is_some());
        found.extend(marked.map(str::to_owned));
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes the shards of the store with `header` from the folder `dir`.
///
/// # Errors
///
/// If one cannot be removed.
pub fn remove_shards(dir: &Path, header: &StoreHeader) -> std::io::Result<()> {
    for fingerprint in committed(dir, header)? {
        remove_shard(&shard_path(dir, &fingerprint))?;
    }
    Ok(())
}

/// Removes what there is of the shard at `path`.
///
/// # Errors
///
/// If it cannot be removed.
pub fn remove_shard(path: &Path) -> std::io::Result<()> {
    // The marker first: a shard without it does not count.
    crate::fs::remove_if_there(&marker_path(path))?;
    crate::fs::remove_if_there(path)
}

/// What the shard named `fingerprint` in the folder `dir` was made from, going
/// by its marker alone; `None` if it is not committed.
pub(crate) fn committed_fingerprint(dir: &Path, fingerprint: &str) -> Option<String> {
    read_marker(&shard_path(dir, fingerprint)).ok().map(|marker| marker.fingerprint)
}

/// A committed shard, proven whole and mapped into memory.
#[derive(Debug)]
pub struct Shard {
    header: StoreHeader,
    fingerprint: String,
    checksum: String,
    batch: RecordBatch,
}

impl Shard {
    /// Opens the shard at `path`.
    ///
    /// # Errors
    ///
    /// If it is not committed, cannot be read, or is not what was committed in
    /// any byte; or if it is of another format or its rows are out of order.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Proof::Checksum)
    }

    pub(super) fn open_with(path: &Path, proof: Proof) -> Result<Self, StoreError> {
        let CheckedFile { header, fingerprint, checksum, batch } =
            CheckedFile::<StoreHeader>::open(path, proof)?;
        let shard = Self { header, fingerprint, checksum, batch };
        shard.check(path).map_err(|kind| kind.at(path))?;
        Ok(shard)
    }

    /// Opens the shard of the folder `dir` that is made from `fingerprint`;
    /// `None` if it has to be computed, because it is not there or not whole.
    ///
    /// # Errors
    ///
    /// If a file is there but the system does not let it be read.
    pub fn open_made_from(dir: &Path, fingerprint: &str) -> Result<Option<Self>, StoreError> {
        match Self::open(&shard_path(dir, fingerprint)) {
            Ok(shard) => Ok(Some(shard)),
            Err(err) if err.kind.is_denied() => Err(err),
            Err(_) => Ok(None),
        }
    }

    /// After this, columns are where and what the header says.
    fn check(&self, path: &Path) -> Result<(), StoreErrorKind> {
        if named_fingerprint(path) != Some(&self.fingerprint) {
            return Err(StoreErrorKind::Layout("is not what its name says"));
        }
        if self.header.format != FORMAT {
            return Err(StoreErrorKind::Format(self.header.format));
        }
        if self.batch.schema().fields() != self.header.schema().fields() {
            return Err(StoreErrorKind::Layout("has other columns than its header says"));
        }
        let mut neighbors = self.ids().zip(self.ids().skip(1));
        match neighbors.position(|(before, after)| before > after) {
            Some(row) => Err(StoreErrorKind::Order(row + 1)),
            None => Ok(()),
        }
    }

    /// What the rows are.
    pub fn header(&self) -> &StoreHeader {
        &self.header
    }

    /// What the shard was made from, as its writer put it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The blake3 checksum of the data file, 64 hex digits.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Identities, ascending, one a row.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = ExampleId> + Clone + '_ {
        let (ids, _) = self.batch.column(0).as_fixed_size_binary().value_data().as_chunks();
        ids.iter().copied().map(ExampleId)
    }

    /// The gradients of one kind; `None` if they are not stored.
    pub fn kind(&self, kind: GradientKind) -> Option<KindColumns<'_>> {
        let StoreHeader { dtype, proj_dim, kinds, .. } = &self.header;
        let kind_idx = kinds.iter().position(|stored| *stored == kind)?;
        let n_columns = dtype.n_columns() + 1;
        let columns = &self.batch.columns()[1 + kind_idx * n_columns..][..n_columns];
        let (norms, rows) = columns.split_last()?;
        let unit = UnitRows::read(*dtype, *proj_dim, rows);
        Some(KindColumns { unit, norms: norms.as_primitive::<Float32Type>().values() })
    }

    /// Mean token loss in nats, one a row.
    pub fn loss(&self) -> &[f32] {
        self.last_but(2).as_primitive::<Float32Type>().values()
    }

    /// Supervised tokens, one a row.
    pub fn n_supervised(&self) -> &[u32] {
        self.last_but(1).as_primitive::<UInt32Type>().values()
    }

    /// Why a row must not be ranked; `None` if it may.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn flag(&self, row: usize) -> Option<&str> {
        let flags = self.last_but(0).as_string::<i32>();
        flags.is_valid(row).then(|| flags.value(row))
    }

    /// Number of rows that must not be ranked.
    pub fn n_flagged(&self) -> usize {
        self.n_rows() - self.last_but(0).null_count()
    }

    /// The last column is number 0.
    fn last_but(&self, n_columns: usize) -> &ArrayRef {
        self.batch.column(self.batch.num_columns() - 1 - n_columns)
    }
}

/// A shard's gradients of one kind, in its memory map.
#[derive(Clone, Copy, Debug)]
pub struct KindColumns<'a> {
    /// Rows of unit length, or zeros where flagged.
    pub unit: UnitRows<'a>,
    /// Their lengths before, `[n]`.
    pub norms: &'a [f32],
}
