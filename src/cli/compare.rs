//! `less-select compare`: how alike selections are.

use std::path::PathBuf;

use serde_json::json;

use super::Answer;
use super::exit::CliError;
use crate::comparison::{Comparison, Side, text};

/// Reads every side and sets it beside the others.
pub(super) fn compare(paths: &[PathBuf]) -> Result<Answer, CliError> {
    let sides = paths.iter().map(|path| Side::open(path)).collect::<Result<Vec<_>, _>>()?;
    let comparison = Comparison::of(&sides);
    Ok(Answer::done(text(&comparison), json!(comparison)))
}
