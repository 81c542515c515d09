//! The end of a run in a terminal.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

use super::numbers::{count, lift, percent, score};
use super::quote::{fit, one_line};
use super::table::table;
use super::{CascadeFacts, Quote, SourceShare, Summary};
use crate::cascade::recall::Recall;
use crate::diagnostics::Diagnostics;
use crate::method::Method;

/// Columns of a name in a table at most.
const NAME_WIDTH: usize = 24;

/// Columns of a line of a quoted row at most.
const QUOTE_WIDTH: usize = 70;

/// Rows quoted at most.
const N_QUOTES: usize = 10;

/// Sources in the table at most.
const N_SOURCES: usize = 12;

/// Where the subset is, how it was composed, its best rows, how steady it is and what
/// to look twice at. Plain text, at most about a hundred columns wide, ending in a
/// newline.
pub fn text(summary: &Summary) -> String {
    let mut text = String::new();
    headline(&mut text, summary);
    sources(&mut text, &summary.sources);
    if let Some(cascade) = &summary.run.cascade {
        first_pass(&mut text, cascade);
    }
    best(&mut text, &summary.best[..summary.best.len().min(N_QUOTES)]);
    if let Some(diagnostics) = &summary.diagnostics {
        steadiness(&mut text, diagnostics);
    }
    if !summary.warnings.is_empty() {
        text.push_str("\nLook twice\n");
        for warning in &summary.warnings {
            let _ = writeln!(text, "  ! {}", one_line(warning, 400));
        }
    }
    text
}

fn headline(text: &mut String, summary: &Summary) {
    let size = &summary.size;
    let path = one_line(&summary.run.subset.display().to_string(), 400);
    let _ = writeln!(text, "Subset  {path}");
    if summary.run.method != Method::Less {
        let _ = writeln!(text, "        by {}", summary.run.method.source());
    }
    let _ = writeln!(
        text,
        "        {} of {} examples ({}), {} tokens",
        count(size.n_selected),
        count(size.n_pool),
        percent(size.selected_share),
        count(size.n_selected_tokens)
    );
}

fn first_pass(text: &mut String, cascade: &CascadeFacts) {
    let CascadeFacts { share, recalls } = cascade;
    let _ = writeln!(text, "\nCascade gradients of {} of the pool", percent(*share));
    for Recall { share, recall } in recalls {
        let (share, recall) = (percent(*share), percent(*recall));
        let _ = writeln!(
            text,
            "        a share of {share:>5} would have kept {recall:>6} of the selection"
        );
    }
}

/// Nothing if nothing but chance is known.
fn steadiness(text: &mut String, diagnostics: &Diagnostics) {
    let Diagnostics { n_rows, n_selected, chance, target, sketch, checkpoints } = diagnostics;
    let mut lines = Vec::new();
    if let Some(target) = target {
        let [mean, low, high] = [target.mean, target.low, target.high].map(percent);
        lines.push(format!("{mean:>6} by two halves of the target ({low} to {high})"));
    }
    if let Some(sketch) = sketch {
        let [between, first, second] =
            [sketch.between, sketch.with_whole[0], sketch.with_whole[1]].map(percent);
        lines.push(format!(
            "{between:>6} by two halves of the stored rows (each with the whole: {first}, {second})"
        ));
    }
    lines.extend(checkpoints.iter().map(|without| {
        let overlap = percent(without.overlap);
        format!("{overlap:>6} by all and without {}", fit(&without.checkpoint, NAME_WIDTH))
    }));
    if lines.is_empty() {
        return;
    }
    let (n_selected, n_rows, chance) = (count(*n_selected), count(*n_rows), percent(*chance));
    let _ = writeln!(text, "\nSteady  of {n_selected} rows of {n_rows}, two selections share");
    for line in lines {
        let _ = writeln!(text, "        {line}");
    }
    let _ = writeln!(text, "        {chance:>6} by chance");
}

fn sources(text: &mut String, sources: &[SourceShare]) {
    let mut rows =
        vec![["Source", "pool", "share", "selected", "share", "lift"].map(str::to_owned)];
    rows.extend(sources.iter().take(N_SOURCES).map(|source| {
        [
            fit(&source.source, NAME_WIDTH),
            count(source.n_pool),
            percent(source.pool_share),
            count(source.n_selected),
            percent(source.subset_share),
            lift(Some(source.lift)),
        ]
    }));
    text.push('\n');
    table(text, &rows);
    if let Some(n_more @ 1..) = sources.len().checked_sub(N_SOURCES) {
        let _ = writeln!(text, "and {n_more} more");
    }
}

fn best(text: &mut String, quotes: &[Quote]) {
    let n_name = quotes.iter().map(|quote| fit(&quote.source, NAME_WIDTH).width()).max();
    let n_name = n_name.unwrap_or(0).max("Source".len());
    let _ = writeln!(text, "\nRank    Score  {:n_name$}  Example", "Source");
    for quote in quotes {
        let source = fit(&quote.source, NAME_WIDTH);
        let pad = " ".repeat(n_name - source.width());
        let prompt = fit(&quote.prompt, QUOTE_WIDTH);
        let _ = writeln!(
            text,
            "{:4}  {:>7}  {source}{pad}  {prompt}",
            quote.rank,
            score(f64::from(quote.score))
        );
        let indent = 4 + 2 + 7 + 2 + n_name + 2;
        let _ = writeln!(text, "{:indent$}→ {}", "", fit(&quote.answer, QUOTE_WIDTH - 2));
    }
}
