//! JSON: a row a line, or an array of rows.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::Value;

use super::limit::{ROW_BYTES, Rationed};
use super::{Visit, columns};
use crate::pool::PoolError;
use crate::pool::error::InputErrorKind;
use crate::pool::reject::RejectReason;
use crate::pool::source::InputFile;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 18;

/// Pushes the rows of `bytes`: a file that begins with `[` is an array of
/// rows, any other has a row a line. A byte-order mark, blank lines and CRLF
/// are fine.
pub(super) fn for_each_row(
    file: &InputFile,
    bytes: impl Read,
    visit: &mut Visit<'_>,
) -> Result<(), PoolError> {
    let fail = |err| file.fail(InputErrorKind::Read(err));
    let bytes = without_byte_order_mark(bytes).map_err(fail)?;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, bytes);
    let (first, n_lines) = skip_blank(&mut reader).map_err(fail)?;
    match first {
        None => Ok(()),
        Some(b'[') => array(file, reader, visit),
        Some(_) => lines(file, reader, n_lines, visit),
    }
}

fn without_byte_order_mark(mut bytes: impl Read) -> io::Result<impl Read> {
    let mut head = Vec::new();
    bytes.by_ref().take(3).read_to_end(&mut head)?;
    if head == "\u{feff}".as_bytes() {
        head.clear();
    }
    Ok(io::Cursor::new(head).chain(bytes))
}

/// The first byte that is not blank, not consumed, and the number of line ends
/// before it.
fn skip_blank(reader: &mut impl BufRead) -> io::Result<(Option<u8>, u64)> {
    let mut n_lines = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let Some(&byte) = buffer.first() else { return Ok((None, n_lines)) };
        if !byte.is_ascii_whitespace() {
            return Ok((Some(byte), n_lines));
        }
        n_lines += u64::from(byte == b'\n');
        reader.consume(1);
    }
}

fn lines(
    file: &InputFile,
    mut reader: impl BufRead,
    n_lines_before: u64,
    visit: &mut Visit<'_>,
) -> Result<(), PoolError> {
    let mut line = Vec::new();
    for number in n_lines_before + 1.. {
        line.clear();
        let fail = |err| file.fail(InputErrorKind::Read(err));
        let n_bytes =
            reader.by_ref().take(ROW_BYTES + 1).read_until(b'\n', &mut line).map_err(fail)?;
        if n_bytes == 0 {
            break;
        }
        if n_bytes as u64 > ROW_BYTES {
            if !line.ends_with(b"\n") {
                reader.skip_until(b'\n').map_err(fail)?;
            }
            visit(number, Err(RejectReason::TooLarge { max_bytes: ROW_BYTES }))?;
            continue;
        }
        if line.trim_ascii_end().is_empty() {
            continue;
        }
        let row = serde_json::from_slice(line.trim_ascii_end())
            .map_err(|err| RejectReason::Json(within_a_line(&err)))
            .and_then(columns);
        visit(number, row)?;
    }
    Ok(())
}

/// `err` without its own line number, which is always 1 here.
fn within_a_line(err: &serde_json::Error) -> String {
    err.to_string().replace(" at line 1 column ", " at column ")
}

fn array(file: &InputFile, reader: impl Read, visit: &mut Visit<'_>) -> Result<(), PoolError> {
    let left = Cell::new(ROW_BYTES);
    let mut deserializer = serde_json::Deserializer::from_reader(Rationed::new(reader, &left));
    let mut stopped = None;
    let rows = Rows { visit, left: &left, stopped: &mut stopped };
    let read = deserializer.deserialize_seq(rows).and_then(|()| deserializer.end());
    match (stopped, read) {
        (Some(err), _) => Err(err),
        (None, Err(err)) => Err(file.fail(InputErrorKind::Json(err))),
        (None, Ok(())) => Ok(()),
    }
}

/// Pushes the elements of an array; what the visitor returns as an error ends
/// up in `stopped`, for serde has no place for it.
struct Rows<'a, 'v> {
    visit: &'a mut Visit<'v>,
    left: &'a Cell<u64>,
    stopped: &'a mut Option<PoolError>,
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(value) = rows.next_element::<Value>()? {
            number += 1;
            self.left.set(ROW_BYTES);
            if let Err(err) = (self.visit)(number, columns(value)) {
                *self.stopped = Some(err);
                return Err(A::Error::custom("stopped by the visitor"));
            }
        }
        Ok(())
    }
}
