//! From a row's columns to a conversation.
//!
//! Shapes are recognized by column names, the first that fits:
//!
//! | columns | conversation |
//! |---|---|
//! | `messages`: list of `{role, content}` | as it stands |
//! | `conversations`: list of `{from, value}` (ShareGPT) or `{role, content}` | `human` is `user`, `gpt` is `assistant`, `function_call` is `assistant`, `observation` and `function_response` are `tool` |
//! | `instruction`, `output`, maybe `input` (Alpaca) | user: the instruction, then, if the input is not blank, an empty line and the input; assistant: the output |
//! | `prompt` and `completion` or `response` | user and assistant; or both lists of `{role, content}`, one after the other |
//!
//! | `text`, where no chat template is used | one assistant turn |
//!
//! A `system` column that is not blank becomes the first turn, unless the
//! conversation has one. Content is text, or a list of `{type: text, text}`
//! parts, which are joined; whatever else a turn has (`tool_calls`, `name`,
//! `reasoning_content`) and the columns `tools` and `chat_template_kwargs` go to
//! the chat template as they stand. With the
//! `columns` setting a row is read from the columns it names instead, in the
//! shape `messages` or `prompt`/`completion`.

mod turns;
mod variables;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use turns::turns;

use super::PoolError;
use super::conversation::{Conversation, Turn};
use super::reject::RejectReason;

type Row = Map<String, Value>;
type ShapeResult<T> = Result<T, RejectReason>;

/// The roles of a row's columns that the `columns` setting can name.
pub const COLUMN_ROLES: [&str; 5] = ["messages", "system", "prompt", "completion", "subtask"];

/// Which columns a conversation and its subtask are read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    turns: TurnColumns,
    system: Option<String>,
    subtask: Option<String>,
    reads_text: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum TurnColumns {
    #[default]
    Recognized,
    Messages(String),
    PromptCompletion(String, String),
}

impl Columns {
    /// Checks the `columns` setting. Where `reads_text` is set, a row may be
    /// nothing but a text.
    pub(super) fn new(
        setting: &BTreeMap<String, String>,
        reads_text: bool,
    ) -> Result<Self, PoolError> {
        if let Some(unknown) = setting.keys().find(|part| !COLUMN_ROLES.contains(&part.as_str())) {
            let known = COLUMN_ROLES.map(|part| format!("`{part}`")).join(", ");
            return Err(PoolError::Columns(format!("`{unknown}` is none of {known}")));
        }
        let column = |part: &str| setting.get(part).cloned();
        let turns = match (column("messages"), column("prompt"), column("completion")) {
            (None, None, None) => TurnColumns::Recognized,
            (Some(messages), None, None) => TurnColumns::Messages(messages),
            (None, Some(prompt), Some(completion)) => {
                TurnColumns::PromptCompletion(prompt, completion)
            }
            _ => {
                let rule = "name either `messages`, or both `prompt` and `completion`";
                return Err(PoolError::Columns(rule.to_owned()));
            }
        };
        Ok(Self { turns, system: column("system"), subtask: column("subtask"), reads_text })
    }

    /// The conversation in `row`.
    pub(super) fn conversation(&self, row: &Row) -> ShapeResult<Conversation> {
        let mut turns = match &self.turns {
            TurnColumns::Recognized => recognized(row, self.reads_text)?,
            TurnColumns::Messages(column) => turns(row, column)?,
            TurnColumns::PromptCompletion(prompt, completion) => {
                prompt_completion(row, prompt, completion)?
            }
        };
        if turns.is_empty() {
            return Err(shape("the conversation has no turn"));
        }
        let system = match &self.system {
            Some(column) => optional_text(row, column)?,
            None => optional_text(row, "system")?,
        };
        if let Some(system) = system.filter(|_| turns[0].role() != "system") {
            turns.insert(0, Turn::new("system", &system));
        }
        Ok(Conversation { turns, variables: variables::variables(row)? })
    }

    /// The subtask in `row`: text or a number. `None` if it has none.
    pub(super) fn subtask(&self, row: &Row) -> ShapeResult<Option<String>> {
        let column = self.subtask.as_deref().unwrap_or("subtask");
        match row.get(column) {
            None if self.subtask.is_some() => Err(missing(row, column)),
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) if !name.trim().is_empty() => Ok(Some(name.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::String(_)) => Err(shape(format!("column `{column}` is blank"))),
            Some(other) => Err(wrong_kind(column, other, "text")),
        }
    }
}

fn recognized(row: &Row, reads_text: bool) -> ShapeResult<Vec<Turn>> {
    let has = |column: &str| row.get(column).is_some_and(|value| !value.is_null());
    if has("messages") {
        turns(row, "messages")
    } else if has("conversations") {
        turns(row, "conversations")
    } else if has("instruction") && has("output") {
        alpaca(row)
    } else if has("prompt") && has("completion") {
        prompt_completion(row, "prompt", "completion")
    } else if has("prompt") && has("response") {
        prompt_completion(row, "prompt", "response")
    } else if has("text") && reads_text {
        Ok(vec![Turn::new("assistant", &text(row, "text")?)])
    } else if has("text") {
        Err(shape(
            "column `text` is no conversation; plain text is read with `chat-template = \"none\"`",
        ))
    } else {
        Err(shape(format!(
            "no conversation in the columns {}; expected `messages`, `conversations`, \
             `instruction` and `output`, or `prompt` and `completion` or `response`",
            names(row)
        )))
    }
}

fn alpaca(row: &Row) -> ShapeResult<Vec<Turn>> {
    let mut user = text(row, "instruction")?;
    if let Some(input) = optional_text(row, "input")? {
        user = format!("{user}\n\n{input}");
    }
    Ok(vec![Turn::new("user", &user), Turn::new("assistant", &text(row, "output")?)])
}

fn prompt_completion(row: &Row, prompt: &str, completion: &str) -> ShapeResult<Vec<Turn>> {
    if row.get(prompt).is_some_and(Value::is_array) {
        let mut both = turns(row, prompt)?;
        both.append(&mut turns(row, completion)?);
        return Ok(both);
    }
    let (prompt, completion) = (text(row, prompt)?, text(row, completion)?);
    Ok(vec![Turn::new("user", &prompt), Turn::new("assistant", &completion)])
}

/// The text in `column`, which must be there.
fn text(row: &Row, column: &str) -> ShapeResult<String> {
    match row.get(column) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong_kind(column, other, "text")),
        None => Err(missing(row, column)),
    }
}

/// The text in `column`, unless it is blank, null or not there.
fn optional_text(row: &Row, column: &str) -> ShapeResult<Option<String>> {
    match row.get(column) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => Ok(Some(text(row, column)?).filter(|text| !text.trim().is_empty())),
    }
}

fn shape(problem: impl Into<String>) -> RejectReason {
    RejectReason::Shape(problem.into())
}

fn missing(row: &Row, column: &str) -> RejectReason {
    shape(format!("no column `{column}` among {}", names(row)))
}

fn wrong_kind(column: &str, value: &Value, expected: &str) -> RejectReason {
    shape(format!("column `{column}` is {}, not {expected}", kind(value)))
}

fn names(row: &Row) -> String {
    row.keys().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", ")
}

/// What a JSON value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
