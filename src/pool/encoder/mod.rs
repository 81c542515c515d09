//! Conversations as the model sees them: token ids and the mask of those that
//! carry loss.

mod gguf;
mod sentencepiece;
mod settings;
mod templates;
mod tokenizer_config;
mod vocabulary;

use std::ops::Range;
use std::path::Path;

pub use gguf::GgufTokenizerError;
pub use sentencepiece::{ProtoError, SentencePieceError};
pub use settings::{EncodingSettings, TemplateSource};
use templates::Templates;
use tokenizer_config::{ADDED_TOKENS, CONFIG, SPECIAL_TOKENS, TokenizerConfig};
use tokenizers::{Encoding, Tokenizer};
use vocabulary::{SENTENCE_PIECE, TOKENIZER, Vocabulary, guarded};

use super::chat::{self, Rendered};
use super::reject::RejectReason;
use super::{Conversation, LossTurns, Message, PoolError};

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
///
/// A model's own template writes the token that a text begins with. Without a
/// template, and with one that ships in the program, it is the one that the
/// tokenizer puts there, if it does.
#[derive(Debug)]
pub struct ChatEncoder {
    templates: Templates,
    tokenizer: Tokenizer,
    special_tokens: Vec<String>,
    /// What the tokenizer puts before a text that does not have it.
    bos: Option<u32>,
    loss_turns: LossTurns,
    max_tokens: usize,
}

impl ChatEncoder {
    /// Whether encodings depend on the file `name` of a model's folder.
    pub fn reads(name: &str) -> bool {
        let files = [TOKENIZER, SENTENCE_PIECE, CONFIG, SPECIAL_TOKENS, ADDED_TOKENS];
        files.contains(&name) || Path::new(name).extension().is_some_and(|end| end == "jinja")
    }

    /// Loads the tokenizer of the model in `model_dir`, a folder or a GGUF file, and
    /// the chat template that `settings` name.
    ///
    /// # Errors
    ///
    /// If a file is missing or damaged, or none holds a chat template.
    pub fn load(model_dir: &Path, settings: &EncodingSettings) -> Result<Self, PoolError> {
        let config = TokenizerConfig::load(model_dir)?;
        let Vocabulary { tokenizer, named } = vocabulary::load(model_dir, &config)?;
        let mut special_tokens: Vec<String> = tokenizer
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| token.special && !token.content.is_empty())
            .map(|token| token.content)
            .collect();
        special_tokens.sort();
        let named = config.named(&named);
        let bos = match settings.chat_template {
            TemplateSource::Model | TemplateSource::File(_) => None,
            TemplateSource::None | TemplateSource::Named(..) => {
                bos(&tokenizer, &config, named.get("bos_token"))
            }
        };
        let templates = Templates::load(&settings.chat_template, model_dir, &config, &named)?;
        let EncodingSettings { loss_turns, max_tokens, .. } = *settings;
        Ok(Self { templates, tokenizer, special_tokens, bos, loss_turns, max_tokens })
    }

    /// Token ids and label mask of `conversation`.
    ///
    /// # Errors
    ///
    /// If the conversation has no assistant turn, the template refuses it or
    /// rewrites what the assistant says, or the cut leaves no token that
    /// carries loss.
    pub fn encode(&self, conversation: &Conversation) -> Result<Encoded, RejectReason> {
        let rendered = self.render(conversation)?;
        let encoding = guarded(|| self.tokenizer.encode(rendered.text.as_str(), false))
            .map_err(|err| RejectReason::Tokenizer(err.to_string()))?;
        let bos = self.bos.filter(|bos| encoding.get_ids().first() != Some(bos));
        let mut token_ids: Vec<u32> = bos.into_iter().collect();
        token_ids.extend(encoding.get_ids());
        let mut supervised = vec![false; token_ids.len() - encoding.len()];
        supervised.extend(label_mask(&encoding, &rendered.supervised));
        // The first token is never predicted.
        if let Some(first) = supervised.first_mut() {
            *first = false;
        }
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

    /// The text of token ids, special tokens left out; empty where the tokenizer fails.
    pub fn decode(&self, token_ids: &[u32]) -> String {
        guarded(|| self.tokenizer.decode(token_ids, true)).unwrap_or_default()
    }

    /// The first special token that a message says in so many letters: it is taken for the
    /// token, not for text.
    pub(super) fn special_token_said(&self, messages: &[Message]) -> Option<&str> {
        let says = |token: &&String| messages.iter().any(|turn| turn.content.contains(*token));
        self.special_tokens.iter().find(says).map(String::as_str)
    }

    fn render(&self, conversation: &Conversation) -> Result<Rendered, RejectReason> {
        match &self.templates {
            Templates::None { eos } => chat::plain(conversation, eos, self.loss_turns),
            Templates::Jinja(templates) => {
                let template = templates.of(conversation);
                chat::render(template, &self.special_tokens, conversation, self.loss_turns)
            }
        }
    }
}

/// `token`'s id, if the tokenizer puts it before a text: the configuration says
/// so, or else the tokenizer does it.
fn bos(tokenizer: &Tokenizer, config: &TokenizerConfig, token: Option<&String>) -> Option<u32> {
    let id = tokenizer.token_to_id(token?)?;
    let is_put = config.adds_bos().unwrap_or_else(|| {
        let of_nothing = guarded(|| tokenizer.encode("", true));
        of_nothing.is_ok_and(|encoding| encoding.get_ids().first() == Some(&id))
    });
    is_put.then_some(id)
}

/// One entry a token: whether it lies between the first and the last token
/// that overlap one of `spans` (byte ranges).
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
    mask
}

#[cfg(test)]
mod crosscheck;
#[cfg(test)]
mod tests;
