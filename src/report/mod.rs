//! What came out of a run, for people and for programs.
//!
//! [`Summary`] holds every number; [`write()`] makes `report.json` and the page
//! `report.html` from it, and [`text()`] the end of a run in a terminal. None of
//! them computes anything of its own.

mod chart;
pub(crate) mod composition;
mod correlation;
mod cross;
mod heat;
mod length_grid;
mod listing;
pub(crate) mod numbers;
mod page;
pub(crate) mod quote;
mod rejected;
mod spread;
mod summary;
pub(crate) mod table;
mod text;
mod warnings;

use std::path::Path;

pub use composition::{Flagged, SourceShare, SubtaskShare};
pub use correlation::{Correlations, spearman};
pub use cross::{Cell, SubtaskRow, SubtasksBySource};
pub use length_grid::{GridCell, LengthGrid};
pub use quote::Quote;
pub use rejected::Rejected;
pub use spread::{Bin, Histogram, Lengths, Quantile, Scores};
pub use summary::{
    CascadeFacts, CheckpointFacts, PoolAndSubset, RunFacts, Size, StageCost, Summary,
};
pub use text::text;

/// The report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The page's template failed.
    #[error("failed to render the report's page")]
    Page(#[from] minijinja::Error),
}

/// Writes `summary` as JSON to `json` and as a self-contained page to `html`.
///
/// # Errors
///
/// [`ReportError::Io`] if a file cannot be written; it is then as it was before.
pub fn write(summary: &Summary, json: &Path, html: &Path) -> Result<(), ReportError> {
    let page = page::render(summary)?;
    crate::fs::write_json(json, summary)?;
    crate::fs::write_atomic(html, |out| out.write_all(page.as_bytes()))?;
    Ok(())
}
