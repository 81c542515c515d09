//! Column types found in JSON values, and values made to fit them.
//!
//! Types widen until they hold every value. Where values disagree, the column
//! (or the field inside it) becomes text: strings stay as they are and other
//! values are written as JSON. An error would end a run of hours at its last
//! stage over a column that training may not need; instead a [`Conflict`] names
//! the column and both sources.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use serde_json::{Map, Value};

/// Fields of a struct at most. More are keys of a dictionary, not fields, and
/// each would cost a column of the file; such a value becomes text.
const MAX_FIELDS: usize = 500;

/// Two values of a column that do not meet in a type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The column, and the fields inside it: `meta.difficulty`, `turns[].score`.
    column: String,
    /// The type seen first, and its source.
    first: (&'static str, String),
    /// The value that does not fit it, and its source.
    second: (&'static str, String),
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { column, first: (first, first_source), second: (second, second_source) } = self;
        write!(
            f,
            "column `{column}` is text: it holds {first} in source `{first_source}` and {second} in source `{second_source}`"
        )
    }
}

/// Names and types, in order of first appearance.
pub(super) type Fields = Vec<(String, Type)>;

/// What is known of a column, and which source said so first.
#[derive(Debug)]
pub(super) struct Type {
    shape: Shape,
    source: String,
}

impl Type {
    fn unknown() -> Self {
        Self { shape: Shape::Unknown, source: String::new() }
    }
}

#[derive(Debug)]
enum Shape {
    /// Nothing but nulls so far.
    Unknown,
    Bool,
    Int,
    /// Also for integers beside floats; those past 2⁵³ are rounded.
    Float,
    /// Strings, or text made of values that do not meet in a type.
    String,
    List(Box<Type>),
    Struct(Fields),
}

impl Shape {
    /// The shape of `value`, its inside not yet looked at.
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Unknown,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() => Self::Int,
            // Past 63 bits neither number type holds it exactly.
            Value::Number(number) if number.is_u64() => Self::String,
            Value::Number(_) => Self::Float,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::List(Box::new(Type::unknown())),
            Value::Object(_) => Self::Struct(Fields::new()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Unknown => "nulls",
            Self::Bool => "booleans",
            Self::Int => "integers",
            Self::Float => "floats",
            Self::String => "strings",
            Self::List(_) => "lists",
            Self::Struct(_) => "structs",
        }
    }

    fn arrow_type(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::List(item) => {
                DataType::List(Arc::new(Field::new_list_field(item.shape.arrow_type(), true)))
            }
            Self::Struct(fields) if !fields.is_empty() => {
                DataType::Struct(arrow_fields(fields).into())
            }
            // Parquet has no struct without fields, and a column of nulls needs some type.
            Self::Unknown | Self::String | Self::Struct(_) => DataType::Utf8,
        }
    }

    /// `value`, which was among those this shape was made from, as it is stored.
    fn fit(&self, value: &Value) -> Value {
        match (self, value) {
            (_, Value::Null) => Value::Null,
            (Self::List(item), Value::Array(values)) => {
                values.iter().map(|value| item.shape.fit(value)).collect()
            }
            (Self::Struct(fields), Value::Object(object)) if !fields.is_empty() => {
                Value::Object(fit_fields(fields, object))
            }
            (Self::Bool | Self::Int | Self::Float, _) | (_, Value::String(_)) => value.clone(),
            (_, other) => Value::String(other.to_string()),
        }
    }
}

pub(super) fn arrow_fields(fields: &Fields) -> Vec<Field> {
    fields.iter().map(|(name, known)| Field::new(name, known.shape.arrow_type(), true)).collect()
}

pub(super) fn fit_fields(fields: &Fields, object: &Map<String, Value>) -> Map<String, Value> {
    fields
        .iter()
        .filter_map(|(name, known)| {
            object.get(name).map(|value| (name.clone(), known.shape.fit(value)))
        })
        .collect()
}

pub(super) fn type_of_field<'f>(fields: &'f mut Fields, name: &str) -> &'f mut Type {
    let position = fields.iter().position(|(field, _)| field == name).unwrap_or_else(|| {
        fields.push((name.to_owned(), Type::unknown()));
        fields.len() - 1
    });
    &mut fields[position].1
}

/// Looks at the values of one row.
pub(super) struct Observer<'s, 'c> {
    pub(super) source: &'s str,
    pub(super) conflicts: &'c mut Vec<Conflict>,
}

impl Observer<'_, '_> {
    /// Widens `known` so that `value` fits it too; `path` names it.
    pub(super) fn widen(&mut self, known: &mut Type, value: &Value, path: &str) {
        match (&known.shape, Shape::of(value)) {
            (_, Shape::Unknown)
            | (Shape::Bool, Shape::Bool)
            | (Shape::Int | Shape::Float, Shape::Int)
            | (Shape::Float, Shape::Float)
            | (Shape::String, Shape::String)
            | (Shape::List(_), Shape::List(_))
            | (Shape::Struct(_), Shape::Struct(_)) => {}
            (Shape::Unknown, seen) => {
                *known = Type { shape: seen, source: self.source.to_owned() };
            }
            (Shape::Int, seen @ Shape::Float) => known.shape = seen,
            (_, seen) => return self.make_text(known, seen.name(), path),
        }
        self.widen_inside(known, value, path);
    }

    fn widen_inside(&mut self, known: &mut Type, value: &Value, path: &str) {
        match (&mut known.shape, value) {
            (Shape::List(item), Value::Array(values)) => {
                let path = format!("{path}[]");
                for value in values {
                    self.widen(item, value, &path);
                }
            }
            (Shape::Struct(fields), Value::Object(object)) => {
                for (name, value) in object {
                    self.widen(type_of_field(fields, name), value, &format!("{path}.{name}"));
                }
                if fields.len() > MAX_FIELDS {
                    self.make_text(known, "more than 500 fields", path);
                }
            }
            _ => {}
        }
    }

    /// Makes `known` text for what was `seen`. Says so once a column.
    fn make_text(&mut self, known: &mut Type, seen: &'static str, path: &str) {
        if !self.conflicts.iter().any(|conflict| conflict.column == path) {
            self.conflicts.push(Conflict {
                column: path.to_owned(),
                first: (known.shape.name(), known.source.clone()),
                second: (seen, self.source.to_owned()),
            });
        }
        known.shape = Shape::String;
    }
}
