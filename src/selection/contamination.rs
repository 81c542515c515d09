//! Pool rows that say what is evaluated.
//!
//! The rule of Tülu 3 (Lambert et al., arXiv 2411.15124): a row is
//! contaminated by an evaluation text if runs of eight words that both have cover
//! more than half of the text's words. And as GPT-3 did (Brown et al., 2020,
//! appendix C), runs that more than ten pool rows have count for nothing: they
//! are a template's words, such as the instructions that a benchmark gives with
//! every question, and its own training split has them everywhere.
//!
//! A text is a turn of the user or the assistant, so that a row which has the
//! question with another answer is found. Texts of fewer than eight words say too
//! little to tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::words::{hash_of, words};
use crate::pool::Message;

/// Words in a run.
const RUN: usize = 8;

/// Pool rows that may have a run before it counts for nothing.
const FEW_ROWS: usize = 10;

/// What must not be trained on.
#[derive(Debug, Default)]
pub struct EvaluationTexts {
    texts: Vec<Text>,
    /// Texts and places by run. Looked up, never walked through.
    runs: HashMap<u64, Vec<(usize, usize)>>,
}

#[derive(Debug)]
struct Text {
    /// Where it is from, for people.
    origin: String,
    n_words: usize,
}

/// A row and what it has of the evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contaminated {
    /// The row, by what it was given as.
    pub row: usize,
    /// Where the text is from.
    pub origin: String,
}

impl EvaluationTexts {
    /// Adds what user and assistant say; `origin` is told of a row that has it.
    pub fn add(&mut self, origin: &str, messages: &[Message]) {
        for turn in messages.iter().filter(|turn| turn.role != "system") {
            let words: Vec<String> = words(&turn.content).collect();
            if words.len() < RUN {
                continue;
            }
            let text = self.texts.len();
            self.texts.push(Text { origin: origin.to_owned(), n_words: words.len() });
            for (place, run) in words.windows(RUN).enumerate() {
                self.runs.entry(hash_of(run)).or_default().push((text, place));
            }
        }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The runs of a row that some text has.
    pub fn shared_runs(&self, messages: &[Message]) -> Vec<u64> {
        let mut shared = BTreeSet::new();
        for turn in messages {
            let words: Vec<String> = words(&turn.content).collect();
            shared
                .extend(words.windows(RUN).map(hash_of).filter(|run| self.runs.contains_key(run)));
        }
        shared.into_iter().collect()
    }

    /// The rows that are contaminated, given the shared runs of every row that has
    /// any, in ascending order of row.
    pub fn contaminated(&self, shared: &[(usize, Vec<u64>)]) -> Vec<Contaminated> {
        let mut n_rows: HashMap<u64, usize> = HashMap::new();
        for run in shared.iter().flat_map(|(_, runs)| runs) {
            *n_rows.entry(*run).or_default() += 1;
        }
        let is_own = |run: &&u64| n_rows[*run] <= FEW_ROWS;
        let of = |(row, runs): &(usize, Vec<u64>)| {
            let text = self.covered(runs.iter().filter(is_own))?;
            Some(Contaminated { row: *row, origin: self.texts[text].origin.clone() })
        };
        shared.iter().filter_map(of).collect()
    }

    /// The first text of which more than half of the words are in `runs`.
    fn covered<'a>(&self, runs: impl Iterator<Item = &'a u64>) -> Option<usize> {
        let mut places: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (text, place) in runs.flat_map(|run| &self.runs[run]) {
            places.entry(*text).or_default().extend(*place..*place + RUN);
        }
        let is_covered =
            |(text, words): &(usize, BTreeSet<usize>)| 2 * words.len() > self.texts[*text].n_words;
        places.into_iter().find(is_covered).map(|(text, _)| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: &str, content: &str) -> Vec<Message> {
        vec![Message { role: role.to_owned(), content: content.to_owned() }]
    }

    /// The rows that an evaluation of `texts` finds contaminated.
    fn found(texts: &[&str], rows: &[&str]) -> Vec<usize> {
        let mut evaluation = EvaluationTexts::default();
        for (at, text) in texts.iter().enumerate() {
            evaluation.add(&format!("eval.jsonl, row {at}"), &said("user", text));
        }
        let shared = rows.iter().map(|row| evaluation.shared_runs(&said("user", row)));
        let shared: Vec<_> = shared.enumerate().filter(|(_, runs)| !runs.is_empty()).collect();
        evaluation.contaminated(&shared).into_iter().map(|found| found.row).collect()
    }

    const QUESTION: &str = "James rents his car out for 20 an hour. He rents it for 8 hours a day, \
                            4 days a week. How much does he make in a week?";

    #[test]
    fn a_question_is_found_inside_of_another_text() {
        let rows = [
            &format!("Solve this step by step!\n{}", QUESTION.to_uppercase()),
            "Anna rents her boat to tourists for 30 a day, and wonders how much she makes in May.",
        ];
        assert_eq!(found(&[QUESTION], &rows), [0]);
    }

    #[test]
    fn half_of_a_text_is_no_contamination_and_more_is() {
        let text = "one two three four five six seven eight nine ten \
                    eleven twelve thirteen fourteen fifteen sixteen";
        let eight = "one two three four five six seven eight";
        assert_eq!(found(&[text], &[eight, &format!("{eight} nine")]), [1]);
    }

    #[test]
    fn short_texts_say_too_little() {
        assert_eq!(
            found(&["What is the capital of France?"], &["What is the capital of France?"]),
            [0; 0]
        );
    }

    /// A benchmark's own training split shares its instructions with every test.
    #[test]
    fn what_many_rows_say_is_a_template() {
        let template = "Answer the following question and explain your answer in one sentence:";
        let rows: Vec<String> = (0..20).map(|row| format!("{template} why {row}?")).collect();
        let mut rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let question = format!("{template} {QUESTION}");
        rows.push(&question);
        assert_eq!(found(&[&format!("{template} who?"), &question], &rows), [20]);
    }

    #[test]
    fn the_origin_is_told() {
        let mut evaluation = EvaluationTexts::default();
        evaluation.add("test.jsonl, row 7", &said("assistant", QUESTION));
        let shared = evaluation.shared_runs(&said("user", QUESTION));
        let origin = "test.jsonl, row 7".to_owned();
        assert_eq!(evaluation.contaminated(&[(3, shared)]), [Contaminated { row: 3, origin }]);
    }
}
