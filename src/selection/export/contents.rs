//! `less-select.json`: what a subset folder holds and how it came to be.

use std::collections::BTreeMap;

use serde::Serialize;

use super::SubsetRow;
use super::columns::{Columns, Schema, type_name};
use super::data_file::DataFile;
use crate::method::Method;

/// Version of the file; rises when a field changes its meaning.
pub(super) const FORMAT: u32 = 1;

/// `less-select.json`.
#[derive(Debug, Serialize)]
pub(super) struct Contents<'a> {
    pub(super) format: u32,
    /// Which the provenance names.
    #[serde(skip)]
    pub(super) method: Method,
    pub(super) subset: Counts,
    pub(super) notes: Vec<String>,
    pub(super) provenance: &'a serde_json::Value,
}

/// What the folder holds.
#[derive(Debug, Serialize)]
pub(super) struct Counts {
    pub(super) schema: Schema,
    pub(super) data_file: String,
    pub(super) blake3: String,
    pub(super) n_rows: usize,
    pub(super) n_tokens: u64,
    pub(super) n_supervised: u64,
    /// Column name to type, in the file's order.
    pub(super) columns: serde_json::Map<String, serde_json::Value>,
    /// Largest first.
    pub(super) by_source: Vec<Part>,
    /// Largest first.
    pub(super) by_subtask: Vec<Part>,
}

/// The rows that share a source or a subtask.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) n_rows: usize,
    pub(super) n_tokens: u64,
}

impl Counts {
    pub(super) fn of(
        rows: &[SubsetRow<'_>],
        schema: Schema,
        columns: &Columns,
        data: &DataFile,
    ) -> Self {
        let columns = columns.arrow_schema();
        Self {
            schema,
            data_file: data.relative_path(),
            blake3: data.blake3.clone(),
            n_rows: rows.len(),
            n_tokens: rows.iter().map(|row| u64::from(row.n_tokens)).sum(),
            n_supervised: rows.iter().map(|row| u64::from(row.n_supervised)).sum(),
            columns: (columns.fields().iter())
                .map(|field| (field.name().clone(), type_name(field.data_type()).into()))
                .collect(),
            by_source: parts(rows, |row| row.source),
            by_subtask: parts(rows, |row| row.subtask),
        }
    }
}

fn parts<'a>(rows: &[SubsetRow<'a>], name: impl Fn(&SubsetRow<'a>) -> &'a str) -> Vec<Part> {
    let mut counts: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for row in rows {
        let (n_rows, n_tokens) = counts.entry(name(row)).or_default();
        *n_rows += 1;
        *n_tokens += u64::from(row.n_tokens);
    }
    let mut parts: Vec<Part> = counts
        .into_iter()
        .map(|(name, (n_rows, n_tokens))| Part { name: name.to_owned(), n_rows, n_tokens })
        .collect();
    // Stable: equal counts stay in order of name.
    parts.sort_by_key(|part| std::cmp::Reverse(part.n_rows));
    parts
}
