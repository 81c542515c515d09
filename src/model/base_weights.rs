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
    let mut own = Vocabulary::default();
    for (name, is_head) in checked_vocabulary(model, checkpoint)? {
        let place = if is_head { &mut own.head } else { &mut own.embeddings };
        *place = checkpoint.base_weight(&name)?;
    }
    if model.tied_embeddings {
        if own.embeddings.is_some() && own.head.is_some() && own.embeddings != own.head {
            return Err(other(checkpoint, model.head_weight()));
        }
        own.head = own.embeddings.clone().or(own.head);
        own.embeddings.clone_from(&own.head);
    }
    Ok(own)
}

/// The names of the vocabulary's matrices in `checkpoint`, each as wide as the model and
/// finite, and which is the output projection.
fn checked_vocabulary(
    model: &DecoderConfig,
    checkpoint: &Checkpoint,
) -> Result<Vec<(String, bool)>, BaseWeightError> {
    let mut found = Vec::new();
    for name in checkpoint.base_weights()? {
        let canonical = model.names.canonical(&name);
        let is_head = match canonical {
            Some(weight) if weight == model.embeddings_weight() => false,
            Some(weight) if weight == model.head_weight() => true,
            _ => continue,
        };
        let facts = checkpoint.base_weight_facts(&name)?;
        let fits = |(shape, is_finite): &(Vec<usize>, bool)| {
            *is_finite && matches!(shape[..], [_, width] if width == model.hidden_size)
        };
        if !facts.as_ref().is_some_and(fits) {
            return Err(other(checkpoint, name));
        }
        found.push((name, is_head));
    }
    Ok(found)
}

/// Fails unless every weight of the base model that `checkpoint` holds, but for its
/// vocabulary, is that of the model in `model_dir`, and the vocabulary fits that model.
///
/// # Errors
///
/// The first that differs, or if a file cannot be read.
pub fn check(
    model_dir: &Path,
    model: &DecoderConfig,
    checkpoint: &Checkpoint,
) -> Result<(), BaseWeightError> {
    // Two that are tied have to be compared.
    if checked_vocabulary(model, checkpoint)?.len() > 1 && model.tied_embeddings {
        vocabulary(model, checkpoint)?;
    }
    let of_vocabulary = [model.embeddings_weight(), model.head_weight()];
    let names = checkpoint.base_weights()?.into_iter().map(|name| {
        let own = model.names.canonical(&name).unwrap_or_else(|| name.clone());
        (name, own)
    });
    let names: Vec<_> = names.filter(|(_, own)| !of_vocabulary.contains(own)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let files = WeightFiles::open(model_dir, model)?;
    let expected = model.weights();
    for (name, own) in names {
        let saved = checkpoint.base_weight(&name)?;
        let is_own = expected.iter().any(|(weight, _)| *weight == own)
            && saved.is_some_and(|saved| {
                let (weight, _) = files.tensor(&own);
                weight.shape == saved.shape && weight.into_f32().as_ref() == Some(&saved.values)
            });
        if !is_own {
            return Err(other(checkpoint, name));
        }
    }
    Ok(())
}

fn other(checkpoint: &Checkpoint, name: String) -> BaseWeightError {
    BaseWeightError::Other { checkpoint: checkpoint.label().to_owned(), name }
}
