//! What a source may have and what it is to have, in whole runs.

use std::collections::BTreeMap;

use less_select::influence::scores::ScoreTable;
use less_select::pool::ExampleId;
use less_select::selection::SelectionFile;
use serde_json::Value;

use crate::support::{TestRun, pool_row};

/// Sums in one source and stories in another, and a sum for a target.
fn sums_and_stories() -> TestRun {
    let run = TestRun::new(0);
    let rows = |kind: usize| -> String {
        (0..36).filter(|row| row % 3 == kind).map(|row| pool_row(row) + "\n").collect()
    };
    run.write("sums.jsonl", &rows(0));
    run.write("stories.jsonl", &rows(2));
    run.write("target.jsonl", &pool_row(39));
    run
}

/// The selected rows in order of rank, each with its source.
fn selected(run: &TestRun, more: &[&str]) -> Vec<(ExampleId, String)> {
    let said = run.run(&[&["--pool", "sums.jsonl;stories.jsonl"], more].concat());
    assert_eq!(said.code, 0, "{more:?}: {}", said.stderr);
    let scores = ScoreTable::read(&run.path("run/scores.parquet")).unwrap();
    let source = |id| scores.rows.iter().find(|row| row.id == id).unwrap().source.clone();
    let file = SelectionFile::read(&run.path("run/selection.json")).unwrap();
    file.selected.into_iter().map(|row| (row.id, source(row.id))).collect()
}

fn n_of(rows: &[(ExampleId, String)], source: &str) -> usize {
    rows.iter().filter(|(_, of)| of == source).count()
}

/// Rows of the subset by source, as the report has them.
fn reported(run: &TestRun) -> BTreeMap<String, u64> {
    let report = fs_err::read(run.path("run/report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let sources = report["sources"].as_array().unwrap().iter();
    let count = |of: &Value| {
        (of["source"].as_str().unwrap().to_owned(), of["n_selected"].as_u64().unwrap())
    };
    sources.map(count).collect()
}

/// The first rows of `order`, at most `[of, how many]` of each source: what is left of it
/// in the same order.
fn first_of_each(
    order: &[(ExampleId, String)],
    most: [(&str, usize); 2],
) -> Vec<(ExampleId, String)> {
    let mut left = BTreeMap::from(most);
    let mut kept = order.to_vec();
    kept.retain(|(_, source)| {
        let left = left.get_mut(source.as_str()).unwrap();
        let is_kept = *left > 0;
        *left = left.saturating_sub(1);
        is_kept
    });
    kept
}

/// Of eight rows a quarter is two. A source at its cap gives way to the next best, and the
/// last places are kept for one that is short of its floor: both ways the subset is the
/// best rows of each source, as many as it has a right to, in order of score.
#[track_caller]
fn assert_caps_and_floors_hold(method: &str) {
    let run = sums_and_stories();
    let by_score = ["--method", method, "--selector", "top"];
    let order = selected(&run, &[&by_score[..], &["--budget", "100%"]].concat());
    assert_eq!(order.len(), 24);
    let plain = selected(&run, &[&by_score[..], &["--budget", "8"]].concat());
    assert_eq!(plain, order[..8]);
    let [rich, poor] = match n_of(&plain, "sums") {
        4.. => ["sums", "stories"],
        _ => ["stories", "sums"],
    };
    for (limit, [n_rich, n_poor]) in [
        (["--source-cap", &format!("{rich}=25%")], [2, 6]),
        (["--source-floor", &format!("{poor}=75%")], [2, 6]),
        (["--source-floor", &format!("{poor}=62.5%")], [3, 5]),
    ] {
        let found = selected(&run, &[&by_score[..], &["--budget", "8"], &limit].concat());
        let expected = first_of_each(&order, [(rich, n_rich), (poor, n_poor)]);
        assert_eq!(found, expected, "{limit:?}");
        let counts = [(rich, n_rich), (poor, n_poor)].map(|(of, n)| (of.to_owned(), n as u64));
        assert_eq!(reported(&run), BTreeMap::from(counts), "{limit:?}");
    }
    assert!(run.say(&["fsck"]).stdout.ends_with("nothing is damaged\n"));
}

#[test]
fn a_source_has_its_cap_and_its_floor_without_a_model() {
    assert_caps_and_floors_hold("bm25");
}

#[cfg(feature = "torch")]
#[test]
fn a_source_has_its_cap_and_its_floor_by_gradients() {
    assert_caps_and_floors_hold("less");
}

#[test]
fn caps_and_floors_hold_where_target_examples_take_turns() {
    let run = sums_and_stories();
    let args = ["--method", "bm25", "--selector", "round-robin", "--budget", "8"];
    assert_eq!(n_of(&selected(&run, &args), "sums"), 8);
    let limits = ["--source-cap", "sums=50%", "--source-floor", "stories=25%"];
    let found = selected(&run, &[&args[..], &limits].concat());
    assert_eq!([n_of(&found, "sums"), n_of(&found, "stories")], [4, 4]);
    let floor = ["--source-floor", "stories=37.5%"];
    let found = selected(&run, &[&args[..], &floor].concat());
    assert_eq!([n_of(&found, "sums"), n_of(&found, "stories")], [5, 3]);
}
