//! `tokenizer_config.json`, and the files that older models have beside it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::sentencepiece::Conversion;
use super::{gguf, vocabulary};
use crate::gguf::Gguf;
use crate::pool::PoolError;
use crate::pool::error::ModelErrorKind;

pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL_TOKENS: &str = "special_tokens_map.json";
pub(super) const ADDED_TOKENS: &str = "added_tokens.json";

/// Special tokens that every template knows by name; a configuration may name
/// more.
const NAMED_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What is said about a model's tokenizer beside its vocabulary.
#[derive(Debug)]
pub(super) struct TokenizerConfig {
    /// The file it is in.
    pub(super) path: PathBuf,
    /// The configuration, joined with the older file of special tokens as
    /// `transformers` does: where the configuration lists no added tokens, the
    /// older file wins.
    fields: Map<String, Value>,
    /// `added_tokens.json`: ids by token, where the configuration lists none.
    added: Map<String, Value>,
}

impl TokenizerConfig {
    /// Reads the files of `model_dir`, of which the configuration must be there, or what
    /// a GGUF file says.
    pub(super) fn load(model_dir: &Path) -> Result<Self, PoolError> {
        if Gguf::is_path(model_dir) {
            let file = vocabulary::open(model_dir)?;
            let (path, added) = (model_dir.to_owned(), Map::new());
            return Ok(Self { path, fields: gguf::config(&file), added });
        }
        let path = model_dir.join(CONFIG);
        let mut fields = read_object(&path)?.ok_or_else(|| PoolError::Model {
            path: path.clone(),
            kind: ModelErrorKind::Missing,
        })?;
        if fields.contains_key("added_tokens_decoder") {
            return Ok(Self { path, fields, added: Map::new() });
        }
        fields.extend(read_object(&model_dir.join(SPECIAL_TOKENS))?.unwrap_or_default());
        let added = read_object(&model_dir.join(ADDED_TOKENS))?.unwrap_or_default();
        Ok(Self { path, fields, added })
    }

    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field)
    }

    /// The tokenizer's class without `Fast`, empty if none is named.
    pub(super) fn class(&self) -> &str {
        let class = self.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        class.strip_suffix("Fast").unwrap_or(class)
    }

    fn flag(&self, field: &str) -> Option<bool> {
        self.get(field).and_then(Value::as_bool)
    }

    /// Whether every text begins with the first special token, where that is said.
    pub(super) fn adds_bos(&self) -> Option<bool> {
        self.flag("add_bos_token")
    }

    /// How a SentencePiece model becomes a tokenizer; `None` for a class that has
    /// a way of its own.
    pub(super) fn conversion(&self) -> Option<Conversion> {
        match self.class() {
            "LlamaTokenizer" => Some(Conversion::Llama {
                legacy: self.flag("legacy").unwrap_or(false),
                prefix: self.flag("add_prefix_space").unwrap_or(true),
            }),
            "GemmaTokenizer" => Some(Conversion::Gemma),
            "" | "PreTrainedTokenizer" | "TokenizersBackend" => {
                let renamed = self.decoder().into_iter().map(|(id, token)| (id, token.content));
                Some(Conversion::Generic { renamed: renamed.collect() })
            }
            _ => None,
        }
    }

    /// Special tokens by name, of `own` those that the configuration does not
    /// name.
    pub(super) fn named(&self, own: &[(&'static str, String)]) -> BTreeMap<String, String> {
        let named = self
            .named_fields()
            .into_iter()
            .filter_map(|(name, token)| Some((name.to_owned(), content(token)?.to_owned())));
        let own = own.iter().filter(|(name, _)| !self.fields.contains_key(*name));
        own.map(|(name, token)| ((*name).to_owned(), token.clone())).chain(named).collect()
    }

    /// Tokens that the vocabulary gets beside its own, in the order of their ids:
    /// those that are listed, named special tokens, then what the configuration
    /// calls additional or, without any, `own`.
    pub(super) fn added_tokens(
        &self,
        own: Vec<AddedToken>,
        own_named: &[(&'static str, String)],
    ) -> Vec<AddedToken> {
        let mut tokens: Vec<_> = self.decoder().into_iter().map(|(_, token)| token).collect();
        let named = self.named(own_named);
        let mut order: Vec<_> = NAMED_TOKENS.into_iter().collect();
        order.extend(named.keys().map(String::as_str).filter(|name| !NAMED_TOKENS.contains(name)));
        for name in order {
            let as_object = self.get(name).filter(|token| token.is_object()).and_then(added_token);
            let token = as_object
                .or_else(|| Some(AddedToken::from(named.get(name)?.clone(), true)))
                .map(|token| AddedToken { special: true, ..token });
            add_new(&mut tokens, token);
        }
        let extra = self.extra_tokens();
        let extra = if extra.is_empty() { own } else { extra };
        for token in extra {
            add_new(&mut tokens, Some(token));
        }
        tokens
    }

    /// The listed tokens, by id.
    fn decoder(&self) -> Vec<(u32, AddedToken)> {
        let listed = self.get("added_tokens_decoder").and_then(Value::as_object);
        let mut tokens: Vec<(u32, AddedToken)> = listed
            .into_iter()
            .flatten()
            .filter_map(|(id, token)| Some((id.parse().ok()?, added_token(token)?)))
            .chain(self.added.iter().filter_map(|(token, id)| {
                let is_special = self.is_special(token);
                let added = AddedToken::from(token.clone(), is_special);
                Some((u32::try_from(id.as_u64()?).ok()?, added.normalized(!is_special)))
            }))
            .collect();
        tokens.sort_by_key(|(id, _)| *id);
        tokens
    }

    fn is_special(&self, token: &str) -> bool {
        self.named_fields().iter().any(|(_, named)| content(named) == Some(token))
            || self.extra_tokens().iter().any(|extra| extra.content == token)
    }

    fn named_fields(&self) -> Vec<(&str, &Value)> {
        let is_named = |name: &str| name.ends_with("_token");
        self.fields
            .iter()
            .filter(|(name, token)| is_named(name) && content(token).is_some())
            .map(|(name, token)| (name.as_str(), token))
            .collect()
    }

    fn extra_tokens(&self) -> Vec<AddedToken> {
        ["extra_special_tokens", "additional_special_tokens"]
            .iter()
            .filter_map(|name| self.get(name)?.as_array())
            .find(|tokens| !tokens.is_empty())
            .into_iter()
            .flatten()
            .filter_map(added_token)
            .collect()
    }
}

fn add_new(tokens: &mut Vec<AddedToken>, token: Option<AddedToken>) {
    let is_new = |token: &AddedToken| tokens.iter().all(|other| other.content != token.content);
    if let Some(token) = token.filter(is_new) {
        tokens.push(token);
    }
}

/// A token that is text, or an object with its `content` and how it is found.
fn added_token(token: &Value) -> Option<AddedToken> {
    let Value::Object(fields) = token else {
        return Some(AddedToken::from(token.as_str()?, true));
    };
    let flag = |field: &str| fields.get(field).and_then(Value::as_bool);
    let is_special = flag("special").unwrap_or(false);
    Some(
        AddedToken::from(content(token)?, is_special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!is_special)),
    )
}

fn content(token: &Value) -> Option<&str> {
    match token {
        Value::Object(fields) => fields.get("content")?.as_str(),
        token => token.as_str(),
    }
}

fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, PoolError> {
    read(path)?
        .map(|text| serde_json::from_slice(&text))
        .transpose()
        .map_err(|err| PoolError::Model { path: path.to_owned(), kind: ModelErrorKind::Json(err) })
}

/// The bytes of a file; `None` if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, PoolError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        // A model that is one file has none beside it.
        Err(err)
            if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&err.kind()) =>
        {
            Ok(None)
        }
        Err(err) => Err(err.into()),
    }
}
