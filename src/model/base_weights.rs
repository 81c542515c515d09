//! Weights of the base model that a checkpoint brings along.
//!
//! An adapter is trained with embeddings of another size, or beside modules
//! that were trained whole, and its file then holds those weights. Gradients are
//! taken with the embeddings and the output projection of the checkpoint; any other
//! weight must be the model's own.

use std::path::Path;

use super::DecoderConfig;
use super::weights::{WeightFiles, WeightsError};
use crate::checkpoint::{BaseWeight, Checkpoint, CheckpointError};

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

/// The embeddings and the output projection of a checkpoint, `[n_tokens,
/// hidden_size]` each, where it has its own; tied ones are the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
    /// The embeddings.
    pub embeddings: Option<BaseWeight>,
    /// The output projection.
    pub head: Option<BaseWeight>,
}

/// The vocabulary of `checkpoint`, for a model as `model` has it.
///
/// # Errors
///
/// If a matrix is of another width or not finite, or two that should be tied differ.
pub fn vocabulary(
    model: &DecoderConfig,
    checkpoint: &Checkpoint,
) -> Result<Vocabulary, BaseWeightError> {
    let other = |name: &str| {
        let (checkpoint, name) = (checkpoint.label().to_owned(), name.to_owned());
        BaseWeightError::Other { checkpoint, name }
    };
    let mut own = Vocabulary::default();
    for name in checkpoint.base_weights()? {
        let canonical = model.names.canonical(&name);
        let place = match canonical {
            Some(weight) if weight == model.embeddings_weight() => &mut own.embeddings,
            Some(weight) if weight == model.head_weight() => &mut own.head,
            _ => continue,
        };
        let fits = |saved: &BaseWeight| {
            matches!(saved.shape[..], [_, width] if width == model.hidden_size)
                && saved.values.iter().all(|value| value.is_finite())
        };
        *place = Some(checkpoint.base_weight(&name)?.filter(fits).ok_or_else(|| other(&name))?);
    }
    if model.tied_embeddings {
        if own.embeddings.is_some() && own.head.is_some() && own.embeddings != own.head {
            return Err(other(&model.head_weight()));
        }
        own.head = own.embeddings.clone().or(own.head);
        own.embeddings.clone_from(&own.head);
    }
    Ok(own)
}

/// Fails unless every weight of the base model that `checkpoint` holds, but for its
/// vocabulary, is that of the model in `model_dir`.
///
/// # Errors
///
/// The first that differs, or if a file cannot be read.
pub fn check_others(
    model_dir: &Path,
    model: &DecoderConfig,
    checkpoint: &Checkpoint,
) -> Result<(), BaseWeightError> {
    vocabulary(model, checkpoint)?;
    let of_vocabulary = [model.embeddings_weight(), model.head_weight()];
    check(model_dir, model, checkpoint, |weight| !of_vocabulary.contains(weight))
}

/// Fails unless every weight of the base model that `checkpoint` holds is that of
/// the model in `model_dir`.
///
/// # Errors
///
/// The first that differs, or if a file cannot be read.
pub fn check_all(
    model_dir: &Path,
    model: &DecoderConfig,
    checkpoint: &Checkpoint,
) -> Result<(), BaseWeightError> {
    check(model_dir, model, checkpoint, |_| true)
}

fn check(
    model_dir: &Path,
    model: &DecoderConfig,
    checkpoint: &Checkpoint,
    is_meant: impl Fn(&String) -> bool,
) -> Result<(), BaseWeightError> {
    let canonical = |name: String| {
        let own = model.names.canonical(&name).unwrap_or_else(|| name.clone());
        (name, own)
    };
    let names = checkpoint.base_weights()?.into_iter().map(canonical);
    let names: Vec<_> = names.filter(|(_, own)| is_meant(own)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let files = WeightFiles::open(model_dir, model)?;
    let expected = model.weights();
    for (name, own) in names {
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
