//! What a file of rows may ask of memory and time, however it was made.

use std::cell::Cell;
use std::io::{self, Read};

/// Most bytes of a row as it is written: some four million tokens.
pub(super) const ROW_BYTES: u64 = 16 << 20;

/// How often its own size a file may unpack to. Rows that are much alike come
/// to a hundred; what reaches thousands was made to.
const UNPACKED_RATIO: u64 = 500;
/// Unpacked bytes that no file is too small for.
const UNPACKED_BYTES: u64 = 256 << 20;

/// Unpacked bytes, until they are out of all proportion to the packed ones.
pub(super) struct Proportionate<'a, R> {
    reader: R,
    n_consumed: &'a Cell<u64>,
    n_consumed_before: u64,
    n_unpacked: u64,
}

impl<'a, R: Read> Proportionate<'a, R> {
    /// `reader` unpacks what `n_consumed` counts.
    pub(super) fn new(reader: R, n_consumed: &'a Cell<u64>) -> Self {
        Self { reader, n_consumed, n_consumed_before: n_consumed.get(), n_unpacked: 0 }
    }
}

impl<R: Read> Read for Proportionate<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.reader.read(buffer)?;
        self.n_unpacked += n_bytes as u64;
        let n_packed = self.n_consumed.get() - self.n_consumed_before;
        if self.n_unpacked > UNPACKED_BYTES.max(n_packed.saturating_mul(UNPACKED_RATIO)) {
            return Err(invalid(format!("unpacks to over {UNPACKED_RATIO} times its size")));
        }
        Ok(n_bytes)
    }
}

/// Bytes, until a row has had its share.
pub(super) struct Rationed<'a, R> {
    reader: R,
    left: &'a Cell<u64>,
}

impl<'a, R: Read> Rationed<'a, R> {
    /// `left` is what the row at hand may still take.
    pub(super) fn new(reader: R, left: &'a Cell<u64>) -> Self {
        Self { reader, left }
    }
}

impl<R: Read> Read for Rationed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.reader.read(buffer)?;
        let left = self.left.get().checked_sub(n_bytes as u64);
        self.left.set(left.ok_or_else(|| invalid(format!("a row of over {ROW_BYTES} bytes")))?);
        Ok(n_bytes)
    }
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
