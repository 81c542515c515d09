//! The columns of an example table.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

use crate::pool::error::TableErrorKind;

/// Names the format in the file's metadata; another number is another layout.
const FORMAT: &str = "example table 1";
const FORMAT_KEY: &str = "less-select";

/// Columns that the row heads are made of.
pub(super) const HEAD: [&str; 6] =
    ["id", "source", "subtask", "n_tokens", "n_supervised", "truncated"];
/// Columns that an [`Example`](crate::pool::Example) is made of.
pub(super) const EXAMPLE: [&str; 3] = ["id", "token_ids", "supervised"];
/// Columns that a [`Record`](super::Record) is made of.
pub(super) const RECORD: [&str; 3] = ["id", "messages", "original"];
/// Columns that an [`Origin`](super::Origin) is made of.
pub(super) const ORIGIN: [&str; 3] = ["id", "file", "line"];

/// The columns, in file order, and the format's name.
pub(super) fn schema() -> SchemaRef {
    let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, false)));
    let fields = vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("subtask", DataType::Utf8, true),
        Field::new("n_tokens", DataType::UInt32, false),
        Field::new("n_supervised", DataType::UInt32, false),
        Field::new("truncated", DataType::Boolean, false),
        Field::new("token_ids", list(DataType::UInt32), false),
        Field::new("supervised", list(DataType::Boolean), false),
        Field::new("messages", list(DataType::Struct(message_fields())), false),
        Field::new("original", DataType::Utf8, false),
        Field::new("file", DataType::Utf8, false),
        Field::new("line", DataType::UInt64, false),
    ];
    let metadata = HashMap::from([(FORMAT_KEY.to_owned(), FORMAT.to_owned())]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

pub(super) fn message_fields() -> Fields {
    Fields::from(vec![
        Field::new("role", DataType::Utf8, false),
        Field::new("content", DataType::Utf8, false),
    ])
}

/// Accepts the schema of a table that this version wrote, and no other.
pub(super) fn check(found: &Schema) -> Result<(), TableErrorKind> {
    let format = found.metadata().get(FORMAT_KEY).map_or("no format name", String::as_str);
    if format != FORMAT {
        return Err(mismatch(FORMAT, format));
    }
    let expected = schema();
    for (position, field) in expected.fields().iter().enumerate() {
        match found.fields().get(position) {
            Some(other) if other == field => {}
            Some(other) => return Err(mismatch(&column(field), &column(other))),
            None => return Err(mismatch(&column(field), "no column")),
        }
    }
    match found.fields().get(expected.fields().len()) {
        Some(extra) => Err(mismatch("no column", &column(extra))),
        None => Ok(()),
    }
}

fn column(field: &Field) -> String {
    format!("{}: {}", field.name(), field.data_type())
}

fn mismatch(expected: &str, found: &str) -> TableErrorKind {
    TableErrorKind::Schema { expected: expected.to_owned(), found: found.to_owned() }
}
