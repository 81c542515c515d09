//! What can go wrong between a row in a file and an example.

use std::io;
use std::path::PathBuf;

use super::encoder::{GgufTokenizerError, SentencePieceError};
use super::reject::Reject;
use crate::gguf::GgufError;

/// The two sides that rows are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// What is selected from.
    Pool,
    /// What is selected for.
    Target,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Pool => "pool",
            Self::Target => "target",
        })
    }
}

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

    /// A file or a setting of rows cannot be used at all.
    #[error("input `{path}`")]
    Input {
        /// The file, or the setting as written.
        path: String,
        /// What is wrong with it.
        #[source]
        kind: InputErrorKind,
    },

    /// The model's tokenizer or chat template cannot be used.
    #[error("tokenizer file `{}`", path.display())]
    Model {
        /// The file in the model's folder.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        kind: ModelErrorKind,
    },

    /// The `columns` setting names something that is no part of a row, or
    /// half a conversation.
    #[error("invalid `columns`: {0}")]
    Columns(String),

    /// More rows than `max-rejects` allows are malformed.
    #[error("{}", too_many_rejects(*side, *n_malformed, *n_read, *max_share, first))]
    TooManyRejects {
        /// Which side they are on.
        side: Side,
        /// Malformed rows.
        n_malformed: u64,
        /// All rows read on that side.
        n_read: u64,
        /// The largest share that is allowed.
        max_share: f64,
        /// The first few.
        first: Vec<Reject>,
    },

    /// No row is left.
    #[error("the {side} is empty: {}", empty(inputs, *n_read, *n_malformed, *n_too_long, first))]
    Empty {
        /// Which side.
        side: Side,
        /// Its files, folders and patterns, as set.
        inputs: Vec<String>,
        /// Rows read.
        n_read: u64,
        /// Of these, malformed.
        n_malformed: u64,
        /// Of these, too long.
        n_too_long: u64,
        /// The first few of both.
        first: Vec<Reject>,
    },

    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
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

/// What is wrong with a file of rows, or the setting that names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputErrorKind {
    /// Neither a file nor a folder nor a glob that matches.
    #[error("no such file or folder, and no file matches it as a pattern")]
    Missing,

    /// A folder or pattern without a file of rows.
    #[error("holds no file whose name ends in {}", super::source::KNOWN_NAMES)]
    NoFiles,

    /// A file whose name does not tell its format.
    #[error("its name does not end in {}", super::source::KNOWN_NAMES)]
    UnknownFormat,

    /// A malformed pattern.
    #[error("not a valid pattern")]
    Pattern(#[source] glob::PatternError),

    /// No data of this name ships in the program.
    #[error("no such example data; there is {}", super::embedded::names())]
    NoExample,

    /// Its bytes cannot be read or decompressed.
    #[error("cannot be read")]
    Read(#[source] io::Error),

    /// JSON that cannot be followed to the next row.
    #[error("not a json array of rows")]
    Json(#[source] serde_json::Error),

    /// A row that is none.
    #[error("row {line}: {reason}")]
    Row {
        /// Its line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },

    /// A damaged Parquet file, or one with types that JSON has no words for.
    #[error("not a readable parquet file")]
    Parquet(#[from] parquet::errors::ParquetError),
}

/// What is wrong with a file of the model's folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelErrorKind {
    /// It is not there.
    #[error(
        "missing; `AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)` of the Python \
         package `transformers` writes it"
    )]
    Missing,

    /// It is no JSON, or not of the kind that belongs there.
    #[error("not a valid file of its kind")]
    Json(#[source] serde_json::Error),

    /// The tokenizers library does not accept it.
    #[error("the tokenizer does not load")]
    Tokenizer(#[source] tokenizers::Error),

    /// It is no SentencePiece model that can be used.
    #[error("the tokenizer does not load")]
    SentencePiece(#[source] SentencePieceError),

    /// A GGUF file that cannot be read or is damaged.
    #[error(transparent)]
    GgufFile(GgufError),

    /// The tokenizer in a GGUF file cannot be used.
    #[error(transparent)]
    Gguf(GgufTokenizerError),

    /// Nothing says how a conversation becomes text.
    #[error("has no `chat_template`, and there is no chat_template.jinja beside it")]
    NoChatTemplate,

    /// There are named templates, but none that is used when no name is given.
    #[error("has no template by the name of `default`, and there is no chat_template.jinja")]
    NoDefaultTemplate,

    /// A template's file is not UTF-8.
    #[error("not UTF-8")]
    NoText,

    /// The template is no valid Jinja.
    #[error("the chat template does not parse")]
    Template(#[source] minijinja::Error),
}

fn too_many_rejects(
    side: Side,
    n_malformed: u64,
    n_read: u64,
    max_share: f64,
    first: &[Reject],
) -> String {
    let share = 100.0 * n_malformed as f64 / n_read as f64;
    let max = 100.0 * max_share;
    with_rejects(
        format!(
            "{n_malformed} of {n_read} {side} rows are malformed ({share:.1} %, allowed are \
             {max:.1} %)"
        ),
        first,
    )
}

fn empty(
    inputs: &[String],
    n_read: u64,
    n_malformed: u64,
    n_too_long: u64,
    first: &[Reject],
) -> String {
    let inputs = inputs.iter().map(|input| format!("`{input}`")).collect::<Vec<_>>().join(", ");
    match n_read {
        _ if inputs.is_empty() => "no input is set".to_owned(),
        0 => format!("no row in {inputs}"),
        _ => with_rejects(
            format!(
                "of {n_read} rows in {inputs} {n_malformed} are malformed and {n_too_long} too long"
            ),
            first,
        ),
    }
}

/// `text` and, indented below it, a line for each of `rejects`.
fn with_rejects(text: String, rejects: &[Reject]) -> String {
    let lines = std::iter::once(text).chain(rejects.iter().map(Reject::to_string));
    lines.collect::<Vec<_>>().join("\n  ")
}
