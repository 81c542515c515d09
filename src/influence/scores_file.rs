//! `scores.parquet` on disk.
//!
//! ```text
//! id              utf8   32 hex digits
//! source          utf8   the pool source
//! score           f32?   the highest of the subtasks; null where flagged
//! subtask         utf8?  the subtask it is of
//! n_tokens        u32
//! n_supervised    u32
//! loss            f32?   mean token loss, nats; null where not finite
//! norm            f32    length of the projected direction
//! flag            utf8?  why the row is not ranked
//! subtask:NAME    f32?   influence on that subtask, a column each
//! ```
//!
//! Equal tables have equal bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, UInt32Type};
use fs_err as fs;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::scores::{ScoreRow, ScoreTable};
use crate::pool::guard::{check, guarded};

/// Rows of a row group.
const GROUP_ROWS: usize = 65_536;

/// Before a subtask's name in the name of its column.
const SUBTASK: &str = "subtask:";

/// `scores.parquet` cannot be written, read or believed.
#[derive(Debug, thiserror::Error)]
#[error("scores `{}`", path.display())]
pub struct ScoresError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub kind: ScoresErrorKind,
}

/// What is wrong with `scores.parquet`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoresErrorKind {
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
    #[error("does not have the columns of a score table")]
    Columns,
    /// A row's id is not 32 hex digits.
    #[error("`{0}` is no id of an example")]
    Id(String),
    /// A row has scores on some subtasks and none on others.
    #[error("row `{0}` has no score on some of the subtasks")]
    Gap(String),
}

impl ScoreTable {
    /// Writes the table as Parquet, atomically. In memory, the columns once
    /// more.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ScoresError> {
        let write = || -> Result<(), ScoresErrorKind> {
            let batch = self.to_batch()?;
            let zstd = Compression::ZSTD(ZstdLevel::default());
            let properties = WriterProperties::builder()
                .set_compression(zstd)
                .set_max_row_group_row_count(Some(GROUP_ROWS))
                .build();
            crate::fs::write_atomic(path, |out| {
                let mut writer = ArrowWriter::try_new(out, batch.schema(), Some(properties))?;
                writer.write(&batch)?;
                writer.close()?;
                Ok(())
            })
        };
        write().map_err(|kind| ScoresError { path: path.to_owned(), kind })
    }

    /// Reads a table that [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// If the file is missing, damaged or not a table of scores.
    pub fn read(path: &Path) -> Result<Self, ScoresError> {
        let read = || -> Result<Self, ScoresErrorKind> {
            let file = fs::File::open(path)?;
            check(&file)?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(file.into_parts().0)?;
            let subtasks: Vec<String> = builder
                .schema()
                .fields()
                .iter()
                .filter_map(|field| field.name().strip_prefix(SUBTASK).map(str::to_owned))
                .collect();
            if builder.schema().fields() != schema(&subtasks).fields() {
                return Err(ScoresErrorKind::Columns);
            }
            let mut rows = Vec::new();
            for batch in builder.build()? {
                read_rows(&batch?, subtasks.len(), &mut rows)?;
            }
            Ok(Self { subtasks, rows })
        };
        guarded(read).map_err(|kind| ScoresError { path: path.to_owned(), kind })
    }

    fn to_batch(&self) -> Result<RecordBatch, ScoresErrorKind> {
        let rows = || self.rows.iter();
        let best = || rows().map(ScoreRow::best);
        let strings = |values: &mut dyn Iterator<Item = Option<String>>| -> ArrayRef {
            Arc::new(values.collect::<StringArray>())
        };
        let mut columns: Vec<ArrayRef> = vec![
            strings(&mut rows().map(|row| Some(row.id.to_string()))),
            strings(&mut rows().map(|row| Some(row.source.clone()))),
            Arc::new(best().map(|best| best.map(|(_, score)| score)).collect::<Float32Array>()),
            strings(&mut best().map(|best| best.map(|(at, _)| self.subtasks[at].clone()))),
            Arc::new(UInt32Array::from_iter_values(rows().map(|row| row.n_tokens))),
            Arc::new(UInt32Array::from_iter_values(rows().map(|row| row.n_supervised))),
            Arc::new(
                rows()
                    .map(|row| Some(row.loss).filter(|x| x.is_finite()))
                    .collect::<Float32Array>(),
            ),
            Arc::new(Float32Array::from_iter_values(rows().map(|row| row.norm))),
            strings(&mut rows().map(|row| row.flag.clone())),
        ];
        for at in 0..self.subtasks.len() {
            let influence = rows().map(|row| row.by_subtask.get(at).copied());
            columns.push(Arc::new(influence.collect::<Float32Array>()));
        }
        Ok(RecordBatch::try_new(Arc::new(schema(&self.subtasks)), columns)?)
    }
}

fn schema(subtasks: &[String]) -> Schema {
    let mut fields = vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("score", DataType::Float32, true),
        Field::new("subtask", DataType::Utf8, true),
        Field::new("n_tokens", DataType::UInt32, false),
        Field::new("n_supervised", DataType::UInt32, false),
        Field::new("loss", DataType::Float32, true),
        Field::new("norm", DataType::Float32, false),
        Field::new("flag", DataType::Utf8, true),
    ];
    let names = subtasks.iter().map(|name| format!("{SUBTASK}{name}"));
    fields.extend(names.map(|name| Field::new(name, DataType::Float32, true)));
    Schema::new(fields)
}

/// Appends the rows of a batch whose schema is [`schema`]'s. Score and best
/// subtask follow from the columns of the subtasks.
fn read_rows(
    batch: &RecordBatch,
    n_subtasks: usize,
    rows: &mut Vec<ScoreRow>,
) -> Result<(), ScoresErrorKind> {
    let strings = |column: usize| batch.column(column).as_string::<i32>();
    let counts = |column: usize| batch.column(column).as_primitive::<UInt32Type>();
    let floats = |column: usize| batch.column(column).as_primitive::<Float32Type>();
    let (ids, sources, flags) = (strings(0), strings(1), strings(8));
    let (n_tokens, n_supervised) = (counts(4), counts(5));
    let (losses, norms) = (floats(6), floats(7));
    for row in 0..batch.num_rows() {
        let id = ids.value(row);
        let influence = (9..9 + n_subtasks).map(&floats).filter(|column| column.is_valid(row));
        let by_subtask: Vec<f32> = influence.map(|column| column.value(row)).collect();
        if !by_subtask.is_empty() && by_subtask.len() < n_subtasks {
            return Err(ScoresErrorKind::Gap(id.to_owned()));
        }
        rows.push(ScoreRow {
            id: id.parse().map_err(|()| ScoresErrorKind::Id(id.to_owned()))?,
            source: sources.value(row).to_owned(),
            n_tokens: n_tokens.value(row),
            n_supervised: n_supervised.value(row),
            loss: if losses.is_valid(row) { losses.value(row) } else { f32::NAN },
            norm: norms.value(row),
            flag: flags.is_valid(row).then(|| flags.value(row).to_owned()),
            by_subtask,
        });
    }
    Ok(())
}
