//! The rows of a file, one after the other.
//!
//! A reader pushes rows into a visitor, so that a file is never in memory as a
//! whole. A row that is broken by itself (a line that is no JSON, an element
//! that is no object) is pushed as its [`RejectReason`]; a file that cannot be
//! followed to its next row (a cut archive, a syntax error inside an array) is
//! an error. So is one that asks for more than rows can be worth (`limit`).

mod json;
mod limit;
mod parquet;

use std::cell::Cell;
use std::io::{self, Read};

use limit::Proportionate;
use serde_json::{Map, Value};

use super::PoolError;
use super::error::InputErrorKind;
use super::reject::RejectReason;
use super::source::{Format, InputFile, Packing};

/// A row's columns, or why it has none.
pub(super) type Row = Result<Map<String, Value>, RejectReason>;

/// Takes a row with its line (JSONL) or position (JSON arrays, Parquet), from 1.
pub(super) type Visit<'a> = dyn FnMut(u64, Row) -> Result<(), PoolError> + 'a;

/// Pushes every row of `file` into `visit`; adds the packed bytes read so far
/// to `n_consumed` on the way.
///
/// # Errors
///
/// If the file cannot be read to its end, or what `visit` returns.
pub(super) fn for_each_row(
    file: &InputFile,
    n_consumed: &Cell<u64>,
    visit: &mut Visit<'_>,
) -> Result<(), PoolError> {
    match file.format {
        Format::Json => json::for_each_row(file, unpack(file, n_consumed)?, visit),
        Format::Parquet => parquet::for_each_row(file, n_consumed, visit),
    }
}

/// The bytes of `file`, unpacked.
fn unpack<'a>(
    file: &InputFile,
    n_consumed: &'a Cell<u64>,
) -> Result<Box<dyn Read + 'a>, PoolError> {
    let packed = Counting { reader: file.open()?, n_consumed };
    Ok(match file.packing {
        Packing::Plain => Box::new(packed),
        Packing::Gzip => {
            let unpacked = flate2::read::MultiGzDecoder::new(packed);
            Box::new(Proportionate::new(unpacked, n_consumed))
        }
        Packing::Zstd => {
            // Its window, and so its memory, is 128 MiB at most.
            let unpacked =
                zstd::Decoder::new(packed).map_err(|err| file.fail(InputErrorKind::Read(err)))?;
            Box::new(Proportionate::new(unpacked, n_consumed))
        }
    })
}

/// A reader that tells how far it is.
struct Counting<'a> {
    reader: Box<dyn Read>,
    n_consumed: &'a Cell<u64>,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.reader.read(buffer)?;
        self.n_consumed.set(self.n_consumed.get() + n_bytes as u64);
        Ok(n_bytes)
    }
}

/// The columns of a row that was parsed as `value`.
fn columns(value: Value) -> Row {
    match value {
        Value::Object(columns) => Ok(columns),
        other => Err(RejectReason::NotARow(super::shape::kind(&other))),
    }
}

#[cfg(test)]
mod tests;
