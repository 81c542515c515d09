//! The one Parquet file of a subset.

use std::path::Path;

use fs_err as fs;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::columns::Columns;
use super::{ExportErrorKind, SubsetRow};
use crate::fs::{checksum, sync_dir};

/// Key of the provenance in the file's metadata. Never `huggingface`: without
/// that key every version of `datasets` reads the same features from the types.
const METADATA_KEY: &str = "less-select";

/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// Rows of a row group at most: readers fetch and decode whole groups.
const GROUP_ROWS: usize = 10_000;

/// Bytes of text in a row group, before compression, after which it is closed.
/// The Hub's viewer refuses groups of more than 100 MB.
const GROUP_BYTES: usize = 64 << 20;

/// Rows and bytes of text that are encoded at a time.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 16 << 20;

/// Bytes of text in one row at most. An Arrow string array ends at 2 GiB, and
/// JSON escapes may make six bytes of one.
const ROW_BYTES: usize = 256 << 20;

/// A data file that was written.
#[derive(Debug)]
pub(super) struct DataFile {
    name: String,
    /// Checksum of its bytes, 64 hex digits.
    pub(super) blake3: String,
}

impl DataFile {
    /// Its path inside the subset folder.
    pub(super) fn relative_path(&self) -> String {
        format!("data/{}", self.name)
    }
}

/// Writes `rows` as the only file of a new folder `dir`, named by its content.
///
/// The bytes depend on the arguments alone. One batch is held in Arrow's form
/// and one row group encoded, whatever the number of rows.
pub(super) fn write(
    dir: &Path,
    rows: &[SubsetRow<'_>],
    columns: &Columns,
    provenance: &serde_json::Value,
) -> Result<DataFile, ExportErrorKind> {
    fs::create_dir(dir)?;
    let unnamed = dir.join("train.parquet");
    let mut writer = ArrowWriter::try_new(
        fs::File::create(&unnamed)?,
        columns.arrow_schema(),
        Some(properties(provenance)),
    )
    .map_err(unwrap_io)?;
    let mut n_group_bytes = 0;
    for (batch, n_bytes) in batches(rows, columns)? {
        writer.write(&columns.batch(batch)?).map_err(unwrap_io)?;
        n_group_bytes += n_bytes;
        if n_group_bytes >= GROUP_BYTES {
            writer.flush().map_err(unwrap_io)?;
            n_group_bytes = 0;
        }
    }
    writer.into_inner().map_err(unwrap_io)?.sync_all()?;

    let blake3 = checksum(&unnamed)?;
    let name = format!("train-00000-of-00001-{}.parquet", &blake3[..16]);
    fs::rename(unnamed, dir.join(&name))?;
    sync_dir(dir)?;
    Ok(DataFile { name, blake3 })
}

/// Page index and page statistics are the writer's defaults.
fn properties(provenance: &serde_json::Value) -> WriterProperties {
    let metadata = KeyValue::new(METADATA_KEY.to_owned(), provenance.to_string());
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(
            ZstdLevel::try_new(ZSTD_LEVEL).expect("3 is a level of zstd"),
        ))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_key_value_metadata(Some(vec![metadata]))
        .build()
}

/// Cuts `rows` into runs of bounded rows and bytes, each with its bytes.
fn batches<'r, 'a>(
    rows: &'r [SubsetRow<'a>],
    columns: &Columns,
) -> Result<Vec<(&'r [SubsetRow<'a>], usize)>, ExportErrorKind> {
    let mut batches = Vec::new();
    let (mut start, mut n_batch_bytes) = (0, 0);
    for (position, row) in rows.iter().enumerate() {
        let n_bytes = columns.n_bytes(row);
        if n_bytes > ROW_BYTES {
            let source_name = row.source.to_owned();
            let limit = ROW_BYTES;
            return Err(ExportErrorKind::RowTooLarge { id: row.id, source_name, n_bytes, limit });
        }
        let is_full = position - start == BATCH_ROWS || n_batch_bytes + n_bytes > BATCH_BYTES;
        if is_full && position > start {
            batches.push((&rows[start..position], n_batch_bytes));
            (start, n_batch_bytes) = (position, 0);
        }
        n_batch_bytes += n_bytes;
    }
    batches.push((&rows[start..], n_batch_bytes));
    Ok(batches)
}

/// A full disk is an I/O error that names its file, not a Parquet error.
fn unwrap_io(err: ParquetError) -> ExportErrorKind {
    match err {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(io) => ExportErrorKind::Io(*io),
            Err(other) => ExportErrorKind::Parquet(ParquetError::External(other)),
        },
        other => ExportErrorKind::Parquet(other),
    }
}
