//! `less-select sweep`: the subsets of several budgets.

use std::fmt::Write;

use serde_json::json;

use super::exit::CliError;
use super::{Answer, Context};
use crate::pipeline::select::Swept;
use crate::selection::Budget;

/// Writes them and says what is where.
pub(super) fn sweep(context: &Context<'_>, budgets: &[Budget]) -> Result<Answer, CliError> {
    let swept = context.pipeline().sweep(budgets)?;
    Ok(Answer::done(as_text(&swept), json!({ "run": context.run.root(), "subsets": swept })))
}

fn as_text(swept: &[Swept]) -> String {
    let mut text = format!("{:<16} {:>9} {:>12}  subset\n", "budget", "rows", "tokens");
    for Swept { budget, subset, n_rows, n_tokens } in swept {
        let budget = budget.to_string();
        writeln!(text, "{budget:<16} {n_rows:>9} {n_tokens:>12}  {}", subset.display())
            .expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_where_is_said_a_line_a_budget() {
        let swept = |budget: &str, n_rows, n_tokens, name: &str| Swept {
            budget: budget.parse().unwrap(),
            subset: format!("runs/default/{name}").into(),
            n_rows,
            n_tokens,
        };
        let swept = [
            swept("1%", 2_706, 512_300, "subset-1a7e8a8b"),
            swept("1M tokens", 5_412, 999_871, "subset-7ab34b76"),
        ];
        insta::assert_snapshot!(as_text(&swept), @"
        budget                rows       tokens  subset
        0.01                  2706       512300  runs/default/subset-1a7e8a8b
        1000000 tokens        5412       999871  runs/default/subset-7ab34b76
        ");
    }
}
