//! What a row gives to the chat template beside its turns.

use serde_json::{Map, Value};

use super::{Row, ShapeResult, shape, wrong_kind};

/// The column `tools`, a list, and the members of `chat_template_kwargs`; TRL
/// knows both by these names, too. Either may be written as JSON in a text, as
/// data sets with a fixed schema have it. What is null or an empty text is left
/// out.
pub(super) fn variables(row: &Row) -> ShapeResult<Map<String, Value>> {
    let mut variables = match structure(row, "chat_template_kwargs")? {
        Some(Value::Object(variables)) => variables,
        Some(other) => return Err(wrong_kind("chat_template_kwargs", &other, "an object")),
        None => Map::new(),
    };
    match structure(row, "tools")? {
        Some(Value::Array(tools)) => {
            variables.insert("tools".to_owned(), Value::Array(tools));
        }
        Some(other) => return Err(wrong_kind("tools", &other, "a list")),
        None => {}
    }
    Ok(variables)
}

/// The value in `column`, unpacked where it is JSON in a text.
fn structure(row: &Row, column: &str) -> ShapeResult<Option<Value>> {
    match row.get(column) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => serde_json::from_str(text)
            .map(|value: Value| Some(value).filter(|value| !value.is_null()))
            .map_err(|err| shape(format!("column `{column}` is no json: {err}"))),
        Some(value) => Ok(Some(value.clone())),
    }
}
