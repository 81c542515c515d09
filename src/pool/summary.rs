//! What ingest read, kept and left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What became of the rows of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSummary {
    /// The pool or target name.
    pub name: String,
    /// Rows in its files; the sum of the next four.
    pub n_read: u64,
    /// Rows in the table.
    pub n_kept: u64,
    /// Rows whose content an earlier row has (in a target: of the same source
    /// and subtask).
    pub n_duplicates: u64,
    /// Rows that are no conversation with an answer.
    pub n_malformed: u64,
    /// Rows whose answer begins after `max-tokens`.
    pub n_too_long: u64,
    /// Kept rows that lost tokens at the end.
    pub n_truncated: u64,
    /// Tokens of the kept rows.
    pub n_tokens: u64,
    /// Of these, the tokens that carry loss.
    pub n_supervised: u64,
    /// Kept rows by subtask; empty for a pool.
    pub subtasks: BTreeMap<String, u64>,
}

impl SourceSummary {
    /// The sums over `sources`, named `all`. Subtasks of different targets are
    /// different subtasks, named `TARGET/SUBTASK`.
    pub fn total(sources: &[Self]) -> Self {
        let mut total = Self { name: "all".to_owned(), ..Self::default() };
        for source in sources {
            // Naming every field makes a new one a compile error here.
            let Self {
                name,
                n_read,
                n_kept,
                n_duplicates,
                n_malformed,
                n_too_long,
                n_truncated,
                n_tokens,
                n_supervised,
                subtasks,
            } = source;
            total.n_read += n_read;
            total.n_kept += n_kept;
            total.n_duplicates += n_duplicates;
            total.n_malformed += n_malformed;
            total.n_too_long += n_too_long;
            total.n_truncated += n_truncated;
            total.n_tokens += n_tokens;
            total.n_supervised += n_supervised;
            let named = subtasks.iter().map(|(subtask, n)| (format!("{name}/{subtask}"), *n));
            total.subtasks.extend(named);
        }
        total
    }
}

/// What ingest read, kept and left out, by source in order of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestSummary {
    /// The pool's sources.
    pub pool: Vec<SourceSummary>,
    /// The targets.
    pub target: Vec<SourceSummary>,
    /// Kept pool rows whose content is also a target row's. They stay in the
    /// pool, where they will score high.
    pub n_in_target: u64,
}

impl std::fmt::Display for IngestSummary {
    /// One line for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (pool, target) = (SourceSummary::total(&self.pool), SourceSummary::total(&self.target));
        write!(
            f,
            "{} of {} pool rows ({} tokens), {} of {} target rows ({} subtasks)",
            pool.n_kept,
            pool.n_read,
            pool.n_tokens,
            target.n_kept,
            target.n_read,
            target.subtasks.len(),
        )
    }
}
