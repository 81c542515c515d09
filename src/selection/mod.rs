//! The best examples within a budget.

use serde::{Deserialize, Serialize};

/// How much of the pool to keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Budget {
    /// A share of the pool's examples, in `(0, 1]`; rounds down, but never to none.
    Fraction(f64),
    /// A number of examples, at least one.
    Examples(u64),
    /// A number of tokens, as the model sees them, at least one.
    Tokens(u64),
}

/// The columns of the subset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schema {
    /// `messages`, `id`, `source`, `less_score`, `less_rank`, `less_subtask`.
    Messages,
    /// `messages` alone, for trainers that refuse other columns.
    MessagesOnly,
    /// The rows' own columns.
    Original,
}

impl std::str::FromStr for Schema {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "messages" => Ok(Self::Messages),
            "messages-only" => Ok(Self::MessagesOnly),
            "original" => Ok(Self::Original),
            _ => Err(()),
        }
    }
}
