//! The ingest stage: from files of many shapes to two canonical tables.
//!
//! The target is read before the pool, for it is small and a mistake in it
//! shows at once. Rows are encoded on all threads, a chunk at a time, and kept
//! in reading order, so neither the number of threads nor the chunks show in
//! the result; the tables are sorted by id, so the order of files does not
//! either.

use std::cell::Cell;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::encoder::{ChatEncoder, TemplateSource};
use super::error::Side;
use super::read::{Row, for_each_row};
use super::reject::{Reject, RejectReason};
use super::shape::Columns;
use super::source::{self, InputFile};
use super::spool::Spool;
use super::summary::IngestSummary;
use super::table::{Entry, Record, write_table};
use super::tally::Tally;
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
/// Fewer, where they are so large that this many bytes are waiting.
const CHUNK_BYTES: usize = 64 << 20;

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
    let intake = Intake::new(settings, model_dir, observer)?;
    let (mut target, mut pool) = (Tally::new(Side::Target), Tally::new(Side::Pool));
    let (mut target_rows, mut pool_rows) = (Spool::new(out_dir)?, Spool::new(out_dir)?);
    let read = intake
        .read(&settings.target, &mut target, &mut |entry| target_rows.push(entry))
        .and_then(|()| intake.read(&settings.pool, &mut pool, &mut |entry| pool_rows.push(entry)));
    if !matches!(read, Err(PoolError::Interrupted)) {
        write_rejects(&out_dir.join(REJECTS), target.rejects().iter().chain(pool.rejects()))?;
    }
    read?;
    write_table(&out_dir.join(TARGET_TABLE), target_rows.into_sorted()?)?;
    write_table(&out_dir.join(POOL_TABLE), pool_rows.into_sorted()?)?;
    Ok(IngestSummary::of(pool, target))
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
    let intake = Intake::new(settings, model_dir, observer)?;
    let (mut target, mut pool) = (Tally::new(Side::Target), Tally::new(Side::Pool));
    intake.read(&settings.target, &mut target, &mut |_| Ok(()))?;
    intake.read(&settings.pool, &mut pool, &mut |_| Ok(()))?;
    Ok(IngestSummary::of(pool, target))
}

fn write_rejects<'a>(
    path: &Path,
    rejects: impl Iterator<Item = &'a Reject>,
) -> Result<(), PoolError> {
    crate::fs::write_atomic(path, |out| {
        for reject in rejects {
            serde_json::to_writer(&mut *out, reject).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Takes a row that is kept.
type Keep<'a> = dyn FnMut(&Entry) -> Result<(), PoolError> + 'a;

/// What both sides are read with.
struct Intake<'a> {
    encoder: ChatEncoder,
    columns: Columns,
    max_rejects: f64,
    observer: &'a dyn Observer,
}

impl<'a> Intake<'a> {
    fn new(
        settings: &IngestSettings,
        model_dir: &Path,
        observer: &'a dyn Observer,
    ) -> Result<Self, PoolError> {
        Ok(Self {
            columns: Columns::new(
                &settings.columns,
                settings.encoding.chat_template == TemplateSource::None,
            )?,
            encoder: ChatEncoder::load(model_dir, &settings.encoding)?,
            max_rejects: settings.max_rejects,
            observer,
        })
    }

    /// Reads one side: counts every row in `tally`, gives those it keeps to
    /// `keep`, in order.
    fn read(
        &self,
        sources: &[Source],
        tally: &mut Tally,
        keep: &mut Keep<'_>,
    ) -> Result<(), PoolError> {
        let mut files = Vec::new();
        for source in sources {
            files.append(&mut source::files(source)?);
        }
        let n_bytes = files.iter().map(InputFile::n_bytes).sum();
        let n_consumed = Cell::new(0);
        for file in &files {
            tally.begin(&file.source);
            let (mut chunk, mut chunk_bytes) = (Vec::with_capacity(CHUNK_ROWS), 0);
            for_each_row(file, &n_consumed, &mut |line, row| {
                chunk_bytes += row.as_ref().map_or(0, row_bytes);
                chunk.push((line, row));
                if chunk.len() == CHUNK_ROWS || chunk_bytes >= CHUNK_BYTES {
                    chunk_bytes = 0;
                    self.take(file, std::mem::take(&mut chunk), tally, keep)?;
                    self.progress(tally.side(), n_consumed.get(), n_bytes)?;
                }
                Ok(())
            })?;
            self.take(file, chunk, tally, keep)?;
            self.progress(tally.side(), n_consumed.get(), n_bytes)?;
        }
        tally.check(sources, self.max_rejects)?;
        for message in tally.warnings() {
            self.observer.notify(Event::Warning { message });
        }
        Ok(())
    }

    /// Encodes `rows` of `file`, then counts and keeps them in order.
    fn take(
        &self,
        file: &InputFile,
        rows: Vec<(u64, Row)>,
        tally: &mut Tally,
        keep: &mut Keep<'_>,
    ) -> Result<(), PoolError> {
        let side = tally.side();
        let entries: Vec<_> = rows
            .into_par_iter()
            .map(|(line, row)| (line, row.and_then(|row| self.encode(side, file, line, row))))
            .map(|(line, entry)| {
                let messages = entry.as_ref().ok().map(|entry| &entry.record.messages);
                let said = messages.and_then(|said| self.encoder.special_token_said(said));
                (line, entry, said)
            })
            .collect();
        for (line, entry, said) in entries {
            match entry {
                Ok(entry) if tally.keeps(&entry) => {
                    if let Some(token) = said {
                        tally.says(token);
                    }
                    keep(&entry)?;
                }
                Ok(_) => {}
                Err(reason) => tally.reject(&file.name, line, &reason),
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
        let conversation = self.columns.conversation(&original)?;
        let subtask = match side {
            Side::Pool => None,
            Side::Target => {
                Some(self.columns.subtask(&original)?.unwrap_or_else(|| file.source.clone()))
            }
        };
        let encoded = self.encoder.encode(&conversation)?;
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
            record: Record { messages: conversation.messages(), original },
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
}

/// About how much memory a row takes.
fn row_bytes(row: &Map<String, Value>) -> usize {
    row.iter().map(|(name, value)| size_of::<Value>() + name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(value_bytes).sum(),
            Value::Object(columns) => row_bytes(columns),
        }
}
