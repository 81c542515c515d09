//! `less-select explain`: why a row was selected, or was not.

use clap::Args;
use serde_json::json;

use super::exit::CliError;
use super::{Answer, Context};
use crate::explain::{row_text, target_text};

/// Which row.
#[derive(Clone, Debug, Args)]
pub(super) struct ExplainArgs {
    /// A row of the pool: its id or the beginning of it, `FILE:LINE` or `SOURCE:LINE`
    #[arg(required_unless_present = "target_example", conflicts_with = "target_example")]
    row: Option<String>,

    /// Instead an example of the target: which rows it brought in
    // Not `--target`, which says where the target is.
    #[arg(long, value_name = "EXAMPLE")]
    target_example: Option<String>,
}

/// Looks it up in the run.
pub(super) fn explain(context: &Context<'_>, args: &ExplainArgs) -> Result<Answer, CliError> {
    let run = context.pipeline();
    if let Some(row) = &args.row {
        let found = run.explain_row(row)?;
        return Ok(Answer::done(row_text(&found), json!(found)));
    }
    let found = run.explain_target(args.target_example.as_deref().unwrap_or_default())?;
    Ok(Answer::done(target_text(&found), json!(found)))
}
