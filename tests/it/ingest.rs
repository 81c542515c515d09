//! From files of rows to the canonical tables.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fs_err as fs;
use less_select::pool::table::{ExampleTable, TableRow};
use less_select::pool::{
    EncodingSettings, IngestSettings, IngestSummary, POOL_TABLE, PoolError, REJECTS, SourceSummary,
    TARGET_TABLE, ingest, survey,
};
use less_select::progress::{Event, Observer, Silent};
use proptest::prelude::*;
use serde_json::{Value, json};

fn tiny_llama() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama")
}

fn settings(pool: &[&str], target: &[&str]) -> IngestSettings {
    let sources = |paths: &[&str]| paths.iter().map(|path| path.parse().unwrap()).collect();
    IngestSettings {
        pool: sources(pool),
        target: sources(target),
        columns: BTreeMap::new(),
        encoding: EncodingSettings::of_model(256),
        max_rejects: 0.01,
    }
}

/// A folder with files of rows and what ingest makes of them.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Writes a file and returns its path.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    fn rows(&self, name: &str, rows: &[Value]) -> String {
        self.file(name, lines(rows))
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn ingest(&self, settings: &IngestSettings) -> Result<IngestSummary, PoolError> {
        ingest(settings, &tiny_llama(), &self.out(), &Silent)
    }

    fn pool(&self) -> ExampleTable {
        ExampleTable::open(&self.out().join(POOL_TABLE)).unwrap()
    }

    fn target(&self) -> ExampleTable {
        ExampleTable::open(&self.out().join(TARGET_TABLE)).unwrap()
    }

    fn rejects(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.out().join(REJECTS)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// An error's text without the desk's own path.
    fn problem(&self, settings: &IngestSettings) -> String {
        let err = self.ingest(settings).unwrap_err();
        assert!(!self.out().join(POOL_TABLE).exists() && !self.out().join(TARGET_TABLE).exists());
        let mut text = err.to_string();
        if let Some(source) = std::error::Error::source(&err) {
            text = format!("{text}: {source}");
        }
        text.replace(&self.dir.path().display().to_string(), "DESK")
    }
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| row.to_string() + "\n").collect()
}

fn answer(question: &str, answer: &str) -> Value {
    json!({ "prompt": question, "completion": answer })
}

fn sums(n: u64) -> Vec<Value> {
    (0..n).map(|i| answer(&format!("{i}+{i}?"), &(2 * i).to_string())).collect()
}

fn total(sources: &[SourceSummary]) -> SourceSummary {
    SourceSummary::total(sources)
}

#[test]
fn the_example_data_becomes_two_tables() {
    let desk = Desk::new();
    let mut settings = settings(&["example:pool"], &["example:gsm8k", "example:tydiqa"]);
    settings.encoding.max_tokens = 100_000;
    let summary = desk.ingest(&settings).unwrap();
    let (pool, target) = (desk.pool(), desk.target());
    assert_eq!(pool.rows().len() as u64, total(&summary.pool).n_kept);
    assert_eq!(target.rows().len(), 17);
    let names: Vec<_> = summary.pool.iter().map(|source| source.name.as_str()).collect();
    let expected = ["gpteacher_roleplay", "gpteacher_toolformer", "gsm8k", "t0_p3", "tydiqa"];
    assert_eq!(names, expected);
    assert_eq!(total(&summary.pool).n_read, 320);
    assert_eq!(total(&summary.target).subtasks.len(), 10);
    assert_eq!(summary.n_in_target, 0);
    assert_eq!(desk.rejects(), [Value::Null; 0]);
    let n_tokens: u64 = pool.rows().iter().map(|row| u64::from(row.n_tokens)).sum();
    assert_eq!(n_tokens, total(&summary.pool).n_tokens);
    assert_eq!(survey(&settings, &tiny_llama(), &Silent).unwrap(), summary);
}

#[test]
fn original_rows_keep_every_column() {
    let desk = Desk::new();
    let row = json!({ "zeta": [1, { "b": null }], "prompt": "Hi", "id": 7, "completion": "Ho" });
    let pool = desk.rows("pool.jsonl", std::slice::from_ref(&row));
    desk.ingest(&settings(&[&pool], &["example:gsm8k"])).unwrap();
    let record = desk.pool().records(&[0]).unwrap().remove(0);
    assert_eq!(serde_json::to_string(&record.original).unwrap(), row.to_string());
    let turns: Vec<_> =
        record.messages.iter().map(|turn| (turn.role.as_str(), turn.content.as_str())).collect();
    assert_eq!(turns, [("user", "Hi"), ("assistant", "Ho")]);
}

#[test]
fn a_pool_of_one_row_is_a_pool() {
    let desk = Desk::new();
    let pool = desk.rows("one.jsonl", &sums(1));
    let summary = desk.ingest(&settings(&[&pool], &["example:gsm8k"])).unwrap();
    assert_eq!(total(&summary.pool).n_kept, 1);
    assert_eq!(desk.pool().examples(0..1).unwrap().len(), 1);
}

#[test]
fn equal_rows_are_kept_once_from_the_first_source() {
    let desk = Desk::new();
    let (a, b) = (desk.rows("a.jsonl", &sums(5)), desk.rows("b.jsonl", &sums(7)));
    let summary = desk.ingest(&settings(&[&a, &b], &["example:gsm8k"])).unwrap();
    let counts: Vec<_> =
        summary.pool.iter().map(|s| (s.n_read, s.n_kept, s.n_duplicates)).collect();
    assert_eq!(counts, [(5, 5, 0), (7, 2, 5)]);
    let from_b = desk.pool().rows().iter().filter(|row| row.source == "b").count();
    assert_eq!(from_b, 2);
}

#[test]
fn a_target_row_counts_in_every_subtask_it_is_listed_under() {
    let desk = Desk::new();
    let row = |subtask: &str| json!({ "prompt": "2+2?", "completion": "4", "subtask": subtask });
    let target =
        desk.rows("sums.jsonl", &[row("easy"), row("short"), row("easy"), sums(1).remove(0)]);
    let pool = desk.rows("pool.jsonl", &sums(3));
    let summary = desk.ingest(&settings(&[&pool], &[&target])).unwrap();
    let subtasks: Vec<_> = summary.target[0].subtasks.iter().collect();
    assert_eq!(
        subtasks,
        [(&"easy".to_owned(), &1), (&"short".to_owned(), &1), (&"sums".to_owned(), &1)]
    );
    assert_eq!(summary.target[0].n_duplicates, 1);
    assert_eq!(desk.target().rows().len(), 3);
    // Both contents are in the pool as well, and stay there.
    assert_eq!(summary.n_in_target, 2);
    assert_eq!(desk.pool().rows().len(), 3);
}

#[test]
fn malformed_rows_are_listed_up_to_the_allowed_share() {
    let desk = Desk::new();
    let mut rows = sums(99);
    rows.insert(50, json!({ "question": "?" }));
    let pool = desk.rows("pool.jsonl", &rows);
    let mut settings = settings(&[&pool], &["example:gsm8k"]);
    let summary = desk.ingest(&settings).unwrap();
    assert_eq!((summary.pool[0].n_malformed, summary.pool[0].n_kept), (1, 99));
    let expected = json!({
        "side": "pool",
        "file": pool,
        "line": 51,
        "kind": "malformed",
        "reason": "no conversation in the columns `question`; expected `messages`, \
            `conversations`, `instruction` and `output`, or `prompt` and `completion` or `response`",
    });
    assert_eq!(desk.rejects(), [expected]);

    let desk = Desk::new();
    rows.insert(0, json!(3));
    settings.pool = vec![desk.file("pool.jsonl", lines(&rows) + "{\n").parse().unwrap()];
    insta::assert_snapshot!(desk.problem(&settings), @"
    3 of 102 pool rows are malformed (2.9 %, allowed are 1.0 %)
      DESK/pool.jsonl:1: a number, not an object with columns
      DESK/pool.jsonl:52: no conversation in the columns `question`; expected `messages`, `conversations`, `instruction` and `output`, or `prompt` and `completion` or `response`
      DESK/pool.jsonl:102: not valid json: EOF while parsing an object at column 1
    ");
    assert_eq!(desk.rejects().len(), 3);
}

#[test]
fn rows_that_are_too_long_are_nobodys_mistake() {
    let desk = Desk::new();
    let long = answer(&"2+".repeat(200), "a lot");
    let cut = answer("Count.", &"1 2 3 ".repeat(100));
    let pool = desk.rows("pool.jsonl", &[long, cut]);
    let summary = desk.ingest(&settings(&[&pool], &["example:gsm8k"])).unwrap();
    let SourceSummary { n_too_long, n_truncated, n_malformed, n_kept, n_tokens, .. } =
        summary.pool[0];
    assert_eq!((n_too_long, n_truncated, n_malformed, n_kept, n_tokens), (1, 1, 0, 1, 256));
    assert_eq!(desk.rejects()[0]["kind"], "too-long");
    assert!(desk.pool().rows()[0].truncated);
}

#[test]
fn an_empty_side_is_an_error_that_names_it() {
    let desk = Desk::new();
    let empty = desk.file("empty.jsonl", "\n");
    let some = desk.rows("some.jsonl", &sums(2));
    let mut long = settings(&[&some], &[&some]);
    long.encoding.max_tokens = 3;
    insta::assert_snapshot!(desk.problem(&settings(&[&empty], &[&some])), @"the pool is empty: no row in `DESK/empty.jsonl`");
    insta::assert_snapshot!(desk.problem(&settings(&[&some], &[&empty])), @"the target is empty: no row in `DESK/empty.jsonl`");
    insta::assert_snapshot!(desk.problem(&settings(&[&some], &[])), @"the target is empty: no input is set");
    insta::assert_snapshot!(desk.problem(&long), @r"
    the target is empty: of 2 rows in `DESK/some.jsonl` 0 are malformed and 2 too long
      DESK/some.jsonl:1: the assistant's tokens begin after the first 3 of 19
      DESK/some.jsonl:2: the assistant's tokens begin after the first 3 of 19
    ");
    insta::assert_snapshot!(desk.problem(&settings(&["none.jsonl"], &[&some])), @"input `none.jsonl`: no such file or folder, and no file matches it as a pattern");
}

#[test]
fn own_columns_are_read_by_a_mapping() {
    let desk = Desk::new();
    let rows: Vec<_> =
        (0..4).map(|i| json!({ "q": format!("{i}?"), "a": "!", "group": i % 2 })).collect();
    let path = desk.rows("rows.jsonl", &rows);
    let mut settings = settings(&[&path], &[&path]);
    let mapping = [("prompt", "q"), ("completion", "a"), ("subtask", "group")];
    settings.columns = mapping.map(|(part, column)| (part.into(), column.into())).into();
    let summary = desk.ingest(&settings).unwrap();
    assert_eq!(summary.target[0].subtasks, BTreeMap::from([("0".into(), 2), ("1".into(), 2)]));
    settings.columns = BTreeMap::from([("question".into(), "q".into())]);
    assert!(matches!(desk.ingest(&settings), Err(PoolError::Columns(_))));
}

/// Notes what it hears and asks to stop after the first progress.
#[derive(Default)]
struct Impatient {
    events: Mutex<Vec<Event>>,
}

impl Observer for Impatient {
    fn notify(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn is_interrupted(&self) -> bool {
        !self.events.lock().unwrap().is_empty()
    }
}

#[test]
fn an_interruption_leaves_nothing() {
    let desk = Desk::new();
    let observer = Impatient::default();
    let settings = settings(&["example:pool"], &["example:gsm8k"]);
    let stopped = ingest(&settings, &tiny_llama(), &desk.out(), &observer);
    assert!(matches!(stopped, Err(PoolError::Interrupted)));
    assert_eq!(fs::read_dir(desk.out()).unwrap().count(), 0);
    let events = observer.events.into_inner().unwrap();
    assert!(matches!(&events[..], [Event::Progress { what, .. }] if what == "target"));
}

/// What ingest warns of.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Observer for Warnings {
    fn notify(&self, event: Event) {
        if let Event::Warning { message } = event {
            self.0.lock().unwrap().push(message);
        }
    }
}

#[test]
fn a_source_that_gives_nothing_is_a_warning() {
    let desk = Desk::new();
    let (some, none) = (desk.rows("some.jsonl", &sums(2)), desk.file("none.jsonl", ""));
    let observer = Warnings::default();
    ingest(&settings(&[&some, &none], &[&some]), &tiny_llama(), &desk.out(), &observer).unwrap();
    assert_eq!(observer.0.into_inner().unwrap(), ["pool `none` gave no row of 0 read"]);
}

#[test]
fn text_that_the_tokenizer_takes_for_its_own_tokens_is_a_warning() {
    let desk = Desk::new();
    let row = |n: usize, end: &str| {
        let turns = format!("What is {n} + {n}?\", \"completion\": \"{}{end}", 2 * n);
        format!("{{\"prompt\": \"{turns}\"}}\n")
    };
    let marked: String = (0..3).map(|n| row(n, "<|endoftext|>")).collect();
    let pool = desk.file("pool.jsonl", &(marked + &row(3, "") + &row(0, "<|endoftext|>")));
    let target = desk.rows("target.jsonl", &sums(2));
    let observer = Warnings::default();
    ingest(&settings(&[&pool], &[&target]), &tiny_llama(), &desk.out(), &observer).unwrap();
    // A duplicate counts once.
    assert_eq!(
        observer.0.into_inner().unwrap(),
        ["3 of the 4 rows of pool `pool` say `<|endoftext|>`, which the tokenizer takes for the \
          token and not for text; unless that is meant, take it out of the data"]
    );
}

/// `rows` as files of every format and packing.
fn every_format(desk: &Desk, rows: &[Value]) -> Vec<String> {
    let text = lines(rows);
    let array = serde_json::to_string_pretty(rows).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let schema = arrow::json::reader::infer_json_schema_from_iterator(rows.iter().map(Ok)).unwrap();
    let mut decoder = arrow::json::ReaderBuilder::new(schema.into()).build_decoder().unwrap();
    decoder.serialize(rows).unwrap();
    let batch = decoder.flush().unwrap().unwrap();
    let mut table = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut table, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    vec![
        desk.file("1/rows.jsonl", &text),
        desk.file("2/rows.json", &array),
        desk.file("3/rows.jsonl.gz", gzip.finish().unwrap()),
        desk.file("4/rows.json.zst", zstd::encode_all(array.as_bytes(), 1).unwrap()),
        desk.file("5/rows.parquet", &table),
        desk.file("6/rows.parquet.zst", zstd::encode_all(&table[..], 1).unwrap()),
    ]
}

fn heads(desk: &Desk, pool: &[&str]) -> Vec<TableRow> {
    desk.ingest(&settings(pool, &["example:gsm8k"])).unwrap();
    let table = desk.pool();
    let examples = table.examples(0..table.rows().len()).unwrap();
    assert!(examples.iter().map(|example| example.id).eq(table.rows().iter().map(|row| row.id)));
    table.rows().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_format_gives_the_same_table(
        pairs in prop::collection::vec(("\\PC{0,30}", "[ -~é🦀\n]{0,30}"), 1..20),
    ) {
        let desk = Desk::new();
        let rows: Vec<_> = pairs.iter().map(|(user, said)| answer(user, said)).collect();
        let files = every_format(&desk, &rows);
        let first = heads(&desk, &[&files[0]]);
        for file in &files[1..] {
            prop_assert_eq!(&heads(&desk, &[file]), &first, "{}", file);
        }
    }

    #[test]
    fn ids_do_not_depend_on_files_or_their_order(n in 2..40_u64, cut in 1..39_u64) {
        let desk = Desk::new();
        let rows = sums(n);
        let (a, b) = rows.split_at(cut.min(n - 1) as usize);
        let whole = desk.rows("whole.jsonl", &rows);
        let (a, b) = (desk.rows("a.jsonl", a), desk.rows("b.jsonl", b));
        let ids = |pool: &[&str]| heads(&desk, pool).iter().map(|row| row.id).collect::<BTreeSet<_>>();
        let expected = ids(&[&whole]);
        prop_assert_eq!(expected.len() as u64, n);
        prop_assert_eq!(&ids(&[&a, &b]), &expected);
        prop_assert_eq!(&ids(&[&b, &a]), &expected);
    }
}
