//! The highest scores.

use super::{Pick, Picks};
use crate::selection::view::{Ranked, View};

/// Rows by their best subtask's influence, highest first (LESS).
#[derive(Debug)]
pub struct Top {
    ranking: std::vec::IntoIter<Ranked>,
}

impl Top {
    /// The ranking of `view`.
    pub fn new(view: &View<'_>) -> Self {
        Self { ranking: view.ranking().into_iter() }
    }
}

impl Picks for Top {
    fn next(&mut self, admit: &mut dyn FnMut(Pick) -> bool) -> Option<Pick> {
        self.ranking.by_ref().map(Pick::by_score).find(|pick| admit(*pick))
    }
}
