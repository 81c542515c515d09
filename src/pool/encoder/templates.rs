//! Which chat template renders a conversation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::Value;

use super::settings::TemplateSource;
use super::tokenizer_config::{TokenizerConfig, read};
use crate::pool::chat::ChatTemplate;
use crate::pool::error::ModelErrorKind;
use crate::pool::{Conversation, PoolError};

pub(super) const TEMPLATE: &str = "chat_template.jinja";
const NAMED_TEMPLATES: &str = "additional_chat_templates";

/// The template that a model has for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// What renders conversations.
#[derive(Debug)]
pub(super) enum Templates {
    /// Nothing: contents stand one after the other, behind the last one `eos`.
    None {
        eos: String,
    },
    Jinja(Box<Jinja>),
}

/// A template, and one for conversations with tools, where that is another.
#[derive(Debug)]
pub(super) struct Jinja {
    default: ChatTemplate,
    tools: Option<ChatTemplate>,
}

impl Jinja {
    pub(super) fn of(&self, conversation: &Conversation) -> &ChatTemplate {
        let has_tools = conversation.variables.contains_key("tools");
        self.tools.as_ref().filter(|_| has_tools).unwrap_or(&self.default)
    }
}

impl Templates {
    /// The templates of `source`; `named` are special tokens by name.
    pub(super) fn load(
        source: &TemplateSource,
        model_dir: &Path,
        config: &TokenizerConfig,
        named: &BTreeMap<String, String>,
    ) -> Result<Self, PoolError> {
        let compile = |(path, text): (PathBuf, String)| {
            ChatTemplate::new(&text, named.clone())
                .map_err(|err| PoolError::Model { path, kind: ModelErrorKind::Template(err) })
        };
        let (default, tools) = match source {
            TemplateSource::None => {
                let eos = named.get("eos_token").cloned().unwrap_or_default();
                return Ok(Self::None { eos });
            }
            TemplateSource::Named(name, text) => ((PathBuf::from(name), (*text).to_owned()), None),
            TemplateSource::File(path) => ((path.clone(), fs::read_to_string(path)?), None),
            TemplateSource::Model => of_model(model_dir, config)?,
        };
        let tools = tools.map(compile).transpose()?;
        Ok(Self::Jinja(Box::new(Jinja { default: compile(default)?, tools })))
    }
}

/// A template's text and the file it is in.
type Source = (PathBuf, String);

/// The model's templates: `chat_template.jinja` and the files of
/// `additional_chat_templates`, or, without any, what the configuration has: one
/// text, or a list of named ones.
fn of_model(
    model_dir: &Path,
    config: &TokenizerConfig,
) -> Result<(Source, Option<Source>), PoolError> {
    let folder = model_dir.join(NAMED_TEMPLATES);
    let mut default = source(model_dir.join(TEMPLATE))?;
    let mut tools = source(folder.join(format!("{TOOL_USE}.jinja")))?;
    if default.is_none() && tools.is_none() {
        let in_config = |name| {
            let text = template_in(config.get("chat_template")?, name)?;
            Some((config.path.clone(), text.to_owned()))
        };
        (default, tools) = (in_config("default"), in_config(TOOL_USE));
    }
    let kind = if folder.is_dir() || config.get("chat_template").is_some_and(Value::is_array) {
        ModelErrorKind::NoDefaultTemplate
    } else {
        ModelErrorKind::NoChatTemplate
    };
    let default = default.ok_or_else(|| PoolError::Model { path: config.path.clone(), kind })?;
    Ok((default, tools))
}

fn source(path: PathBuf) -> Result<Option<Source>, PoolError> {
    let Some(bytes) = read(&path)? else { return Ok(None) };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some((path, text))),
        Err(_) => Err(PoolError::Model { path, kind: ModelErrorKind::NoText }),
    }
}

/// The template `name` of a configuration; one that is mere text is the default.
fn template_in<'a>(templates: &'a Value, name: &str) -> Option<&'a str> {
    match templates {
        Value::Array(named) => named
            .iter()
            .find(|template| template.get("name").and_then(Value::as_str) == Some(name))?
            .get("template")?
            .as_str(),
        text => text.as_str().filter(|_| name == "default"),
    }
}
