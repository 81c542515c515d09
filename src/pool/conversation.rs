//! Conversations as a chat template sees them.

use serde_json::{Map, Value};

use super::Message;

/// Fields of a turn in which an assistant says something beside its content.
const SAID_BESIDE: [&str; 6] =
    ["tool_calls", "function_call", "tool_plan", "reasoning_content", "thinking", "reasoning"];

/// The names that rows have for a thought.
const THOUGHT: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Turns, and what else a chat template may look at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// What was said, in order.
    pub turns: Vec<Turn>,
    /// Variables of the template beside `messages`: `tools` (a list of JSON
    /// schemas), `documents`, and those that only some templates have, such as
    /// `enable_thinking`.
    pub variables: Map<String, Value>,
}

impl Conversation {
    /// The turns without tool calls, thoughts and variables.
    pub fn messages(&self) -> Vec<Message> {
        self.turns.iter().map(Turn::message).collect()
    }
}

impl From<&[Message]> for Conversation {
    fn from(messages: &[Message]) -> Self {
        let turns = messages.iter().map(|turn| Turn::new(&turn.role, &turn.content)).collect();
        Self { turns, variables: Map::new() }
    }
}

/// A turn of a conversation: a JSON object whose `role` is text and whose
/// `content`, if it has any, is text too.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn(Map<String, Value>);

impl Turn {
    /// A turn that is nothing but text.
    pub fn new(role: &str, content: &str) -> Self {
        Self(Map::new()).with("role", role).with("content", content)
    }

    /// A turn of a row's `fields`, which have the kinds that a turn promises, as
    /// `transformers` gives them to a template: without those that are null, and
    /// a thought by both names that templates know.
    pub(super) fn of_fields(mut fields: Map<String, Value>) -> Self {
        fields.retain(|_, value| !value.is_null());
        let thought = THOUGHT.iter().find_map(|name| fields.get(*name)).cloned();
        if let Some(thought) = thought {
            fields.entry("thinking").or_insert_with(|| thought.clone());
            fields.insert("reasoning_content".to_owned(), thought);
        }
        Self(fields)
    }

    /// Who speaks: `system`, `user`, `assistant`, `tool` or what the template
    /// knows beside these.
    pub fn role(&self) -> &str {
        self.text("role").unwrap_or_default()
    }

    /// The text, empty where there is none.
    pub fn content(&self) -> &str {
        self.text("content").unwrap_or_default()
    }

    /// Whether the model says this turn.
    pub(super) fn is_assistant(&self) -> bool {
        self.role() == "assistant"
    }

    /// Whether the turn says something beside its content: it calls tools or has
    /// thoughts.
    pub(super) fn says_more(&self) -> bool {
        SAID_BESIDE.iter().any(|name| self.0.get(*name).is_some_and(|said| !is_empty(said)))
    }

    /// The fields as the template sees them.
    pub(super) fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The turn with another content.
    pub(super) fn with_content(&self, content: &str) -> Self {
        self.clone().with("content", content)
    }

    fn message(&self) -> Message {
        Message { role: self.role().to_owned(), content: self.content().to_owned() }
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field).and_then(Value::as_str)
    }

    fn with(mut self, field: &str, text: &str) -> Self {
        self.0.insert(field.to_owned(), Value::from(text));
        self
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn turn(fields: Value) -> Turn {
        let Value::Object(fields) = fields else { panic!("{fields} is no object") };
        Turn::of_fields(fields)
    }

    #[test]
    fn null_fields_are_no_fields() {
        let plain = json!({ "role": "assistant", "content": "4", "tool_calls": null });
        assert_eq!(turn(plain), Turn::new("assistant", "4"));
        let calls = json!([{ "function": { "name": "add" } }]);
        let wordless = turn(json!({ "role": "assistant", "content": null, "tool_calls": calls }));
        assert!(wordless.says_more() && !wordless.fields().contains_key("content"));
        assert!(!Turn::new("assistant", "").says_more());
    }

    #[test]
    fn a_thought_goes_by_both_names_that_templates_know() {
        let thoughtful = turn(json!({ "role": "assistant", "content": "4", "reasoning": "2 + 2" }));
        assert_eq!(thoughtful.fields()["thinking"], "2 + 2");
        assert_eq!(thoughtful.fields()["reasoning_content"], "2 + 2");
        assert!(thoughtful.says_more());
    }
}
