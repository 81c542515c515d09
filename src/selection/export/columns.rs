//! The columns of the data file, and rows as Arrow batches.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, ListArray, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::own_columns::OwnColumns;
use super::{ExportErrorKind, SubsetRow};

/// The columns of the subset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schema {
    /// `messages`, `id`, `source`, `less_score`, `less_rank`, `less_subtask`.
    Messages,
    /// `messages` alone, for trainers that refuse other columns.
    MessagesOnly,
    /// The rows' own columns: those of every source, absent values null. Where
    /// rows disagree on a type, the values become text and a note says so.
    Original,
}

impl Schema {
    /// Every schema.
    pub const ALL: [Self; 3] = [Self::Messages, Self::MessagesOnly, Self::Original];

    /// The schema's name in settings and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::MessagesOnly => "messages-only",
            Self::Original => "original",
        }
    }
}

impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Schema {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|schema| schema.name() == text).ok_or(())
    }
}

/// A [`Schema`] settled for the rows at hand.
#[derive(Debug)]
pub(super) enum Columns {
    Messages,
    MessagesOnly,
    Own(OwnColumns),
}

impl Columns {
    pub(super) fn of(schema: Schema, rows: &[SubsetRow<'_>]) -> Result<Self, ExportErrorKind> {
        Ok(match schema {
            Schema::Messages => Self::Messages,
            Schema::MessagesOnly => Self::MessagesOnly,
            Schema::Original => Self::Own(OwnColumns::infer(rows)?),
        })
    }

    /// Everything is nullable, as `datasets` itself writes it.
    pub(super) fn arrow_schema(&self) -> SchemaRef {
        let fields: Vec<Field> = match self {
            Self::Own(own) => return own.arrow_schema(),
            Self::MessagesOnly => vec![messages_field()],
            Self::Messages => vec![
                messages_field(),
                Field::new("id", DataType::Utf8, true),
                Field::new("source", DataType::Utf8, true),
                Field::new("less_score", DataType::Float32, true),
                Field::new("less_rank", DataType::Int64, true),
                Field::new("less_subtask", DataType::Utf8, true),
            ],
        };
        Arc::new(arrow::datatypes::Schema::new(fields))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.arrow_schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Bytes of text in a row, about: what bounds a batch.
    pub(super) fn n_bytes(&self, row: &SubsetRow<'_>) -> usize {
        match self {
            Self::Own(_) => OwnColumns::n_bytes(row),
            Self::Messages | Self::MessagesOnly => (row.record.messages.iter())
                .map(|message| message.role.len() + message.content.len())
                .sum(),
        }
    }

    pub(super) fn batch(&self, rows: &[SubsetRow<'_>]) -> Result<RecordBatch, ArrowError> {
        let arrays: Vec<ArrayRef> = match self {
            Self::Own(own) => return own.batch(rows),
            Self::MessagesOnly => vec![messages(rows)],
            Self::Messages => vec![
                messages(rows),
                strings(rows.iter().map(|row| row.id.to_string())),
                strings(rows.iter().map(|row| row.source)),
                Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| row.score))),
                ranks(rows),
                strings(rows.iter().map(|row| row.subtask)),
            ],
        };
        RecordBatch::try_new(self.arrow_schema(), arrays)
    }
}

fn message_fields() -> Fields {
    vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)]
        .into()
}

fn messages_field() -> Field {
    Field::new_list(
        "messages",
        Field::new_list_field(DataType::Struct(message_fields()), true),
        true,
    )
}

fn messages(rows: &[SubsetRow<'_>]) -> ArrayRef {
    let all = || rows.iter().flat_map(|row| &row.record.messages);
    let turns = StructArray::new(
        message_fields(),
        vec![
            strings(all().map(|message| &message.role)),
            strings(all().map(|message| &message.content)),
        ],
        None,
    );
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(|row| row.record.messages.len()));
    let item = Field::new_list_field(DataType::Struct(message_fields()), true);
    Arc::new(ListArray::new(Arc::new(item), offsets, Arc::new(turns), None))
}

#[expect(clippy::cast_possible_wrap, reason = "a rank is at most the number of rows in memory")]
fn ranks(rows: &[SubsetRow<'_>]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.rank as i64)))
}

fn strings(values: impl Iterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// A type as Python's Arrow writes it: `list<struct<role: string, content: string>>`.
pub(super) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "bool".to_owned(),
        DataType::Int64 => "int64".to_owned(),
        DataType::Float32 => "float32".to_owned(),
        DataType::Float64 => "float64".to_owned(),
        DataType::Utf8 => "string".to_owned(),
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = (fields.iter())
                .map(|field| format!("{}: {}", field.name(), type_name(field.data_type())))
                .collect();
            format!("struct<{}>", fields.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_reads_back_from_its_name() {
        for schema in Schema::ALL {
            assert_eq!(schema.to_string().parse(), Ok(schema));
            assert_eq!(serde_json::to_value(schema).unwrap(), schema.name());
        }
        assert_eq!("alpaca".parse::<Schema>(), Err(()));
    }

    #[test]
    fn messages_are_a_list_of_structs_of_plain_strings() {
        assert_eq!(
            type_name(messages_field().data_type()),
            "list<struct<role: string, content: string>>"
        );
    }
}
