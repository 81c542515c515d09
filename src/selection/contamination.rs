//! Pool rows that say what is evaluated.
//!
//! The rule of Tülu 3 (Lambert et al., arXiv 2411.15124): a row is
//! contaminated by an evaluation text if runs of eight words that both have cover
//! more than half of the text's words. And as GPT-3 did (Brown et al., 2020,
//! appendix C), runs that much of the pool has count for nothing: they are a
//! template's words, such as the instructions that a benchmark gives with every
//! question, and its own training split has them everywhere.
//!
//! GPT-3 counted documents and let ten pass. In a pool, a question stands in as many
//! rows as answers were sampled for it, and is no template for that. What tells the
//! two apart is what else is asked: a template comes with other questions each time. So a
//! run is a template's if more than ten different prompts have it, and rows that
//! differ in their answers alone have one prompt. Prompts are compared letter by
//! letter, for in some tasks (close these brackets) all questions have the same words.
//! A text that is a template and nothing else is found in no row, and neither is an
//! answer that many questions have.
//!
//! Of a text that is mostly template, what is left does not come to half. So a row
//! that has all of a text's runs is contaminated by it, too, if one of them is no
//! template's.
//!
//! A question that more than ten prompts put into words of their own ("Solve: …",
//! "Think well. …") looks like a template, and nothing in the pool says that it is
//! none; so rows that are spared for a template alone are counted.
//!
//! A text is a turn of the user or the assistant, so that a row which has the
//! question with another answer is found. Texts of fewer than eight words say too
//! little to tell.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::words::{hash_of, words};
use crate::pool::Message;

/// Words in a run.
const RUN: usize = 8;

/// Different prompts that may have a run before it is a template's.
const FEW_PROMPTS: usize = 10;

/// What must not be trained on.
#[derive(Debug, Default)]
pub struct EvaluationTexts {
    texts: Vec<Text>,
    /// Texts by run, each once. Looked up, never walked through.
    by_run: HashMap<u64, Vec<usize>>,
}

#[derive(Debug)]
struct Text {
    /// Where it is from, for people.
    origin: String,
    /// One for each word but the last seven; at least one.
    runs: Vec<u64>,
}

/// What a row has in common with an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedRuns {
    row: usize,
    prompt: u64,
    /// Sorted, each once.
    runs: Vec<u64>,
}

/// Which rows have what of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contamination {
    /// In the order of the rows.
    pub rows: Vec<Contaminated>,
    /// Rows that would be among them, had they not said it in a template's words.
    pub n_spared: usize,
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
            let runs = runs_of(turn);
            if runs.is_empty() {
                continue;
            }
            for run in runs.iter().collect::<BTreeSet<_>>() {
                self.by_run.entry(*run).or_default().push(self.texts.len());
            }
            self.texts.push(Text { origin: origin.to_owned(), runs });
        }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// What a row, which is given as `row`, has in common with some text.
    pub fn shared(&self, row: usize, messages: &[Message]) -> Option<SharedRuns> {
        let mut runs: Vec<u64> = messages.iter().flat_map(runs_of).collect();
        runs.retain(|run| self.by_run.contains_key(run));
        runs.sort_unstable();
        runs.dedup();
        (!runs.is_empty()).then(|| SharedRuns { row, prompt: prompt_of(messages), runs })
    }

    /// The rows that are contaminated, given what every row of the pool shares, in
    /// ascending order of row.
    pub fn contamination(&self, shared: &[SharedRuns]) -> Contamination {
        let template = template_runs(shared);
        let mut found = Contamination::default();
        // By their runs: of rows that share a template alone there are many, and
        // few sorts.
        let mut others: BTreeMap<&[u64], usize> = BTreeMap::new();
        for SharedRuns { row, runs, .. } in shared {
            match self.text_in(runs, &template) {
                Some(Text { origin, .. }) => {
                    found.rows.push(Contaminated { row: *row, origin: origin.clone() });
                }
                None => *others.entry(runs).or_default() += 1,
            }
        }
        let is_spared = |runs: &[u64]| self.texts_with(runs).any(|text| text.is_mostly_of(runs));
        let spared = others.into_iter().filter(|(runs, _)| is_spared(runs));
        found.n_spared = spared.map(|(_, n_rows)| n_rows).sum();
        found
    }

    /// The first text that contaminates a row with `runs`.
    fn text_in(&self, runs: &[u64], template: &HashSet<u64>) -> Option<&Text> {
        let own: Vec<u64> = runs.iter().copied().filter(|run| !template.contains(run)).collect();
        self.texts_with(&own).find(|text| text.is_mostly_of(&own) || text.is_all_of(runs))
    }

    /// The texts that have one of `runs`, in the order in which they were added.
    fn texts_with(&self, runs: &[u64]) -> impl Iterator<Item = &Text> {
        let texts: BTreeSet<usize> =
            runs.iter().flat_map(|run| &self.by_run[run]).copied().collect();
        texts.into_iter().map(|text| &self.texts[text])
    }
}

impl Text {
    /// Whether more than half of its words are in `runs`, which are sorted.
    fn is_mostly_of(&self, runs: &[u64]) -> bool {
        let (mut n_covered, mut end) = (0, 0);
        for (place, run) in self.runs.iter().enumerate() {
            if runs.binary_search(run).is_ok() {
                n_covered += place + RUN - end.max(place);
                end = place + RUN;
            }
        }
        let n_words = self.runs.len() + RUN - 1;
        2 * n_covered > n_words
    }

    /// Whether it has no other runs than `runs`, which are sorted.
    fn is_all_of(&self, runs: &[u64]) -> bool {
        self.runs.iter().all(|run| runs.binary_search(run).is_ok())
    }
}

impl Contamination {
    /// A sentence, without a final period, on rows that were spared.
    pub fn note(&self) -> Option<String> {
        let rows = match self.n_spared {
            0 => return None,
            1 => "1 row that says more than half of an evaluated text is not left out".to_owned(),
            n => format!("{n} rows that say more than half of an evaluated text are not left out"),
        };
        Some(format!(
            "{rows}: more than {FEW_PROMPTS} different prompts have these words, so they count as \
             a template's"
        ))
    }
}

/// Every run of a turn, in order.
fn runs_of(turn: &Message) -> Vec<u64> {
    let words: Vec<String> = words(&turn.content).collect();
    words.windows(RUN).map(hash_of).collect()
}

/// A hash of what system and user say; of all that is said where no user says
/// anything, as in plain text.
fn prompt_of(messages: &[Message]) -> u64 {
    let is_asked =
        messages.iter().any(|turn| turn.role == "user" && !turn.content.trim().is_empty());
    let is_prompt = |turn: &&Message| !is_asked || matches!(&*turn.role, "system" | "user");
    let said = messages.iter().filter(is_prompt).map(|turn| turn.content.as_str());
    hash_of(&said.collect::<Vec<_>>())
}

/// The runs that more than a few different prompts have.
fn template_runs(shared: &[SharedRuns]) -> HashSet<u64> {
    let mut prompts: HashMap<u64, BTreeSet<u64>> = HashMap::new();
    for SharedRuns { prompt, runs, .. } in shared {
        for run in runs {
            let prompts = prompts.entry(*run).or_default();
            if prompts.len() <= FEW_PROMPTS {
                prompts.insert(*prompt);
            }
        }
    }
    prompts.retain(|_, prompts| prompts.len() > FEW_PROMPTS);
    prompts.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: &str, content: &str) -> Vec<Message> {
        vec![Message { role: role.to_owned(), content: content.to_owned() }]
    }

    fn asked(question: &str, answer: &str) -> Vec<Message> {
        [said("user", question), said("assistant", answer)].concat()
    }

    /// What an evaluation of `texts` finds in the rows.
    fn contamination(texts: &[&str], rows: &[Vec<Message>]) -> Contamination {
        let mut evaluation = EvaluationTexts::default();
        for (at, text) in texts.iter().enumerate() {
            evaluation.add(&format!("eval.jsonl, row {at}"), &said("user", text));
        }
        let shared = rows.iter().enumerate().filter_map(|(row, said)| evaluation.shared(row, said));
        evaluation.contamination(&shared.collect::<Vec<_>>())
    }

    fn positions(found: Contamination) -> Vec<usize> {
        found.rows.into_iter().map(|found| found.row).collect()
    }

    /// The rows that an evaluation of `texts` finds contaminated, of a user alone.
    fn found(texts: &[&str], rows: &[&str]) -> Vec<usize> {
        let rows: Vec<_> = rows.iter().map(|row| said("user", row)).collect();
        positions(contamination(texts, &rows))
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
    fn a_question_with_many_sampled_answers_is_no_template() {
        for n_rows in [11, 100] {
            let row = |row| asked(QUESTION, &format!("20 * 8 * 4 = 640, says answer {row}."));
            let rows: Vec<_> = (0..n_rows).map(row).collect();
            let found = contamination(&[QUESTION], &rows);
            assert_eq!(found.n_spared, 0);
            assert_eq!(positions(found), (0..n_rows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_text_that_is_nothing_but_a_template_is_in_no_row_and_they_are_counted() {
        let template = "Answer the following question and explain your answer in one sentence:";
        let row = |row: usize| asked(&format!("{template} why {row}?"), "So.");
        let rows: Vec<_> = (0..30).map(row).collect();
        let found = contamination(&[template], &rows);
        insta::assert_snapshot!(found.note().unwrap(), @"30 rows that say more than half of an evaluated text are not left out: more than 10 different prompts have these words, so they count as a template's");
        assert_eq!(positions(found), [0; 0]);
        assert_eq!(contamination(&[template], &rows[..10]).note(), None);
    }

    #[test]
    fn what_many_different_questions_are_answered_is_a_template() {
        let answer = "The answer is not to be found in the passage that is given.";
        let rows: Vec<_> = (0..20).map(|row| asked(&format!("Who is {row}?"), answer)).collect();
        assert_eq!(contamination(&[answer], &rows).n_spared, 20);
        let plain = |row| said("assistant", &format!("{answer} That was page {row}."));
        assert_eq!(contamination(&[answer], &(0..20).map(plain).collect::<Vec<_>>()).n_spared, 20);
    }

    /// The words are those of the task; the question is in what stands between them.
    #[test]
    fn prompts_that_differ_in_their_signs_are_different() {
        let task = "Complete the rest of the sequence, making sure that the brackets are closed:";
        let row = |row: usize| asked(&format!("{task} {}", "[".repeat(row)), "]");
        assert_eq!(contamination(&[task], &(0..20).map(row).collect::<Vec<_>>()).n_spared, 20);
    }

    #[test]
    fn a_whole_text_is_found_though_most_of_it_is_a_template() {
        let template = "Evaluate the result of a random expression of the propositional \
                        calculus, and then say nothing but the one word that is its value:";
        let rows: Vec<String> = (0..20).map(|row| format!("{template} true or {row} is")).collect();
        let mut rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let question = format!("{template} not true and true is");
        rows.push(&question);
        assert_eq!(found(&[&format!("{template} not false is"), &question], &rows), [20]);
    }

    #[test]
    fn a_question_in_a_script_without_spaces_is_found() {
        for (question, row, other) in [
            (
                "小明有三个苹果，又买了五个，他一共有多少个苹果？",
                "请一步一步地解答：小明有三个苹果，又买了五个。他一共有多少个苹果",
                "小红家里有四只猫，后来又来了两只狗，她家里现在有多少只动物？",
            ),
            (
                "แม่มีส้มสิบสองผล แบ่งให้ลูกสามคนเท่ากัน ลูกแต่ละคนได้ส้มกี่ผล",
                "จงแสดงวิธีทำ: แม่มีส้มสิบสองผล แบ่งให้ลูกสามคนเท่ากัน ลูกแต่ละคนได้ส้มกี่ผล?",
                "พ่อปลูกต้นมะม่วงไว้ห้าแถว แถวละแปดต้น พ่อปลูกต้นมะม่วงทั้งหมดกี่ต้น",
            ),
        ] {
            assert_eq!(found(&[question], &[other, row]), [1]);
        }
    }

    #[test]
    fn the_origin_is_told() {
        let mut evaluation = EvaluationTexts::default();
        evaluation.add("test.jsonl, row 7", &said("assistant", QUESTION));
        let shared = evaluation.shared(3, &said("user", QUESTION)).unwrap();
        let origin = "test.jsonl, row 7".to_owned();
        assert_eq!(evaluation.contamination(&[shared]).rows, [Contaminated { row: 3, origin }]);
    }
}
