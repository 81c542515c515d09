//! What can go wrong between a row in a file and an example.

use std::io;
use std::path::PathBuf;

/// Why the pool or the target could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),

    /// A file is not a table that `ingest` wrote, or not any more.
    #[error("example table `{}`", path.display())]
    Table {
        /// The table.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        kind: TableErrorKind,
    },
}

/// What is wrong with an example table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableErrorKind {
    /// It is no Parquet file, or a damaged one, or it could not be written.
    #[error("not a readable parquet file")]
    Parquet(#[from] parquet::errors::ParquetError),

    /// Its rows could not be decoded or encoded.
    #[error("its rows do not decode")]
    Arrow(#[from] arrow::error::ArrowError),

    /// It is a Parquet file of something else, or of another version.
    #[error("expected `{expected}`, found `{found}`")]
    Schema {
        /// The column, or the format's name, as this version writes it.
        expected: String,
        /// What stands in its place.
        found: String,
    },

    /// A row contradicts what every such table promises.
    #[error("row {row}: {problem}")]
    Row {
        /// Position from 0.
        row: usize,
        /// The promise that is broken.
        problem: &'static str,
    },

    /// The row's original columns are no JSON object.
    #[error("row {row}: its original columns are no json object")]
    Original {
        /// Position from 0.
        row: usize,
        /// Where the JSON breaks.
        #[source]
        source: serde_json::Error,
    },
}
