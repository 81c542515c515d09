//! GGUF files, the single-file models of llama.cpp: configuration, weights and
//! tokenizer in one (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! [`Gguf`] maps a file and lists what is in it ([`metadata`]); [`blocks`] unpacks
//! quantised weights.

pub mod blocks;
pub mod metadata;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use blocks::Packing;
use metadata::{Cursor, Value};

/// Bytes that all before the tensors may take: a vocabulary of a quarter of a million
/// tokens, its merges and a chat template take ten million.
const MAX_HEAD: usize = 1 << 26;

/// Where tensors start if nothing else is said.
const ALIGNMENT: usize = 32;

/// A mapped GGUF file whose tensors lie within it.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorPlace>,
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlace {
    /// Rows first.
    pub shape: Vec<usize>,
    /// How its values are packed.
    pub packing: Packing,
    start: usize,
    end: usize,
}

/// Why a file is not usable as a GGUF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// It cannot be opened or mapped.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It does not begin as such a file does.
    #[error("no GGUF file of version 2 or 3")]
    NotGguf,
    /// It ends too early, or says what cannot be.
    #[error("damaged at byte {at}: {what}")]
    Damaged {
        /// Where.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A tensor that is packed in a way that is not known.
    #[error("tensor `{name}` is packed as type {code}; known are {known}", known = Packing::KNOWN)]
    Packing {
        /// The tensor.
        name: String,
        /// The type's number.
        code: u32,
    },
}

impl Gguf {
    /// Whether a model's path names such a file.
    pub fn is_path(path: &Path) -> bool {
        path.extension().is_some_and(|ext| ext == "gguf")
    }

    /// Maps `path` and reads what it says of itself.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is damaged, or has tensors packed in a way that is
    /// not known.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let file = fs_err::File::open(path)?;
        #[expect(unsafe_code, reason = "memory maps cannot be made safely")]
        // SAFETY: nothing of ours rewrites a model in place. Another program that did
        // would change what we read, and one that truncated it would end us with SIGBUS.
        let map = unsafe { Mmap::map(file.file()) }?;
        let (metadata, tensors) = read(&map)?;
        Ok(Self { path: path.to_owned(), map, metadata, tensors })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says under `key`.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// Its tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorPlace> {
        &self.tensors
    }

    /// A tensor's values in f32, row-major.
    pub fn unpack(&self, place: &TensorPlace) -> Vec<f32> {
        place.packing.unpack(&self.map[place.start..place.end])
    }
}

type Contents = (BTreeMap<String, Value>, BTreeMap<String, TensorPlace>);

/// What the bytes of a file say.
///
/// # Errors
///
/// As [`Gguf::open`].
pub fn read(bytes: &[u8]) -> Result<Contents, GgufError> {
    let mut cursor = Cursor::new(&bytes[..bytes.len().min(MAX_HEAD)]);
    let begin = (cursor.take::<4>().ok(), cursor.u32().ok());
    if !matches!(begin, (Some([b'G', b'G', b'U', b'F']), Some(2 | 3))) {
        return Err(GgufError::NotGguf);
    }
    let (n_tensors, n_values) = (cursor.count()?, cursor.count()?);
    let mut metadata = BTreeMap::new();
    for _ in 0..n_values {
        let key = cursor.text()?;
        metadata.insert(key, cursor.value()?);
    }
    let mut tensors = BTreeMap::new();
    for _ in 0..n_tensors {
        let (name, place) = tensor(&mut cursor)?;
        tensors.insert(name, place);
    }
    let alignment = metadata.get("general.alignment").and_then(Value::count).unwrap_or(ALIGNMENT);
    let start = cursor.at().checked_next_multiple_of(alignment);
    let start = start.ok_or_else(|| cursor.damaged("an alignment of zero"))?;
    for place in tensors.values_mut() {
        // No place starts behind its end, so neither sum is too large.
        let end = place.end.checked_add(start).filter(|end| *end <= bytes.len());
        place.end = end.ok_or_else(|| cursor.damaged("a tensor that ends behind the file"))?;
        place.start += start;
    }
    Ok((metadata, tensors))
}

/// A tensor's entry, its place counted from where tensors start.
fn tensor(cursor: &mut Cursor<'_>) -> Result<(String, TensorPlace), GgufError> {
    let name = cursor.text()?;
    let n_dims = cursor.u32()? as usize;
    if n_dims > 4 {
        return Err(cursor.damaged("a tensor of more than four dimensions"));
    }
    let mut shape = (0..n_dims).map(|_| cursor.size()).collect::<Result<Vec<_>, _>>()?;
    // The fastest-varying dimension comes first.
    shape.reverse();
    let code = cursor.u32()?;
    let start = cursor.size()?;
    let Some(packing) = Packing::of(code) else { return Err(GgufError::Packing { name, code }) };
    let n_values = shape.iter().try_fold(1_usize, |n, size| n.checked_mul(*size));
    let n_bytes = n_values.and_then(|n_values| packing.n_bytes(n_values));
    let end = n_bytes.and_then(|n_bytes| start.checked_add(n_bytes));
    let end = end.ok_or_else(|| cursor.damaged("a tensor that is no number of blocks"))?;
    Ok((name, TensorPlace { shape, packing, start, end }))
}
