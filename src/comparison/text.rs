//! A comparison in a terminal.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::pair::NOTHING_IN_COMMON;
use super::{Comparison, Overlap, Pair, SideFacts};
use crate::report::composition::NAME_CHARS;
use crate::report::numbers::{count, fixed, percent, seconds, signed};
use crate::report::quote::one_line;
use crate::report::table::table;
use crate::stage::Stage;

/// Sources in the table at most.
const N_SOURCES: usize = 12;

/// What stands for something that is not known.
const NONE: &str = "–";

/// What [`PAST`] at an overlap means, as a sentence without a final period.
pub(super) const PAST_SELECTION: &str = "past what a side has selected, its rows are by score";

/// What marks an overlap at a budget past a side's selection.
pub(super) const PAST: char = '*';

/// Tables: the sides, what every two share, what each is made of, what it cost. Ends in a
/// newline.
pub fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    let Comparison { sides, pairs } = comparison;
    table(&mut text, &overview(sides));
    text.push_str("\nShared rows and Jaccard index at shares of the common rows\n");
    table(&mut text, &overlaps(pairs));
    if has_past_selection(pairs) {
        let _ = writeln!(text, "{PAST} {PAST_SELECTION}");
    }
    let incomparable = pairs.iter().filter(|pair| pair.n_common == 0);
    let incomparable: Vec<_> = incomparable.map(name_of).collect();
    if !incomparable.is_empty() {
        let _ = writeln!(text, "Not compared: {}\n  {NOTHING_IN_COMMON}", incomparable.join(", "));
    }
    text.push_str("\nWhat is selected, or the best 5 % of scores alone\n");
    table(&mut text, &composition(sides));
    if sides.iter().any(|side| !side.stages.is_empty()) {
        text.push_str("\nTime by stage, as last computed\n");
        table(&mut text, &costs(sides));
    }
    text
}

pub(super) fn overview(sides: &[SideFacts]) -> Vec<Vec<String>> {
    let mut rows = vec![["Name", "ranked", "selected", "method"].map(str::to_owned).to_vec()];
    rows.extend(sides.iter().map(|side| {
        vec![
            side.name.clone(),
            count(side.n_ranked as u64),
            side.n_selected.map_or_else(|| NONE.to_owned(), |n| count(n as u64)),
            side.method.clone().unwrap_or_else(|| NONE.to_owned()),
        ]
    }));
    rows
}

pub(super) fn overlaps(pairs: &[Pair]) -> Vec<Vec<String>> {
    let head = ["Pair", "common", "1%", "2%", "5%", "10%", "selected", "rank correlation"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for pair in pairs {
        let mut row = vec![name_of(pair), count(pair.n_common as u64)];
        row.extend((0..4).map(|at| cell(pair.overlaps.get(at))));
        row.push(cell(pair.own.as_ref()));
        row.push(signed(pair.rank_correlation));
        rows.push(row);
    }
    rows
}

/// Whether a budget lies past a side's selection.
pub(super) fn has_past_selection(pairs: &[Pair]) -> bool {
    pairs.iter().flat_map(|pair| &pair.overlaps).any(Overlap::is_past_selection)
}

fn name_of(pair: &Pair) -> String {
    pair.names.join(" · ")
}

/// `8 of 16 (0.33)`; of sets of different sizes, `8 of 16 and 20 (0.29)`; past a side's
/// selection, `8 of 16 (0.33)*`.
fn cell(overlap: Option<&Overlap>) -> String {
    let Some(overlap) = overlap else { return NONE.to_owned() };
    let Overlap { n_rows: [a, b], n_shared, jaccard, .. } = overlap;
    let of = if a == b { a.to_string() } else { format!("{a} and {b}") };
    let mark = if overlap.is_past_selection() { PAST.to_string() } else { String::new() };
    format!("{n_shared} of {of} ({jaccard:.2}){mark}")
}

pub(super) fn composition(sides: &[SideFacts]) -> Vec<Vec<String>> {
    let line = |name: &str, cell: &dyn Fn(&SideFacts) -> String| {
        [name.to_owned()].into_iter().chain(sides.iter().map(cell)).collect::<Vec<_>>()
    };
    let mut rows = vec![line("Source", &|side| side.name.clone())];
    let names = sources(sides);
    for name in names.iter().take(N_SOURCES) {
        rows.push(line(&one_line(name, NAME_CHARS), &|side| {
            let part = side.sources.iter().find(|part| part.source == *name);
            part.map_or_else(
                || NONE.to_owned(),
                |part| format!("{} {:>6}", count(part.n_rows as u64), percent(part.share)),
            )
        }));
    }
    if let Some(n_more @ 1..) = names.len().checked_sub(N_SOURCES) {
        rows.push(line(&format!("and {n_more} more"), &|_| String::new()));
    }
    rows.push(line("Tokens, mean", &|side| fixed(side.mean_tokens, 1)));
    rows.push(line("Supervised, mean", &|side| fixed(side.mean_supervised, 1)));
    rows
}

/// All sources, those with the most selected rows of all sides first.
pub(super) fn sources(sides: &[SideFacts]) -> Vec<String> {
    let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
    for part in sides.iter().flat_map(|side| &side.sources) {
        *totals.entry(&part.source).or_default() += part.n_rows;
    }
    let mut names: Vec<_> = totals.into_iter().collect();
    names.sort_by_key(|(_, n_rows)| std::cmp::Reverse(*n_rows));
    names.into_iter().map(|(name, _)| name.to_owned()).collect()
}

pub(super) fn costs(sides: &[SideFacts]) -> Vec<Vec<String>> {
    let line = |name: &str, cost: &dyn Fn(&SideFacts) -> Option<f64>| {
        let cell = |side| cost(side).map_or_else(|| NONE.to_owned(), seconds);
        [name.to_owned()].into_iter().chain(sides.iter().map(cell)).collect::<Vec<_>>()
    };
    let mut rows = vec![
        ["Stage".to_owned()]
            .into_iter()
            .chain(sides.iter().map(|side| side.name.clone()))
            .collect(),
    ];
    for stage in Stage::ALL {
        if sides.iter().any(|side| side.stages.iter().any(|cost| cost.stage == stage)) {
            rows.push(line(stage.name(), &|side| {
                side.stages.iter().find(|cost| cost.stage == stage).map(|cost| cost.seconds)
            }));
        }
    }
    rows.push(line("all", &|side| {
        let seconds = side.stages.iter().map(|cost| cost.seconds).sum();
        (!side.stages.is_empty()).then_some(seconds)
    }));
    rows
}
