//! The training pool and the target: instruction rows as the model sees them.
//!
//! [`ingest()`] reads files of many shapes, renders every conversation with the
//! model's own chat template, and writes canonical tables of [`Example`]s
//! ([`table`]), in order of [`ExampleId`]. Later stages read only those.
//!
//! On the way a row is a source's file (`source`, `embedded`), a JSON object
//! (`read`), a conversation (`shape`), text with what the assistant says in it
//! (`chat`), and token ids with a label mask (`encoder`).

mod chat;
mod conversation;
mod dictionaries;
mod embedded;
mod encoder;
mod error;
mod footer;
pub(crate) mod guard;
mod ingest;
mod loss_turns;
mod read;
mod reject;
mod said;
mod shape;
mod source;
mod spool;
mod summary;
pub mod table;
mod tally;

pub use conversation::{Conversation, Turn};
pub use encoder::{
    ChatEncoder, Encoded, EncodingSettings, GgufTokenizerError, ProtoError, SentencePieceError,
    TemplateSource,
};
pub use error::{InputErrorKind, ModelErrorKind, PoolError, Side, TableErrorKind};
pub use ingest::{POOL_TABLE, REJECTS, TARGET_TABLE, ingest, survey};
pub use loss_turns::LossTurns;
pub use reject::{Reject, RejectKind, RejectReason};
pub use said::for_each_said;
use serde::{Deserialize, Serialize};
pub use shape::COLUMN_ROLES;
pub use summary::{IngestSummary, SourceSummary};

/// The settings of the ingest stage.
#[derive(Clone, Debug, PartialEq)]
pub struct IngestSettings {
    /// Where pool rows come from.
    pub pool: Vec<Source>,
    /// Where target rows come from.
    pub target: Vec<Source>,
    /// Own column names: role of the column (`messages`, `system`, `prompt`,
    /// `completion`, `subtask`) to its name. Empty: shapes are recognized.
    pub columns: std::collections::BTreeMap<String, String>,
    /// How conversations become tokens.
    pub encoding: EncodingSettings,
    /// Largest share of malformed rows, in `[0, 1]`, before the stage fails.
    pub max_rejects: f64,
}

/// Identity of an example: 128 bits of a blake3 hash over its token ids and
/// label mask. Equal content has an equal id, whatever file it came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExampleId(pub [u8; 16]);

impl ExampleId {
    /// The id of what the model sees.
    ///
    /// # Panics
    ///
    /// If the two slices differ in length.
    pub fn of(token_ids: &[u32], supervised: &[bool]) -> Self {
        assert_eq!(token_ids.len(), supervised.len(), "one mask entry a token");
        let mut hasher = blake3::Hasher::new_derive_key("less-select example id v1");
        for (token_id, supervised) in token_ids.iter().zip(supervised) {
            hasher.update(&token_id.to_le_bytes());
            hasher.update(&[u8::from(*supervised)]);
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl std::fmt::Display for ExampleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for ExampleId {
    type Err = ();

    /// Reads the 32 hex digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut id = [0; 16];
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(());
        }
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| ())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ())?;
        }
        Ok(Self(id))
    }
}

impl Serialize for ExampleId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExampleId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("an id is 32 hex digits"))
    }
}

impl std::fmt::Debug for ExampleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// One training or target example as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Identity by content.
    pub id: ExampleId,
    /// Token ids of the rendered conversation, at least two.
    pub token_ids: Vec<u32>,
    /// Which tokens carry loss when they are predicted; as long as
    /// `token_ids`, never at position 0, at least one set.
    pub supervised: Vec<bool>,
}

impl Example {
    /// Number of tokens that carry loss.
    pub fn n_supervised(&self) -> usize {
        self.supervised.iter().filter(|set| **set).count()
    }
}

/// The text of a turn, as tables and data sets keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`, as the chat template names it.
    pub role: String,
    /// What was said; empty where a turn does nothing but call tools.
    pub content: String,
}

/// A named file, folder or glob of rows: the `pool` and `target` settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name in scores and reports; `None` names each file by its stem.
    pub name: Option<String>,
    /// A path, a glob, or `example:NAME` for data that ships in the program.
    pub path: String,
}

impl std::str::FromStr for Source {
    type Err = std::convert::Infallible;

    /// Reads `[NAME=]PATH`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !name.contains(['/', '\\']) => {
                Self { name: Some(name.to_owned()), path: path.to_owned() }
            }
            _ => Self { name: None, path: text.to_owned() },
        })
    }
}
