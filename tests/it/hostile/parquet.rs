//! Parquet files whose footers say what is not so, written by hand.

use std::path::Path;

use fs_err as fs;
use less_select::influence::scores::ScoreTable;

use super::Desk;

/// The bytes of a footer in Thrift's compact protocol, and of the file around it.
#[derive(Default)]
struct Footer(Vec<u8>);

impl Footer {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn list_of_structs(&mut self, header: u8, n: usize) {
        self.0.extend([header, 0xfc]);
        self.varint(n as u64);
    }

    /// A schema of `depth` groups, each in the one before, and a column in the
    /// innermost.
    fn schema(&mut self, depth: usize) {
        // The version: 1.
        self.0.extend([0x15, 0x02]);
        self.list_of_structs(0x19, depth + 2);
        // A root called `s`, then groups called `a`, optional, of one child.
        self.0.extend([0x48, 1, b's', 0x15, 0x02, 0x00]);
        for _ in 0..depth {
            self.0.extend([0x35, 0x02, 0x18, 1, b'a', 0x15, 0x02, 0x00]);
        }
        // An optional INT32 called `c`.
        self.0.extend([0x15, 0x02, 0x25, 0x02, 0x18, 1, b'c', 0x00]);
    }

    fn n_rows(&mut self, n: u64) {
        self.0.push(0x16);
        self.varint(n << 1);
    }

    fn file(mut self) -> Vec<u8> {
        // No row groups; the end of the footer.
        self.0.extend([0x19, 0x0c, 0x00]);
        let len = (self.0.len() as u32).to_le_bytes();
        [b"PAR1", &self.0[..], &len, b"PAR1"].concat()
    }
}

#[test]
fn a_schema_nested_without_end_is_refused() {
    let desk = Desk::new();
    let mut footer = Footer::default();
    footer.schema(100_000);
    footer.n_rows(0);
    desk.file("pool.parquet", footer.file());
    insta::assert_snapshot!(desk.problem("pool.parquet"), @"input `/pool.parquet`: not a readable parquet file: Parquet error: its columns are nested over 64 levels deep");
}

#[test]
fn rows_that_are_only_promised_are_none() {
    let desk = Desk::new();
    let mut footer = Footer::default();
    footer.schema(0);
    footer.n_rows(1 << 60);
    desk.file("pool.parquet", footer.file());
    insta::assert_snapshot!(desk.problem("pool.parquet"), @"the pool is empty: no row in `/pool.parquet`");
}

#[test]
fn a_list_that_is_longer_than_the_file_is_refused() {
    let desk = Desk::new();
    let mut footer = Footer::default();
    footer.0.extend([0x15, 0x02]);
    footer.list_of_structs(0x19, 1 << 30);
    desk.file("pool.parquet", footer.file());
    insta::assert_snapshot!(desk.problem("pool.parquet"), @"input `/pool.parquet`: not a readable parquet file: Parquet error: its footer is damaged");
}

#[test]
fn a_schema_is_nested_as_deeply_as_rows_may_be() {
    let desk = Desk::new();
    let mut footer = Footer::default();
    footer.schema(60);
    footer.n_rows(0);
    desk.file("pool.parquet", footer.file());
    assert!(desk.problem("pool.parquet").contains("no row in"));
}

/// What a fuzzer found: three kilobytes, a page of which says that it has nearly
/// a milliard values.
#[test]
fn a_dictionary_of_more_values_than_bytes_is_refused() {
    let desk = Desk::new();
    let file = desk.file("pool.parquet", seed("large-dictionary"));
    insta::assert_snapshot!(desk.problem("pool.parquet"), @"input `/pool.parquet`: not a readable parquet file: Parquet error: a dictionary of 939524061 values has 12 bytes");
    let scores = ScoreTable::read(&file).unwrap_err();
    assert!(scores.kind.to_string().contains("a dictionary of"), "{}", scores.kind);
}

/// What a fuzzer found: a list of two milliard truths that takes no bytes.
#[test]
fn a_list_of_nothing_is_refused() {
    let desk = Desk::new();
    desk.file("pool.parquet", seed("list-of-nothing"));
    insta::assert_snapshot!(desk.problem("pool.parquet"), @"input `/pool.parquet`: not a readable parquet file: Parquet error: its footer is damaged");
}

/// A table of scores, or what a fuzzer made of one.
fn seed(name: &str) -> Vec<u8> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/scores");
    fs::read(seeds.join(name).with_extension("parquet")).unwrap()
}
