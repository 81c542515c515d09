//! Pools and targets.

use super::Desk;
use crate::support::pool_row;

const MASKED: &str = r#"{"messages": [{"role": "user", "content": "Hello?"}]}"#;

impl Desk {
    /// Writes the rows of `Desk::new`, and others behind them.
    fn write_pool(&self, others: &[&str]) {
        let rows = (0..12).map(pool_row).chain(others.iter().map(|&row| row.to_owned()));
        self.run.write("pool.jsonl", &rows.map(|row| row + "\n").collect::<String>());
    }

    fn rejects(&self) -> Vec<String> {
        let text = fs_err::read_to_string(self.path("run/pool/rejects.jsonl")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn has_no_table(&self) {
        let table = |name: &str| self.path("run/pool").join(name).exists();
        assert!(!table("pool.parquet") && !table("target.parquet"), "a table of bad rows is left");
    }
}

/// A question of some hundred tokens.
fn long_row() -> String {
    let question = "on and ".repeat(100);
    pool_row(1).replace("Spell number 1.", &question)
}

#[test]
fn an_empty_pool_is_named() {
    let desk = Desk::new();
    desk.run.write("pool.jsonl", "\n\n");
    insta::assert_snapshot!(desk.refuses(&[], 65), @r"
    error: the pool and the target could not be read
      caused by: the pool is empty: no row in `pool.jsonl`
    ");
    desk.has_no_table();
    desk.write_pool(&[]);
    desk.completes();
}

#[test]
fn an_empty_target_is_named() {
    let desk = Desk::new();
    let target = fs_err::read_to_string(desk.path("target.jsonl")).unwrap();
    desk.run.write("target.jsonl", "");
    insta::assert_snapshot!(desk.refuses(&[], 65), @r"
    error: the pool and the target could not be read
      caused by: the target is empty: no row in `target.jsonl`
    ");
    desk.has_no_table();
    desk.run.write("target.jsonl", &target);
    desk.completes();
}

#[test]
fn a_pool_of_malformed_rows_shows_the_first_and_lists_them_all() {
    let desk = Desk::new();
    let rows = r#"{"text": "Once upon a time"}
{"messages": "What is 1 + 1?"}
{"messages": [{"role": "user", "content": "What is
["What is 1 + 1?", "2"]
{"messages": []}
{"prompt": "What is 1 + 1?"}
"#;
    desk.run.write("pool.jsonl", rows);
    insta::assert_snapshot!(desk.refuses(&[], 65), @r#"
    error: the pool and the target could not be read
      caused by: 6 of 6 pool rows are malformed (100.0 %, allowed are 1.0 %)
      pool.jsonl:1: column `text` is no conversation; plain text is read with `chat-template = "none"`
      pool.jsonl:2: column `messages` is text, not a list of turns
      pool.jsonl:3: not valid json: EOF while parsing a string at column 50
      pool.jsonl:4: a list, not an object with columns
      pool.jsonl:5: the conversation has no turn
    hint: repair them, or do without them by --max-rejects; `less-select ingest` lists them all in pool/rejects.jsonl of the run
    "#);
    insta::assert_snapshot!(desk.rejects()[5], @r#"{"side":"pool","file":"pool.jsonl","line":6,"kind":"malformed","reason":"no conversation in the columns `prompt`; expected `messages`, `conversations`, `instruction` and `output`, or `prompt` and `completion` or `response`"}"#);
    assert_eq!(desk.rejects().len(), 6);
    desk.has_no_table();
    desk.write_pool(&[]);
    desk.completes();
}

#[test]
fn too_many_malformed_rows_stop_the_run_and_a_few_do_not() {
    let desk = Desk::new();
    desk.write_pool(&[MASKED]);
    insta::assert_snapshot!(desk.refuses(&[], 65), @r"
    error: the pool and the target could not be read
      caused by: 1 of 13 pool rows are malformed (7.7 %, allowed are 1.0 %)
      pool.jsonl:13: no assistant turn in the conversation
    hint: repair them, or do without them by --max-rejects; `less-select ingest` lists them all in pool/rejects.jsonl of the run
    ");
    desk.has_no_table();
    let said = desk.run(&["--max-rejects", "10%"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("12 of 13 pool rows"), "{}", said.stderr);
    assert_eq!(desk.rejects().len(), 1);
}

#[test]
fn a_pool_of_rows_without_an_answer_is_empty_however_many_may_be_malformed() {
    let desk = Desk::new();
    desk.run.write("pool.jsonl", MASKED);
    insta::assert_snapshot!(desk.refuses(&["--max-rejects", "100%"], 65), @r"
    error: the pool and the target could not be read
      caused by: the pool is empty: of 1 rows in `pool.jsonl` 1 are malformed and 0 too long
      pool.jsonl:1: no assistant turn in the conversation
    ");
    desk.has_no_table();
}

#[test]
fn one_row_is_a_pool() {
    let desk = Desk::with_rows(1);
    let said = desk.run(&[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("1 rows, 31 tokens in subset-"), "{}", said.stderr);
}

#[test]
fn a_row_whose_answer_lies_behind_max_tokens_is_left_out_and_listed() {
    let desk = Desk::new();
    desk.write_pool(&[&long_row()]);
    let said = desk.run(&["--max-tokens", "128"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    insta::assert_snapshot!(desk.rejects().join("\n"), @r#"{"side":"pool","file":"pool.jsonl","line":13,"kind":"too-long","reason":"the assistant's tokens begin after the first 128 of 227"}"#);
    desk.run.write("pool.jsonl", &long_row());
    insta::assert_snapshot!(desk.refuses(&["--max-tokens", "128"], 65), @r"
    error: the pool and the target could not be read
      caused by: the pool is empty: of 1 rows in `pool.jsonl` 0 are malformed and 1 too long
      pool.jsonl:1: the assistant's tokens begin after the first 128 of 227
    hint: raise --max-tokens
    ");
}

#[test]
fn a_damaged_archive_is_bad_data() {
    let desk = Desk::new();
    desk.run.write("pool.jsonl.gz", "these bytes are no archive");
    insta::assert_snapshot!(desk.refuses(&["--pool", "pool.jsonl.gz"], 65), @r"
    error: the pool and the target could not be read
      caused by: input `pool.jsonl.gz`
      caused by: cannot be read
      caused by: invalid gzip header
    ");
    desk.completes();
}
