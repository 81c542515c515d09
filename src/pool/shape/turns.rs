//! The turns of a list.

use serde_json::{Map, Value};

use super::{Row, ShapeResult, kind, missing, shape, wrong_kind};
use crate::pool::conversation::Turn;

/// The turns of the list in `column`.
pub(super) fn turns(row: &Row, column: &str) -> ShapeResult<Vec<Turn>> {
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

fn turn(value: &Value) -> Result<Turn, String> {
    let Value::Object(turn) = value else {
        return Err(format!("is {}, not an object", kind(value)));
    };
    let mut fields = match (turn.get("role"), turn.get("from")) {
        (Some(Value::String(_)), _) => turn.clone(),
        (None, Some(Value::String(from))) => share_gpt(from, turn)?,
        _ => return Err("has neither a `role` nor a `from`".to_owned()),
    };
    match fields.get("content") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(Value::Array(parts)) => {
            let text: String = parts.iter().map(text_part).collect::<Result<_, _>>()?;
            fields.insert("content".to_owned(), Value::from(text));
        }
        Some(other) => return Err(format!("has {} as content, not text", kind(other))),
    }
    let turn = Turn::of_fields(fields);
    let says_something = turn.fields().contains_key("content") || turn.says_more();
    if says_something { Ok(turn) } else { Err("has no content".to_owned()) }
}

/// The text of one part of a turn's content.
fn text_part(part: &Value) -> Result<&str, String> {
    match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
        (Some("text"), Some(text)) => Ok(text),
        _ => Err("has content that is not text".to_owned()),
    }
}

/// The fields of a ShareGPT turn by the names that templates know.
fn share_gpt(from: &str, turn: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut fields = Map::from_iter([("role".to_owned(), share_gpt_role(from)?.into())]);
    for (name, value) in turn.iter().filter(|(name, _)| *name != "from") {
        let name = if name == "value" { "content" } else { name };
        fields.insert(name.to_owned(), value.clone());
    }
    Ok(fields)
}

fn share_gpt_role(from: &str) -> Result<&'static str, String> {
    Ok(match from {
        "human" | "user" => "user",
        "gpt" | "assistant" | "function_call" => "assistant",
        "system" => "system",
        "tool" | "observation" | "function_response" => "tool",
        _ => return Err(format!("is from `{from}`, which is no known role")),
    })
}
