//! A look at a Parquet file's footer before the parquet crate gets it.
//!
//! That crate builds a schema by recursion, one call a level, and a schema of
//! a hundred thousand levels (a footer of a megabyte) overflows the stack,
//! which ends the program without a word. So the levels are counted first. The
//! footer is a struct in Thrift's compact protocol; its second field is the
//! schema, a list of elements in depth-first order, each of which tells its
//! number of children.
//!
//! The rest is followed, too: a list of truths takes no bytes for that crate, so
//! that six bytes could have it count to two milliards, as often as they stand
//! there. Here every element takes a byte, and a list ends with the footer.

use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;

/// Most levels of a schema. Rows of conversations have three or four.
const MAX_LEVELS: usize = 64;
/// Most structs within structs of what is passed over.
const MAX_PASSED_OVER: usize = 16;

/// Refuses a Parquet file whose schema is nested too deeply to be read, or whose
/// footer cannot be followed. Any other damage is left for the reader to find.
///
/// # Errors
///
/// If the schema has more than 64 levels, the footer cannot be followed, or the file
/// not be read.
pub(super) fn check_levels(file: &impl ChunkReader) -> Result<(), ParquetError> {
    const TAIL: u64 = 8;
    let Some(tail_start) = file.len().checked_sub(TAIL) else { return Ok(()) };
    let tail = file.get_bytes(tail_start, TAIL as usize)?;
    let Some((len, b"PAR1")) = tail.split_first_chunk::<4>() else { return Ok(()) };
    let len = u32::from_le_bytes(*len);
    let Some(start) = tail_start.checked_sub(len.into()) else { return Ok(()) };
    let footer = file.get_bytes(start, len as usize)?;
    match n_levels(&footer) {
        Some(n) if n <= MAX_LEVELS => Ok(()),
        Some(_) => {
            let problem = format!("its columns are nested over {MAX_LEVELS} levels deep");
            Err(ParquetError::General(problem))
        }
        None => Err(ParquetError::General("its footer is damaged".to_owned())),
    }
}

/// Levels of the schema in `footer`, or one more than is allowed if there are
/// more; `None` if it is damaged.
fn n_levels(footer: &[u8]) -> Option<usize> {
    let mut bytes = Compact(footer);
    let mut id = 0;
    // No schema has no levels.
    let mut n_levels = 0;
    loop {
        match bytes.field(&mut id)? {
            STOP => return Some(n_levels),
            LIST if id == 2 => {
                let (STRUCT, n) = bytes.list()? else { return None };
                n_levels = bytes.schema(n)?;
                if n_levels > MAX_LEVELS {
                    return Some(n_levels);
                }
            }
            _ if id == 2 => return None,
            kind => bytes.pass_over(kind, MAX_PASSED_OVER)?,
        }
    }
}

const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;

/// What is left of bytes in Thrift's compact protocol. `None` is their end, or
/// nonsense.
struct Compact<'a>(&'a [u8]);

impl Compact<'_> {
    fn schema(&mut self, n_elements: u64) -> Option<usize> {
        // Children that are still to come, a number for each open level.
        let mut open: Vec<u64> = Vec::new();
        let mut deepest = 0;
        for _ in 0..n_elements {
            let n_children = self.element()?;
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            deepest = deepest.max(open.len() + 1);
            if deepest > MAX_LEVELS {
                break;
            }
            if n_children > 0 {
                open.push(n_children);
            }
        }
        Some(deepest)
    }

    /// The number of children of a schema element.
    fn element(&mut self) -> Option<u64> {
        let (mut id, mut n_children) = (0, 0);
        loop {
            match self.field(&mut id)? {
                STOP => return Some(n_children),
                I32 if id == 5 => {
                    // Zigzag: even numbers are the positive ones.
                    let number = self.varint()?;
                    n_children = if number & 1 == 0 { number >> 1 } else { 0 };
                }
                kind => self.pass_over(kind, MAX_PASSED_OVER)?,
            }
        }
    }

    /// The kind of a struct's next field, whose number goes into `id`; `STOP`
    /// at the struct's end.
    fn field(&mut self, id: &mut u64) -> Option<u8> {
        let header = self.byte()?;
        if header == STOP {
            return Some(STOP);
        }
        *id = match header >> 4 {
            // Zigzag, and never negative.
            0 => self.varint()? >> 1,
            step => *id + u64::from(step),
        };
        Some(header & 0xf).filter(|kind| *kind != STOP)
    }

    /// Kind and number of a list's elements.
    fn list(&mut self) -> Option<(u8, u64)> {
        let header = self.byte()?;
        let n = match header >> 4 {
            15 => self.varint()?,
            n => n.into(),
        };
        Some((header & 0xf, n))
    }

    fn pass_over(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            // A field's truth is in its kind.
            TRUE | FALSE => {}
            BYTE => drop(self.byte()?),
            I16 | I32 | I64 => drop(self.varint()?),
            DOUBLE => self.bytes(8)?,
            BINARY => {
                let n = self.varint()?;
                self.bytes(n)?;
            }
            LIST | SET => {
                let (kind, n) = self.list()?;
                for _ in 0..n {
                    match kind {
                        TRUE | FALSE => drop(self.byte()?),
                        kind => self.pass_over(kind, depth.checked_sub(1)?)?,
                    }
                }
            }
            STRUCT => {
                let mut id = 0;
                loop {
                    match self.field(&mut id)? {
                        STOP => break,
                        kind => self.pass_over(kind, depth.checked_sub(1)?)?,
                    }
                }
            }
            // No part of a footer is a map.
            _ => return None,
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn bytes(&mut self, n: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(n).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}
