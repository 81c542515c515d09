//! A file of a model's weights, whichever layout it is in.

use std::borrow::Cow;
use std::path::Path;

use safetensors::Dtype;

use super::names::Names;
use super::weights::{WeightsError, WeightsErrorKind, fail};
use crate::gguf::Gguf;
use crate::tensor_file::{TensorFile, floats};
use crate::torch_file::TorchFile;

/// A file with weights in it.
#[derive(Debug)]
pub enum WeightFile {
    /// In the Hugging Face layout.
    Safetensors(TensorFile),
    /// Written by `torch.save`.
    Torch(TorchFile),
    /// In llama.cpp's.
    Gguf(Gguf),
}

/// A weight as it is stored, or unpacked.
#[derive(Debug)]
pub struct Weight<'a> {
    /// F32, F16 or BF16.
    pub dtype: Dtype,
    /// Rows first.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub data: WeightData<'a>,
}

/// A weight's values.
#[derive(Debug)]
pub enum WeightData<'a> {
    /// As bytes, little-endian.
    Bytes(Cow<'a, [u8]>),
    /// Unpacked.
    Floats(Vec<f32>),
}

impl Weight<'_> {
    /// Its values as f32; `None` if they are no f32, f16 or bf16.
    pub fn into_f32(self) -> Option<Vec<f32>> {
        match self.data {
            WeightData::Bytes(bytes) => floats(self.dtype, &bytes),
            WeightData::Floats(values) => Some(values),
        }
    }
}

impl<'a> WeightData<'a> {
    /// As bytes, little-endian.
    pub fn into_bytes(self) -> Cow<'a, [u8]> {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Floats(values) => Cow::Owned(bytemuck::cast_slice(&values).to_vec()),
        }
    }

    /// As bytes, little-endian.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Floats(values) => bytemuck::cast_slice(values),
        }
    }
}

impl WeightFile {
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let open = || -> Result<Self, WeightsErrorKind> {
            Ok(match path.extension().and_then(|ext| ext.to_str()) {
                Some("gguf") => Self::Gguf(Gguf::open(path)?),
                Some("bin") => Self::Torch(
                    TorchFile::open(path).map_err(|err| WeightsErrorKind::Torch(Box::new(err)))?,
                ),
                _ => Self::Safetensors(TensorFile::open(path)?),
            })
        };
        open().map_err(|kind| fail(path, kind))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Safetensors(file) => file.path(),
            Self::Torch(file) => file.path(),
            Self::Gguf(file) => file.path(),
        }
    }

    /// The model's names for what is in it, and the file's own.
    pub(crate) fn names(&self, names: &Names) -> Vec<(String, String)> {
        let own = match self {
            Self::Safetensors(file) => file.names(),
            Self::Torch(file) => file.names(),
            Self::Gguf(file) => return file.weight_names(names).collect(),
        };
        own.into_iter().filter_map(|name| Some((names.canonical(&name)?, name))).collect()
    }

    /// Shape and dtype of a tensor in the file.
    pub(crate) fn described(&self, name: &str) -> (Vec<usize>, Dtype) {
        match self {
            Self::Safetensors(file) => {
                let tensor = file.tensor(name).expect("the file lists this name");
                (tensor.shape().to_vec(), tensor.dtype())
            }
            Self::Torch(file) => {
                let tensor = file.tensor(name).expect("the file lists this name");
                (tensor.shape().to_vec(), tensor.dtype())
            }
            Self::Gguf(file) => (file.tensors()[name].shape.clone(), Dtype::F32),
        }
    }

    /// A tensor of a file in the Hugging Face layout.
    pub(crate) fn weight_as_stored(&self, name: &str) -> Weight<'_> {
        // Only GGUF files turn heads, each by its width.
        self.weight(name, 1)
    }

    pub(super) fn weight(&self, name: &str, head_dim: usize) -> Weight<'_> {
        let (shape, dtype) = self.described(name);
        let data = match self {
            Self::Safetensors(file) => {
                let bytes = file.bytes(name).expect("the file lists this name");
                WeightData::Bytes(Cow::Borrowed(bytes))
            }
            Self::Torch(file) => {
                let tensor = file.tensor(name).expect("the file lists this name");
                WeightData::Bytes(tensor.bytes())
            }
            Self::Gguf(file) => WeightData::Floats(file.weight(name, head_dim)),
        };
        Weight { dtype, shape, data }
    }
}
