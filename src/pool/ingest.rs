//! The ingest stage: from files of many shapes to two canonical tables.
//!
//! The target is read before the pool, for it is small and a mistake in it
//! shows at once. Rows are encoded on all threads, a chunk at a time, and kept
//! in reading order, so neither the number of threads nor the chunks show in
//! the result; the tables are sorted by id, so the order of files does not
//! either.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::encoder::ChatEncoder;
use super::error::Side;
use super::read::{Row, for_each_row};
use super::reject::{Reject, RejectKind, RejectReason};
use super::shape::Columns;
use super::source::{self, InputFile};
use super::spool::Spool;
use super::summary::{IngestSummary, SourceSummary};
use super::table::{Entry, Record, write_table};
use super::{Example, ExampleId, IngestSettings, PoolError, Source};
use crate::progress::{Event, Observer};
use crate::stage::Stage;

/// The pool's table in the stage's folder.
pub const POOL_TABLE: &str = "pool.parquet";
/// The target's table.
pub const TARGET_TABLE: &str = "target.parquet";
/// The rows left out: JSON lines with `side`, `file`, `line`, `kind`, `reason`.
pub const REJECTS: &str = "rejects.jsonl";

/// Rows encoded between two looks at the observer.
const CHUNK_ROWS: usize = 1024;
/// Rejects that an error message shows.
const N_SHOWN: usize = 5;

/// Reads the pool and the target, and writes [`POOL_TABLE`], [`TARGET_TABLE`]
/// and [`REJECTS`] to `out_dir`. The model in `model_dir` gives chat template
/// and tokenizer.
///
/// A pool row with the content of an earlier one is dropped, a target row only
/// if the earlier one is of the same source and subtask. Targets without a
/// `subtask` column are one subtask with the source's name. Each side may have
/// at most `max_rejects` of its rows malformed; rows that are too long do not
/// count.
///
/// # Errors
///
/// If a setting, a file or the tokenizer cannot be used, too many rows are
/// malformed, a side is left empty, or the observer asks to stop. Then no
/// table is written; the rejects are, unless it was asked to stop.
pub fn ingest(
    settings: &IngestSettings,
    model_dir: &Path,
    out_dir: &Path,
    observer: &dyn Observer,
) -> Result<IngestSummary, PoolError> {
    let mut intake = Intake::new(settings, model_dir, observer)?;
    let (mut target, mut pool) = (Spool::new(out_dir)?, Spool::new(out_dir)?);
    let summary = intake.read(settings, &mut |side, entry| match side {
        Side::Target => target.push(entry),
        Side::Pool => pool.push(entry),
    });
    if !matches!(summary, Err(PoolError::Interrupted)) {
        write_rejects(&out_dir.join(REJECTS), &intake.rejects)?;
    }
    let summary = summary?;
    write_table(&out_dir.join(TARGET_TABLE), target.into_sorted()?)?;
    write_table(&out_dir.join(POOL_TABLE), pool.into_sorted()?)?;
    Ok(summary)
}

/// What [`ingest`] would read and keep; writes nothing.
///
/// # Errors
///
/// As [`ingest`].
pub fn survey(
    settings: &IngestSettings,
    model_dir: &Path,
    observer: &dyn Observer,
) -> Result<IngestSummary, PoolError> {
    Intake::new(settings, model_dir, observer)?.read(settings, &mut |_, _| Ok(()))
}

fn write_rejects(path: &Path, rejects: &[Reject]) -> Result<(), PoolError> {
    crate::fs::write_atomic(path, |out| {
        for reject in rejects {
            serde_json::to_writer(&mut *out, reject).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Takes a row that is kept.
type Keep<'a> = dyn FnMut(Side, &Entry) -> Result<(), PoolError> + 'a;

/// Everything that both sides are read with.
struct Intake<'a> {
    encoder: ChatEncoder,
    columns: Columns,
    max_rejects: f64,
    observer: &'a dyn Observer,
    rejects: Vec<Reject>,
}

impl<'a> Intake<'a> {
    fn new(
        settings: &IngestSettings,
        model_dir: &Path,
        observer: &'a dyn Observer,
    ) -> Result<Self, PoolError> {
        Ok(Self {
            columns: Columns::new(&settings.columns)?,
            encoder: ChatEncoder::load(model_dir, settings.max_tokens)?,
            max_rejects: settings.max_rejects,
            observer,
            rejects: Vec::new(),
        })
    }

    fn read(
        &mut self,
        settings: &IngestSettings,
        keep: &mut Keep<'_>,
    ) -> Result<IngestSummary, PoolError> {
        let mut target_ids = HashSet::new();
        let target = self.read_side(Side::Target, &settings.target, &mut |entry| {
            target_ids.insert(entry.example.id);
            keep(Side::Target, entry)
        })?;
        let mut n_in_target = 0;
        let pool = self.read_side(Side::Pool, &settings.pool, &mut |entry| {
            n_in_target += u64::from(target_ids.contains(&entry.example.id));
            keep(Side::Pool, entry)
        })?;
        Ok(IngestSummary { pool, target, n_in_target })
    }

    fn read_side(
        &mut self,
        side: Side,
        sources: &[Source],
        keep: &mut dyn FnMut(&Entry) -> Result<(), PoolError>,
    ) -> Result<Vec<SourceSummary>, PoolError> {
        let mut files = Vec::new();
        for source in sources {
            files.append(&mut source::files(source)?);
        }
        let n_bytes = files.iter().map(InputFile::n_bytes).sum();
        let n_consumed = Cell::new(0);
        let n_rejects_before = self.rejects.len();
        let mut tally = Tally::default();
        for file in &files {
            tally.begin(&file.source);
            let mut chunk = Vec::with_capacity(CHUNK_ROWS);
            for_each_row(file, &n_consumed, &mut |line, row| {
                chunk.push((line, row));
                if chunk.len() == CHUNK_ROWS {
                    self.take(side, file, std::mem::take(&mut chunk), &mut tally, keep)?;
                    self.progress(side, n_consumed.get(), n_bytes)?;
                }
                Ok(())
            })?;
            self.take(side, file, chunk, &mut tally, keep)?;
            self.progress(side, n_consumed.get(), n_bytes)?;
        }
        self.check(side, &tally.sources, n_rejects_before)?;
        Ok(tally.sources)
    }

    /// Encodes `rows` of `file` and counts and keeps them in order.
    fn take(
        &mut self,
        side: Side,
        file: &InputFile,
        rows: Vec<(u64, Row)>,
        tally: &mut Tally,
        keep: &mut dyn FnMut(&Entry) -> Result<(), PoolError>,
    ) -> Result<(), PoolError> {
        let encoded: Vec<_> = rows
            .into_par_iter()
            .map(|(line, row)| (line, row.and_then(|row| self.encode(side, file, line, row))))
            .collect();
        for (line, entry) in encoded {
            match entry {
                Ok(entry) if tally.keeps(&entry) => keep(&entry)?,
                Ok(_) => {}
                Err(reason) => {
                    let kind = reason.kind();
                    tally.rejects(kind);
                    let (file, reason) = (file.name.clone(), reason.to_string());
                    self.rejects.push(Reject { side, file, line, kind, reason });
                }
            }
        }
        Ok(())
    }

    fn encode(
        &self,
        side: Side,
        file: &InputFile,
        line: u64,
        original: Map<String, Value>,
    ) -> Result<Entry, RejectReason> {
        let messages = self.columns.messages(&original)?;
        let subtask = match side {
            Side::Pool => None,
            Side::Target => {
                Some(self.columns.subtask(&original)?.unwrap_or_else(|| file.source.clone()))
            }
        };
        let encoded = self.encoder.encode(&messages)?;
        Ok(Entry {
            source: file.source.clone(),
            subtask,
            file: file.name.clone(),
            line,
            example: Example {
                id: ExampleId::of(&encoded.token_ids, &encoded.supervised),
                token_ids: encoded.token_ids,
                supervised: encoded.supervised,
            },
            truncated: encoded.truncated,
            record: Record { messages, original },
        })
    }

    fn progress(&self, side: Side, done: u64, total: u64) -> Result<(), PoolError> {
        self.observer.notify(Event::Progress {
            stage: Stage::Ingest,
            what: side.to_string(),
            done,
            total,
            unit: "bytes".to_owned(),
        });
        if self.observer.is_interrupted() { Err(PoolError::Interrupted) } else { Ok(()) }
    }

    /// Whether enough of a side is left; warns of sources that gave nothing.
    fn check(
        &self,
        side: Side,
        sources: &[SourceSummary],
        n_rejects_before: usize,
    ) -> Result<(), PoolError> {
        let SourceSummary { n_read, n_kept, n_malformed, n_too_long, .. } =
            SourceSummary::total(sources);
        if n_malformed as f64 > self.max_rejects * n_read as f64 {
            let first = self.rejects[n_rejects_before..]
                .iter()
                .filter(|reject| reject.kind == RejectKind::Malformed)
                .take(N_SHOWN)
                .cloned()
                .collect();
            let max_share = self.max_rejects;
            return Err(PoolError::TooManyRejects { side, n_malformed, n_read, max_share, first });
        }
        if n_kept == 0 {
            return Err(PoolError::Empty { side, n_read, n_malformed, n_too_long });
        }
        for source in sources.iter().filter(|source| source.n_kept + source.n_duplicates == 0) {
            let message = format!("{side} `{}` gave no row of {} read", source.name, source.n_read);
            self.observer.notify(Event::Warning { message });
        }
        Ok(())
    }
}

/// Counts by source, and the content seen so far.
#[derive(Default)]
struct Tally {
    sources: Vec<SourceSummary>,
    positions: BTreeMap<String, usize>,
    current: usize,
    seen: HashSet<(ExampleId, Option<(usize, String)>)>,
}

impl Tally {
    /// Counts what follows for the source `name`.
    fn begin(&mut self, name: &str) {
        self.current = *self.positions.entry(name.to_owned()).or_insert_with(|| {
            self.sources.push(SourceSummary { name: name.to_owned(), ..SourceSummary::default() });
            self.sources.len() - 1
        });
    }

    /// Counts a row; whether it is kept.
    fn keeps(&mut self, entry: &Entry) -> bool {
        let Entry { subtask, example, truncated, .. } = entry;
        let place = subtask.clone().map(|subtask| (self.current, subtask));
        let summary = &mut self.sources[self.current];
        summary.n_read += 1;
        if !self.seen.insert((example.id, place)) {
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

    fn rejects(&mut self, kind: RejectKind) {
        let summary = &mut self.sources[self.current];
        summary.n_read += 1;
        match kind {
            RejectKind::Malformed => summary.n_malformed += 1,
            RejectKind::TooLong => summary.n_too_long += 1,
        }
    }
}
