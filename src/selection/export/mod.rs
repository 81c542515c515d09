//! The subset as a dataset folder that trainers open.
//!
//! ```text
//! RUN/subset-1a7e8a8b/
//!   README.md            dataset card; names the one data file exactly
//!   dataset_info.json    the entry LLaMA-Factory looks for
//!   data/train-00000-of-00001-8c5f9a0d1e2b3c4d.parquet
//!   less-select.json     provenance and counts
//! RUN/latest             the name of the newest such folder
//! ```
//!
//! `datasets` and Axolotl cache by path and would train on old rows if a path
//! kept its name and changed its content. So the folder's and the data file's
//! names are hashes of what is in them, nothing is ever rewritten in place, and
//! the folder appears whole, by rename.

mod card;
mod caveats;
mod columns;
mod contents;
mod data_file;
mod json_types;
mod own_columns;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;

use columns::Columns;
pub use columns::Schema;
use contents::{Contents, Counts};
use data_file::DataFile;

use super::Selected;
use crate::fs::{checksum, sync_dir, write_atomic};
use crate::influence::scores::ScoreTable;
use crate::method::Method;
use crate::pool::{ExampleId, table::Record};

/// The card.
const README: &str = "README.md";
/// What the subset was made from, and what is in it.
const FACTS: &str = "less-select.json";
/// An entry for trainers that keep a list of data sets.
const DATASET_INFO: &str = "dataset_info.json";

/// One example of the subset.
#[derive(Clone, Debug, PartialEq)]
pub struct SubsetRow<'a> {
    /// Identity by content.
    pub id: ExampleId,
    /// The pool source it came from.
    pub source: &'a str,
    /// Its rank, from 1.
    pub rank: usize,
    /// Its influence on the subtask it was taken for.
    pub score: f32,
    /// The subtask it was taken for; with `top`, the one it serves best.
    pub subtask: &'a str,
    /// Tokens the model sees.
    pub n_tokens: u32,
    /// Tokens that carry loss.
    pub n_supervised: u32,
    /// What its author wrote.
    pub record: Record,
}

/// Joins the selected examples with their records, in rank order.
///
/// `read` is asked once, for ascending positions, and gives a record a
/// position ([`ExampleTable::records`](crate::pool::table::ExampleTable::records)).
///
/// # Errors
///
/// Whatever `read` returns.
///
/// # Panics
///
/// If `selected` is of another table, or `read` gives fewer records than it was
/// asked for.
pub fn subset_rows<'a, E>(
    scores: &'a ScoreTable,
    selected: &[Selected],
    read: impl FnOnce(&[usize]) -> Result<Vec<Record>, E>,
) -> Result<Vec<SubsetRow<'a>>, E> {
    let mut by_position: Vec<&Selected> = selected.iter().collect();
    by_position.sort_unstable_by_key(|selected| selected.position);
    let positions: Vec<usize> = by_position.iter().map(|selected| selected.position).collect();
    let records = read(&positions)?;
    assert_eq!(records.len(), positions.len(), "one record a position");
    let mut rows: Vec<SubsetRow<'a>> = by_position
        .into_iter()
        .zip(records)
        .map(|(selected, record)| {
            let row = &scores.rows[selected.position];
            SubsetRow {
                id: row.id,
                source: &row.source,
                rank: selected.rank,
                score: selected.score,
                subtask: &scores.subtasks[selected.subtask],
                n_tokens: row.n_tokens,
                n_supervised: row.n_supervised,
                record,
            }
        })
        .collect();
    rows.sort_unstable_by_key(|row| row.rank);
    Ok(rows)
}

/// A subset folder that is complete and on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The folder.
    pub path: PathBuf,
    /// The data file inside it, for trainers that take one file.
    pub data_file: PathBuf,
    /// Every file of the folder.
    pub files: Vec<PathBuf>,
    /// Rows in it.
    pub n_rows: usize,
    /// Their tokens, as the model sees them.
    pub n_tokens: u64,
    /// What the user should know, a sentence each, without a final period.
    pub notes: Vec<String>,
}

/// The subset could not be published. Nothing unfinished was left behind.
#[derive(Debug, thiserror::Error)]
#[error("failed to publish the subset in `{}`", run_dir.display())]
pub struct ExportError {
    /// The run directory.
    pub run_dir: PathBuf,
    /// What went wrong.
    #[source]
    pub kind: ExportErrorKind,
}

/// What went wrong while publishing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportErrorKind {
    /// Nothing to write.
    #[error("no example was selected")]
    NoRows,
    /// The `original` schema of rows without columns.
    #[error("the selected rows have no columns of their own; use the `messages` schema")]
    NoColumns,
    /// A row past what one Parquet batch holds.
    #[error("row {id} of source `{source_name}` holds {n_bytes} bytes, more than {limit}")]
    RowTooLarge {
        /// The row.
        id: ExampleId,
        /// Its source.
        source_name: String,
        /// Bytes of text in it.
        n_bytes: usize,
        /// The most a row may hold.
        limit: usize,
    },
    /// A folder of this name is there, but somebody changed its data.
    #[error("`{}` is not the file that was published; remove its folder to publish it anew", path.display())]
    Changed {
        /// The data file.
        path: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The rows do not fit their columns.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// The data file could not be encoded.
    #[error(transparent)]
    Parquet(parquet::errors::ParquetError),
}

/// Writes `rows`, in their order, as a folder `subset-<8 hex>` in `run_dir`, and
/// its name to `run_dir/latest`. The card says that `method` scored them.
///
/// The names depend on the content alone: equal rows, schema and provenance
/// give the folder that is there already. So `provenance` (settings,
/// fingerprints, versions) should hold no time and no host name. It goes into
/// `less-select.json`, the card, and the Parquet metadata under the key
/// `less-select`.
///
/// # Errors
///
/// [`ExportError`] for an empty subset, a disk that is full or not writable, or
/// a published folder that was changed. Nothing unfinished is left behind, and
/// whatever has its final name is whole.
pub fn publish(
    run_dir: &Path,
    rows: &[SubsetRow<'_>],
    method: Method,
    schema: Schema,
    provenance: &serde_json::Value,
) -> Result<Published, ExportError> {
    let published = publish_beside(run_dir, rows, method, schema, provenance)?;
    write_atomic(&run_dir.join("latest"), |out| {
        writeln!(out, "{}", published.path.file_name().unwrap_or_default().display())
    })
    .map_err(|err: io::Error| ExportError { run_dir: run_dir.to_owned(), kind: err.into() })?;
    Ok(published)
}

/// As [`publish`], for a subset that is not the newest: `latest` stays as it is.
///
/// # Errors
///
/// As [`publish`].
pub fn publish_beside(
    run_dir: &Path,
    rows: &[SubsetRow<'_>],
    method: Method,
    schema: Schema,
    provenance: &serde_json::Value,
) -> Result<Published, ExportError> {
    build_and_rename(run_dir, rows, method, schema, provenance)
        .map_err(|kind| ExportError { run_dir: run_dir.to_owned(), kind })
}

fn build_and_rename(
    run_dir: &Path,
    rows: &[SubsetRow<'_>],
    method: Method,
    schema: Schema,
    provenance: &serde_json::Value,
) -> Result<Published, ExportErrorKind> {
    if rows.is_empty() {
        return Err(ExportErrorKind::NoRows);
    }
    let columns = Columns::of(schema, rows)?;
    let notes = caveats::notes(rows, &columns);
    fs::create_dir_all(run_dir)?;
    let temp = tempfile::Builder::new().prefix(crate::fs::UNFINISHED).tempdir_in(run_dir)?;
    let data = data_file::write(&temp.path().join("data"), rows, &columns, provenance)?;
    let contents = Contents {
        format: contents::FORMAT,
        method,
        subset: Counts::of(rows, schema, &columns, &data),
        notes,
        provenance,
    };
    let name = write_texts(temp.path(), &contents, &columns)?;

    let path = run_dir.join(name);
    if path.exists() {
        fill_up(temp.path(), &path)?;
        check_unchanged(&path, &data)?;
    } else {
        fs::rename(temp.path(), &path)?;
        let _renamed = temp.keep();
    }
    sync_dir(run_dir)?;
    let data_file = path.join(data.relative_path());
    let texts = [README, FACTS, DATASET_INFO].map(|name| path.join(name));
    let files = [data_file.clone()].into_iter().chain(texts).filter(|file| file.is_file());
    Ok(Published {
        files: files.collect(),
        data_file,
        path,
        n_rows: rows.len(),
        n_tokens: contents.subset.n_tokens,
        notes: contents.notes,
    })
}

/// Writes everything but the data, flushes the folder, and returns its name.
fn write_texts(
    dir: &Path,
    contents: &Contents<'_>,
    columns: &Columns,
) -> Result<String, ExportErrorKind> {
    let mut checksums =
        BTreeMap::from([(contents.subset.data_file.clone(), contents.subset.blake3.clone())]);
    let mut write = |name: &str, text: &str| -> io::Result<()> {
        let mut file = fs::File::create(dir.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        checksums.insert(name.to_owned(), blake3::hash(text.as_bytes()).to_hex().to_string());
        Ok(())
    };
    write(README, &card::readme(contents))?;
    write(FACTS, &indented(contents)?)?;
    if let Some(entry) = card::llama_factory_entry(&columns.names()) {
        write(DATASET_INFO, &indented(&entry)?)?;
    }
    sync_dir(dir)?;

    let mut hasher = blake3::Hasher::new_derive_key("less-select subset folder v1");
    for (name, checksum) in &checksums {
        hasher.update(name.as_bytes()).update(b"\0").update(checksum.as_bytes());
    }
    Ok(format!("subset-{}", &hasher.finalize().to_hex()[..8]))
}

fn indented(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Moves the files that `folder` lacks there from `whole`.
fn fill_up(whole: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(whole)? {
        let from = entry?.path();
        let to = folder.join(from.file_name().unwrap_or_default());
        if from.is_dir() {
            fill_up(&from, &to)?;
        } else if !to.exists() {
            fs::rename(&from, &to)?;
        }
    }
    sync_dir(folder)
}

/// The folder's name is a promise about its data. Cards may be edited.
fn check_unchanged(folder: &Path, data: &DataFile) -> Result<(), ExportErrorKind> {
    let path = folder.join(data.relative_path());
    if path.is_file() && checksum(&path)? == data.blake3 {
        return Ok(());
    }
    Err(ExportErrorKind::Changed { path })
}

/// A row of the subset, for the tests of this module.
#[cfg(test)]
fn row<'a>(source: &'a str, roles: &[&str], original: serde_json::Value) -> SubsetRow<'a> {
    let message =
        |role: &&str| crate::pool::Message { role: (*role).to_owned(), content: "text".to_owned() };
    let serde_json::Value::Object(original) = original else { panic!("a row is an object") };
    SubsetRow {
        id: ExampleId([0; 16]),
        source,
        rank: 1,
        score: 0.5,
        subtask: "target/a",
        n_tokens: 2,
        n_supervised: 1,
        record: Record { messages: roles.iter().map(message).collect(), original },
    }
}
