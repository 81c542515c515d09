//! SentencePiece models as tokenizers.
//!
//! A model folder without a `tokenizer.json` has the `tokenizer.model` it was
//! trained with. `transformers` makes a tokenizer of it by the tokenizer's class,
//! and so does this module, step by step as its version 5 does, so that the ids
//! are equal to those that other tools train on:
//!
//! | class | normalizer | cut before pairs are merged |
//! |---|---|---|
//! | `LlamaTokenizer` | none | blanks are `▁`, one is put before the text (before every part of it that special tokens leave, if `legacy`) |
//! | `GemmaTokenizer` | blanks are `▁` | none |
//! | none, `PreTrainedTokenizerFast` and the like | the model's own, then blanks are `▁` | none |
//!
//! Pairs are merged in the order of the pieces they make. A unigram model is one
//! only in the last row; for the others `transformers` makes pairs of its pieces
//! with which no model was trained, so that is refused.

mod model_proto;

use std::collections::HashMap;

use model_proto::{Algorithm, ModelProto, Piece, PieceKind};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Replace, Sequence};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, Tokenizer};

pub use self::model_proto::ProtoError;

/// Longest text that a character is normalized to; Unicode's longest has 33 bytes.
const MAX_REPLACEMENT_BYTES: usize = 256;

/// What stands for a blank.
const BLANK: char = '▁';

/// Why a SentencePiece model is no tokenizer here.
#[derive(Debug, thiserror::Error)]
pub enum SentencePieceError {
    /// It is no SentencePiece model, or a damaged one.
    #[error("not a SentencePiece model")]
    Proto(#[from] ProtoError),

    /// It knows words or characters only.
    #[error("a SentencePiece model of words or characters; unigram and BPE are read")]
    Algorithm,

    /// A unigram model under a class that merges pairs.
    #[error("a unigram model, of which `transformers` 5 makes pairs for a `{0}`")]
    Unigram(String),

    /// The tokenizer's class has a way of its own that is not known here.
    #[error("how a `{0}` reads a SentencePiece model is not known")]
    Class(String),

    /// Its rules of normalization are damaged.
    #[error("its rules of normalization are damaged")]
    Charsmap,

    /// The tokenizers library does not accept it.
    #[error("the tokenizer does not load")]
    Tokenizer(#[source] tokenizers::Error),
}

/// Which conversion a model gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    Llama {
        /// Put a blank before every part of a text, not only the first.
        legacy: bool,
        /// Put a blank before the text at all.
        prefix: bool,
    },
    Gemma,
    /// Renames pieces to what stands at their ids.
    Generic {
        renamed: Vec<(u32, String)>,
    },
}

/// A tokenizer and the special tokens it has by itself.
pub(super) struct Converted {
    pub(super) tokenizer: Tokenizer,
    /// Control pieces and those that the user defined, in order.
    pub(super) added: Vec<AddedToken>,
    /// Special tokens by the names that templates know.
    pub(super) named: Vec<(&'static str, String)>,
}

/// The tokenizer of the model in `bytes`; `class` is for messages.
pub(super) fn convert(
    bytes: &[u8],
    conversion: &Conversion,
    class: &str,
) -> Result<Converted, SentencePieceError> {
    let proto = ModelProto::parse(bytes)?;
    let tokenizer = match (conversion, proto.algorithm) {
        (_, Algorithm::Other) => return Err(SentencePieceError::Algorithm),
        (Conversion::Generic { renamed }, Algorithm::Bpe) => generic_bpe(&proto, renamed)?,
        (Conversion::Generic { .. }, Algorithm::Unigram) => unigram(&proto)?,
        (_, Algorithm::Unigram) => return Err(SentencePieceError::Unigram(class.to_owned())),
        (Conversion::Llama { legacy, prefix }, Algorithm::Bpe) => {
            llama(&proto.pieces, *legacy, *prefix)?
        }
        (Conversion::Gemma, Algorithm::Bpe) => gemma(&proto)?,
    };
    let added = proto.pieces.iter().filter(|piece| piece.kind != PieceKind::Text).map(|piece| {
        AddedToken::from(piece.text.clone(), piece.kind == PieceKind::Control).normalized(false)
    });
    Ok(Converted { tokenizer, added: added.collect(), named: named(conversion, &proto) })
}

/// The tokenizer of the pieces `tokens`, in the order in which they were merged; with
/// a blank before every part of a text if `prefix`.
pub(super) fn of_pieces(tokens: &[String], prefix: bool) -> Result<Tokenizer, SentencePieceError> {
    let pieces = tokens.iter().enumerate().map(|(id, text)| Piece::new(text.as_bytes(), id));
    llama(&pieces.collect::<Result<Vec<_>, _>>()?, true, prefix)
}

fn named(conversion: &Conversion, proto: &ModelProto) -> Vec<(&'static str, String)> {
    let fixed = |names: &[(&'static str, &str)]| {
        names.iter().map(|(name, token)| (*name, (*token).to_owned())).collect()
    };
    match conversion {
        Conversion::Llama { .. } => {
            fixed(&[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")])
        }
        Conversion::Gemma => fixed(&[
            ("bos_token", "<bos>"),
            ("eos_token", "<eos>"),
            ("unk_token", "<unk>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ]),
        Conversion::Generic { .. } => {
            let bos = proto.bos_piece.clone().map(|piece| ("bos_token", piece));
            let eos = proto.eos_piece.clone().map(|piece| ("eos_token", piece));
            let unk = (proto.unk_id >= 0).then(|| ("unk_token", proto.unk_piece.clone()));
            bos.into_iter().chain(eos).chain(unk).collect()
        }
    }
}

fn llama(pieces: &[Piece], legacy: bool, prefix: bool) -> Result<Tokenizer, SentencePieceError> {
    let (vocab, merges) = vocab_and_merges(pieces);
    let bpe = BPE::builder().vocab_and_merges(vocab, merges).fuse_unk(true).byte_fallback(true);
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(SentencePieceError::Tokenizer)?);
    let scheme = match (prefix, legacy) {
        (false, _) => PrependScheme::Never,
        (true, true) => PrependScheme::Always,
        (true, false) => PrependScheme::First,
    };
    tokenizer.with_pre_tokenizer(Some(Metaspace::new(BLANK, scheme, false)));
    Ok(tokenizer)
}

fn gemma(proto: &ModelProto) -> Result<Tokenizer, SentencePieceError> {
    let (vocab, merges) = vocab_and_merges(&proto.pieces);
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token("<unk>".to_owned())
        .fuse_unk(true)
        .byte_fallback(true);
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(SentencePieceError::Tokenizer)?);
    tokenizer.with_normalizer(Some(blanks()?)).map_err(SentencePieceError::Tokenizer)?;
    Ok(tokenizer)
}

fn generic_bpe(
    proto: &ModelProto,
    renamed: &[(u32, String)],
) -> Result<Tokenizer, SentencePieceError> {
    let (mut vocab, merges) = vocab_and_merges(&proto.pieces);
    for (id, token) in renamed {
        let piece = proto.pieces.get(*id as usize).map(|piece| &piece.text);
        if let Some(piece) = piece.filter(|piece| *piece != token && !vocab.contains_key(token))
            && vocab.get(piece) == Some(id)
        {
            vocab.remove(piece);
            vocab.insert(token.clone(), *id);
        }
    }
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(proto.unk_piece.clone())
        .fuse_unk(true)
        .byte_fallback(proto.byte_fallback);
    let tokenizer = Tokenizer::new(bpe.build().map_err(SentencePieceError::Tokenizer)?);
    with_own_normalizer(tokenizer, proto)
}

fn unigram(proto: &ModelProto) -> Result<Tokenizer, SentencePieceError> {
    let vocab =
        proto.pieces.iter().map(|piece| (piece.text.clone(), f64::from(piece.score))).collect();
    let unk_id = usize::try_from(proto.unk_id).ok();
    let unigram =
        Unigram::from(vocab, unk_id, proto.byte_fallback).map_err(SentencePieceError::Tokenizer)?;
    with_own_normalizer(Tokenizer::new(unigram), proto)
}

fn with_own_normalizer(
    mut tokenizer: Tokenizer,
    proto: &ModelProto,
) -> Result<Tokenizer, SentencePieceError> {
    let mut steps = vec![NormalizerWrapper::from(blanks()?)];
    if !proto.charsmap.is_empty() {
        steps.insert(0, charsmap(&proto.charsmap)?.into());
    }
    tokenizer.with_normalizer(Some(Sequence::new(steps))).map_err(SentencePieceError::Tokenizer)?;
    Ok(tokenizer)
}

fn blanks() -> Result<Replace, SentencePieceError> {
    Replace::new(" ", BLANK.to_string()).map_err(SentencePieceError::Tokenizer)
}

/// Compiled rules: the length of a trie in bytes, the trie, then the texts that
/// replace, each up to a zero.
fn charsmap(bytes: &[u8]) -> Result<Precompiled, SentencePieceError> {
    let damaged = SentencePieceError::Charsmap;
    let Some((size, rest)) = bytes.split_first_chunk() else { return Err(damaged) };
    // The library makes room for the trie before it looks for it.
    let Some((_, texts)) = rest.split_at_checked(u32::from_le_bytes(*size) as usize) else {
        return Err(damaged);
    };
    if texts.split(|byte| *byte == 0).any(|text| text.len() > MAX_REPLACEMENT_BYTES) {
        return Err(damaged);
    }
    Precompiled::from(bytes).map_err(|_| damaged)
}

/// Ids by piece, and every pair of pieces that makes a piece: in the order of the
/// pieces they make, then of their own lengths in characters.
fn vocab_and_merges(pieces: &[Piece]) -> (Vocab, Merges) {
    let ids: HashMap<&str, u32> =
        pieces.iter().zip(0..).map(|(piece, id)| (piece.text.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (piece, id) in pieces.iter().zip(0..) {
        // Of equal pieces the last one counts.
        if ids[piece.text.as_str()] != id {
            continue;
        }
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                merges.push((left.to_owned(), right.to_owned()));
            }
        }
    }
    let vocab = pieces.iter().zip(0..).map(|(piece, id)| (piece.text.clone(), id)).collect();
    (vocab, merges)
}

#[cfg(test)]
pub(super) mod goldens;
#[cfg(test)]
mod tests;
