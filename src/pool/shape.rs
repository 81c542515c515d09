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
//! A `system` column that is not blank becomes the first turn, unless the
//! conversation has one. Content is text, or a list of `{type: text, text}`
//! parts, which are joined. With the `columns` setting a row is read from the
//! columns it names instead, in the shape `messages` or `prompt`/`completion`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::reject::RejectReason;
use super::{Message, PoolError};

type Row = Map<String, Value>;
type ShapeResult<T> = Result<T, RejectReason>;

/// The roles of a row's columns that the `columns` setting can name.
pub const COLUMN_ROLES: [&str; 5] = ["messages", "system", "prompt", "completion", "subtask"];

/// Which columns a conversation and its subtask are read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    conversation: Conversation,
    system: Option<String>,
    subtask: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Conversation {
    #[default]
    Recognized,
    Messages(String),
    PromptCompletion(String, String),
}

impl Columns {
    /// Checks the `columns` setting.
    pub(super) fn new(setting: &BTreeMap<String, String>) -> Result<Self, PoolError> {
        if let Some(unknown) = setting.keys().find(|part| !COLUMN_ROLES.contains(&part.as_str())) {
            let known = COLUMN_ROLES.map(|part| format!("`{part}`")).join(", ");
            return Err(PoolError::Columns(format!("`{unknown}` is none of {known}")));
        }
        let column = |part: &str| setting.get(part).cloned();
        let conversation = match (column("messages"), column("prompt"), column("completion")) {
            (None, None, None) => Conversation::Recognized,
            (Some(messages), None, None) => Conversation::Messages(messages),
            (None, Some(prompt), Some(completion)) => {
                Conversation::PromptCompletion(prompt, completion)
            }
            _ => {
                let rule = "name either `messages`, or both `prompt` and `completion`";
                return Err(PoolError::Columns(rule.to_owned()));
            }
        };
        Ok(Self { conversation, system: column("system"), subtask: column("subtask") })
    }

    /// The conversation in `row`.
    pub(super) fn messages(&self, row: &Row) -> ShapeResult<Vec<Message>> {
        let mut messages = match &self.conversation {
            Conversation::Recognized => recognized(row)?,
            Conversation::Messages(column) => turns(row, column)?,
            Conversation::PromptCompletion(prompt, completion) => {
                prompt_completion(row, prompt, completion)?
            }
        };
        if messages.is_empty() {
            return Err(shape("the conversation has no turn"));
        }
        let system = match &self.system {
            Some(column) => optional_text(row, column)?,
            None => optional_text(row, "system")?,
        };
        if let Some(system) = system.filter(|_| messages[0].role != "system") {
            messages.insert(0, message("system", system));
        }
        Ok(messages)
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

fn recognized(row: &Row) -> ShapeResult<Vec<Message>> {
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
    } else {
        Err(shape(format!(
            "no conversation in the columns {}; expected `messages`, `conversations`, \
             `instruction` and `output`, or `prompt` and `completion` or `response`",
            names(row)
        )))
    }
}

fn alpaca(row: &Row) -> ShapeResult<Vec<Message>> {
    let mut user = text(row, "instruction")?;
    if let Some(input) = optional_text(row, "input")? {
        user = format!("{user}\n\n{input}");
    }
    Ok(vec![message("user", user), message("assistant", text(row, "output")?)])
}

fn prompt_completion(row: &Row, prompt: &str, completion: &str) -> ShapeResult<Vec<Message>> {
    if row.get(prompt).is_some_and(Value::is_array) {
        let mut messages = turns(row, prompt)?;
        messages.append(&mut turns(row, completion)?);
        return Ok(messages);
    }
    Ok(vec![message("user", text(row, prompt)?), message("assistant", text(row, completion)?)])
}

/// The turns of the list in `column`.
fn turns(row: &Row, column: &str) -> ShapeResult<Vec<Message>> {
    let list = match row.get(column) {
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong_kind(column, other, "a list of turns")),
        None => return Err(missing(row, column)),
    };
    list.iter()
        .enumerate()
        .map(|(turn, value)| {
            self::turn(value).map_err(|problem| {
                shape(format!("turn {} of column `{column}` {problem}", turn + 1))
            })
        })
        .collect()
}

fn turn(value: &Value) -> Result<Message, String> {
    let Value::Object(turn) = value else {
        return Err(format!("is {}, not an object", kind(value)));
    };
    let (role, content) = match (turn.get("role"), turn.get("from")) {
        (Some(Value::String(role)), _) => (role.clone(), turn.get("content")),
        (None, Some(Value::String(from))) => (share_gpt_role(from)?, turn.get("value")),
        _ => return Err("has neither a `role` nor a `from`".to_owned()),
    };
    let content = match content {
        Some(Value::String(content)) => content.clone(),
        Some(Value::Array(parts)) => parts.iter().map(text_part).collect::<Result<_, _>>()?,
        None | Some(Value::Null) => return Err("has no content".to_owned()),
        Some(other) => return Err(format!("has {} as content, not text", kind(other))),
    };
    Ok(Message { role, content })
}

/// The text of one part of a turn's content.
fn text_part(part: &Value) -> Result<&str, String> {
    match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
        (Some("text"), Some(text)) => Ok(text),
        _ => Err("has content that is not text".to_owned()),
    }
}

fn share_gpt_role(from: &str) -> Result<String, String> {
    Ok(match from {
        "human" | "user" => "user",
        "gpt" | "assistant" | "function_call" => "assistant",
        "system" => "system",
        "tool" | "observation" | "function_response" => "tool",
        _ => return Err(format!("is from `{from}`, which is no known role")),
    }
    .to_owned())
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

fn message(role: &str, content: String) -> Message {
    Message { role: role.to_owned(), content }
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
mod tests {
    use serde_json::json;

    use super::*;

    fn read(setting: &[(&str, &str)], row: &Value) -> Result<String, String> {
        let setting = setting.iter().map(|(part, column)| ((*part).into(), (*column).into()));
        let columns = Columns::new(&setting.collect()).map_err(|err| err.to_string())?;
        let messages = columns.messages(row.as_object().unwrap()).map_err(|err| err.to_string())?;
        let turns = messages.iter().map(|turn| format!("{}: {:?}", turn.role, turn.content));
        Ok(turns.collect::<Vec<_>>().join(" | "))
    }

    #[track_caller]
    fn check(row: &Value, expected: &str) {
        assert_eq!(read(&[], row).as_deref(), Ok(expected));
    }

    #[track_caller]
    fn check_problem(row: &Value, expected: &str) {
        assert_eq!(read(&[], row).unwrap_err(), expected);
    }

    const TWO_TURNS: &str = r#"user: "2+2?" | assistant: "4""#;

    #[test]
    fn every_shape_gives_the_same_conversation() {
        let user = json!({ "role": "user", "content": "2+2?" });
        let assistant = json!({ "role": "assistant", "content": "4" });
        check(&json!({ "id": 7, "messages": [user, assistant] }), TWO_TURNS);
        check(&json!({ "conversations": [user, assistant] }), TWO_TURNS);
        let (human, gpt) =
            (json!({ "from": "human", "value": "2+2?" }), json!({ "from": "gpt", "value": "4" }));
        check(&json!({ "conversations": [human, gpt] }), TWO_TURNS);
        check(&json!({ "prompt": "2+2?", "completion": "4" }), TWO_TURNS);
        check(&json!({ "prompt": "2+2?", "response": "4" }), TWO_TURNS);
        check(&json!({ "prompt": [user], "completion": [assistant] }), TWO_TURNS);
        check(&json!({ "instruction": "2+2?", "output": "4" }), TWO_TURNS);
        check(&json!({ "instruction": "2+2?", "input": " ", "output": "4" }), TWO_TURNS);
        let parts = json!([{ "type": "text", "text": "2+" }, { "type": "text", "text": "2?" }]);
        let user = json!({ "role": "user", "content": parts });
        check(&json!({ "messages": [user, assistant] }), TWO_TURNS);
    }

    #[test]
    fn an_alpaca_input_follows_the_instruction_after_an_empty_line() {
        check(
            &json!({ "instruction": "Add.", "input": "2, 2", "output": "4" }),
            r#"user: "Add.\n\n2, 2" | assistant: "4""#,
        );
    }

    #[test]
    fn a_system_column_comes_first_unless_there_is_a_system_turn() {
        check(
            &json!({ "system": "Be brief.", "prompt": "2+2?", "completion": "4" }),
            r#"system: "Be brief." | user: "2+2?" | assistant: "4""#,
        );
        let turn = json!({ "role": "system", "content": "Sing." });
        check(&json!({ "system": "Be brief.", "messages": [turn] }), r#"system: "Sing.""#);
        check(&json!({ "system": "", "prompt": "2+2?", "completion": "4" }), TWO_TURNS);
    }

    #[test]
    fn named_columns_win_over_recognized_ones() {
        let row = json!({ "messages": [], "q": "2+2?", "a": "4", "sys": "Hm.", "task": 3 });
        let setting = [("prompt", "q"), ("completion", "a")];
        assert_eq!(read(&setting, &row).as_deref(), Ok(TWO_TURNS));
        let columns = Columns::new(&BTreeMap::from([("subtask".into(), "task".into())])).unwrap();
        assert_eq!(columns.subtask(row.as_object().unwrap()), Ok(Some("3".to_owned())));
        assert_eq!(
            read(&[("prompt", "q"), ("completion", "answer")], &row).unwrap_err(),
            "no column `answer` among `messages`, `q`, `a`, `sys`, `task`"
        );
    }

    #[test]
    fn a_mapping_of_unknown_or_half_a_conversation_is_an_error() {
        let row = json!({});
        insta::assert_snapshot!(
            read(&[("answer", "a")], &row).unwrap_err(),
            @"invalid `columns`: `answer` is none of `messages`, `system`, `prompt`, `completion`, `subtask`"
        );
        insta::assert_snapshot!(
            read(&[("prompt", "q")], &row).unwrap_err(),
            @"invalid `columns`: name either `messages`, or both `prompt` and `completion`"
        );
    }

    #[test]
    fn a_row_without_a_conversation_says_what_it_has() {
        check_problem(
            &json!({ "question": "2+2?", "answer": 4 }),
            "no conversation in the columns `question`, `answer`; expected `messages`, \
             `conversations`, `instruction` and `output`, or `prompt` and `completion` or \
             `response`",
        );
        check_problem(
            &json!({ "messages": "hi" }),
            "column `messages` is text, not a list of turns",
        );
        check_problem(&json!({ "messages": [] }), "the conversation has no turn");
        check_problem(
            &json!({ "messages": [3] }),
            "turn 1 of column `messages` is a number, not an object",
        );
        check_problem(
            &json!({ "messages": [{ "content": "hi" }] }),
            "turn 1 of column `messages` has neither a `role` nor a `from`",
        );
        check_problem(
            &json!({ "messages": [{ "role": "assistant", "content": null }] }),
            "turn 1 of column `messages` has no content",
        );
        check_problem(
            &json!({ "messages": [{ "role": "user", "content": [{ "type": "image" }] }] }),
            "turn 1 of column `messages` has content that is not text",
        );
        check_problem(
            &json!({ "conversations": [{ "from": "narrator", "value": "hi" }] }),
            "turn 1 of column `conversations` is from `narrator`, which is no known role",
        );
        check_problem(
            &json!({ "prompt": 4, "completion": "5" }),
            "column `prompt` is a number, not text",
        );
    }

    #[test]
    fn a_subtask_is_text_or_a_number() {
        let subtask = |row: Value| Columns::default().subtask(row.as_object().unwrap());
        assert_eq!(subtask(json!({ "subtask": "algebra" })), Ok(Some("algebra".to_owned())));
        assert_eq!(subtask(json!({ "subtask": null })), Ok(None));
        assert_eq!(subtask(json!({})), Ok(None));
        assert!(subtask(json!({ "subtask": ["a"] })).is_err());
        assert!(subtask(json!({ "subtask": " " })).is_err());
    }
}
