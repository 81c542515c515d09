//! The tokenizer in a GGUF file.

use serde_json::{Map, Value as Json, json};
use tokenizers::Tokenizer;

use super::sentencepiece::{self, SentencePieceError};
use crate::gguf::Gguf;
use crate::gguf::metadata::Value;

/// Why the tokenizer of a GGUF file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GgufTokenizerError {
    /// Metadata that a tokenizer needs.
    #[error("`{0}` is missing")]
    Missing(&'static str),

    /// It is of a kind that is not known.
    #[error("`{key}` = \"{value}\" is not supported (only {known})")]
    Unknown {
        /// What says so.
        key: &'static str,
        /// The kind.
        value: String,
        /// What is known.
        known: String,
    },

    /// Its pieces are no SentencePiece model.
    #[error(transparent)]
    Pieces(#[from] SentencePieceError),

    /// The tokenizers library does not accept it.
    #[error("the tokenizer does not load")]
    Tokenizer(#[source] tokenizers::Error),
}

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const KINDS: &str = "tokenizer.ggml.token_type";
const PRE: &str = "tokenizer.ggml.pre";
const TEMPLATE: &str = "tokenizer.chat_template";
const TEMPLATES: &str = "tokenizer.chat_templates";

/// Kinds of tokens: those that mean something of their own, and those that the
/// user defined.
const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// What templates call a special token, and where its id is.
const NAMED: [(&str, &str); 5] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
];

/// How texts are cut before pairs are merged, by `tokenizer.ggml.pre`.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// As GPT-2 does it.
    Gpt2,
    /// The same, every digit by itself.
    Digits,
    /// By an expression.
    By(&'static str),
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const CUTS: [(&str, Cut); 4] = [
    ("gpt-2", Cut::Gpt2),
    ("smollm", Cut::Digits),
    ("llama-bpe", Cut::By(LLAMA3)),
    ("qwen2", Cut::By(QWEN2)),
];

/// What `tokenizer_config.json` would say.
pub(super) fn config(file: &Gguf) -> Map<String, Json> {
    let tokens = file.value(TOKENS).and_then(Value::texts).unwrap_or_default();
    let mut config = Map::new();
    for (name, key) in NAMED {
        let id = file.value(key).and_then(Value::count);
        if let Some(token) = id.and_then(|id| tokens.get(id)) {
            config.insert(name.to_owned(), json!(token));
        }
    }
    if let Some(Value::Flag(adds_bos)) = file.value("tokenizer.ggml.add_bos_token") {
        config.insert("add_bos_token".to_owned(), json!(adds_bos));
    }
    let kinds = file.value(KINDS).and_then(Value::numbers).unwrap_or_default();
    let added = tokens.iter().zip(kinds).enumerate().filter_map(|(id, (token, kind))| {
        let is_special = *kind == CONTROL;
        let token = json!({ "content": token, "special": is_special, "normalized": false });
        (is_special || *kind == USER_DEFINED).then(|| (id.to_string(), token))
    });
    config.insert("added_tokens_decoder".to_owned(), Json::Object(added.collect()));
    if let Some(templates) = templates(file) {
        config.insert("chat_template".to_owned(), templates);
    }
    config
}

/// One template, or all by name.
fn templates(file: &Gguf) -> Option<Json> {
    let default = file.value(TEMPLATE).and_then(Value::text);
    let Some(names) = file.value(TEMPLATES).and_then(Value::texts) else {
        return default.map(|template| json!(template));
    };
    let named = names.iter().filter_map(|name| {
        let template = file.value(&format!("{TEMPLATE}.{name}"))?.text()?;
        Some((name.as_str(), template))
    });
    let all = default.map(|template| ("default", template)).into_iter().chain(named);
    let all = all.map(|(name, template)| json!({ "name": name, "template": template }));
    Some(Json::Array(all.collect()))
}

/// The file's tokenizer, without added tokens.
pub(super) fn tokenizer(file: &Gguf) -> Result<Tokenizer, GgufTokenizerError> {
    let text = |key| file.value(key).and_then(Value::text).ok_or(GgufTokenizerError::Missing(key));
    let tokens =
        file.value(TOKENS).and_then(Value::texts).ok_or(GgufTokenizerError::Missing(TOKENS))?;
    match text(MODEL)? {
        "gpt2" => {
            let merges = file.value(MERGES).and_then(Value::texts);
            pairs(tokens, merges.ok_or(GgufTokenizerError::Missing(MERGES))?, text(PRE)?)
        }
        "llama" => {
            let says_not =
                file.value("tokenizer.ggml.add_space_prefix") == Some(&Value::Flag(false));
            Ok(sentencepiece::of_pieces(tokens, !says_not)?)
        }
        other => Err(unknown(MODEL, other, &["gpt2", "llama"])),
    }
}

/// A tokenizer that merges pairs of bytes.
fn pairs(tokens: &[String], merges: &[String], pre: &str) -> Result<Tokenizer, GgufTokenizerError> {
    let cut = CUTS.iter().find(|(name, _)| *name == pre).map(|(_, cut)| *cut);
    let cut = cut.ok_or_else(|| unknown(PRE, pre, &CUTS.map(|(name, _)| name)))?;
    let bytes = |use_regex| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let steps = match cut {
        Cut::Gpt2 => vec![bytes(true)],
        Cut::Digits => vec![json!({ "type": "Digits", "individual_digits": true }), bytes(true)],
        Cut::By(expression) => vec![
            json!({ "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false }),
            bytes(false),
        ],
    };
    let vocab: Map<String, Json> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let merges: Vec<_> = merges.iter().filter_map(|merge| merge.split_once(' ')).collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": (cut == Cut::By(QWEN2)).then(|| json!({ "type": "NFC" })),
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps },
        "decoder": bytes(true),
        // Llama 3's words are tokens whatever their pairs are.
        "model": { "type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": cut == Cut::By(LLAMA3) },
    });
    Tokenizer::from_bytes(tokenizer.to_string()).map_err(GgufTokenizerError::Tokenizer)
}

fn unknown(key: &'static str, value: &str, known: &[&str]) -> GgufTokenizerError {
    GgufTokenizerError::Unknown { key, value: value.to_owned(), known: known.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::sentencepiece::goldens::{Golden, goldens};
    use super::super::tokenizer_config::TokenizerConfig;
    use super::super::vocabulary;

    /// Made by `scripts/goldens/gguf_files.py`.
    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(name)
    }

    #[test]
    fn pieces_of_a_gguf_file_are_those_of_the_model_it_is_made_from() {
        let is_llama = |case: &Golden| case.model == "bpe" && case.config["legacy"] == true;
        let golden = goldens().into_iter().find(is_llama).unwrap();
        let path = file("tokenizer-spm.gguf");
        let config = TokenizerConfig::load(&path).unwrap();
        golden.check(&config, &vocabulary::load(&path, &config).unwrap());
    }

    #[test]
    fn a_tokenizer_of_an_unknown_kind_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = fs_err::read(file("tokenizer-bpe.gguf")).unwrap();
        let at = bytes.windows(6).position(|text| text == b"smollm").unwrap();
        bytes[at..at + 6].copy_from_slice(b"klingo");
        let path = dir.path().join("x.gguf");
        fs_err::write(&path, bytes).unwrap();
        let config = TokenizerConfig::load(&path).unwrap();
        let Err(err) = vocabulary::load(&path, &config) else { panic!("it loads") };
        let cause = std::error::Error::source(&err).unwrap();
        insta::assert_snapshot!(cause, @r#"`tokenizer.ggml.pre` = "klingo" is not supported (only gpt-2, smollm, llama-bpe, qwen2)"#);
    }
}
