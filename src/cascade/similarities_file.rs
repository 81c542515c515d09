//! `cascade.parquet` on disk: `id` utf8, 32 hex digits, and `similarity` f32,
//! null where there is none. Equal similarities have equal bytes.

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

use super::Similarities;
use crate::pool::guard::{check, guarded};

/// `cascade.parquet` cannot be written, read or believed.
#[derive(Debug, thiserror::Error)]
#[error("similarities `{}`", path.display())]
pub struct SimilaritiesError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub kind: SimilaritiesErrorKind,
}

/// What is wrong with `cascade.parquet`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimilaritiesErrorKind {
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
    #[error("does not have the columns of similarities")]
    Columns,
    /// A row's id is not 32 hex digits.
    #[error("`{0}` is no id of an example")]
    Id(String),
}

impl Similarities {
    /// Writes them as Parquet, atomically.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), SimilaritiesError> {
        let write = || -> Result<(), SimilaritiesErrorKind> {
            let ids = self.ids.iter().map(|id| Some(id.to_string()));
            let values = self.similarities.iter().map(|x| Some(*x).filter(|x| !x.is_nan()));
            let batch = RecordBatch::try_new(
                Arc::new(schema()),
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
        write().map_err(|kind| SimilaritiesError { path: path.to_owned(), kind })
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// If the file is missing, damaged or of something else.
    pub fn read(path: &Path) -> Result<Self, SimilaritiesError> {
        let read = || -> Result<Self, SimilaritiesErrorKind> {
            let file = fs::File::open(path)?;
            check(&file)?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(file.into_parts().0)?;
            if builder.schema().fields() != schema().fields() {
                return Err(SimilaritiesErrorKind::Columns);
            }
            let mut found = Self { ids: Vec::new(), similarities: Vec::new() };
            for batch in builder.build()? {
                let batch = batch?;
                let ids = batch.column(0).as_string::<i32>();
                let values = batch.column(1).as_primitive::<Float32Type>();
                for row in 0..batch.num_rows() {
                    let id = ids.value(row);
                    let id = id.parse().map_err(|()| SimilaritiesErrorKind::Id(id.to_owned()))?;
                    found.ids.push(id);
                    let value = values.is_valid(row).then(|| values.value(row));
                    found.similarities.push(value.unwrap_or(f32::NAN));
                }
            }
            Ok(found)
        };
        guarded(read).map_err(|kind| SimilaritiesError { path: path.to_owned(), kind })
    }
}

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("similarity", DataType::Float32, true),
    ])
}
