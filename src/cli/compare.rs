//! `less-select compare`: how alike selections are.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Answer;
use super::exit::CliError;
use crate::comparison::{Comparison, Side, page, text};
use crate::pipeline::PipelineError;
use crate::report::ReportError;

/// Reads every side and sets it beside the others; with `out`, also as a page.
pub(super) fn compare(paths: &[PathBuf], out: Option<&Path>) -> Result<Answer, CliError> {
    let sides = paths.iter().map(|path| Side::open(path)).collect::<Result<Vec<_>, _>>()?;
    let comparison = Comparison::of(&sides);
    let mut said = text(&comparison);
    if let Some(out) = out {
        let page =
            page(&comparison).map_err(|err| PipelineError::Report(ReportError::Page(err)))?;
        crate::fs::write_atomic::<std::io::Error>(out, |file| file.write_all(page.as_bytes()))?;
        let _ = writeln!(said, "\nPlots are in {}", out.display());
    }
    Ok(Answer::done(said, json!(comparison)))
}
