//! How alike two selections are: `less-select compare`.
//!
//! A [`Side`] is a run, a subset folder or a table of scores. Rows are known by their
//! ids, which are hashes of what the model reads; so sides can be compared whatever
//! scored them, but not across chat templates or tokenizers.
//!
//! At a budget a side has the beginning of what it selected, in the order of its
//! selector, and past that ([`Overlap::n_past_selection`]) the highest scores among the
//! rest; a side without a selection has the highest scores.

mod page;
mod pair;
mod side;
mod text;

use serde::Serialize;

pub use page::page;
pub use pair::{Overlap, Pair};
pub use side::{CompareError, CompareErrorKind, Side, SideRow};
pub use text::text;

use crate::report::StageCost;

/// Several sides beside each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Each for itself, in the order given.
    pub sides: Vec<SideFacts>,
    /// Every two of them, in that order.
    pub pairs: Vec<Pair>,
}

/// What one side is made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SideFacts {
    /// Its name: no two are equal.
    pub name: String,
    /// What scored it, if it says so.
    pub method: Option<String>,
    /// Rows with a score that ranks them, those that were left out included.
    pub n_ranked: usize,
    /// Rows of its own selection; none of a table of scores.
    pub n_selected: Option<usize>,
    /// What its selection, or the best 5 % of a table of scores, is made of.
    pub sources: Vec<SourcePart>,
    /// Mean tokens of those rows, where rows have lengths.
    pub mean_tokens: Option<f64>,
    /// Mean tokens that carry loss of those rows, where rows have lengths.
    pub mean_supervised: Option<f64>,
    /// The stages its scores took, each as it was last computed; empty where there is no
    /// manifest.
    pub stages: Vec<StageCost>,
}

/// A source's part of a selection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourcePart {
    /// The source.
    pub source: String,
    /// Its rows in the selection.
    pub n_rows: usize,
    /// As a share of the selection's rows.
    pub share: f64,
    /// Its share of the ranked rows; none of a subset alone.
    pub pool_share: Option<f64>,
}

impl Comparison {
    /// Compares every side with every other.
    pub fn of(sides: &[Side]) -> Self {
        let names = names(sides);
        let facts = sides.iter().zip(&names).map(|(side, name)| side.facts(name.clone()));
        let mut pairs = Vec::new();
        for (at, a) in sides.iter().enumerate() {
            for (other, b) in sides.iter().enumerate().skip(at + 1) {
                pairs.push(Pair::of([a, b], [&names[at], &names[other]]));
            }
        }
        Self { sides: facts.collect(), pairs }
    }
}

/// The last part of each side's path, the whole path where several have the same, and a
/// number where the same path was given twice.
fn names(sides: &[Side]) -> Vec<String> {
    let last = |side: &Side| side.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let whole = |side: &Side| side.path.display().to_string();
    let is_alone = |name: &Option<String>| sides.iter().filter(|s| last(s) == *name).count() == 1;
    let bare = |side: &Side| last(side).filter(|name| is_alone(&Some(name.clone())));
    let bare: Vec<_> = sides.iter().map(|side| bare(side).unwrap_or_else(|| whole(side))).collect();
    let numbered =
        |(at, name): (usize, &String)| match bare[..at].iter().filter(|n| *n == name).count() {
            0 => name.clone(),
            n_before => format!("{name} ({})", n_before + 1),
        };
    bare.iter().enumerate().map(numbered).collect()
}
