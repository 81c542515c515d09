//! From what a user types to a row.

use std::path::PathBuf;

use crate::pool::table::{ExampleTable, Origin};
use crate::pool::{ExampleId, PoolError};

/// Rows that are named where one was meant.
const N_NAMED: usize = 5;

/// A row cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Nothing was selected yet.
    #[error("`{}` has no selection", .0.display())]
    NoSelection(PathBuf),
    /// No row is called so.
    #[error("no row of the {table} is `{row}`")]
    NoRow {
        /// What was typed.
        row: String,
        /// `pool` or `target`.
        table: &'static str,
    },
    /// Several rows are.
    #[error("`{row}` may be {n} rows of the {table}: {}", named.join(", "))]
    Ambiguous {
        /// What was typed.
        row: String,
        /// `pool` or `target`.
        table: &'static str,
        /// How many.
        n: usize,
        /// The first of them.
        named: Vec<String>,
    },
    /// The table could not be read.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// The position in `table` of the row that `words` names: by its id or the beginning of
/// it, or by `PLACE:LINE`, where PLACE is its source, its file, or the end of its file's
/// path. A target row of several subtasks is the first of them.
///
/// # Errors
///
/// If no row or several are called so, or the table cannot be read.
pub fn find(table: &ExampleTable, name: &'static str, words: &str) -> Result<usize, ExplainError> {
    let mut found = by_id(table, words);
    if found.is_empty() {
        found = by_place(table, words)?;
    }
    // The subtasks of one target row.
    found.dedup_by_key(|position| table.rows()[*position].id);
    let row = words.to_owned();
    match *found {
        [position] => Ok(position),
        [] => Err(ExplainError::NoRow { row, table: name }),
        ref several => {
            let first = &several[..several.len().min(N_NAMED)];
            let named = table.origins(first)?.into_iter().zip(first);
            let named = named.map(|(Origin { file, line }, position)| {
                format!("{} ({file}:{line})", table.rows()[*position].id)
            });
            Err(ExplainError::Ambiguous {
                row,
                table: name,
                n: several.len(),
                named: named.collect(),
            })
        }
    }
}

/// Rows whose id begins with `prefix`.
fn by_id(table: &ExampleTable, prefix: &str) -> Vec<usize> {
    let prefix = prefix.to_ascii_lowercase();
    let is_hex = prefix.bytes().all(|digit| digit.is_ascii_hexdigit());
    if prefix.is_empty() || prefix.len() > 32 || !is_hex {
        return Vec::new();
    }
    // The ids between the prefix filled up with zeros and with ones.
    let filled = |digit: &str| -> Option<ExampleId> {
        format!("{prefix}{}", digit.repeat(32 - prefix.len())).parse().ok()
    };
    let (Some(low), Some(high)) = (filled("0"), filled("f")) else { return Vec::new() };
    let start = table.rows().partition_point(|row| row.id < low);
    let end = table.rows().partition_point(|row| row.id <= high);
    (start..end).collect()
}

/// Rows that stand at `PLACE:LINE`.
fn by_place(table: &ExampleTable, words: &str) -> Result<Vec<usize>, PoolError> {
    let Some((place, line)) = words.rsplit_once(':') else { return Ok(Vec::new()) };
    let Ok(line) = line.parse::<u64>() else { return Ok(Vec::new()) };
    let all: Vec<usize> = (0..table.rows().len()).collect();
    let is_there = |(position, origin): &(usize, Origin)| {
        let rest = origin.file.strip_suffix(place);
        let is_end = rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
        origin.line == line && (is_end || table.rows()[*position].source == place)
    };
    let origins = table.origins(&all)?;
    Ok(all.into_iter().zip(origins).filter(is_there).map(|(position, _)| position).collect())
}
