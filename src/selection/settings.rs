//! Which rows are to be kept.

use std::collections::BTreeMap;

use super::{Budget, Fraction, Normalize, Selector, SourceLimits};
use crate::pool::Source;

/// The settings of a selection, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectionSettings {
    /// In which order rows are taken.
    pub selector: Selector,
    /// Whether subtasks are put on one scale.
    pub normalize: Normalize,
    /// How much of the pool is a target example's neighborhood: a share or a
    /// number of rows.
    pub neighbors: Budget,
    /// What likeness to a taken row costs, at least 0.
    pub redundancy_penalty: f64,
    /// The least and the most that pool sources may have.
    pub limits: SourceLimits,
    /// The likeness from which rows are near-duplicates, in `(0, 1]`; `None` keeps
    /// them.
    pub near_duplicates: Option<Fraction>,
    /// How much each target source is to have, by its name; empty: all of them
    /// together have the budget.
    pub target_budgets: BTreeMap<String, Budget>,
    /// Whether every target also gets a subset folder of its own.
    pub subset_per_target: bool,
    /// Whether rows that say what target examples say are left out.
    pub decontaminate_target: bool,
    /// Evaluations whose texts no row may have.
    pub decontaminate: Vec<Source>,
}

impl SelectionSettings {
    /// How many of `n_rows` rows are a target example's neighborhood.
    pub fn n_neighbors(&self, n_rows: usize) -> usize {
        self.neighbors.amount(n_rows) as usize
    }

    /// What decides the subset, as JSON. Files are known by their contents.
    pub fn portable(&self) -> serde_json::Value {
        let shares = |shares: &BTreeMap<String, Fraction>| -> BTreeMap<String, f64> {
            shares.iter().map(|(source, share)| (source.clone(), share.value())).collect()
        };
        serde_json::json!({
            "selector": self.selector,
            "normalize": self.normalize,
            "neighbors": self.neighbors,
            "redundancy-penalty": self.redundancy_penalty,
            "source-cap": shares(&self.limits.caps),
            "source-floor": shares(&self.limits.floors),
            "near-duplicates": self.near_duplicates.map(Fraction::value),
            "target-budget": self.target_budgets,
            "subset-per-target": self.subset_per_target,
            "decontaminate-target": self.decontaminate_target,
        })
    }
}
