//! A number a row on disk, as Parquet: `id` utf8, 32 hex digits, and a column of f32,
//! null where there is none. Equal numbers have equal bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use fs_err as fs;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::pool::ExampleId;
use crate::pool::guard::{check, guarded};

/// A table of what the first pass found cannot be written, read or believed.
#[derive(Debug, thiserror::Error)]
#[error("table `{}`", path.display())]
pub struct RowValuesError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub kind: RowValuesErrorKind,
}

/// What is wrong with such a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowValuesErrorKind {
    /// It could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is no Parquet file, or a damaged one.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// Its rows could not be decoded.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// It is a Parquet file of something else.
    #[error("does not have the columns `id` and `{0}`")]
    Columns(&'static str),
    /// A row's id is not 32 hex digits.
    #[error("`{0}` is no id of an example")]
    Id(String),
}

/// Writes `values`, one an id, to `column` of a new file, atomically.
///
/// # Errors
///
/// If the file cannot be written.
pub(crate) fn write(
    path: &Path,
    column: &'static str,
    ids: &[ExampleId],
    values: &[f32],
) -> Result<(), RowValuesError> {
    let write = || -> Result<(), RowValuesErrorKind> {
        let ids = ids.iter().map(|id| Some(id.to_string()));
        let values = values.iter().map(|x| Some(*x).filter(|x| !x.is_nan()));
        let batch = RecordBatch::try_new(
            Arc::new(schema(column)),
            vec![
                Arc::new(ids.collect::<StringArray>()),
                Arc::new(values.collect::<Float32Array>()),
            ],
        )?;
        let zstd = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(zstd).build();
        crate::fs::write_atomic(path, |out| {
            let mut writer = ArrowWriter::try_new(out, batch.schema(), Some(properties))?;
            writer.write(&batch)?;
            writer.close()?;
            Ok(())
        })
    };
    write().map_err(|kind| RowValuesError { path: path.to_owned(), kind })
}

/// Reads ids and values that [`write()`] wrote, NaN where there is none.
///
/// # Errors
///
/// If the file is missing, damaged or of something else.
pub(crate) fn read(
    path: &Path,
    column: &'static str,
) -> Result<(Vec<ExampleId>, Vec<f32>), RowValuesError> {
    let read = || -> Result<_, RowValuesErrorKind> {
        let file = fs::File::open(path)?;
        check(&file)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.into_parts().0)?;
        if builder.schema().fields() != schema(column).fields() {
            return Err(RowValuesErrorKind::Columns(column));
        }
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        for batch in builder.build()? {
            let batch = batch?;
            let own_ids = batch.column(0).as_string::<i32>();
            let own_values = batch.column(1).as_primitive::<Float32Type>();
            for row in 0..batch.num_rows() {
                let id = own_ids.value(row);
                ids.push(id.parse().map_err(|()| RowValuesErrorKind::Id(id.to_owned()))?);
                let value = own_values.is_valid(row).then(|| own_values.value(row));
                values.push(value.unwrap_or(f32::NAN));
            }
        }
        Ok((ids, values))
    };
    guarded(read).map_err(|kind| RowValuesError { path: path.to_owned(), kind })
}

fn schema(column: &str) -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new(column, DataType::Float32, true),
    ])
}
