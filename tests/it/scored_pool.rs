//! A pool of three sources of different shapes, with scores as a run leaves them.

use std::convert::Infallible;

use less_select::influence::scores::{ScoreRow, ScoreTable};
use less_select::pool::table::Record;
use less_select::pool::{ExampleId, Message};
use less_select::seed::Seed;
use less_select::selection::export::{SubsetRow, subset_rows};
use less_select::selection::{Budget, Selected, top};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use serde_json::{Value, json};

/// Scores, and the record of every row of them.
pub(crate) struct ScoredPool {
    pub(crate) scores: ScoreTable,
    pub(crate) records: Vec<Record>,
}

impl ScoredPool {
    /// `n` examples: a twentieth arithmetic, which the target is, the rest
    /// instructions and role play. The first is flagged.
    pub(crate) fn new(n: u32) -> Self {
        let mut rng = Seed(0).stream(&["test", "scored pool"]);
        let mut rows: Vec<(ScoreRow, Record)> = (0..n).map(|n| example(n, &mut rng)).collect();
        rows.sort_by_key(|(row, _)| row.id);
        let (mut rows, records): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        rows[0].flag = Some("zero gradient".to_owned());
        rows[0].by_subtask.clear();
        let subtasks = vec!["gsm8k/algebra".to_owned(), "gsm8k/counting".to_owned()];
        Self { scores: ScoreTable { subtasks, rows }, records }
    }

    pub(crate) fn top(&self, budget: &str) -> Vec<Selected> {
        let budget: Budget = budget.parse().unwrap();
        top(&self.scores, budget)
    }

    pub(crate) fn subset(&self, budget: &str) -> Vec<SubsetRow<'_>> {
        let read = |positions: &[usize]| -> Result<Vec<Record>, Infallible> {
            Ok(positions.iter().map(|position| self.records[*position].clone()).collect())
        };
        subset_rows(&self.scores, &self.top(budget), read).unwrap()
    }
}

fn example(n: u32, rng: &mut ChaCha8Rng) -> (ScoreRow, Record) {
    let (source, affinity, record) = match n % 20 {
        0 => ("gsm8k", 0.30, arithmetic(n)),
        1..10 => ("role-play", 0.02, role_play(n)),
        _ => ("p3", 0.04, instruction(n)),
    };
    let mut noise = |width: f32| width * (rng.next_u32() as f32 / u32::MAX as f32 - 0.5);
    let score = affinity + noise(0.08) + noise(0.08);
    let n_supervised = record.messages.last().map_or(1, |turn| turn.content.len() / 4 + 1) as u32;
    let row = ScoreRow {
        id: ExampleId::of(&[n, 2], &[false, true]),
        source: source.to_owned(),
        n_tokens: n_supervised + 20 + n % 37,
        n_supervised,
        loss: 1.4 + noise(1.0),
        norm: 0.8 + noise(0.6) + 4.0 / n_supervised as f32,
        flag: None,
        by_subtask: vec![score, score + noise(0.04)],
    };
    (row, record)
}

fn arithmetic(n: u32) -> Record {
    let (boxes, pencils) = (n % 7 + 2, n % 11 + 3);
    let question = format!(
        "A school orders {boxes} boxes with {pencils} pencils each and gives away 5. How many are left?"
    );
    let answer = format!(
        "{boxes} boxes hold {boxes} × {pencils} = {} pencils.\nAfter giving away 5, {} are left.\n#### {}",
        boxes * pencils,
        boxes * pencils - 5,
        boxes * pencils - 5
    );
    let messages = turns(&[("user", &question), ("assistant", &answer)]);
    let original = json!({ "messages": messages, "level": n % 5 });
    record(messages, original)
}

fn instruction(n: u32) -> Record {
    let prompt =
        format!("Is review {n} positive or negative? \"The film was <b>slow</b>, but I stayed.\"");
    let completion = if n.is_multiple_of(2) { "Positive" } else { "Negative" };
    let messages = turns(&[("user", &prompt), ("assistant", completion)]);
    record(messages, json!({ "prompt": prompt, "completion": completion, "task": "imdb" }))
}

fn role_play(n: u32) -> Record {
    let instruction =
        format!("You are a ferryman at crossing {n}. Greet a traveller who has no coin.");
    let output = "Keep your purse shut, friend. ".repeat(n as usize % 9 + 3);
    let messages =
        turns(&[("system", "Stay in character."), ("user", &instruction), ("assistant", &output)]);
    record(messages, json!({ "instruction": instruction, "input": "", "output": output }))
}

fn record(messages: Vec<Message>, original: Value) -> Record {
    let Value::Object(original) = original else { unreachable!("written as an object above") };
    Record { messages, original }
}

pub(crate) fn turns(turns: &[(&str, &str)]) -> Vec<Message> {
    turns
        .iter()
        .map(|(role, content)| Message { role: (*role).to_owned(), content: (*content).to_owned() })
        .collect()
}
