//! Rows, as JSON and in archives.

use std::io::Write;

use super::{Desk, row};

const MIB: usize = 1 << 20;

#[test]
fn a_line_too_long_for_a_row_is_left_out_and_the_next_one_is_read() {
    let desk = Desk::new();
    let long = row("long", &"x".repeat(17 * MIB));
    desk.file("pool.jsonl", [long, row("1 + 1?", "2")].concat());
    let summary = desk.ingest("pool.jsonl").unwrap();
    assert_eq!((summary.pool[0].n_kept, summary.pool[0].n_malformed), (1, 1));
    assert_eq!(desk.reasons(), ["it is longer than 16777216 bytes"]);
}

#[test]
fn a_file_that_is_one_endless_line_is_read_to_its_end_and_not_kept() {
    let desk = Desk::new();
    desk.file("pool.jsonl", ["{\"prompt\": \"", &"x".repeat(40 * MIB)].concat());
    insta::assert_snapshot!(desk.problem("pool.jsonl"), @r"
    the pool is empty: of 1 rows in `/pool.jsonl` 1 are malformed and 0 too long
      /pool.jsonl:1: it is longer than 16777216 bytes
    ");
}

#[test]
fn an_element_too_large_for_a_row_ends_the_array() {
    let desk = Desk::new();
    let array = ["[", &row("1 + 1?", "2"), ",{\"prompt\": \"", &"x".repeat(17 * MIB), "\"}]"];
    desk.file("pool.json", array.concat());
    insta::assert_snapshot!(desk.problem("pool.json"), @"input `/pool.json`: not a json array of rows: a row of over 16777216 bytes at line 2 column 16777215");
}

#[test]
fn an_array_of_many_rows_may_be_larger_than_a_row() {
    let desk = Desk::new();
    let element = row("a", &"x".repeat(6 * MIB));
    desk.file("pool.json", format!("[{element},{element},{element}]"));
    let summary = desk.ingest("pool.json").unwrap();
    assert_eq!(summary.pool[0].n_read, 3);
}

/// A row, and then 2 GiB of blank lines in a megabyte or so.
fn bomb(pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut blank = vec![b' '; 8 * MIB];
    blank[8 * MIB - 1] = b'\n';
    [pack(row("1 + 1?", "2").as_bytes()), pack(&blank).repeat(256)].concat()
}

#[test]
fn an_archive_that_unpacks_to_hundreds_of_times_its_size_is_refused() {
    let desk = Desk::new();
    desk.file("pool.jsonl.zst", bomb(|bytes| zstd::encode_all(bytes, 1).unwrap()));
    insta::assert_snapshot!(desk.problem("pool.jsonl.zst"), @"input `/pool.jsonl.zst`: cannot be read: unpacks to over 500 times its size");
    let gzip = |bytes: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    };
    desk.file("pool.jsonl.gz", bomb(gzip));
    insta::assert_snapshot!(desk.problem("pool.jsonl.gz"), @"input `/pool.jsonl.gz`: cannot be read: unpacks to over 500 times its size");
    // Parquet is unpacked to a file first, which would fill the disk.
    desk.file("pool.parquet.zst", bomb(|bytes| zstd::encode_all(bytes, 1).unwrap()));
    insta::assert_snapshot!(desk.problem("pool.parquet.zst"), @"input `/pool.parquet.zst`: cannot be read: unpacks to over 500 times its size");
}

#[test]
fn json_nested_without_end_is_a_row_left_out() {
    let desk = Desk::new();
    let deep = |open: &str| open.repeat(200_000) + "\n";
    let rows = [deep("[").replacen('[', "{\"a\":", 1), deep("{\"a\":"), row("1 + 1?", "2")];
    desk.file("pool.jsonl", rows.concat());
    assert_eq!(desk.ingest("pool.jsonl").unwrap().pool[0].n_kept, 1);
    insta::assert_snapshot!(desk.reasons().join("\n"), @r"
    not valid json: recursion limit exceeded at column 132
    not valid json: recursion limit exceeded at column 636
    ");
}

#[test]
fn a_conversation_of_too_many_turns_is_left_out() {
    let desk = Desk::new();
    let turns = vec![serde_json::json!({ "role": "assistant", "content": "" }); 100_000];
    let many = serde_json::json!({ "messages": turns }).to_string() + "\n";
    desk.file("pool.jsonl", [many, row("1 + 1?", "2")].concat());
    assert_eq!(desk.ingest("pool.jsonl").unwrap().pool[0].n_kept, 1);
    assert_eq!(
        desk.reasons(),
        ["the conversation has 100000 turns; 1024 are the most that is read"]
    );
}

#[test]
fn rows_left_out_are_counted_without_end_and_listed_up_to_a_number() {
    let desk = Desk::new();
    let rows = "1\n".repeat(100_003) + &row("1 + 1?", "2");
    desk.file("pool.jsonl", rows);
    let summary = desk.ingest("pool.jsonl").unwrap();
    assert_eq!(summary.pool[0].n_malformed, 100_003);
    assert_eq!(desk.reasons().len(), 100_000);
}

#[test]
fn a_reason_does_not_repeat_a_megabyte_of_column_names() {
    let desk = Desk::new();
    let columns: serde_json::Map<_, _> =
        (0..100_000).map(|column| (format!("é{column}"), 1.into())).collect();
    let wide = serde_json::to_string(&columns).unwrap() + "\n";
    desk.file("pool.jsonl", [wide, row("1 + 1?", "2")].concat());
    desk.ingest("pool.jsonl").unwrap();
    assert!(desk.reasons()[0].len() <= 1003, "{}", desk.reasons()[0].len());
    assert!(desk.reasons()[0].starts_with("no conversation in the columns `é0`, `é1`"));
}
