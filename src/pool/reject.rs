//! Rows that cannot become examples, and why.

use serde::Serialize;

use super::error::Side;

/// Whether a row is broken or merely does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectKind {
    /// Not a conversation with an answer; counts against `max-rejects`.
    Malformed,
    /// Its answer begins after `max-tokens`; listed, but nobody's mistake.
    TooLong,
}

/// Why a row cannot become an example.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The line is no JSON.
    #[error("not valid json: {0}")]
    Json(String),

    /// The line is longer than a row can be.
    #[error("it is longer than {max_bytes} bytes")]
    TooLarge {
        /// The longest that is read.
        max_bytes: u64,
    },

    /// JSON, but no row.
    #[error("{0}, not an object with columns")]
    NotARow(&'static str),

    /// No conversation in its columns.
    #[error("{0}")]
    Shape(String),

    /// More turns than are worth finding the assistant's among.
    #[error("the conversation has {n_turns} turns; {max_turns} are the most that is read")]
    TooManyTurns {
        /// Turns of the conversation.
        n_turns: usize,
        /// The most that is read.
        max_turns: usize,
    },

    /// Nothing to learn from.
    #[error("no assistant turn in the conversation")]
    NoAssistant,

    /// The chat template refuses the conversation.
    #[error("the chat template fails: {0}")]
    Template(String),

    /// The chat template rewrites what the assistant said.
    #[error("the chat template changes the assistant's text, so its tokens cannot be told")]
    Rewritten,

    /// The tokenizer refuses the text.
    #[error("the tokenizer fails: {0}")]
    Tokenizer(String),

    /// The template left the assistant's turns out.
    #[error("no token of the rendered conversation is the assistant's")]
    NoTokens,

    /// Every token that carries loss is cut off.
    #[error("the assistant's tokens begin after the first {max_tokens} of {n_tokens}")]
    TooLong {
        /// Tokens of the whole conversation.
        n_tokens: usize,
        /// The `max-tokens` setting.
        max_tokens: usize,
    },
}

impl RejectReason {
    /// Whether the row is broken or does not fit.
    pub fn kind(&self) -> RejectKind {
        match self {
            Self::TooLong { .. } => RejectKind::TooLong,
            _ => RejectKind::Malformed,
        }
    }
}

/// A rejected row: a line of `rejects.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reject {
    /// Pool or target.
    pub side: Side,
    /// The file it stands in.
    pub file: String,
    /// Its line (JSONL) or row (JSON arrays, Parquet), from 1.
    pub line: u64,
    /// Whether it counts against `max-rejects`.
    pub kind: RejectKind,
    /// What is wrong, in words.
    pub reason: String,
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.reason)
    }
}
