//! The settings that decide how a conversation becomes tokens.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use super::LossTurns;

/// Templates that ship in the program, by name, for models that have none.
const NAMED: [(&str, &str); 4] = [
    ("chatml", include_str!("../../../data/chat_templates/chatml.jinja")),
    ("llama-2", include_str!("../../../data/chat_templates/llama-2.jinja")),
    ("tulu", include_str!("../../../data/chat_templates/tulu.jinja")),
    ("alpaca", include_str!("../../../data/chat_templates/alpaca.jinja")),
];

/// How conversations become tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodingSettings {
    /// What renders them as text.
    pub chat_template: TemplateSource,
    /// Which of it carries loss.
    pub loss_turns: LossTurns,
    /// Most tokens of an example; longer ones are cut at the end.
    pub max_tokens: usize,
}

impl EncodingSettings {
    /// The model's own template, loss on every turn of the assistant.
    pub fn of_model(max_tokens: usize) -> Self {
        let chat_template = TemplateSource::Model;
        Self { chat_template, loss_turns: LossTurns::Assistant, max_tokens }
    }
}

/// Where the chat template comes from: the `chat-template` setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateSource {
    /// The model's folder.
    Model,
    /// No template: contents one after the other, as a base model reads them.
    None,
    /// One that ships in the program: its name and its source.
    Named(&'static str, &'static str),
    /// A file.
    File(PathBuf),
}

impl TemplateSource {
    /// What the setting can be, for messages.
    pub fn choices() -> String {
        let named = NAMED.map(|(name, _)| name).join(", ");
        format!("model, none, {named} or a file")
    }
}

impl FromStr for TemplateSource {
    type Err = Infallible;

    /// Reads a name; all else is a path.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "model" => Self::Model,
            "none" => Self::None,
            _ => match NAMED.iter().find(|(name, _)| *name == text) {
                Some((name, source)) => Self::Named(name, source),
                None => Self::File(PathBuf::from(text)),
            },
        })
    }
}

impl std::fmt::Display for TemplateSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model => f.write_str("model"),
            Self::None => f.write_str("none"),
            Self::Named(name, _) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
