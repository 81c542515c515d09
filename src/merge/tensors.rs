//! What becomes of each weight.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::{bf16, f16};
use ndarray::ArrayView2;
use ndarray::linalg::general_mat_mul;
use safetensors::Dtype;
use safetensors::tensor::View;

use super::MergeError;
use crate::checkpoint::{BaseWeight, Checkpoint};
use crate::gradient::layout::{Param, ParamLayout};
use crate::model::DecoderConfig;
use crate::model::base_weights::{self, Vocabulary};
use crate::model::weights::WeightFile;

/// What a checkpoint changes.
pub(super) struct Changes {
    adapter: Adapter,
    vocabulary: Vocabulary,
    /// What the vocabulary's two matrices are called.
    vocabulary_names: [String; 2],
}

impl Changes {
    /// Reads the adapter and the vocabulary.
    pub(super) fn read(
        config: &DecoderConfig,
        checkpoint: &Checkpoint,
    ) -> Result<Self, MergeError> {
        let vocabulary = base_weights::vocabulary(config, checkpoint)?;
        let n_rows = |own: &Option<BaseWeight>| {
            own.as_ref().map_or(config.vocab_size, |weight| weight.shape[0])
        };
        let [embeddings, head] = [&vocabulary.embeddings, &vocabulary.head].map(n_rows);
        if embeddings != head {
            let checkpoint = checkpoint.label().to_owned();
            return Err(MergeError::Vocabulary { checkpoint, embeddings, head });
        }
        let vocabulary_names = [config.embeddings_weight(), config.head_weight()];
        let adapter = Adapter::read(config, checkpoint)?;
        Ok(Self { adapter, vocabulary, vocabulary_names })
    }

    /// Tokens that the checkpoint's own vocabulary has, if it has one.
    pub(super) fn n_tokens(&self) -> Option<usize> {
        let own = self.vocabulary.embeddings.as_ref().or(self.vocabulary.head.as_ref());
        own.map(|weight| weight.shape[0])
    }

    /// What becomes of the weight with this name.
    fn of(&self, weight: &str) -> Change<'_> {
        let [embeddings, head] = &self.vocabulary_names;
        let own = match weight {
            weight if weight == embeddings => self.vocabulary.embeddings.as_ref(),
            weight if weight == head => self.vocabulary.head.as_ref(),
            _ => None,
        };
        match (own, self.adapter.params.get(weight)) {
            (Some(own), _) => Change::Replaced(own),
            (None, Some(params)) => Change::Updated(&self.adapter, params),
            (None, None) => Change::None,
        }
    }
}

enum Change<'a> {
    None,
    Updated(&'a Adapter, &'a [Param; 2]),
    Replaced(&'a BaseWeight),
}

/// An adapter, by the weights it is for.
struct Adapter {
    /// All of it, f32, in the order of its layout.
    values: Vec<f32>,
    /// A and B by the name of a weight.
    params: BTreeMap<String, [Param; 2]>,
    scale: f32,
    is_transposed: bool,
}

impl Adapter {
    fn read(config: &DecoderConfig, checkpoint: &Checkpoint) -> Result<Self, MergeError> {
        let lora = checkpoint.lora();
        let layout: ParamLayout = config.lora_layout(lora)?;
        let params = layout.params().as_chunks::<2>().0.iter().map(|[a, b]| {
            let module = a.name.trim_start_matches("base_model.model.");
            let weight = module.replace(".lora_A.weight", ".weight");
            (weight, [a.clone(), b.clone()])
        });
        Ok(Self {
            values: checkpoint.adapter(&layout)?,
            params: params.collect(),
            scale: (lora.alpha / lora.rank as f64) as f32,
            is_transposed: config.names.is_transposed,
        })
    }

    fn matrix(&self, param: &Param) -> ArrayView2<'_, f32> {
        let own = &self.values[param.offset..][..param.n_coordinates()];
        let shape = [param.shape[0], param.shape[1]];
        ArrayView2::from_shape(shape, own).expect("a parameter has as many values as its shape")
    }

    /// Adds the update of the weight with these parameters to its values, row-major.
    fn add(&self, [a, b]: &[Param; 2], weight: &mut [f32]) {
        let (a, b) = (self.matrix(a), self.matrix(b));
        let shape =
            if self.is_transposed { [a.ncols(), b.nrows()] } else { [b.nrows(), a.ncols()] };
        let weight = ndarray::ArrayViewMut2::from_shape(shape, weight);
        let weight = weight.expect("weight and adapter were checked against one configuration");
        let mut weight = if self.is_transposed { weight.reversed_axes() } else { weight };
        general_mat_mul(self.scale, &b, &a, 1.0, &mut weight);
    }
}

/// A weight on its way to a file.
pub(super) struct MergedTensor<'a> {
    file: &'a WeightFile,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    change: Change<'a>,
}

pub(super) fn merged_tensors<'a>(
    file: &'a WeightFile,
    config: &DecoderConfig,
    changes: &'a Changes,
) -> Vec<(String, MergedTensor<'a>)> {
    let tensor = |(canonical, name): (String, String)| {
        let (own, dtype) = file.described(&name);
        let change = changes.of(&canonical);
        let shape = if let Change::Replaced(weight) = &change { weight.shape.clone() } else { own };
        (name.clone(), MergedTensor { file, name, dtype, shape, change })
    };
    file.names(config.names).into_iter().map(tensor).collect()
}

impl MergedTensor<'_> {
    /// Whether it is another than the model's.
    pub(super) fn is_changed(&self) -> bool {
        !matches!(self.change, Change::None)
    }
}

impl View for MergedTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let own = || self.file.weight_as_stored(&self.name);
        match &self.change {
            Change::None => own().data.into_bytes(),
            Change::Replaced(weight) => Cow::Owned(as_bytes(&weight.values, self.dtype)),
            Change::Updated(adapter, params) => {
                let mut values = own().into_f32().expect("dtypes were checked");
                adapter.add(params, &mut values);
                Cow::Owned(as_bytes(&values, self.dtype))
            }
        }
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Values in one of the dtypes that weights may have.
fn as_bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}
