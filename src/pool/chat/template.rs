//! A model's chat template.

use std::collections::BTreeMap;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error};

use super::marks::Marks;
use super::{generation, python};
use crate::pool::Turn;
use crate::pool::reject::RejectReason;

/// The one template of the environment.
const NAME: &str = "chat_template";
/// What the rewritten `{% generation %}` tags print; undefined prints nothing.
const OPEN: &str = "generation_open";
const CLOSE: &str = "generation_close";

/// What a conversation gives to a template beside its turns.
pub(super) type Variables = serde_json::Map<String, serde_json::Value>;

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

    /// `turns` as text, with the `variables` of their conversation.
    pub(super) fn render(
        &self,
        turns: &[Turn],
        variables: &Variables,
    ) -> Result<String, RejectReason> {
        self.render_with(turns, variables, [("add_generation_prompt", Value::from(false))])
    }

    /// `turns` as text, followed by what begins an answer to them.
    pub(super) fn render_prompt(
        &self,
        turns: &[Turn],
        variables: &Variables,
    ) -> Result<String, RejectReason> {
        self.render_with(turns, variables, [("add_generation_prompt", Value::from(true))])
    }

    /// `turns` as text with `marks` around `{% generation %}` blocks.
    pub(super) fn render_generation(
        &self,
        turns: &[Turn],
        variables: &Variables,
        marks: Marks,
    ) -> Result<String, RejectReason> {
        let own = [
            ("add_generation_prompt", Value::from(false)),
            (OPEN, Value::from(marks.open)),
            (CLOSE, Value::from(marks.close)),
        ];
        self.render_with(turns, variables, own)
    }

    fn render_with<const N: usize>(
        &self,
        turns: &[Turn],
        variables: &Variables,
        own: [(&str, Value); N],
    ) -> Result<String, RejectReason> {
        let messages: Value = turns.iter().map(|turn| Value::from(Serde(turn.fields()))).collect();
        let special_tokens =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token)));
        let absent = [("tools", Value::from(())), ("documents", Value::from(()))];
        let given =
            variables.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value))));
        let context = special_tokens.chain(absent).chain(given).chain(own);
        let context = Value::from_pairs(context.chain([("messages", messages)]));
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context))
            .map_err(|err| RejectReason::Template(python::message(&err)))
    }
}
