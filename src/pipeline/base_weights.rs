//! Weights of the base model that a checkpoint brings along.
//!
//! An adapter is trained with embeddings of another size, or beside modules
//! that were trained whole, and its file then holds those weights. Gradients
//! are taken with the model's own, so these must be the same.

use super::PipelineError;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::model::DecoderConfig;
use crate::model::weights::WeightFiles;

/// Fails unless every weight of the base model that `checkpoint` holds is the
/// model's own. A model of random weights has none to compare.
///
/// # Errors
///
/// The first that differs, or if a file cannot be read.
pub(crate) fn check(
    config: &Config,
    model: &DecoderConfig,
    checkpoint: &Checkpoint,
) -> Result<(), PipelineError> {
    let names = checkpoint.base_weights()?;
    if names.is_empty() || config.random_weights.is_some() {
        return Ok(());
    }
    let files = WeightFiles::open(&config.model, model)?;
    let expected = model.weights();
    for name in names {
        // A tied output projection is stored once.
        let is_tied = model.tied_embeddings && name == model.head_weight();
        let own = if is_tied { model.embeddings_weight() } else { name.clone() };
        let saved = checkpoint.base_weight(&name)?;
        let is_own = expected.iter().any(|(weight, _)| *weight == own)
            && saved.is_some_and(|saved| {
                let (weight, _) = files.tensor(&own);
                weight.shape == saved.shape && weight.to_f32().as_ref() == Some(&saved.values)
            });
        if !is_own {
            let checkpoint = checkpoint.label().to_owned();
            return Err(PipelineError::OtherWeight { checkpoint, name });
        }
    }
    Ok(())
}
