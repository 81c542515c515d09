//! A model folder with an adapter merged into its weights.
//!
//! ```text
//! W' = W + alpha / rank · B·A
//! ```
//!
//! in f32, written in the dtype that W has. One tensor is in memory at a time.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use half::{bf16, f16};
use ndarray::ArrayView2;
use ndarray::linalg::general_mat_mul;
use safetensors::tensor::{TensorView, View};
use safetensors::{Dtype, SafeTensorError};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::fs::{UNFINISHED, entries, parent, sync_dir};
use crate::gradient::layout::{Param, ParamLayout};
use crate::model::DecoderConfig;
use crate::model::base_weights::{self, BaseWeightError};
use crate::model::config::ConfigError;
use crate::model::modules::LoraError;
use crate::model::weights::{WeightFile, WeightFiles, WeightsError};
use crate::tensor_file::{TensorFile, to_f32};

/// Why no merged model was written. Nothing unfinished is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The model is none that the decoder computes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights are not what its configuration says.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint was trained with other weights.
    #[error(transparent)]
    BaseWeight(#[from] BaseWeightError),
    /// The adapter sits on modules that the model lacks.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// Weights in another layout.
    #[error("`{}` is no safetensors file; only such are merged into", .0.display())]
    Layout(PathBuf),
    /// There is something in the place of the new folder.
    #[error("`{}` is there already; name a folder that is not", .0.display())]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A weight file could not be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SafeTensorError,
    },
}

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged {
    /// The new model's folder.
    pub path: PathBuf,
    /// Tensors with an adapter in them.
    pub n_merged: usize,
    /// All tensors.
    pub n_tensors: usize,
}

/// Writes the model in `model_dir` with the adapter of `checkpoint_dir` to the new
/// folder `out`: its weights, file by file, and what else a model folder has
/// (configuration, tokenizer, chat template).
///
/// # Errors
///
/// If model or checkpoint cannot be used or do not fit, `out` is there already, or a
/// file cannot be written.
pub fn merge(model_dir: &Path, checkpoint_dir: &Path, out: &Path) -> Result<Merged, MergeError> {
    if out.exists() {
        return Err(MergeError::Exists(out.to_owned()));
    }
    let config = DecoderConfig::read(model_dir)?;
    let weights = WeightFiles::open(model_dir, &config)?;
    let files = weights.files().iter().map(safetensors).collect::<Result<Vec<_>, _>>()?;
    let checkpoint = Checkpoint::open(checkpoint_dir)?;
    base_weights::check_all(model_dir, &config, &checkpoint)?;
    let adapter = Adapter::read(&config, &checkpoint)?;
    fs::create_dir_all(parent(out))?;
    let temp = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent(out))?;
    copy_texts(model_dir, temp.path())?;
    let mut merged = Merged { path: out.to_owned(), n_merged: 0, n_tensors: 0 };
    for file in files {
        let tensors = merged_tensors(file, &config, &adapter);
        merged.n_tensors += tensors.len();
        merged.n_merged += tensors.iter().filter(|(_, tensor)| tensor.update.is_some()).count();
        let path = temp.path().join(file.path().file_name().unwrap_or_default());
        write(&path, tensors)?;
        // As the texts are copied: the writer's own are for its user alone.
        fs::set_permissions(&path, fs::metadata(file.path())?.permissions())?;
    }
    sync_dir(temp.path())?;
    fs::rename(temp.path(), out)?;
    let _renamed = temp.keep();
    sync_dir(parent(out))?;
    Ok(merged)
}

fn safetensors(file: &WeightFile) -> Result<&TensorFile, MergeError> {
    match file {
        WeightFile::Safetensors(file) => Ok(file),
        other => Err(MergeError::Layout(other.path().to_owned())),
    }
}

/// What a model folder has besides weights.
fn copy_texts(from: &Path, to: &Path) -> io::Result<()> {
    for path in entries(from)? {
        let copy = to.join(path.file_name().unwrap_or_default());
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        if path.ends_with("additional_chat_templates") {
            fs::create_dir(&copy)?;
            copy_texts(&path, &copy)?;
        } else if path.is_file() && ["json", "jinja", "model", "txt"].contains(&kind) {
            fs::copy(&path, copy)?;
        }
    }
    Ok(())
}

fn write(path: &Path, tensors: Vec<(String, MergedTensor<'_>)>) -> Result<(), MergeError> {
    // transformers asks for it.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path)
        .map_err(|source| MergeError::Write { path: path.to_owned(), source })?;
    Ok(fs::File::open(path)?.sync_all()?)
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
struct MergedTensor<'a> {
    own: TensorView<'a>,
    update: Option<(&'a Adapter, &'a [Param; 2])>,
}

fn merged_tensors<'a>(
    file: &'a TensorFile,
    config: &DecoderConfig,
    adapter: &'a Adapter,
) -> Vec<(String, MergedTensor<'a>)> {
    let tensor = |name: String| {
        let params = config.names.canonical(&name).and_then(|name| adapter.params.get(&name));
        let own = file.tensor(&name).expect("the file lists this name");
        (name, MergedTensor { own, update: params.map(|params| (adapter, params)) })
    };
    file.names().into_iter().map(tensor).collect()
}

impl View for MergedTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.own.dtype()
    }

    fn shape(&self) -> &[usize] {
        self.own.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let Some((adapter, params)) = self.update else { return Cow::Borrowed(self.own.data()) };
        let mut values = to_f32(&self.own).expect("dtypes were checked");
        adapter.add(params, &mut values);
        Cow::Owned(as_bytes(&values, self.own.dtype()))
    }

    fn data_len(&self) -> usize {
        self.own.data().len()
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
