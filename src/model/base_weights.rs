//! Weights of the base model that a checkpoint brings along.
//!
//! An adapter is trained with embeddings of another size, or beside modules
//! that were trained whole, and its file then holds those weights. Gradients
//! are taken with the model's own, so these must be the same.

use std::path::Path;

use super::DecoderConfig;
use super::weights::{WeightFiles, WeightsError};
use crate::checkpoint::{Checkpoint, CheckpointError};

/// Why a checkpoint does not belong to a model.
#[derive(Debug, thiserror::Error)]
pub enum BaseWeightError {
    /// It was trained with another weight than the model has.
    #[error("`{checkpoint}` was saved with a `{name}` that is not the model's")]
    Other {
        /// Its label.
        checkpoint: String,
        /// The weight.
        name: String,
    },
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The model cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Fails unless every weight of the base model that `checkpoint` holds is that of
/// the model in `model_dir`.
///
/// # Errors
///
/// The first that differs, or if a file cannot be read.
pub fn check(
    model_dir: &Path,
    model: &DecoderConfig,
    checkpoint: &Checkpoint,
) -> Result<(), BaseWeightError> {
    let names = checkpoint.base_weights()?;
    if names.is_empty() {
        return Ok(());
    }
    let files = WeightFiles::open(model_dir, model)?;
    let expected = model.weights();
    for name in names {
        let own = model.names.canonical(&name).unwrap_or_else(|| name.clone());
        // A tied output projection is stored once.
        let is_tied = model.tied_embeddings && own == model.head_weight();
        let own = if is_tied { model.embeddings_weight() } else { own };
        let saved = checkpoint.base_weight(&name)?;
        let is_own = expected.iter().any(|(weight, _)| *weight == own)
            && saved.is_some_and(|saved| {
                let (weight, _) = files.tensor(&own);
                weight.shape == saved.shape && weight.to_f32().as_ref() == Some(&saved.values)
            });
        if !is_own {
            let checkpoint = checkpoint.label().to_owned();
            return Err(BaseWeightError::Other { checkpoint, name });
        }
    }
    Ok(())
}
