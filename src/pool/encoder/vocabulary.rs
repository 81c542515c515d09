//! A model's tokenizer, from the file it has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::Tokenizer;

use super::gguf::{self, GgufTokenizerError};
use super::sentencepiece::{self, SentencePieceError};
use super::tokenizer_config::{TokenizerConfig, read};
use crate::gguf::Gguf;
use crate::pool::PoolError;
use crate::pool::error::ModelErrorKind;

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const SENTENCE_PIECE: &str = "tokenizer.model";

/// A tokenizer and the special tokens it has by itself.
pub(super) struct Vocabulary {
    pub(super) tokenizer: Tokenizer,
    /// By the names that templates know.
    pub(super) named: Vec<(&'static str, String)>,
}

/// The tokenizer of the model in `model_dir` with every token that `config` adds.
pub(super) fn load(model_dir: &Path, config: &TokenizerConfig) -> Result<Vocabulary, PoolError> {
    let path = model_dir.join(TOKENIZER);
    let (path, mut tokenizer, own, named) = if Gguf::is_path(model_dir) {
        let file = open(model_dir)?;
        let work = || Ok(gguf::tokenizer(&file));
        let tokenizer = guarded(work).map_err(GgufTokenizerError::Tokenizer).flatten();
        let tokenizer = tokenizer.map_err(|err| fail(model_dir, ModelErrorKind::Gguf(err)))?;
        (model_dir.to_owned(), tokenizer, Vec::new(), Vec::new())
    } else if let Some(text) = read(&path)? {
        let tokenizer = guarded(|| Tokenizer::from_bytes(text))
            .map_err(|err| fail(&path, ModelErrorKind::Tokenizer(err)))?;
        (path, tokenizer, Vec::new(), Vec::new())
    } else {
        let model_path = model_dir.join(SENTENCE_PIECE);
        let bytes = read(&model_path)?.ok_or_else(|| fail(&path, ModelErrorKind::Missing))?;
        let converted = convert(&bytes, config)
            .map_err(|err| fail(&model_path, ModelErrorKind::SentencePiece(err)))?;
        (model_path, converted.tokenizer, converted.added, converted.named)
    };
    let finish = || {
        // A file may ask for both; neither belongs here.
        tokenizer.with_padding(None).with_truncation(None)?;
        tokenizer.add_tokens(config.added_tokens(own, &named))?;
        Ok(())
    };
    guarded(finish).map_err(|err| fail(&path, ModelErrorKind::Tokenizer(err)))?;
    Ok(Vocabulary { tokenizer, named })
}

/// A model that is one file.
pub(super) fn open(path: &Path) -> Result<Gguf, PoolError> {
    Gguf::open(path).map_err(|err| fail(path, ModelErrorKind::GgufFile(err)))
}

fn fail(path: &Path, kind: ModelErrorKind) -> PoolError {
    PoolError::Model { path: path.to_owned(), kind }
}

fn convert(
    bytes: &[u8],
    config: &TokenizerConfig,
) -> Result<sentencepiece::Converted, SentencePieceError> {
    let class = config.class();
    let conversion =
        config.conversion().ok_or_else(|| SentencePieceError::Class(class.to_owned()))?;
    let work = || Ok(sentencepiece::convert(bytes, &conversion, class));
    guarded(work).map_err(SentencePieceError::Tokenizer)?
}

/// Runs `work` with a tokenizer from elsewhere. The tokenizers library answers
/// some files, and some texts under a damaged one, with a panic; a file must
/// not be able to end the program.
pub(super) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("its parts contradict each other".into()))
}
