//! Tables written and read back.

use std::path::Path;

use fs_err as fs;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pool::PoolError;

fn entry(seed: u32, subtask: Option<&str>) -> Entry {
    let n_tokens = 2 + seed as usize % 5;
    let token_ids: Vec<u32> = (0..n_tokens as u32).map(|i| seed * 7 + i).collect();
    let supervised: Vec<bool> =
        (0..n_tokens).map(|i| i > 0 && i % 2 == seed as usize % 2 || i + 1 == n_tokens).collect();
    let original = json!({ "z": seed, "a": [1, null], "text": "naïve\n🦀" });
    Entry {
        source: format!("source-{}", seed % 3),
        subtask: subtask.map(str::to_owned),
        file: "rows.jsonl".to_owned(),
        line: u64::from(seed) + 1,
        example: Example { id: ExampleId::of(&token_ids, &supervised), token_ids, supervised },
        truncated: seed.is_multiple_of(4),
        record: Record {
            messages: vec![
                Message { role: "user".to_owned(), content: format!("question {seed}") },
                Message { role: "assistant".to_owned(), content: String::new() },
            ],
            original: original.as_object().unwrap().clone(),
        },
    }
}

fn sorted(n: u32) -> Vec<Entry> {
    let mut entries: Vec<Entry> = (0..n).map(|seed| entry(seed, None)).collect();
    entries.sort_by_key(|entry| entry.example.id);
    entries
}

fn write(path: &Path, entries: &[Entry]) -> u64 {
    write_table(path, entries.iter().cloned().map(Ok)).unwrap()
}

/// The error and its causes, on lines of their own.
fn chain(err: &PoolError) -> String {
    let mut text = err.to_string();
    let mut cause = std::error::Error::source(err);
    while let Some(err) = cause {
        text = format!("{text}\n{err}");
        cause = err.source();
    }
    text
}

#[test]
fn a_table_read_back_is_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.parquet");
    // More than one row group.
    let entries = sorted(5000);
    assert_eq!(write(&path, &entries), 5000);
    let table = ExampleTable::open(&path).unwrap();
    let examples = table.examples(2000..4500).unwrap();
    let positions = [0, 2047, 2048, 2049, 4999];
    let records = table.records(&positions).unwrap();
    assert_eq!(table.rows().len(), entries.len());
    for (row, entry) in table.rows().iter().zip(&entries) {
        assert_eq!(row.id, entry.example.id);
        assert_eq!(row.source, entry.source);
        assert_eq!(row.n_tokens as usize, entry.example.token_ids.len());
        assert_eq!(row.n_supervised as usize, entry.example.n_supervised());
        assert_eq!(row.truncated, entry.truncated);
    }
    assert!(examples.iter().eq(entries[2000..4500].iter().map(|entry| &entry.example)));
    assert!(records.iter().eq(positions.iter().map(|position| &entries[*position].record)));
}

#[test]
fn equal_rows_give_equal_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    write(&a, &sorted(50));
    write(&b, &sorted(50));
    assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
}

#[test]
fn an_empty_table_is_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.parquet");
    write(&path, &[]);
    let table = ExampleTable::open(&path).unwrap();
    assert!(table.rows().is_empty());
    assert!(table.examples(0..0).unwrap().is_empty());
    assert!(table.records(&[]).unwrap().is_empty());
}

#[test]
fn original_columns_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.parquet");
    write(&path, &sorted(1));
    let record = ExampleTable::open(&path).unwrap().records(&[0]).unwrap().remove(0);
    assert_eq!(record.original.keys().collect::<Vec<_>>(), ["z", "a", "text"]);
}

#[test]
fn a_target_row_may_serve_two_subtasks_but_a_pool_row_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("target.parquet");
    write(&path, &[entry(1, Some("algebra")), entry(1, Some("geometry"))]);
    assert_eq!(ExampleTable::open(&path).unwrap().rows().len(), 2);
    write(&path, &[entry(1, None), entry(1, None)]);
    let err = ExampleTable::open(&path).unwrap_err();
    assert!(chain(&err).ends_with("row 1: the id of the row before it"), "{}", chain(&err));
}

#[test]
fn rows_out_of_order_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.parquet");
    let mut entries = sorted(3);
    entries.swap(0, 1);
    write(&path, &entries);
    let err = ExampleTable::open(&path).unwrap_err();
    assert!(chain(&err).ends_with("row 1: out of order"), "{}", chain(&err));
}

#[test]
fn another_parquet_file_is_an_error_that_names_it() {
    use arrow::array::{ArrayRef, Int32Array, RecordBatch};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("foreign.parquet");
    let column: ArrayRef = std::sync::Arc::new(Int32Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("id", column)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    fs::write(&path, bytes).unwrap();
    let err = ExampleTable::open(&path).unwrap_err();
    assert!(chain(&err).contains("foreign.parquet"));
    assert!(chain(&err).ends_with("expected `example table 1`, found `no format name`"));
}

#[test]
fn a_table_replaced_after_opening_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.parquet");
    write(&path, &sorted(40));
    let table = ExampleTable::open(&path).unwrap();
    write(&path, &sorted(41));
    assert!(table.examples(0..40).is_err());
}

#[test]
fn a_missing_table_is_an_error_that_names_it() {
    let err = ExampleTable::open(Path::new("runs/none/pool.parquet")).unwrap_err();
    assert!(matches!(err, PoolError::Io(_)));
    assert!(err.to_string().contains("runs/none/pool.parquet"), "{err}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_cut_table_is_an_error(keep: prop::sample::Index) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.parquet");
        write(&path, &sorted(30));
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..keep.index(bytes.len())]).unwrap();
        prop_assert!(ExampleTable::open(&path).is_err());
    }

    #[test]
    fn a_damaged_table_is_an_error_or_gives_the_right_tokens(at: prop::sample::Index, bit in 0..8u8) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.parquet");
        let entries = sorted(30);
        write(&path, &entries);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        let read = ExampleTable::open(&path)
            .and_then(|table| table.examples(0..table.rows().len()));
        if let Ok(examples) = read {
            prop_assert!(examples.iter().eq(entries.iter().map(|entry| &entry.example)));
        }
    }
}
