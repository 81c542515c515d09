//! Writing an example table.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, ListBuilder, RecordBatch, StringBuilder, StructBuilder,
    UInt32Builder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::Entry;
use super::schema::{message_fields, schema};
use crate::pool::PoolError;
use crate::pool::error::TableErrorKind;

/// Most rows of a row group: what a reader decodes to get at one row.
const GROUP_ROWS: usize = 2048;
/// A row group ends once its text and tokens reach this many bytes.
const GROUP_BYTES: usize = 16 << 20;

/// Writes `entries`, which come in table order, as the table `path`; returns
/// how many there were. Holds one row group in memory.
///
/// # Errors
///
/// The first error among `entries`, or that of writing. `path` is then as it
/// was before.
pub(crate) fn write_table(
    path: &Path,
    entries: impl IntoIterator<Item = Result<Entry, PoolError>>,
) -> Result<u64, PoolError> {
    let fail = |kind| PoolError::Table { path: path.to_owned(), kind };
    let mut n_rows = 0;
    crate::fs::write_atomic::<PoolError>(path, |out| {
        let mut writer = open(out).map_err(fail)?;
        let mut group = Group::new();
        for entry in entries {
            group.push(&entry?);
            n_rows += 1;
            if group.is_full() {
                write_group(&mut writer, &mut group).map_err(fail)?;
            }
        }
        write_group(&mut writer, &mut group).map_err(fail)?;
        writer.close().map_err(|err| fail(err.into()))?;
        Ok(())
    })?;
    Ok(n_rows)
}

type Out<'a> = &'a mut (dyn Write + Send);

fn open(out: Out<'_>) -> Result<ArrowWriter<Out<'_>>, TableErrorKind> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        // Nobody filters a table by its content.
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    Ok(ArrowWriter::try_new(out, schema(), Some(properties))?)
}

fn write_group(writer: &mut ArrowWriter<Out<'_>>, group: &mut Group) -> Result<(), TableErrorKind> {
    if group.n_rows > 0 {
        writer.write(&group.finish()?)?;
        writer.flush()?;
    }
    Ok(())
}

/// The columns of the row group that is being filled.
struct Group {
    n_rows: usize,
    n_bytes: usize,
    id: StringBuilder,
    source: StringBuilder,
    subtask: StringBuilder,
    n_tokens: UInt32Builder,
    n_supervised: UInt32Builder,
    truncated: BooleanBuilder,
    token_ids: ListBuilder<UInt32Builder>,
    supervised: ListBuilder<BooleanBuilder>,
    messages: ListBuilder<StructBuilder>,
    original: StringBuilder,
    file: StringBuilder,
    line: UInt64Builder,
}

impl Group {
    fn new() -> Self {
        let item = |data_type| Arc::new(Field::new("item", data_type, false));
        let message = StructBuilder::from_fields(message_fields(), 0);
        Self {
            n_rows: 0,
            n_bytes: 0,
            id: StringBuilder::new(),
            source: StringBuilder::new(),
            subtask: StringBuilder::new(),
            n_tokens: UInt32Builder::new(),
            n_supervised: UInt32Builder::new(),
            truncated: BooleanBuilder::new(),
            token_ids: ListBuilder::new(UInt32Builder::new()).with_field(item(DataType::UInt32)),
            supervised: ListBuilder::new(BooleanBuilder::new()).with_field(item(DataType::Boolean)),
            messages: ListBuilder::new(message)
                .with_field(item(DataType::Struct(message_fields()))),
            original: StringBuilder::new(),
            file: StringBuilder::new(),
            line: UInt64Builder::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.n_rows >= GROUP_ROWS || self.n_bytes >= GROUP_BYTES
    }

    fn push(&mut self, entry: &Entry) {
        // Naming every field makes a new one a compile error here.
        let Entry { source, subtask, file, line, example, truncated, record } = entry;
        self.id.append_value(example.id.to_string());
        self.source.append_value(source);
        self.subtask.append_option(subtask.as_ref());
        self.n_tokens.append_value(example.token_ids.len() as u32);
        self.n_supervised.append_value(example.n_supervised() as u32);
        self.truncated.append_value(*truncated);
        self.token_ids.values().append_slice(&example.token_ids);
        self.token_ids.append(true);
        self.supervised.values().append_slice(&example.supervised);
        self.supervised.append(true);
        for message in &record.messages {
            let columns = self.messages.values();
            for (column, text) in [&message.role, &message.content].into_iter().enumerate() {
                columns
                    .field_builder::<StringBuilder>(column)
                    .expect("role and content are strings")
                    .append_value(text);
            }
            columns.append(true);
            self.n_bytes += message.content.len();
        }
        self.messages.append(true);
        let original = serde_json::to_string(&record.original).expect("maps of values serialize");
        self.n_rows += 1;
        self.n_bytes += original.len() + 5 * example.token_ids.len();
        self.original.append_value(original);
        self.file.append_value(file);
        self.line.append_value(*line);
    }

    /// The rows so far as a batch; leaves an empty group.
    fn finish(&mut self) -> Result<RecordBatch, TableErrorKind> {
        (self.n_rows, self.n_bytes) = (0, 0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.subtask.finish()),
            Arc::new(self.n_tokens.finish()),
            Arc::new(self.n_supervised.finish()),
            Arc::new(self.truncated.finish()),
            Arc::new(self.token_ids.finish()),
            Arc::new(self.supervised.finish()),
            Arc::new(self.messages.finish()),
            Arc::new(self.original.finish()),
            Arc::new(self.file.finish()),
            Arc::new(self.line.finish()),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}
