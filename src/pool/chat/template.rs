//! A model's chat template.

use std::collections::BTreeMap;

use minijinja::value::Value;
use minijinja::{Environment, Error};

use super::marks::Marks;
use super::{generation, python};
use crate::pool::Message;
use crate::pool::reject::RejectReason;

/// The one template of the environment.
const NAME: &str = "chat_template";
/// What the rewritten `{% generation %}` tags print; undefined prints nothing.
const OPEN: &str = "generation_open";
const CLOSE: &str = "generation_close";

/// A compiled chat template and the special tokens it may print.
#[derive(Debug)]
pub(in crate::pool) struct ChatTemplate {
    environment: Environment<'static>,
    has_generation: bool,
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Compiles `source`; `special_tokens` are the tokenizer's named ones
    /// (`bos_token`, `eos_token`, …).
    ///
    /// # Errors
    ///
    /// If the source is no valid template.
    pub(in crate::pool) fn new(
        source: &str,
        special_tokens: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let mut environment = python::environment();
        let rewritten = generation::rewrite(source, OPEN, CLOSE);
        let has_generation = rewritten.is_some();
        let source = rewritten.unwrap_or_else(|| source.to_owned());
        environment.add_template_owned(NAME, source)?;
        Ok(Self { environment, has_generation, special_tokens })
    }

    /// Whether the template itself says what the assistant generates.
    pub(super) fn has_generation(&self) -> bool {
        self.has_generation
    }

    /// The conversation as text.
    pub(super) fn render(&self, messages: &[Message]) -> Result<String, RejectReason> {
        self.render_with(messages, [("add_generation_prompt", Value::from(false))])
    }

    /// The conversation as text, followed by what begins an answer to it.
    pub(super) fn render_prompt(&self, messages: &[Message]) -> Result<String, RejectReason> {
        self.render_with(messages, [("add_generation_prompt", Value::from(true))])
    }

    /// The conversation as text with `marks` around `{% generation %}` blocks.
    pub(super) fn render_generation(
        &self,
        messages: &[Message],
        marks: Marks,
    ) -> Result<String, RejectReason> {
        let variables = [
            ("add_generation_prompt", Value::from(false)),
            (OPEN, Value::from(marks.open)),
            (CLOSE, Value::from(marks.close)),
        ];
        self.render_with(messages, variables)
    }

    fn render_with<const N: usize>(
        &self,
        messages: &[Message],
        variables: [(&str, Value); N],
    ) -> Result<String, RejectReason> {
        let messages: Value = messages
            .iter()
            .map(|turn| Value::from_pairs([("role", &turn.role), ("content", &turn.content)]))
            .collect();
        let special_tokens =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token)));
        let fixed =
            [("messages", messages), ("tools", Value::from(())), ("documents", Value::from(()))];
        let context = Value::from_pairs(special_tokens.chain(fixed).chain(variables));
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context))
            .map_err(|err| RejectReason::Template(python::message(&err)))
    }
}
