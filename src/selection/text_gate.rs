//! Near-duplicates are refused while rows are taken.

use std::collections::HashMap;

use super::limits::Gate;
use super::near_duplicates::{SeenTexts, Shingles};
use super::selector::Pick;
use crate::pool::Message;

/// Gives the conversations of rows at ascending positions.
type Read<'a, E> = dyn Fn(&[usize]) -> Result<Vec<Vec<Message>>, E> + 'a;

/// Rows whose texts are read at once.
const READ_ROWS: usize = 1024;

/// Refuses a row that is a near-duplicate of one that was taken.
///
/// Texts are read as they are asked for: the row's, and with it those of the rows that
/// probably come next, where it is one of them.
pub struct TextGate<'a, E> {
    threshold: f64,
    seen: SeenTexts,
    /// Reads rows at ascending positions.
    read: &'a Read<'a, E>,
    /// Positions, the likeliest first, and how many of them were read.
    likely: Vec<usize>,
    n_read: usize,
    /// Of rows that were read and not asked for yet.
    shingles: HashMap<usize, Shingles>,
    refused: Vec<(usize, usize)>,
    /// Of those, how many were for good.
    n_kept: usize,
    failure: Option<E>,
}

impl<'a, E> TextGate<'a, E> {
    /// `likely` are the positions that can be asked for, in about the order in
    /// which they are.
    pub fn new(threshold: f64, likely: Vec<usize>, read: &'a Read<'a, E>) -> Self {
        Self {
            threshold,
            seen: SeenTexts::new(threshold),
            read,
            likely,
            n_read: 0,
            shingles: HashMap::new(),
            refused: Vec::new(),
            n_kept: 0,
            failure: None,
        }
    }

    /// The rows that were refused, each with the one that it is a near-duplicate
    /// of, in the order in which they were.
    ///
    /// # Errors
    ///
    /// If a text could not be read.
    pub fn into_refused(self) -> Result<Vec<(usize, usize)>, E> {
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.refused),
        }
    }

    /// The runs of words of a row.
    fn shingles(&mut self, position: usize) -> Result<Shingles, E> {
        if let Some(shingles) = self.shingles.remove(&position) {
            return Ok(shingles);
        }
        let mut positions: Vec<usize> =
            self.likely[self.n_read..].iter().take(READ_ROWS).copied().collect();
        if positions.contains(&position) {
            self.n_read += positions.len();
            positions.sort_unstable();
        } else {
            positions = vec![position];
        }
        let texts = (self.read)(&positions)?;
        let shingles = texts.iter().map(|messages| Shingles::of(messages));
        self.shingles.extend(positions.into_iter().zip(shingles));
        Ok(self.shingles.remove(&position).expect("a text for every position"))
    }
}

impl<E> Gate for TextGate<'_, E> {
    fn admit(&mut self, pick: Pick) -> bool {
        if self.failure.is_some() {
            return false;
        }
        match self.shingles(pick.position) {
            Ok(shingles) => {
                let twin = self.seen.near_duplicate_of(pick.position, shingles);
                self.refused.extend(twin.map(|twin| (pick.position, twin)));
                twin.is_none()
            }
            Err(failure) => {
                self.failure = Some(failure);
                false
            }
        }
    }

    fn keep(&mut self) {
        self.n_kept = self.refused.len();
    }

    fn reset(&mut self) {
        self.seen = SeenTexts::new(self.threshold);
        self.refused.truncate(self.n_kept);
        self.n_read = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::{SourceLimits, take};
    use super::super::selector::Top;
    use super::super::toy::table;
    use super::super::view::View;
    use super::*;

    #[test]
    fn of_near_duplicates_the_better_ranked_stays_and_the_next_moves_up() {
        let texts = [
            "james rents his car out for twenty an hour every day",
            "James rents his car out for twenty an hour, every day!",
            "anna bakes five loaves of bread each morning before work",
            "it takes eight days for three builders to build a cottage",
        ];
        let read = |positions: &[usize]| -> Result<Vec<Vec<Message>>, ()> {
            let message = |at: &usize| {
                vec![Message { role: "user".to_owned(), content: texts[*at].to_owned() }]
            };
            Ok(positions.iter().map(message).collect())
        };
        let scores = table(&["t"], &[&[0.8], &[0.9], &[0.7], &[0.6]]);
        let view = View::plain(&scores);
        let mut gate = TextGate::new(0.8, vec![1, 0, 2, 3], &read);
        let (budget, none) = ("3".parse().unwrap(), SourceLimits::default());
        let taken = take(&scores, || Top::new(&view), budget, &none, &mut gate);
        assert_eq!(taken.rows.iter().map(|row| row.position).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(gate.into_refused(), Ok(vec![(0, 1)]));
    }

    #[test]
    fn what_was_refused_for_good_outlives_a_reset_and_the_rest_does_not() {
        let said = |_: &usize| {
            vec![Message { role: "user".to_owned(), content: "the same words".to_owned() }]
        };
        let read = |positions: &[usize]| -> Result<Vec<Vec<Message>>, ()> {
            Ok(positions.iter().map(said).collect())
        };
        let mut gate = TextGate::new(0.8, Vec::new(), &read);
        let admit = |gate: &mut TextGate<'_, ()>, position| {
            gate.admit(Pick { position, subtask: 0, example: None })
        };
        assert!(admit(&mut gate, 0) && !admit(&mut gate, 1));
        gate.keep();
        assert!(!admit(&mut gate, 2));
        gate.reset();
        assert!(admit(&mut gate, 3), "nothing counts as seen");
        assert_eq!(gate.into_refused(), Ok(vec![(1, 0)]));
    }

    #[test]
    fn a_text_that_cannot_be_read_fails_the_selection() {
        let read = |_: &[usize]| Err("disk on fire");
        let mut gate = TextGate::new(0.8, vec![0], &read);
        assert!(!gate.admit(Pick { position: 0, subtask: 0, example: None }));
        assert_eq!(gate.into_refused(), Err("disk on fire"));
    }
}
