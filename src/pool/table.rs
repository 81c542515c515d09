//! The canonical table of examples: `pool/pool.parquet` and `pool/target.parquet`.

use std::ops::Range;
use std::path::Path;

use super::{Example, ExampleId, Message, PoolError};

/// What stages need to know of a row without reading its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// Identity by content; the table is sorted by it and has no duplicates.
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
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The conversation, whole.
    pub messages: Vec<Message>,
    /// Every column the row came with.
    pub original: serde_json::Map<String, serde_json::Value>,
}

/// A canonical table, its row heads in memory, the rest read on demand.
#[derive(Debug)]
pub struct ExampleTable {
    rows: Vec<TableRow>,
}

impl ExampleTable {
    /// Opens a table that `ingest` wrote.
    ///
    /// # Errors
    ///
    /// If the file is missing, damaged or not such a table.
    pub fn open(_path: &Path) -> Result<Self, PoolError> {
        unimplemented!("being written")
    }

    /// The row heads, sorted by id.
    pub fn rows(&self) -> &[TableRow] {
        &self.rows
    }

    /// The examples at positions `range`, in order.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn examples(&self, _range: Range<usize>) -> Result<Vec<Example>, PoolError> {
        unimplemented!("being written")
    }

    /// The records at `positions` (ascending).
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn records(&self, _positions: &[usize]) -> Result<Vec<Record>, PoolError> {
        unimplemented!("being written")
    }
}
