//! The canonical table of examples: `pool/pool.parquet` and `pool/target.parquet`.
//!
//! One Parquet file in order of [`ExampleId`]. The heads of its rows fit in
//! memory (about a hundred bytes each); tokens, conversations and the original
//! columns stay on disk and are read by row, a few thousand rows at a time.
//!
//! A pool holds every id once. A target holds it once in every subtask it
//! belongs to, in order of (id, source, subtask): a row that two subtasks
//! share counts in the mean of both.

mod reader;
mod schema;
mod writer;

pub use reader::ExampleTable;
pub(crate) use writer::write_table;

use serde::{Deserialize, Serialize};

use super::{Example, ExampleId, Message};

/// What stages need to know of a row without reading its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// Identity by content; the table is sorted by it.
    pub id: ExampleId,
    /// The source (pool or target name) it came from.
    pub source: String,
    /// The subtask a target row belongs to.
    pub subtask: Option<String>,
    /// Number of tokens.
    pub n_tokens: u32,
    /// Number of tokens that carry loss.
    pub n_supervised: u32,
    /// Whether tokens were cut off at the end.
    pub truncated: bool,
}

/// A row as its author wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The conversation, whole.
    pub messages: Vec<Message>,
    /// Every column the row came with.
    pub original: serde_json::Map<String, serde_json::Value>,
}

/// Where a row was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: String,
    /// Its line or row in that file, from 1.
    pub line: u64,
}

/// One row of a table, as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The pool or target name.
    pub(crate) source: String,
    /// The subtask, in a target.
    pub(crate) subtask: Option<String>,
    /// The file it was read from.
    pub(crate) file: String,
    /// Its line or row in that file, from 1.
    pub(crate) line: u64,
    /// What the model sees.
    pub(crate) example: Example,
    /// Whether tokens were cut off at the end.
    pub(crate) truncated: bool,
    /// What its author wrote.
    pub(crate) record: Record,
}

#[cfg(test)]
mod tests;
