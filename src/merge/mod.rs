//! A model folder with a checkpoint merged into its weights.
//!
//! ```text
//! W' = W + alpha / rank · B·A
//! ```
//!
//! in f32, written in the dtype that W has. One tensor is in memory at a time. Embeddings
//! and an output projection that the checkpoint has of its own, resized or trained, take
//! the place of the model's (`tensors`), and with them the checkpoint's tokenizer that of
//! the model (`texts`).

mod tensors;
mod texts;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use safetensors::SafeTensorError;
use tensors::{Changes, MergedTensor, merged_tensors};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::fs::{UNFINISHED, parent, sync_dir};
use crate::model::DecoderConfig;
use crate::model::base_weights::{self, BaseWeightError};
use crate::model::config::ConfigError;
use crate::model::modules::LoraError;
use crate::model::weights::{WeightFile, WeightFiles, WeightsError};

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
    #[error("`{}` is a GGUF file; only models in Hugging Face layout are merged into", .0.display())]
    Layout(PathBuf),
    /// The checkpoint's embeddings know other tokens than its output projection.
    #[error(
        "of `{checkpoint}` the embeddings are of {embeddings} tokens, the output projection of {head}"
    )]
    Vocabulary {
        /// Its label.
        checkpoint: String,
        /// Rows of the embeddings.
        embeddings: usize,
        /// Rows of the output projection.
        head: usize,
    },
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
    /// Tensors with an adapter in them, or taken from the checkpoint.
    pub n_merged: usize,
    /// All tensors.
    pub n_tensors: usize,
}

/// Writes the model in `model_dir` with what `checkpoint_dir` makes of it to the new
/// folder `out`: its weights as safetensors, file by file, and what else a model folder
/// has (configuration, tokenizer, chat template).
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
    if let Some(file) = weights.files().iter().find(|file| matches!(file, WeightFile::Gguf(_))) {
        return Err(MergeError::Layout(file.path().to_owned()));
    }
    let checkpoint = Checkpoint::open(checkpoint_dir)?;
    base_weights::check(model_dir, &config, &checkpoint)?;
    let changes = Changes::read(&config, &checkpoint)?;
    fs::create_dir_all(parent(out))?;
    let temp = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent(out))?;
    texts::write(model_dir, checkpoint_dir, changes.n_tokens(), temp.path())?;
    let mut merged = Merged { path: out.to_owned(), n_merged: 0, n_tensors: 0 };
    for file in weights.files() {
        let tensors = merged_tensors(file, &config, &changes);
        merged.n_tensors += tensors.len();
        merged.n_merged += tensors.iter().filter(|(_, tensor)| tensor.is_changed()).count();
        let name = file.path().file_name().unwrap_or_default().to_string_lossy();
        let path = temp.path().join(texts::safetensors_name(&name));
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

fn write(path: &Path, tensors: Vec<(String, MergedTensor<'_>)>) -> Result<(), MergeError> {
    // transformers asks for it.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path)
        .map_err(|source| MergeError::Write { path: path.to_owned(), source })?;
    Ok(fs::File::open(path)?.sync_all()?)
}
