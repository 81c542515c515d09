//! Near-duplicates among what is selected: the better-ranked one stays.
//!
//! Two rows are near-duplicates when the sets of runs of five words of what user
//! and assistant say are alike: |A ∩ B| / |A ∪ B| (Jaccard) at least a threshold.
//! Words are lowercase and of letters and digits, or the characters of a script
//! without spaces; a text of fewer words is one run. The rule of `MinHash` with locality-sensitive hashing (Lee et al.,
//! *Deduplicating Training Data Makes Language Models Better*, ACL 2022), but
//! computed, not estimated: sets that are as alike as that share one of their
//! first few elements in any fixed order (prefix filtering, Chaudhuri et al., ICDE
//! 2006), so that only few pairs have to be compared, and none is missed.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::words::{hash_of, words};
use crate::pool::Message;

/// Words in a run.
const RUN: usize = 5;

/// The runs of words of a row: sorted hashes, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shingles(Vec<u64>);

impl Shingles {
    /// What user and assistant say in a conversation.
    pub fn of(messages: &[Message]) -> Self {
        let said = messages.iter().filter(|turn| turn.role != "system");
        let words: Vec<String> = said.flat_map(|turn| words(&turn.content)).collect();
        let mut runs: Vec<u64> = match words.len() {
            0 => Vec::new(),
            n if n < RUN => vec![hash_of(&words)],
            _ => words.windows(RUN).map(hash_of).collect(),
        };
        runs.sort_unstable();
        runs.dedup();
        Self(runs)
    }

    /// |A ∩ B| / |A ∪ B|; 0 where one has no words.
    pub fn likeness(&self, other: &Self) -> f64 {
        self.n_shared(other, usize::MAX).map_or(0.0, |n_shared| self.ratio(other, n_shared))
    }

    /// Whether the [likeness](Self::likeness) is at least `threshold`. Rows of one
    /// template share first elements and little else: for most of them a glance is
    /// enough.
    fn is_as_alike(&self, other: &Self, threshold: f64) -> bool {
        let n_elements = (self.0.len() + other.0.len()) as f64;
        #[expect(clippy::cast_sign_loss, reason = "a share of a count")]
        // A hair more than can be, for rounding: what is found is compared again.
        let most_unshared = ((1.0 - threshold) / (1.0 + threshold) * n_elements + 1e-6) as usize;
        let n_shared = self.n_shared(other, most_unshared);
        n_shared.is_some_and(|n_shared| self.ratio(other, n_shared) >= threshold)
    }

    /// |A ∩ B|; `None` as soon as more than `most_unshared` are in one alone.
    fn n_shared(&self, other: &Self, most_unshared: usize) -> Option<usize> {
        let (mut a, mut b) = (self.0.as_slice(), other.0.as_slice());
        let (mut n_shared, mut n_unshared) = (0, 0);
        while let ([x, rest_a @ ..], [y, rest_b @ ..]) = (a, b) {
            match x.cmp(y) {
                Ordering::Less => (a, n_unshared) = (rest_a, n_unshared + 1),
                Ordering::Greater => (b, n_unshared) = (rest_b, n_unshared + 1),
                Ordering::Equal => (a, b, n_shared) = (rest_a, rest_b, n_shared + 1),
            }
            if n_unshared > most_unshared {
                return None;
            }
        }
        (n_unshared + a.len() + b.len() <= most_unshared).then_some(n_shared)
    }

    /// The likeness of sets with so many common elements.
    fn ratio(&self, other: &Self, n_shared: usize) -> f64 {
        let n_all = self.0.len() + other.0.len() - n_shared;
        if n_all == 0 { 0.0 } else { n_shared as f64 / n_all as f64 }
    }

    /// The elements of which a set that is as alike as `threshold` shares one: the
    /// shared ones are at least `threshold` times as many as the set has.
    fn prefix(&self, threshold: f64) -> &[u64] {
        #[expect(clippy::cast_sign_loss, reason = "a share of a count")]
        // A hair less than it must be, for rounding: one element too many is slow,
        // one too few is wrong.
        let n_shared = (threshold * self.0.len() as f64 - 1e-9).ceil() as usize;
        &self.0[..self.0.len() - n_shared.clamp(usize::from(!self.0.is_empty()), self.0.len())
            + usize::from(!self.0.is_empty())]
    }
}

/// The rows that were taken, and whether another is like one of them.
#[derive(Debug)]
pub struct SeenTexts {
    threshold: f64,
    seen: Vec<(usize, Shingles)>,
    /// Positions among `seen` by an element of their prefix. Looked up, never
    /// walked through.
    by_element: HashMap<u64, Vec<usize>>,
}

impl SeenTexts {
    /// `threshold` is the least likeness of near-duplicates, in `(0, 1]`.
    pub fn new(threshold: f64) -> Self {
        Self { threshold, seen: Vec::new(), by_element: HashMap::new() }
    }

    /// The first row seen of which a row with `shingles` is a near-duplicate; if
    /// there is none, the row, whose position is `position`, counts as seen.
    pub fn near_duplicate_of(&mut self, position: usize, shingles: Shingles) -> Option<usize> {
        let prefix = shingles.prefix(self.threshold);
        let mut alike: Vec<usize> =
            prefix.iter().filter_map(|of| self.by_element.get(of)).flatten().copied().collect();
        alike.sort_unstable();
        alike.dedup();
        let is_alike = |at: &&usize| self.seen[**at].1.is_as_alike(&shingles, self.threshold);
        if let Some(first) = alike.iter().find(is_alike) {
            return Some(self.seen[*first].0);
        }
        for element in prefix {
            self.by_element.entry(*element).or_default().push(self.seen.len());
        }
        self.seen.push((position, shingles));
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shingles(text: &str) -> Shingles {
        Shingles::of(&[Message { role: "user".to_owned(), content: text.to_owned() }])
    }

    #[test]
    fn case_and_punctuation_make_no_difference() {
        let a = shingles("James rents his car out for $20 an hour.");
        let b = shingles("james rents, his CAR out; for 20 an\nhour");
        assert_eq!(a, b);
        approx::assert_abs_diff_eq!(a.likeness(&b), 1.0);
    }

    #[test]
    fn likeness_is_the_share_of_common_runs() {
        // Runs: abcde bcdef cdefg, and bcdef cdefg defgh.
        let likeness = shingles("a b c d e f g").likeness(&shingles("b c d e f g h"));
        approx::assert_abs_diff_eq!(likeness, 0.5);
        approx::assert_abs_diff_eq!(shingles("yes").likeness(&shingles("Yes!")), 1.0);
        approx::assert_abs_diff_eq!(shingles("yes").likeness(&shingles("no")), 0.0);
        approx::assert_abs_diff_eq!(shingles("!").likeness(&shingles("?")), 0.0);
    }

    #[test]
    fn scripts_without_spaces_have_near_duplicates_too() {
        let text = "猫は昼間ほとんど寝ていて、夜になると家の中を元気に走り回ります。";
        let like = "猫は昼間、ほとんど寝ていて夜になると家の中を元気に走り回りますよ!";
        let other = "犬は昼間ほとんど庭で遊び、夜になると小屋の中で静かに眠ります。";
        let likeness = |other: &str| shingles(text).likeness(&shingles(other));
        assert!(likeness(like) > 0.9, "{}", likeness(like));
        assert!(likeness(other) < 0.5, "{}", likeness(other));
    }

    #[test]
    fn what_the_system_says_makes_no_duplicates() {
        let message = |role: &str, content: &str| Message {
            role: role.to_owned(),
            content: content.to_owned(),
        };
        let preamble = "you are a helpful assistant that answers all questions truly";
        let of = |said: &str| Shingles::of(&[message("system", preamble), message("user", said)]);
        approx::assert_abs_diff_eq!(of("yes").likeness(&of("no")), 0.0);
    }

    proptest! {
        /// Compared with all pairs, one by one.
        #[test]
        fn no_near_duplicate_is_missed(
            texts in prop::collection::vec("[ab]( [ab]){0,14}", 1..30),
            threshold in 0.05..=1.0_f64,
        ) {
            let mut seen = SeenTexts::new(threshold);
            let mut kept: Vec<usize> = Vec::new();
            for (at, text) in texts.iter().enumerate() {
                let of = |kept: &&usize| {
                    shingles(&texts[**kept]).likeness(&shingles(text)) >= threshold
                };
                let expected = kept.iter().find(of).copied();
                prop_assert_eq!(seen.near_duplicate_of(at, shingles(text)), expected);
                if expected.is_none() {
                    kept.push(at);
                }
            }
        }
    }
}
