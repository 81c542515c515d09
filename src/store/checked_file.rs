//! An Arrow file of one record batch that is proven whole before it is read.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::ipc;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::writer::FileWriter;
use bytes::Bytes;
use fs_err as fs;
use memmap2::Mmap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{StoreError, StoreErrorKind};

/// The one metadata key of our Arrow schemas.
const HEADER_KEY: &str = "less-select";

/// What is said of a data file once it is complete. Fields in order of name,
/// like all JSON here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Marker {
    blake3: String,
    bytes: u64,
    file: String,
    pub(super) fingerprint: String,
    rows: usize,
}

/// What is compared with a file's marker before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its length and the checksum of all of it.
    Checksum,
    /// Its length: for looking at a few rows of a large file. A changed byte may then be
    /// a wrong number, so that nothing that is written may be made from it.
    Length,
}

/// An opened file: its record batch, in the memory map, and its header; of a
/// file of several, `B` is all of them.
#[derive(Debug)]
pub(crate) struct CheckedFile<H, B = RecordBatch> {
    /// The header the schema carries.
    pub(crate) header: H,
    /// What the file was made from, as its writer put it.
    pub(crate) fingerprint: String,
    /// The blake3 checksum of all of it, as 64 hex digits.
    pub(crate) checksum: String,
    /// The rows.
    pub(crate) batch: B,
}

/// Writes `batch` to `path` and then its marker beside it.
///
/// `fingerprint` says what the rows were made from.
pub(crate) fn commit(
    path: &Path,
    header: &impl Serialize,
    fingerprint: &str,
    batch: &RecordBatch,
) -> Result<(), StoreError> {
    commit_blocks(path, header, fingerprint, &batch.schema(), |out| out.write(batch)).map(|_| ())
}

/// As [`commit`], for rows that come in several batches of `schema`, which
/// `write` gives one after the other. Returns both files with their checksums.
pub(crate) fn commit_blocks<E: From<StoreError>>(
    path: &Path,
    header: &impl Serialize,
    fingerprint: &str,
    schema: &Schema,
    write: impl FnOnce(&mut BlockWriter<'_>) -> Result<(), E>,
) -> Result<[(PathBuf, String); 2], E> {
    let (mut hasher, mut bytes, mut rows) = (blake3::Hasher::new(), 0, 0);
    let all = || -> Result<_, Failure<E>> {
        let metadata = [(HEADER_KEY.to_owned(), serde_json::to_string(header)?)];
        let schema = schema.clone().with_metadata(metadata);
        crate::fs::write_atomic(path, |out| {
            let out = Counted { out, hasher: &mut hasher, bytes: &mut bytes };
            let mut out = BlockWriter { path, writer: FileWriter::try_new(out, &schema)?, rows: 0 };
            write(&mut out).map_err(Failure::Theirs)?;
            rows = out.rows;
            Ok::<_, Failure<E>>(out.writer.finish()?)
        })?;
        let blake3 = hasher.finalize().to_hex().to_string();
        let fingerprint = fingerprint.to_owned();
        let marker =
            Marker { blake3: blake3.clone(), bytes, file: file_name(path), fingerprint, rows };
        let marker_path = marker_path(path);
        crate::fs::write_json(&marker_path, &marker)?;
        let of_marker = blake3::hash(&crate::fs::as_json(&marker)?).to_hex().to_string();
        Ok([(path.to_owned(), blake3), (marker_path, of_marker)])
    };
    all().map_err(|failure| match failure {
        Failure::Ours(kind) => kind.at(path).into(),
        Failure::Theirs(err) => err,
    })
}

/// Takes the batches of a file, one after the other.
pub(crate) struct BlockWriter<'a> {
    path: &'a Path,
    writer: FileWriter<Counted<'a>>,
    rows: usize,
}

impl BlockWriter<'_> {
    /// Appends a batch.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        self.rows += batch.num_rows();
        self.writer.write(batch).map_err(|err| StoreErrorKind::from(err).at(self.path))
    }
}

/// Why a file was not written: this module's reason, or that of whoever gives
/// the rows.
enum Failure<E> {
    Ours(StoreErrorKind),
    Theirs(E),
}

impl<E, K: Into<StoreErrorKind>> From<K> for Failure<E> {
    fn from(kind: K) -> Self {
        Self::Ours(kind.into())
    }
}

impl<H: DeserializeOwned> CheckedFile<H> {
    /// Maps the file at `path` and proves it whole: length and, unless that is not
    /// asked for, checksum are its marker's. Only then are its bytes decoded, without copying them.
    pub(crate) fn open(path: &Path, proof: Proof) -> Result<Self, StoreError> {
        let CheckedFile { header, fingerprint, checksum, batch } =
            CheckedFile::open_blocks(path, proof)?;
        let [batch] = <[RecordBatch; 1]>::try_from(batch).map_err(|_| {
            StoreErrorKind::Layout("does not hold exactly one record batch").at(path)
        })?;
        Ok(Self { header, fingerprint, checksum, batch })
    }
}

impl<H: DeserializeOwned> CheckedFile<H, Vec<RecordBatch>> {
    /// As [`CheckedFile::open`], for a file of any number of batches.
    pub(crate) fn open_blocks(path: &Path, proof: Proof) -> Result<Self, StoreError> {
        Self::open_whole(path, proof).map_err(|kind| kind.at(path))
    }

    fn open_whole(path: &Path, proof: Proof) -> Result<Self, StoreErrorKind> {
        let marker = read_marker(path)?;
        if marker.file != file_name(path) {
            return Err(StoreErrorKind::OtherFile(marker.file));
        }
        let file = fs::File::open(path)?;
        let found = file.metadata()?.len();
        if found != marker.bytes {
            return Err(StoreErrorKind::Length { expected: marker.bytes, found });
        }
        #[expect(unsafe_code, reason = "memory maps cannot be made safely")]
        // SAFETY: our files are replaced by rename, never rewritten in place,
        // so no process of ours changes the mapped bytes. Somebody else's
        // could, after the checksum; nothing short of copying the file would
        // guard against that, and the worst of it is a wrong number or, if the
        // file is cut, a bus error.
        let map = unsafe { Mmap::map(&file) }?;
        let checksum = || blake3::Hasher::new().update_rayon(&map).finalize().to_hex();
        if proof == Proof::Checksum && checksum().as_str() != marker.blake3 {
            return Err(StoreErrorKind::Checksum);
        }
        let file = Buffer::from(Bytes::from_owner(map));
        // The arrow crate answers some contradictions between a footer and the
        // buffers it describes with a panic. Only a file that was made to have
        // the checksum of its marker gets here; it must not end the program.
        let (schema, batch) = catch_unwind(AssertUnwindSafe(|| decode(&file)))
            .unwrap_or(Err(StoreErrorKind::Layout("has buffers that contradict each other")))?;
        let header = schema
            .metadata()
            .get(HEADER_KEY)
            .ok_or(StoreErrorKind::Layout("has no `less-select` header"))?;
        if batch.iter().map(RecordBatch::num_rows).sum::<usize>() != marker.rows {
            return Err(StoreErrorKind::Layout("has another number of rows than its marker"));
        }
        let header = serde_json::from_str(header)?;
        Ok(Self { header, fingerprint: marker.fingerprint, checksum: marker.blake3, batch })
    }
}

/// The type of a column whose entries are lists of `length` coordinates. A
/// length that Arrow cannot express becomes one that no data fits.
pub(crate) fn list_type(coordinate: DataType, length: usize) -> DataType {
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    DataType::new_fixed_size_list(coordinate, length, false)
}

/// A column of lists of `length` of the `values`.
pub(crate) fn lists(values: ArrayRef, length: usize) -> Result<FixedSizeListArray, ArrowError> {
    match list_type(values.data_type().clone(), length) {
        DataType::FixedSizeList(field, length) => {
            FixedSizeListArray::try_new(field, length, values, None)
        }
        _ => unreachable!("it is the type of lists"),
    }
}

/// Where the marker of the data file at `path` is.
pub(super) fn marker_path(path: &Path) -> PathBuf {
    path.with_extension("json")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn read_marker(path: &Path) -> Result<Marker, StoreErrorKind> {
    let marker = marker_path(path);
    match fs::read(&marker) {
        Ok(json) => {
            let marker: Marker = serde_json::from_slice(&json)?;
            // No other file has the checksum of this one.
            if crate::fs::as_json(&marker)? != json {
                return Err(StoreErrorKind::Layout("has a marker that was altered"));
            }
            Ok(marker)
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            Err(StoreErrorKind::NotCommitted(file_name(&marker)))
        }
        Err(err) => Err(err.into()),
    }
}

/// Schema and record batches of an Arrow file; the batches' arrays point into
/// `file`.
fn decode(file: &Buffer) -> Result<(Arc<Schema>, Vec<RecordBatch>), StoreErrorKind> {
    const CUT: StoreErrorKind = StoreErrorKind::Layout("is no Arrow file");
    let (rest, trailer) = file.split_last_chunk::<10>().ok_or(CUT)?;
    let footer_start = rest.len().checked_sub(read_footer_length(*trailer)?).ok_or(CUT)?;
    let footer = ipc::root_as_footer(&rest[footer_start..])
        .map_err(|err| ArrowError::ParseError(err.to_string()))?;
    let schema = footer.schema().ok_or(CUT)?;
    let schema = Arc::new(ipc::convert::try_fb_to_schema(schema)?);
    let decoder = FileDecoder::new(schema.clone(), footer.version()).with_require_alignment(true);
    let batch = |block: &ipc::Block| -> Result<RecordBatch, StoreErrorKind> {
        let size = |length: i64| usize::try_from(length).map_err(|_| CUT);
        let start = size(block.offset())?;
        let length = size(block.bodyLength())?
            .checked_add(size(block.metaDataLength().into())?)
            .filter(|length| length.checked_add(start).is_some_and(|end| end <= file.len()))
            .ok_or(CUT)?;
        let batch = decoder.read_record_batch(block, &file.slice_with_length(start, length))?;
        batch.ok_or(CUT)
    };
    let batches = footer.recordBatches().ok_or(CUT)?.iter().map(batch);
    Ok((schema, batches.collect::<Result<_, _>>()?))
}

/// A writer that hashes and counts what passes through.
struct Counted<'a> {
    out: &'a mut dyn Write,
    hasher: &'a mut blake3::Hasher,
    bytes: &'a mut u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        *self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
