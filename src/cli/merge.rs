//! `less-select merge`: a model folder with an adapter in its weights.

use std::path::Path;

use serde_json::json;

use super::Answer;
use super::exit::CliError;
use crate::merge::{Merged, merge as merge_models};

/// Writes the merged model and says where.
pub(super) fn merge(model: &Path, checkpoint: &Path, out: &Path) -> Result<Answer, CliError> {
    let Merged { path, n_merged, n_tensors } = merge_models(model, checkpoint, out)?;
    let text = format!("{}: {n_merged} of {n_tensors} tensors merged\n", path.display());
    let json = json!({ "path": path, "merged": n_merged, "tensors": n_tensors });
    Ok(Answer::done(text, json))
}
