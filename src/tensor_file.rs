//! Safetensors files, mapped into memory and checked once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensorError, SafeTensors, TensorInfo, TensorView};

/// A mapped safetensors file whose header is whole and fits its bytes.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    header: Metadata,
    data_start: usize,
}

/// Why a file is not usable as a safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFileError {
    /// It cannot be opened or mapped.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is cut off, has bytes too many, or is no safetensors file.
    #[error("damaged or no safetensors file")]
    Format(#[source] SafeTensorError),
}

impl TensorFile {
    /// Maps `path` and checks that its header describes exactly its bytes.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is damaged, a truncated one included.
    pub fn open(path: &Path) -> Result<Self, TensorFileError> {
        let file = fs_err::File::open(path)?;
        #[expect(unsafe_code, reason = "memory maps cannot be made safely")]
        // SAFETY: nothing of ours rewrites such a file in place (they are
        // replaced by rename). Another program that did would change what we
        // read, and one that truncated it would end us with SIGBUS.
        let map = unsafe { Mmap::map(file.file()) }?;
        let (header_len, header) =
            SafeTensors::read_metadata(&map).map_err(TensorFileError::Format)?;
        // The length field, then the header, then the data.
        let data_start = size_of::<u64>() + header_len;
        Ok(Self { path: path.to_owned(), map, header, data_start })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors, in order of their bytes.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The tensor called `name`, if there is one.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let TensorInfo { dtype, shape, .. } = self.header.info(name)?;
        TensorView::new(*dtype, shape.clone(), self.bytes(name)?).ok()
    }

    /// The bytes of the tensor called `name`, if there is one.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let (start, end) = self.header.info(name)?.data_offsets;
        Some(&self.map[self.data_start..][start..end])
    }

    /// The text under `key` in the header's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }
}

/// A tensor's values as f32, or `None` if they are no f32, f16 or bf16.
pub fn to_f32(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    floats(tensor.dtype(), tensor.data())
}

/// The little-endian values in `bytes` as f32, or `None` if they are no f32,
/// f16 or bf16.
pub(crate) fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let (pairs, _) = bytes.as_chunks::<2>();
    match dtype {
        Dtype::F32 => {
            let (quads, _) = bytes.as_chunks::<4>();
            Some(quads.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        }
        Dtype::F16 => Some(pairs.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
        Dtype::BF16 => Some(pairs.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
        _ => None,
    }
}

/// Whether all little-endian values in `bytes` are finite; not if they are no f32, f16 or
/// bf16.
pub(crate) fn are_finite(dtype: Dtype, bytes: &[u8]) -> bool {
    let (pairs, _) = bytes.as_chunks::<2>();
    match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().all(|b| f32::from_le_bytes(*b).is_finite()),
        Dtype::F16 => pairs.iter().all(|b| f16::from_le_bytes(*b).is_finite()),
        Dtype::BF16 => pairs.iter().all(|b| bf16::from_le_bytes(*b).is_finite()),
        _ => false,
    }
}

/// A safetensors file of f32 tensors (name, shape, values) with one entry of
/// metadata: with two or more, equal content would not have equal bytes.
///
/// # Panics
///
/// If a tensor has more or fewer values than its shape says.
pub fn serialize<'a>(
    tensors: impl Iterator<Item = (String, &'a [usize], &'a [f32])>,
    key: &str,
    text: &str,
) -> Vec<u8> {
    let views = tensors.map(|(name, shape, values)| {
        let bytes = bytemuck::cast_slice(values);
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        (name, view.expect("as many values as the shape says"))
    });
    let metadata = HashMap::from([(key.to_owned(), text.to_owned())]);
    safetensors::serialize(views, Some(metadata)).expect("f32 tensors can be written")
}

#[cfg(test)]
mod tests {

    use super::*;

    fn file(dir: &tempfile::TempDir) -> PathBuf {
        let tensor = ("a".to_owned(), &[1, 2][..], &[1.0, 2.0][..]);
        let bytes = serialize(std::iter::once(tensor), "note", "less");
        let path = dir.path().join("x.safetensors");
        fs_err::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = TensorFile::open(&file(&dir)).unwrap();
        assert_eq!(file.names(), ["a"]);
        assert_eq!(file.metadata("note"), Some("less"));
        assert_eq!(file.tensor("a").unwrap().shape(), [1, 2]);
        assert_eq!(to_f32(&file.tensor("a").unwrap()), Some(vec![1.0, 2.0]));
        assert!(file.tensor("b").is_none());
    }

    #[test]
    fn half_precision_is_widened_and_integers_are_not() {
        let ones = [f16::ONE.to_le_bytes(), bf16::ONE.to_le_bytes()];
        let view = |dtype, data| TensorView::new(dtype, vec![1], data).unwrap();
        assert_eq!(to_f32(&view(Dtype::F16, &ones[0])), Some(vec![1.0]));
        assert_eq!(to_f32(&view(Dtype::BF16, &ones[1])), Some(vec![1.0]));
        assert_eq!(to_f32(&view(Dtype::I16, &ones[0])), None);
    }

    #[test]
    fn values_are_finite_where_their_f32_are() {
        for value in [0.0, -1.5, f32::MAX, f32::INFINITY, f32::NAN] {
            let [half, brain] =
                [f16::from_f32(value).to_le_bytes(), bf16::from_f32(value).to_le_bytes()];
            let single = value.to_le_bytes();
            let all = [(Dtype::F32, &single[..]), (Dtype::F16, &half), (Dtype::BF16, &brain)];
            for (dtype, bytes) in all {
                let expected = floats(dtype, bytes).unwrap()[0].is_finite();
                assert_eq!(are_finite(dtype, bytes), expected, "{value} in {dtype}");
            }
        }
        assert!(!are_finite(Dtype::I64, &[0; 8]));
    }

    #[test]
    fn a_file_cut_anywhere_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir);
        let whole = fs_err::read(&path).unwrap();
        for len in 0..whole.len() {
            fs_err::write(&path, &whole[..len]).unwrap();
            let error = TensorFile::open(&path).unwrap_err();
            assert!(matches!(error, TensorFileError::Format(_)), "{len} bytes: {error}");
        }
    }
}
