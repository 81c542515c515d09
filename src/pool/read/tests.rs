//! Files of every format and packing.

use std::io::Write;
use std::path::Path;

use fs_err as fs;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pool::source::files;

/// What [`for_each_row`] pushes: `line row` or `line: reason` each.
fn read(path: &Path) -> Result<Vec<String>, String> {
    let source = path.display().to_string().parse().unwrap();
    let n_consumed = Cell::new(0);
    let mut rows = Vec::new();
    for file in files(&source).unwrap() {
        for_each_row(&file, &n_consumed, &mut |line, row| {
            rows.push(match row {
                Ok(row) => format!("{line} {}", serde_json::to_string(&row).unwrap()),
                Err(reason) => format!("{line}: {reason}"),
            });
            Ok(())
        })
        .map_err(|err| format!("{err}: {}", std::error::Error::source(&err).unwrap()))?;
    }
    assert_eq!(n_consumed.get(), fs::metadata(path).unwrap().len());
    Ok(rows)
}

fn read_bytes(name: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), bytes).unwrap();
    read(&dir.path().join(name)).map_err(|err| err.replace(&dir.path().display().to_string(), ""))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Two rows with a column of every kind that JSON has.
fn parquet_rows() -> (Vec<u8>, Vec<String>) {
    let rows = [
        json!({ "z": 7, "a": "é", "list": [{ "role": "user", "n": 0.5 }], "flag": true, "none": null }),
        json!({ "z": -1, "a": null, "list": [], "flag": false, "none": null }),
    ];
    let schema = arrow::json::reader::infer_json_schema_from_iterator(rows.iter().map(Ok)).unwrap();
    let mut decoder = arrow::json::ReaderBuilder::new(schema.into()).build_decoder().unwrap();
    decoder.serialize(&rows).unwrap();
    let batch = decoder.flush().unwrap().unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    (bytes, rows.iter().enumerate().map(|(i, row)| format!("{} {row}", i + 1)).collect())
}

const TWO_ROWS: [&str; 2] = [r#"1 {"b":1,"a":"é"}"#, r#"2 {"b":2}"#];

#[test]
fn every_format_and_packing_gives_the_same_rows() {
    let lines = "{\"b\": 1, \"a\": \"é\"}\n{\"b\": 2}\n".as_bytes();
    let array = "[{\"b\": 1, \"a\": \"é\"},\n {\"b\": 2}]".as_bytes();
    for (name, bytes) in [
        ("rows.jsonl", lines.to_vec()),
        ("rows.json", lines.to_vec()),
        ("rows.ndjson", lines.to_vec()),
        ("rows.json", array.to_vec()),
        ("rows.jsonl", array.to_vec()),
        ("rows.jsonl.gz", gzip(lines)),
        ("rows.json.gz", gzip(array)),
        ("rows.jsonl.gz", [gzip(&lines[..20]), gzip(&lines[20..])].concat()),
        ("rows.jsonl.zst", zstd::encode_all(lines, 3).unwrap()),
        ("rows.json.zst", zstd::encode_all(array, 3).unwrap()),
    ] {
        assert_eq!(read_bytes(name, &bytes).unwrap(), TWO_ROWS, "{name}");
    }
}

#[test]
fn byte_order_marks_blank_lines_and_crlf_are_fine() {
    let text = "\u{feff}\r\n{\"b\": 1, \"a\": \"é\"}\r\n\r\n  \r\n{\"b\": 2}";
    let rows = read_bytes("rows.jsonl", text.as_bytes()).unwrap();
    assert_eq!(rows, [r#"2 {"b":1,"a":"é"}"#, r#"5 {"b":2}"#]);
    assert_eq!(read_bytes("rows.json", b"\xef\xbb\xbf [ ]\n").unwrap(), [""; 0]);
    assert_eq!(read_bytes("rows.jsonl", b"").unwrap(), [""; 0]);
    assert_eq!(read_bytes("rows.jsonl", b"\n \n").unwrap(), [""; 0]);
}

#[test]
fn parquet_rows_keep_columns_order_and_types() {
    let (bytes, rows) = parquet_rows();
    assert_eq!(read_bytes("rows.parquet", &bytes).unwrap(), rows);
    assert_eq!(read_bytes("rows.parquet.gz", &gzip(&bytes)).unwrap(), rows);
    let packed = zstd::encode_all(&bytes[..], 3).unwrap();
    assert_eq!(read_bytes("rows.parquet.zst", &packed).unwrap(), rows);
}

#[test]
fn a_broken_row_does_not_hide_the_others() {
    let text = b"{\"a\": 1}\n{\"a\": \n[1]\n3\n{\"a\": \"\xff\"}\n{\"a\": 2}\n";
    assert_eq!(
        read_bytes("rows.jsonl", text).unwrap(),
        [
            r#"1 {"a":1}"#,
            "2: not valid json: EOF while parsing a value at column 5",
            "3: a list, not an object with columns",
            "4: a number, not an object with columns",
            "5: not valid json: invalid unicode code point at column 8",
            r#"6 {"a":2}"#,
        ]
    );
    assert_eq!(
        read_bytes("rows.json", b"[{\"a\": 1}, \"text\", null]").unwrap(),
        [
            r#"1 {"a":1}"#,
            "2: text, not an object with columns",
            "3: null, not an object with columns"
        ]
    );
}

#[test]
fn a_file_that_breaks_off_is_an_error() {
    let lines = "{\"b\": 1}\n".repeat(1000);
    let check = |name: &str, bytes: &[u8], expected: &str| {
        assert_eq!(read_bytes(name, bytes).unwrap_err(), format!("input `/{name}`: {expected}"));
    };
    check("rows.json", b"[{\"a\": 1}, {\"a\"", "not a json array of rows");
    check("rows.json", b"[{\"a\": 1}] {}", "not a json array of rows");
    check("rows.jsonl.gz", &gzip(lines.as_bytes())[..30], "cannot be read");
    check("rows.jsonl.gz", lines.as_bytes(), "cannot be read");
    let packed = zstd::encode_all(lines.as_bytes(), 3).unwrap();
    check("rows.jsonl.zst", &packed[..packed.len() - 5], "cannot be read");
    let (bytes, _) = parquet_rows();
    check("rows.parquet", &bytes[..bytes.len() - 1], "not a readable parquet file");
    check("rows.parquet", b"", "not a readable parquet file");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_parquet_file_ends_in_an_error_or_in_rows(
        at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let (mut bytes, _) = parquet_rows();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        match read_bytes("rows.parquet", &bytes) {
            Ok(rows) => prop_assert!(rows.iter().all(|row| row.contains('{')), "{rows:?}"),
            Err(err) => prop_assert!(err.ends_with("not a readable parquet file"), "{err}"),
        }
    }
}

#[test]
fn the_visitor_may_stop_the_reading() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("a.jsonl", b"{}\n{}\n".to_vec()),
        ("b.json", b"[{}, {}]".to_vec()),
        ("c.parquet", parquet_rows().0),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let source = path.display().to_string().parse().unwrap();
        let file = &files(&source).unwrap()[0];
        let mut n_rows = 0;
        let stopped = for_each_row(file, &Cell::new(0), &mut |_, _| {
            n_rows += 1;
            Err(PoolError::Interrupted)
        });
        assert!(matches!(stopped, Err(PoolError::Interrupted)), "{name}");
        assert_eq!(n_rows, 1, "{name}");
    }
}
