//! Conversations as the model sees them: token ids and the mask of those that
//! carry loss.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Map, Value};
use tokenizers::{Encoding, Tokenizer};

use super::chat::{self, ChatTemplate};
use super::error::ModelErrorKind;
use super::reject::RejectReason;
use super::{Conversation, LossTurns, PoolError};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const TEMPLATE: &str = "chat_template.jinja";

/// Special tokens that templates know by name.
const NAMED_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A conversation as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids of the rendered conversation.
    pub token_ids: Vec<u32>,
    /// Which of them the assistant says; as long as `token_ids`, never the
    /// first, at least one.
    pub supervised: Vec<bool>,
    /// Whether tokens were cut off at the end.
    pub truncated: bool,
}

/// A model's chat template and tokenizer.
///
/// The rendered text is tokenized once and as a whole, without adding special
/// tokens, as `transformers` does. A token carries loss if its text overlaps
/// what the assistant says, through the special token that ends its turn. What
/// the assistant says is found by rendering: the template's own
/// `{% generation %}` blocks tell, or else marks around the content of the
/// assistant's turns do.
#[derive(Debug)]
pub struct ChatEncoder {
    template: ChatTemplate,
    tokenizer: Tokenizer,
    special_tokens: Vec<String>,
    max_tokens: usize,
}

impl ChatEncoder {
    /// The files of a model's folder that encodings depend on. The first two
    /// must be there.
    pub const FILES: [&str; 4] = [TOKENIZER, CONFIG, SPECIAL_TOKENS, TEMPLATE];

    /// Loads the tokenizer and the chat template of the model in `model_dir`.
    /// Conversations of more than `max_tokens` tokens are cut at the end.
    ///
    /// # Errors
    ///
    /// If a file is missing or damaged, or none holds a chat template.
    pub fn load(model_dir: &Path, max_tokens: usize) -> Result<Self, PoolError> {
        let tokenizer = load_tokenizer(&model_dir.join(TOKENIZER))?;
        let mut special_tokens: Vec<String> = tokenizer
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| token.special && !token.content.is_empty())
            .map(|token| token.content)
            .collect();
        special_tokens.sort();
        let template = load_template(model_dir)?;
        Ok(Self { template, tokenizer, special_tokens, max_tokens })
    }

    /// Token ids and label mask of `conversation`.
    ///
    /// # Errors
    ///
    /// If the conversation has no assistant turn, the template refuses it or
    /// rewrites what the assistant says, or the cut leaves no token that
    /// carries loss.
    pub fn encode(&self, conversation: &Conversation) -> Result<Encoded, RejectReason> {
        let rendered =
            chat::render(&self.template, &self.special_tokens, conversation, LossTurns::Assistant)?;
        let encoding = guarded(|| self.tokenizer.encode(rendered.text.as_str(), false))
            .map_err(|err| RejectReason::Tokenizer(err.to_string()))?;
        let mut token_ids = encoding.get_ids().to_vec();
        let mut supervised = label_mask(&encoding, &rendered.supervised);
        if !supervised.contains(&true) {
            return Err(RejectReason::NoTokens);
        }
        let n_tokens = token_ids.len();
        token_ids.truncate(self.max_tokens);
        supervised.truncate(self.max_tokens);
        if !supervised.contains(&true) {
            return Err(RejectReason::TooLong { n_tokens, max_tokens: self.max_tokens });
        }
        Ok(Encoded { truncated: token_ids.len() < n_tokens, token_ids, supervised })
    }
}

/// One entry a token: whether it lies between the first and the last token
/// that overlap one of `spans` (byte ranges). The first token is never
/// predicted, so it carries no loss.
fn label_mask(encoding: &Encoding, spans: &[Range<usize>]) -> Vec<bool> {
    let offsets = encoding.get_offsets();
    let mut mask = vec![false; offsets.len()];
    for span in spans {
        let overlaps = |(start, end): &(usize, usize)| *start < span.end && *end > span.start;
        if let Some(first) = offsets.iter().position(overlaps)
            && let Some(last) = offsets.iter().rposition(overlaps)
        {
            mask[first..=last].fill(true);
        }
    }
    if let Some(first) = mask.first_mut() {
        *first = false;
    }
    mask
}

fn load_tokenizer(path: &Path) -> Result<Tokenizer, PoolError> {
    let fail = |kind| PoolError::Model { path: path.to_owned(), kind };
    let text = read(path)?.ok_or_else(|| fail(ModelErrorKind::Missing))?;
    let load = || {
        let mut tokenizer = Tokenizer::from_bytes(text)?;
        // A file may ask for both; neither belongs here.
        tokenizer.with_padding(None).with_truncation(None)?;
        Ok(tokenizer)
    };
    guarded(load).map_err(|err| fail(ModelErrorKind::Tokenizer(err)))
}

/// Runs `work` with a tokenizer from elsewhere. The tokenizers library answers
/// some files, and some texts under a damaged one, with a panic; a file must
/// not be able to end the program.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("its parts contradict each other".into()))
}

fn load_template(model_dir: &Path) -> Result<ChatTemplate, PoolError> {
    let config_path = model_dir.join(CONFIG);
    let fail = |path: &PathBuf, kind| PoolError::Model { path: path.clone(), kind };
    let config =
        read_object(&config_path)?.ok_or_else(|| fail(&config_path, ModelErrorKind::Missing))?;
    let map = read_object(&model_dir.join(SPECIAL_TOKENS))?;
    let named = special_tokens(&config, map.as_ref());
    let template_path = model_dir.join(TEMPLATE);
    let (path, source) = match read(&template_path)? {
        Some(source) => (template_path, source),
        None => match template_in(&config) {
            Some(source) => (config_path, source.to_owned()),
            None => return Err(fail(&config_path, ModelErrorKind::NoChatTemplate)),
        },
    };
    ChatTemplate::new(&source, named).map_err(|err| fail(&path, ModelErrorKind::Template(err)))
}

/// The `chat_template` of a tokenizer's configuration: text, or a list of named
/// ones, of which it is `default`.
fn template_in(config: &Map<String, Value>) -> Option<&str> {
    match config.get("chat_template")? {
        Value::Array(named) => named
            .iter()
            .find(|template| template.get("name").and_then(Value::as_str) == Some("default"))?
            .get("template")?
            .as_str(),
        source => source.as_str(),
    }
}

/// The named special tokens of `config`, and of the older `map` where the
/// configuration has none. Each is text or an object with its `content`.
fn special_tokens(
    config: &Map<String, Value>,
    map: Option<&Map<String, Value>>,
) -> BTreeMap<String, String> {
    let content = |token: &Value| match token {
        Value::Object(token) => token.get("content").and_then(Value::as_str).map(str::to_owned),
        token => token.as_str().map(str::to_owned),
    };
    NAMED_TOKENS
        .into_iter()
        .filter_map(|name| {
            let token = config.get(name).or_else(|| map?.get(name))?;
            Some((name.to_owned(), content(token)?))
        })
        .collect()
}

fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, PoolError> {
    read(path)?
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|err| PoolError::Model { path: path.to_owned(), kind: ModelErrorKind::Json(err) })
}

/// The text of a file; `None` if it is not there.
fn read(path: &Path) -> Result<Option<String>, PoolError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err.into()),
    }
}

#[cfg(test)]
mod tests;
