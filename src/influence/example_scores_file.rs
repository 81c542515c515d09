//! The cosines with single target examples on disk.
//!
//! An Arrow IPC file a checkpoint in `cosines/`, committed and proven whole like
//! the shards of the [store](crate::store), a row a pool example in the order of
//! `scores.parquet`:
//!
//! ```text
//! cosines-epoch-1.arrow    id       fixed_size_binary(16)
//!                          cosines  fixed_size_list<f32>[n_targets]    NaN where flagged
//! ```
//!
//! Its header, JSON under the schema's one metadata key, names checkpoint,
//! weight, subtasks and target examples. All batches but the last have the same
//! number of rows, which depends on the number of target examples alone.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::example_scores::{CosinesHeader, ExampleScores, TargetExamples};
use crate::pool::ExampleId;
use crate::store::{
    CheckedFile, FORMAT, Proof, StoreError, StoreErrorKind, commit_blocks, list_type, lists,
};

/// Most rows, and about the most bytes, of a batch.
const BLOCK_ROWS: usize = 16_384;
const BLOCK_BYTES: usize = 32 << 20;

/// How names of these files begin.
const PREFIX: &str = "cosines-";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileHeader {
    format: u32,
    cosines: CosinesHeader,
}

/// The cosines of one checkpoint, in the memory map.
#[derive(Debug)]
pub struct CosinesFile {
    header: CosinesHeader,
    fingerprint: String,
    batches: Vec<RecordBatch>,
    n_rows: usize,
    /// Rows of every batch but the last.
    block_rows: usize,
}

/// Rows of the pool that are worked on and written at once, given the number of
/// target examples.
pub fn block_rows(n_targets: usize) -> usize {
    (BLOCK_BYTES / (4 * n_targets.max(1))).clamp(64, BLOCK_ROWS)
}

/// Where the cosines of a checkpoint are in the folder `dir`.
pub fn cosines_path(dir: &Path, checkpoint: &str) -> PathBuf {
    dir.join(format!("{PREFIX}{checkpoint}.arrow"))
}

/// The file of the cosines of a checkpoint in the folder `dir`, and its marker.
pub fn cosines_files(dir: &Path, checkpoint: &str) -> [PathBuf; 2] {
    let path = cosines_path(dir, checkpoint);
    let marker = path.with_extension("json");
    [path, marker]
}

/// Whether the file at `path` is named as one of these.
pub fn is_cosines(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(PREFIX) && name.ends_with(".arrow")
}

/// Writes the cosines of one checkpoint into the folder `dir` and returns their
/// file, its marker beside it, and the checksums of both.
///
/// `ids` are the pool's, in the order of the score table. `fill` is asked for
/// [`block_rows`] rows at a time, in order, and given them filled with NaN,
/// `[n × n_targets]`; in memory is one such block.
///
/// # Errors
///
/// What `fill` returns, or if the file cannot be written.
///
/// # Panics
///
/// If there is no target example.
pub fn write_cosines<E: From<StoreError>>(
    dir: &Path,
    header: CosinesHeader,
    ids: &[ExampleId],
    fill: impl FnMut(Range<usize>, &mut [f32]) -> Result<(), E>,
) -> Result<[(PathBuf, String); 2], E> {
    let block_rows = block_rows(header.targets.examples.len());
    write_blocks(dir, header, ids, block_rows, fill)
}

fn write_blocks<E: From<StoreError>>(
    dir: &Path,
    header: CosinesHeader,
    ids: &[ExampleId],
    block_rows: usize,
    mut fill: impl FnMut(Range<usize>, &mut [f32]) -> Result<(), E>,
) -> Result<[(PathBuf, String); 2], E> {
    let n_targets = header.targets.examples.len();
    assert!(n_targets > 0, "columns");
    let path = cosines_path(dir, &header.checkpoint);
    let fingerprint = fingerprint_of(&header.targets, ids);
    let schema = Arc::new(schema(n_targets));
    let header = FileHeader { format: FORMAT, cosines: header };
    commit_blocks::<E>(&path, &header, &fingerprint, &schema, |out| {
        for start in (0..ids.len()).step_by(block_rows) {
            let rows = start..ids.len().min(start + block_rows);
            let mut cosines = vec![f32::NAN; rows.len() * n_targets];
            fill(rows.clone(), &mut cosines)?;
            let batch = batch(&schema, &ids[rows], cosines, n_targets);
            out.write(&batch.map_err(|err| StoreErrorKind::from(err).at(&path))?)?;
        }
        Ok(())
    })
}

/// 32 hex digits over rows and columns.
fn fingerprint_of(targets: &TargetExamples, ids: &[ExampleId]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("less-select cosines v1");
    for name in &targets.subtasks {
        hasher.update(name.as_bytes()).update(b"\0");
    }
    for example in &targets.examples {
        hasher.update(&example.id.0).update(&example.subtask.to_le_bytes());
    }
    hasher.update(b"rows");
    for id in ids {
        hasher.update(&id.0);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

fn schema(n_targets: usize) -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::FixedSizeBinary(16), false),
        Field::new("cosines", list_type(DataType::Float32, n_targets), false),
    ])
}

fn batch(
    schema: &Arc<Schema>,
    ids: &[ExampleId],
    cosines: Vec<f32>,
    n_targets: usize,
) -> Result<RecordBatch, ArrowError> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::try_from_iter(ids.iter().map(|id| id.0))?),
        Arc::new(lists(Arc::new(Float32Array::from(cosines)), n_targets)?),
    ];
    RecordBatch::try_new(schema.clone(), columns)
}

impl CosinesFile {
    /// Opens one checkpoint's file. Reads every byte once to check it; the rows
    /// stay on disk.
    ///
    /// # Errors
    ///
    /// If it is not committed, damaged, or no such file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Proof::Checksum)
    }

    fn open_with(path: &Path, proof: Proof) -> Result<Self, StoreError> {
        let file = CheckedFile::<FileHeader, Vec<RecordBatch>>::open_blocks(path, proof)?;
        Self::believe(file).map_err(|kind| kind.at(path))
    }

    /// After this, columns are where and what [`schema`] says, and rows can be
    /// found.
    fn believe(file: CheckedFile<FileHeader, Vec<RecordBatch>>) -> Result<Self, StoreErrorKind> {
        let CheckedFile { header: FileHeader { format, cosines: header }, fingerprint, .. } = file;
        let batches = file.batch;
        if format != FORMAT {
            return Err(StoreErrorKind::Format(format));
        }
        let targets = &header.targets;
        let schema = schema(targets.examples.len());
        if batches.iter().any(|batch| batch.schema().fields() != schema.fields()) {
            return Err(StoreErrorKind::Layout("has other columns than cosines"));
        }
        let has_subtasks =
            targets.examples.iter().all(|of| (of.subtask as usize) < targets.subtasks.len());
        let block_rows = batches.first().map_or(0, RecordBatch::num_rows);
        let even = batches.split_last().is_none_or(|(last, whole)| {
            last.num_rows() <= block_rows && whole.iter().all(|b| b.num_rows() == block_rows)
        });
        if !has_subtasks || !even {
            return Err(StoreErrorKind::Layout("does not have the rows and columns it names"));
        }
        let n_rows = batches.iter().map(RecordBatch::num_rows).sum();
        let this = Self { header, fingerprint, batches, n_rows, block_rows };
        let ids: Vec<ExampleId> = this.ids().collect();
        if fingerprint_of(&this.header.targets, &ids) != this.fingerprint {
            return Err(StoreErrorKind::Layout("has a marker of other rows or columns"));
        }
        Ok(this)
    }

    /// What it holds.
    pub fn header(&self) -> &CosinesHeader {
        &self.header
    }

    /// Number of pool rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The identities of the pool rows, in order.
    pub fn ids(&self) -> impl Iterator<Item = ExampleId> + '_ {
        self.batches.iter().flat_map(|batch| {
            let (ids, _) = batch.column(0).as_fixed_size_binary().value_data().as_chunks();
            ids.iter().copied().map(ExampleId)
        })
    }

    /// The cosines of some rows, `[n × n_targets]`, in pieces as they lie in the
    /// map.
    ///
    /// # Panics
    ///
    /// If `rows` passes the end.
    pub fn slices(&self, rows: Range<usize>) -> impl Iterator<Item = &[f32]> + '_ {
        assert!(rows.end <= self.n_rows, "rows of the file");
        let (n_targets, block_rows) = (self.header.targets.examples.len(), self.block_rows.max(1));
        let blocks = rows.start / block_rows..rows.end.div_ceil(block_rows);
        let blocks = if rows.is_empty() { 0..0 } else { blocks };
        blocks.map(move |block| {
            let start = block * block_rows;
            let own = rows.start.max(start) - start..rows.end.min(start + block_rows) - start;
            let lists = self.batches[block].column(1).as_fixed_size_list();
            let values = lists.values().as_primitive::<Float32Type>().values();
            &values[own.start * n_targets..own.end * n_targets]
        })
    }
}

impl ExampleScores {
    /// Opens the files of all checkpoints.
    ///
    /// # Errors
    ///
    /// If one cannot be opened, or is of other rows or columns than the first, or
    /// has a checkpoint that another has; if there is none.
    pub fn open(paths: &[PathBuf]) -> Result<Self, StoreError> {
        Self::open_with(paths, Proof::Checksum)
    }

    /// As [`open`](Self::open), without reading what is not asked for: see
    /// [`Proof::Length`].
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but for a byte that was changed.
    pub fn glance(paths: &[PathBuf]) -> Result<Self, StoreError> {
        Self::open_with(paths, Proof::Length)
    }

    fn open_with(paths: &[PathBuf], proof: Proof) -> Result<Self, StoreError> {
        let open = |path: &PathBuf| CosinesFile::open_with(path, proof);
        let checkpoints = paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let mut labels = BTreeSet::new();
        for (file, path) in checkpoints.iter().zip(paths) {
            let is_new = labels.insert(&file.header.checkpoint);
            if !is_new || file.fingerprint != checkpoints[0].fingerprint {
                let kind = StoreErrorKind::Layout("does not belong to the other checkpoints");
                return Err(kind.at(path));
            }
        }
        let Some(first) = checkpoints.first() else {
            return Err(StoreErrorKind::Layout("there are no cosines").at(Path::new("cosines")));
        };
        Ok(Self { targets: first.header.targets.clone(), checkpoints })
    }
}

#[cfg(test)]
mod tests {
    use super::super::example_scores::TargetExample;
    use super::*;

    fn header(checkpoint: &str, weight: f64) -> CosinesHeader {
        let example = |id, subtask| TargetExample { id: ExampleId([id; 16]), subtask };
        let examples = vec![example(1, 1), example(2, 0), example(2, 1)];
        let subtasks = vec!["essay".to_owned(), "quiz".to_owned()];
        let targets = TargetExamples { subtasks, examples };
        CosinesHeader { checkpoint: checkpoint.to_owned(), weight, targets }
    }

    fn ids(n: u8) -> Vec<ExampleId> {
        (0..n).map(|id| ExampleId([id; 16])).collect()
    }

    /// Row r and column c have r + c/10, times `times`.
    fn write(dir: &Path, header: CosinesHeader, n: u8, block_rows: usize, times: f32) -> PathBuf {
        let path = cosines_path(dir, &header.checkpoint);
        let fill = |rows: Range<usize>, out: &mut [f32]| -> Result<(), StoreError> {
            assert!(out.iter().all(|cosine| cosine.is_nan()));
            for (row, out) in rows.zip(out.chunks_exact_mut(3)) {
                for (column, out) in out.iter_mut().enumerate() {
                    *out = times * (row as f32 + column as f32 / 10.0);
                }
            }
            Ok(())
        };
        for (path, checksum) in write_blocks(dir, header, &ids(n), block_rows, fill).unwrap() {
            assert_eq!(crate::fs::checksum(&path).unwrap(), checksum);
        }
        path
    }

    #[test]
    fn rows_are_read_back_from_any_blocks() {
        let dir = tempfile::tempdir().unwrap();
        for block_rows in [1, 3, 4, 7, 100] {
            let path = write(dir.path(), header("epoch-1", 1.0), 7, block_rows, 1.0);
            let file = CosinesFile::open(&path).unwrap();
            assert_eq!((file.n_rows(), file.header()), (7, &header("epoch-1", 1.0)));
            assert_eq!(file.ids().collect::<Vec<_>>(), ids(7));
            for rows in [0..7, 2..5, 6..7, 3..3, 7..7] {
                let found: Vec<f32> = file.slices(rows.clone()).flatten().copied().collect();
                let row = |row: usize| [0.0, 0.1, 0.2].map(|column| row as f32 + column);
                assert_eq!(found, rows.flat_map(row).collect::<Vec<f32>>());
            }
        }
    }

    #[test]
    fn the_total_is_weighted() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [("epoch-1", 0.75, 1.0), ("epoch-2", 0.25, -1.0)]
            .map(|(name, weight, times)| write(dir.path(), header(name, weight), 5, 2, times));
        let scores = ExampleScores::open(&paths).unwrap();
        assert_eq!((scores.n_rows(), scores.n_targets()), (5, 3));
        assert_eq!(scores.total(1..3), [0.5, 0.55, 0.6, 1.0, 1.05, 1.1]);
        let all = scores.total(0..5);
        for column in 0..3 {
            let found: Vec<f32> = all.iter().copied().skip(column).step_by(3).collect();
            assert_eq!(scores.column(column), found);
        }
    }

    #[test]
    fn files_of_other_rows_do_not_mix() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = write(one.path(), header("epoch-1", 0.5), 5, 2, 1.0);
        let other = write(two.path(), header("epoch-2", 0.5), 4, 2, 1.0);
        let refused = |paths: &[&PathBuf]| {
            let paths: Vec<_> = paths.iter().map(|path| (*path).clone()).collect();
            ExampleScores::open(&paths).unwrap_err().kind.to_string()
        };
        insta::assert_snapshot!(refused(&[&first, &other]), @"does not belong to the other checkpoints");
        insta::assert_snapshot!(refused(&[&first, &first]), @"does not belong to the other checkpoints");
        insta::assert_snapshot!(refused(&[]), @"there are no cosines");
        // A marker of another file of the same name.
        let same = write(two.path(), header("epoch-1", 0.5), 4, 2, 1.0);
        let marker = |path: &Path| path.with_extension("json");
        fs_err::copy(marker(&same), marker(&first)).unwrap();
        assert!(CosinesFile::open(&first).is_err());
    }

    #[test]
    fn a_changed_byte_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), header("epoch-1", 1.0), 5, 2, 1.0);
        for path in [&path, &path.with_extension("json")] {
            let whole = fs_err::read(path).unwrap();
            for at in (0..whole.len()).step_by(5) {
                let mut altered = whole.clone();
                altered[at] ^= 1;
                fs_err::write(path, &altered).unwrap();
                assert!(
                    CosinesFile::open(&dir.path().join("cosines-epoch-1.arrow")).is_err(),
                    "{at}"
                );
            }
            fs_err::write(path, &whole).unwrap();
        }
    }
}
