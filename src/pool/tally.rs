//! Counting the rows of one side, and telling which are new.

use std::collections::{BTreeMap, HashSet};

use super::error::Side;
use super::reject::{Reject, RejectKind, RejectReason};
use super::summary::{IngestSummary, SourceSummary};
use super::table::Entry;
use super::{ExampleId, PoolError, Source};

/// Rejects that an error message shows.
const N_SHOWN: usize = 5;
/// Rejects of a side that are listed; the others are only counted, so that a
/// file of nothing but rejects cannot fill the memory.
const N_LISTED: usize = 100_000;
/// Most bytes of a reason: it may name all columns of a row.
const REASON_BYTES: usize = 1000;

/// Counts by source, the rows left out, and the content seen so far.
#[derive(Debug)]
pub(super) struct Tally {
    side: Side,
    sources: Vec<SourceSummary>,
    positions: BTreeMap<String, usize>,
    current: usize,
    seen: HashSet<Place>,
    /// Kept rows by source and by the special token that they say.
    saying: BTreeMap<(usize, String), u64>,
    rejects: Vec<Reject>,
    has_unlisted: bool,
}

/// Where a content may stand once: in a pool anywhere, in a target once in
/// every subtask of every source.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Place {
    id: ExampleId,
    subtask: Option<(usize, String)>,
}

impl Tally {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            sources: Vec::new(),
            positions: BTreeMap::new(),
            current: 0,
            seen: HashSet::new(),
            saying: BTreeMap::new(),
            rejects: Vec::new(),
            has_unlisted: false,
        }
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    /// The first [`N_LISTED`] of the rows left out, in reading order.
    pub(super) fn rejects(&self) -> &[Reject] {
        &self.rejects
    }

    /// Counts what follows for the source `name`.
    pub(super) fn begin(&mut self, name: &str) {
        self.current = *self.positions.entry(name.to_owned()).or_insert_with(|| {
            self.sources.push(SourceSummary { name: name.to_owned(), ..SourceSummary::default() });
            self.sources.len() - 1
        });
    }

    /// Counts a row; whether its content is new.
    pub(super) fn keeps(&mut self, entry: &Entry) -> bool {
        let Entry { subtask, example, truncated, .. } = entry;
        let subtask_here = subtask.clone().map(|subtask| (self.current, subtask));
        let summary = &mut self.sources[self.current];
        summary.n_read += 1;
        if !self.seen.insert(Place { id: example.id, subtask: subtask_here }) {
            summary.n_duplicates += 1;
            return false;
        }
        summary.n_kept += 1;
        summary.n_truncated += u64::from(*truncated);
        summary.n_tokens += example.token_ids.len() as u64;
        summary.n_supervised += example.n_supervised() as u64;
        if let Some(subtask) = subtask {
            *summary.subtasks.entry(subtask.clone()).or_default() += 1;
        }
        true
    }

    /// Counts a row that was kept and says the special token `token`.
    pub(super) fn says(&mut self, token: &str) {
        *self.saying.entry((self.current, token.to_owned())).or_default() += 1;
    }

    /// Counts and lists a row that is left out.
    pub(super) fn reject(&mut self, file: &str, line: u64, reason: &RejectReason) {
        let kind = reason.kind();
        let summary = &mut self.sources[self.current];
        summary.n_read += 1;
        match kind {
            RejectKind::Malformed => summary.n_malformed += 1,
            RejectKind::TooLong => summary.n_too_long += 1,
        }
        if self.rejects.len() == N_LISTED {
            self.has_unlisted = true;
            return;
        }
        let (file, reason) = (file.to_owned(), shortened(reason.to_string()));
        self.rejects.push(Reject { side: self.side, file, line, kind, reason });
    }

    /// Whether enough is left of `sources`, with at most the share `max_rejects`
    /// malformed.
    pub(super) fn check(&self, sources: &[Source], max_rejects: f64) -> Result<(), PoolError> {
        let side = self.side;
        let SourceSummary { n_read, n_kept, n_malformed, n_too_long, .. } =
            SourceSummary::total(&self.sources);
        if n_malformed as f64 > max_rejects * n_read as f64 {
            let first = self.first(|reject| reject.kind == RejectKind::Malformed);
            let max_share = max_rejects;
            return Err(PoolError::TooManyRejects { side, n_malformed, n_read, max_share, first });
        }
        if n_kept == 0 {
            let inputs = sources.iter().map(|source| source.path.clone()).collect();
            let first = self.first(|_| true);
            return Err(PoolError::Empty { side, inputs, n_read, n_malformed, n_too_long, first });
        }
        Ok(())
    }

    /// The first few of the rejects that are `wanted`.
    fn first(&self, wanted: fn(&Reject) -> bool) -> Vec<Reject> {
        self.rejects.iter().filter(|reject| wanted(reject)).take(N_SHOWN).cloned().collect()
    }

    /// A sentence for every source that gave nothing or says special tokens, and one if
    /// rejects are not listed.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let gave_nothing = |source: &&SourceSummary| source.n_kept + source.n_duplicates == 0;
        let unlisted = self.has_unlisted.then(|| {
            format!("only the first {N_LISTED} {} rows that were left out are listed", self.side)
        });
        let sources = self.sources.iter().filter(gave_nothing).map(|source| {
            format!("{} `{}` gave no row of {} read", self.side, source.name, source.n_read)
        });
        let saying = self.saying.iter().map(|((source, token), n)| {
            format!(
                "{n} of the {} rows of {} `{}` say `{token}`, which the tokenizer takes for the \
                 token and not for text; unless that is meant, take it out of the data",
                self.sources[*source].n_kept, self.side, self.sources[*source].name
            )
        });
        sources.chain(saying).chain(unlisted)
    }
}

/// `reason`, cut where it gets too long for a list.
fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_BYTES {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        reason.push('…');
    }
    reason
}

impl IngestSummary {
    /// The counts of both sides.
    pub(super) fn of(pool: Tally, target: Tally) -> Self {
        let target_ids: HashSet<ExampleId> = target.seen.iter().map(|place| place.id).collect();
        let n_in_target =
            pool.seen.iter().filter(|place| target_ids.contains(&place.id)).count() as u64;
        Self { pool: pool.sources, target: target.sources, n_in_target }
    }
}
