//! The rows that the report quotes: the first and the last of the subset, and the best
//! of the others.

use super::Quote;
use crate::influence::scores::ScoreTable;
use crate::pool::table::Record;
use crate::selection::Selected;

/// Quoted rows, each list in rank order; no row is in two of them.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The best of the subset.
    pub(super) best: Vec<Quote>,
    /// The last that came into it.
    pub(super) last_in: Vec<Quote>,
    /// The best that are not in it.
    pub(super) below_cut: Vec<Quote>,
}

impl Listing {
    /// About `n_rows`, a quarter of them not in the subset, and of the others a third
    /// the last that came into it.
    ///
    /// `read` is asked once, for ascending positions, and gives a record a position.
    pub(super) fn of<E>(
        scores: &ScoreTable,
        selected: &[Selected],
        left_out: &[Selected],
        n_rows: usize,
        read: impl FnOnce(&[usize]) -> Result<Vec<Record>, E>,
    ) -> Result<Self, E> {
        let quarter = n_rows.div_ceil(4);
        let n_best = selected.len().min(n_rows.saturating_sub(2 * quarter).max(quarter));
        let (best, others) = selected.split_at(n_best);
        let last_in = &others[others.len().saturating_sub(quarter)..];
        let below_cut = &left_out[..left_out.len().min(quarter)];

        let places = best.iter().chain(last_in).chain(below_cut);
        let mut positions: Vec<usize> = places.map(|place| place.position).collect();
        positions.sort_unstable();
        let records = read(&positions)?;
        assert_eq!(records.len(), positions.len(), "one record a position");
        let quotes = |places: &[Selected], is_selected| -> Vec<Quote> {
            let quote = |place: &Selected| {
                let record = positions.partition_point(|position| *position < place.position);
                Quote::of(scores, place, is_selected, &records[record])
            };
            places.iter().map(quote).collect()
        };
        Ok(Self {
            best: quotes(best, true),
            last_in: quotes(last_in, true),
            below_cut: quotes(below_cut, false),
        })
    }
}
