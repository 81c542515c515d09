//! The rows' own columns: types found in JSON values, and values made to fit.
//!
//! Every source may have columns of its own; the subset has all of them, in
//! order of first appearance, and absent values are null.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::record_batch::RecordBatch;
use serde_json::{Map, Value};

use super::json_types::{Conflict, Fields, Observer, arrow_fields, fit_fields, type_of_field};
use super::{ExportErrorKind, SubsetRow};

/// The columns of rows that keep what they came with.
#[derive(Debug)]
pub(super) struct OwnColumns {
    types: Fields,
    /// Where values did not meet in a type.
    pub(super) conflicts: Vec<Conflict>,
    /// Columns of each source, in order of first appearance.
    pub(super) by_source: BTreeMap<String, Vec<String>>,
}

impl OwnColumns {
    pub(super) fn infer(rows: &[SubsetRow<'_>]) -> Result<Self, ExportErrorKind> {
        let mut types = Fields::new();
        let mut conflicts = Vec::new();
        let mut by_source: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows {
            let columns = by_source.entry(row.source.to_owned()).or_default();
            let mut observer = Observer { source: row.source, conflicts: &mut conflicts };
            for (name, value) in &row.record.original {
                if !columns.contains(name) {
                    columns.push(name.clone());
                }
                observer.widen(type_of_field(&mut types, name), value, name);
            }
        }
        if types.is_empty() {
            return Err(ExportErrorKind::NoColumns);
        }
        Ok(Self { types, conflicts, by_source })
    }

    pub(super) fn arrow_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(arrow_fields(&self.types)))
    }

    pub(super) fn n_bytes(row: &SubsetRow<'_>) -> usize {
        row.record.original.values().map(n_bytes).sum()
    }

    pub(super) fn batch(&self, rows: &[SubsetRow<'_>]) -> Result<RecordBatch, ArrowError> {
        let schema = self.arrow_schema();
        let values: Vec<Map<String, Value>> =
            rows.iter().map(|row| fit_fields(&self.types, &row.record.original)).collect();
        let mut decoder = ReaderBuilder::new(schema.clone()).build_decoder()?;
        decoder.serialize(&values)?;
        Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
    }
}

/// Bytes of text in a value, about: keys and brackets count a little.
fn n_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(values) => 8 + values.iter().map(n_bytes).sum::<usize>(),
        Value::Object(object) => {
            object.iter().map(|(name, value)| name.len() + 8 + n_bytes(value)).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::columns::type_name;
    use super::super::row;
    use super::*;

    fn types(columns: &OwnColumns) -> Vec<String> {
        let schema = columns.arrow_schema();
        schema
            .fields()
            .iter()
            .map(|field| format!("{}: {}", field.name(), type_name(field.data_type())))
            .collect()
    }

    /// The batch of `rows`, read back as lines of JSON.
    fn lines(columns: &OwnColumns, rows: &[SubsetRow<'_>]) -> String {
        let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
        lines.write(&columns.batch(rows).unwrap()).unwrap();
        String::from_utf8(lines.into_inner()).unwrap()
    }

    #[track_caller]
    fn check(values: &[Value], expected: &str) -> OwnColumns {
        let rows: Vec<_> =
            values.iter().map(|value| row("a", &[], json!({ "x": value }))).collect();
        let columns = OwnColumns::infer(&rows).unwrap();
        assert_eq!(types(&columns), [format!("x: {expected}")]);
        assert_eq!(columns.batch(&rows).unwrap().num_rows(), rows.len());
        columns
    }

    #[test]
    fn types_widen_to_hold_every_value() {
        check(&[json!(1), json!(null), json!(2)], "int64");
        check(&[json!(1), json!(2.5), json!(3)], "float64");
        check(&[json!(true), json!(null)], "bool");
        check(&[json!(null)], "string");
        check(&[json!([]), json!([1]), json!([null, 0.5])], "list<float64>");
        check(&[json!({"a": 1}), json!({"b": ["c"]})], "struct<a: int64, b: list<string>>");
        check(&[json!({}), json!(null)], "string");
        check(&[json!([{}]), json!([[]])], "list<string>");
        check(&[json!(u64::MAX)], "string");
    }

    #[test]
    fn columns_are_the_union_in_order_of_appearance_and_absent_values_are_null() {
        let rows = [
            row("gsm8k", &[], json!({"question": "1+1", "level": 3})),
            row("p3", &[], json!({"task": "cot", "question": "why", "ok": {"by": ["me"]}})),
        ];
        let columns = OwnColumns::infer(&rows).unwrap();
        insta::assert_snapshot!(lines(&columns, &rows), @r#"
        {"question":"1+1","level":3}
        {"question":"why","task":"cot","ok":{"by":["me"]}}
        "#);
        assert_eq!(columns.conflicts, []);
        assert_eq!(columns.by_source["gsm8k"], ["question", "level"]);
    }

    #[test]
    fn values_that_disagree_become_text_and_the_sources_are_named() {
        let rows = [
            row("a", &[], json!({"level": 3, "meta": {"n": 1, "tags": ["x"]}})),
            row("b", &[], json!({"level": "hard", "meta": {"n": [2], "tags": "y"}})),
            row("c", &[], json!({"level": true, "meta": {"n": null, "tags": []}})),
        ];
        let columns = OwnColumns::infer(&rows).unwrap();
        insta::assert_snapshot!(lines(&columns, &rows), @r#"
        {"level":"3","meta":{"n":"1","tags":"[\"x\"]"}}
        {"level":"hard","meta":{"n":"[2]","tags":"y"}}
        {"level":"true","meta":{"tags":"[]"}}
        "#);
        let notes: Vec<String> = columns.conflicts.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(notes.join("\n"), @r"
        column `level` is text: it holds integers in source `a` and strings in source `b`
        column `meta.n` is text: it holds integers in source `a` and lists in source `b`
        column `meta.tags` is text: it holds lists in source `a` and strings in source `b`
        ");
    }

    #[test]
    fn a_dictionary_is_text_not_a_thousand_columns() {
        let keys = (0..501).map(|n| (format!("key-{n}"), json!(n))).collect();
        let columns = check(&[json!({"key-0": 1}), Value::Object(keys)], "string");
        insta::assert_snapshot!(columns.conflicts[0].to_string(), @"column `x` is text: it holds structs in source `a` and more than 500 fields in source `a`");
    }

    #[test]
    fn rows_without_columns_are_an_error() {
        let error = OwnColumns::infer(&[row("a", &[], json!({}))]).unwrap_err();
        insta::assert_snapshot!(error.to_string(), @"the selected rows have no columns of their own; use the `messages` schema");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|object| Value::Object(object.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn rows_of_any_json_fit_the_types_found_in_them(values in prop::collection::vec(any_json(), 1..8)) {
            let rows: Vec<_> = values.into_iter().map(|value| row("a", &[], json!({ "x": value }))).collect();
            let columns = OwnColumns::infer(&rows).unwrap();
            prop_assert_eq!(columns.batch(&rows).unwrap().num_rows(), rows.len());
        }
    }
}
