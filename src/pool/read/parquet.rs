//! Parquet rows as JSON objects.

use std::cell::Cell;
use std::io;

use arrow::array::RecordBatch;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use fs_err as fs;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use serde_json::{Map, Value};

use super::{Visit, unpack};
use crate::pool::PoolError;
use crate::pool::error::InputErrorKind;
use crate::pool::guard::{check, guarded};
use crate::pool::source::InputFile;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 512;

/// Pushes the rows of a Parquet file. Columns keep their order and, as far as
/// JSON has words for them, their types: numbers, strings, booleans, lists,
/// structs and nulls are kept, dates and times become ISO 8601 text, binary
/// becomes hex digits.
///
/// Parquet is read from its end, so a packed file is unpacked to a temporary
/// one first.
pub(super) fn for_each_row(
    file: &InputFile,
    n_consumed: &Cell<u64>,
    visit: &mut Visit<'_>,
) -> Result<(), PoolError> {
    let fail = |err: ParquetError| file.fail(err.into());
    let mut batches = if let Some(path) = file.plain_path() {
        let plain = fs::File::open(path)?;
        n_consumed.set(n_consumed.get() + file.n_bytes());
        guarded(|| open(plain))
    } else {
        let mut copy = fs::File::from_parts(tempfile::tempfile()?, &file.name);
        io::copy(&mut unpack(file, n_consumed)?, &mut copy)
            .map_err(|err| file.fail(InputErrorKind::Read(err)))?;
        guarded(|| open(copy))
    }
    .map_err(fail)?;
    let mut number = 0;
    while let Some(rows) = guarded(|| batches.next().transpose()).map_err(fail)? {
        for row in rows {
            number += 1;
            visit(number, Ok(row))?;
        }
    }
    Ok(())
}

type Rows = Vec<Map<String, Value>>;

fn open(file: fs::File) -> Result<impl Iterator<Item = Result<Rows, ParquetError>>, ParquetError> {
    check(&file)?;
    let batches = ParquetRecordBatchReaderBuilder::try_new(file.into_parts().0)?
        .with_batch_size(BATCH_ROWS)
        .build()?;
    Ok(batches.map(|batch| rows(&batch?)))
}

fn rows(batch: &RecordBatch) -> Result<Rows, ParquetError> {
    let mut lines = Vec::new();
    // With nulls, so that a row keeps every column it came with.
    let mut writer =
        WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut lines);
    writer.write(batch)?;
    writer.finish()?;
    serde_json::Deserializer::from_slice(&lines)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|err| ParquetError::External(Box::new(err)))
}
