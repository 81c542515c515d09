//! `less-select compare`: what selections have in common.

use std::ops::Range;
use std::path::Path;

use less_select::influence::example_scores::{TargetExample, TargetExamples};
use less_select::influence::scores::{ScoreRow, ScoreTable};
use less_select::pool::ExampleId;
use less_select::run_dir::RunDir;
use less_select::selection::selector::TargetCosines;
use less_select::selection::{Open, SelectFrom, SelectionFile, Selector, select};
use serde_json::{Value, json};

use crate::diagnostics::selecting;
use crate::support::{Said, TestRun};

/// Scores of rows `ids`, of which every fourth is of another source.
fn scores(ids: Range<u8>, score: impl Fn(u8) -> f32) -> ScoreTable {
    let row = |id: u8| ScoreRow {
        id: ExampleId([id; 16]),
        source: if id.is_multiple_of(4) { "quiz" } else { "essay" }.to_owned(),
        n_tokens: 20 + u32::from(id),
        n_supervised: 10,
        loss: 1.0,
        norm: 1.0,
        flag: None,
        by_subtask: vec![score(id)],
    };
    ScoreTable { subtasks: vec!["target".to_owned()], rows: ids.map(row).collect() }
}

/// A hundred rows and a target of two examples: each of the first fifty is like the first
/// example, the others half as much like the second, the lower the id the more.
struct Planted {
    targets: TargetExamples,
}

impl Planted {
    fn new() -> Self {
        let example = |id| TargetExample { id: ExampleId([id; 16]), subtask: 0 };
        let examples = vec![example(0), example(1)];
        Self { targets: TargetExamples { subtasks: vec!["target".to_owned()], examples } }
    }

    fn cosines(id: u8) -> [f32; 2] {
        let less = f32::from(id) / 1000.0;
        if id < 50 { [0.9 - less, 0.0] } else { [0.0, 0.5 - less] }
    }

    /// The higher, the lower the id.
    fn scores() -> ScoreTable {
        scores(0..100, |id| Self::cosines(id).iter().sum::<f32>() / 2.0)
    }
}

impl TargetCosines for Planted {
    fn targets(&self) -> &TargetExamples {
        &self.targets
    }

    fn n_rows(&self) -> usize {
        100
    }

    fn total(&self, rows: Range<usize>) -> Vec<f32> {
        rows.flat_map(|row| Self::cosines(row as u8)).collect()
    }
}

/// A run in a folder of this name that selected of the planted rows, but for those that
/// are contaminated.
fn select_planted(
    run: &TestRun,
    name: &str,
    selector: Selector,
    budget: &str,
    contaminated: &[u8],
) {
    let dir = RunDir::new(run.path(name));
    let mut scores = Planted::scores();
    scores.write(&dir.scores()).unwrap();
    for id in contaminated {
        scores.rows[usize::from(*id)].flag = Some("contaminated".to_owned());
    }
    let examples = Planted::new();
    let from = SelectFrom {
        scores: &scores,
        target_sources: &scores.subtasks,
        examples: Some(&examples),
        rows: None,
    };
    let taken = select(from, &selecting(selector), budget.parse().unwrap(), &mut Open).unwrap();
    let mut file = SelectionFile::new(&scores, &taken, selector);
    let left_out = contaminated.iter().map(|id| (ExampleId([*id; 16]), "contaminated".to_owned()));
    file.left_out = left_out.collect();
    file.write(&dir.selection()).unwrap();
}

/// What two sides share at each budget, and how many rows of each lie past its selection.
fn at_budgets(run: &TestRun, sides: [&str; 2]) -> Vec<(u64, Value)> {
    let said = compare(run, &[sides[0], sides[1], "--json"]);
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    let overlaps = found["pairs"][0]["overlaps"].as_array().unwrap();
    let of = |at: &Value| (at["n_shared"].as_u64().unwrap(), at["n_past_selection"].clone());
    overlaps.iter().map(of).collect()
}

#[track_caller]
fn compare(run: &TestRun, more: &[&str]) -> Said {
    let said = run.say(&[&["compare"], more].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    said
}

/// A run by a method, in a folder of its name.
fn run_by(run: &TestRun, method: &str) {
    let said = run.run(&["--method", method]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    fs_err::rename(run.run_dir(), run.path(method)).unwrap();
}

#[test]
fn rankings_that_are_equal_opposite_and_of_other_rows_are_told_apart() {
    let run = TestRun::new(3);
    let write = |name: &str, table: ScoreTable| table.write(&run.path(name)).unwrap();
    write("rising.parquet", scores(0..100, f32::from));
    write("same.parquet", scores(0..100, |id| f32::from(id).powi(2)));
    write("falling.parquet", scores(0..100, |id| -f32::from(id)));
    write("others.parquet", scores(100..120, f32::from));
    let said =
        compare(&run, &["rising.parquet", "same.parquet", "falling.parquet", "others.parquet"]);
    insta::assert_snapshot!(said.stdout, @r"
    Name             ranked  selected  method
    rising.parquet      100         –       –
    same.parquet        100         –       –
    falling.parquet     100         –       –
    others.parquet       20         –       –

    Shared rows and Jaccard index at shares of the common rows
    Pair                              common             1%             2%             5%              10%  selected  rank correlation
    rising.parquet · same.parquet        100  1 of 1 (1.00)  2 of 2 (1.00)  5 of 5 (1.00)  10 of 10 (1.00)         –             +1.00
    rising.parquet · falling.parquet     100  0 of 1 (0.00)  0 of 2 (0.00)  0 of 5 (0.00)   0 of 10 (0.00)         –             −1.00
    rising.parquet · others.parquet        0              –              –              –                –         –                 –
    same.parquet · falling.parquet       100  0 of 1 (0.00)  0 of 2 (0.00)  0 of 5 (0.00)   0 of 10 (0.00)         –             −1.00
    same.parquet · others.parquet          0              –              –              –                –         –                 –
    falling.parquet · others.parquet       0              –              –              –                –         –                 –
    Not compared: rising.parquet · others.parquet, same.parquet · others.parquet, falling.parquet · others.parquet
      they have no row in common: they are of other pools, or were read with another tokenizer or chat template

    What is selected, or the best 5 % of scores alone
    Source            rising.parquet  same.parquet  falling.parquet  others.parquet
    essay                   4  80.0%      4  80.0%         3  60.0%        1 100.0%
    quiz                    1  20.0%      1  20.0%         2  40.0%        0   0.0%
    Tokens, mean               117.0         117.0             22.0           139.0
    Supervised, mean            10.0          10.0             10.0            10.0
    ");
}

#[test]
fn what_programs_read_has_the_same_numbers() {
    let run = TestRun::new(3);
    // The best ten of one are the second best ten of the other.
    scores(0..100, f32::from).write(&run.path("a.parquet")).unwrap();
    let turned = |id: u8| {
        f32::from(if id >= 90 {
            id - 10
        } else if id >= 80 {
            id + 10
        } else {
            id
        })
    };
    scores(0..100, turned).write(&run.path("b.parquet")).unwrap();
    let said = compare(&run, &["a.parquet", "b.parquet", "--json"]);
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    let pair = &found["pairs"][0];
    assert_eq!(pair["n_common"], 100);
    let shared: Vec<_> =
        pair["overlaps"].as_array().unwrap().iter().map(|at| &at["n_shared"]).collect();
    assert_eq!(shared, [0, 0, 0, 0]);
    // 1 − 6 · Σ d² / (n³ − n), twenty rows moving by ten.
    let expected = 1.0 - 6.0 * 20.0 * 100.0 / (1e6 - 100.0);
    approx::assert_relative_eq!(
        pair["rank_correlation"].as_f64().unwrap(),
        expected,
        epsilon = 1e-12
    );
    assert_eq!(found["sides"][0]["mean_tokens"], 117.0);
}

#[test]
fn runs_by_two_methods_are_set_beside_each_other() {
    let run = TestRun::new(24);
    run_by(&run, "length");
    run_by(&run, "random");
    let said = compare(&run, &["length", "random", "length"]);
    let times = [(r"\d+\.\d s", "[TIME]"), (r" +\[TIME\]", " [TIME]")];
    insta::with_settings!({ filters => times }, {
        insta::assert_snapshot!(said.stdout, @r"
        Name        ranked  selected                                    method
        length          24         6  longest answers (Zhao et al., ICML 2024)
        random          24         6                                    random
        length (2)      24         6  longest answers (Zhao et al., ICML 2024)

        Shared rows and Jaccard index at shares of the common rows
        Pair                 common             1%             2%             5%            10%       selected  rank correlation
        length · random          24  0 of 1 (0.00)  0 of 1 (0.00)  0 of 1 (0.00)  0 of 2 (0.00)  2 of 6 (0.20)             +0.30
        length · length (2)      24  1 of 1 (1.00)  1 of 1 (1.00)  1 of 1 (1.00)  2 of 2 (1.00)  6 of 6 (1.00)             +1.00
        random · length (2)      24  0 of 1 (0.00)  0 of 1 (0.00)  0 of 1 (0.00)  0 of 2 (0.00)  2 of 6 (0.20)             +0.30

        What is selected, or the best 5 % of scores alone
        Source              length    random  length (2)
        pool              6 100.0%  6 100.0%    6 100.0%
        Tokens, mean          48.7      42.0        48.7
        Supervised, mean      24.0      17.8        24.0

        Time by stage, as last computed
        Stage   length  random  length (2)
        ingest [TIME] [TIME] [TIME]
        score [TIME] [TIME] [TIME]
        select [TIME] [TIME] [TIME]
        report [TIME] [TIME] [TIME]
        all [TIME] [TIME] [TIME]
        ");
    });
}

#[test]
fn runs_that_differ_in_their_selector_alone_are_told_apart_at_every_budget() {
    let run = TestRun::new(3);
    select_planted(&run, "top", Selector::Top, "5%", &[]);
    // 0, 50, 1, 51, …
    select_planted(&run, "round-robin", Selector::RoundRobin, "10%", &[]);
    let said = compare(&run, &["top", "round-robin"]);
    insta::assert_snapshot!(said.stdout, @r"
    Name         ranked  selected  method
    top             100         5       –
    round-robin     100        10       –

    Shared rows and Jaccard index at shares of the common rows
    Pair               common             1%             2%             5%              10%              selected  rank correlation
    top · round-robin     100  1 of 1 (1.00)  1 of 2 (0.33)  3 of 5 (0.43)  5 of 10 (0.33)*  5 of 5 and 10 (0.50)             +1.00
    * past what a side has selected, its rows are by score

    What is selected, or the best 5 % of scores alone
    Source                 top  round-robin
    essay             3  60.0%     7  70.0%
    quiz              2  40.0%     3  30.0%
    Tokens, mean          22.0         47.0
    Supervised, mean      10.0         10.0
    ");
}

#[test]
fn budgets_past_a_selection_are_filled_up_by_score_and_marked() {
    let run = TestRun::new(3);
    select_planted(&run, "top", Selector::Top, "10%", &[]);
    select_planted(&run, "round-robin", Selector::RoundRobin, "5%", &[]);
    Planted::scores().write(&run.path("scores.parquet")).unwrap();
    // 0, 50, 1, 51, 2 and then 3 to 7: eight of the best ten.
    let within = |n_shared: u64| (n_shared, json!([0, 0]));
    let first = [within(1), within(1), within(3)];
    let filled_up = at_budgets(&run, ["top", "round-robin"]);
    assert_eq!(filled_up, [&first[..], &[(8, json!([0, 5]))]].concat());
    // Scores alone have no selection to be past.
    assert_eq!(at_budgets(&run, ["scores.parquet", "round-robin"]), filled_up);
    assert!(!compare(&run, &["top", "scores.parquet"]).stdout.contains('*'));
}

#[test]
fn rows_that_a_run_leaves_out_are_of_none_of_its_budgets() {
    let run = TestRun::new(3);
    select_planted(&run, "top", Selector::Top, "10%", &[]);
    // Selects 1 and 2; 4 would be the next but one.
    select_planted(&run, "clean", Selector::Top, "2%", &[0, 4]);
    let within = json!([0, 0]);
    // 0 | 0, 1 | 0 to 4 | 0 to 9 beside 1 | 1, 2 | 1, 2, 3, 5, 6 | 1, 2, 3, 5 to 11.
    let expected = [(0, within.clone()), (1, within), (3, json!([0, 3])), (8, json!([0, 8]))];
    assert_eq!(at_budgets(&run, ["top", "clean"]), expected);
}

#[test]
fn a_selection_of_other_scores_than_the_runs_is_none_of_it() {
    let run = TestRun::new(3);
    select_planted(&run, "top", Selector::Top, "10%", &[]);
    select_planted(&run, "scored-anew", Selector::RoundRobin, "10%", &[]);
    let anew = RunDir::new(run.path("scored-anew")).scores();
    scores(0..100, |id| -f32::from(id)).write(&anew).unwrap();
    let said = compare(&run, &["scored-anew", "top", "--json"]);
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found["sides"][0]["n_selected"], Value::Null);
    assert_eq!(found["sides"][1]["n_selected"], 10);
}

#[test]
fn a_page_has_a_plot_a_pair_and_nothing_of_a_name_is_markup() {
    let run = TestRun::new(3);
    scores(0..100, f32::from).write(&run.path("<b>.parquet")).unwrap();
    scores(0..100, |id| -f32::from(id)).write(&run.path("falling.parquet")).unwrap();
    let said = compare(&run, &["<b>.parquet", "falling.parquet", "--out", "page.html"]);
    assert!(said.stdout.ends_with("Plots are in page.html\n"), "{}", said.stdout);
    let page = fs_err::read_to_string(run.path("page.html")).unwrap();
    assert_eq!(page.matches("<polyline").count(), 1);
    // Ten of a hundred, none shared, ends at the bottom right.
    assert!(page.contains("220.0,110.0\""), "{page}");
    assert!(!page.contains("<b>") && page.contains("&lt;b&gt;"), "{page}");
    let words = ["http:", "https:", "src=", "@import", "url("];
    assert!(words.iter().all(|word| !page.contains(word)), "a request leaves the page");
}

#[test]
fn a_subset_alone_is_compared_with_as_many_of_the_best() {
    let run = TestRun::new(24);
    run_by(&run, "length");
    let subset = fs_err::read_to_string(run.path("length/latest")).unwrap();
    let subset = format!("length/{}", subset.trim());
    let said = compare(&run, &[&subset, "length/scores.parquet", "--json"]);
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    let pair = &found["pairs"][0];
    assert_eq!((&pair["own"]["n_shared"], &pair["own"]["jaccard"]), (&6.into(), &1.0.into()));
    assert_eq!(pair["overlaps"].as_array().unwrap().len(), 0);
    assert_eq!(found["sides"][0]["sources"][0]["pool_share"], Value::Null);
}

#[test]
fn what_cannot_be_compared_is_named_with_the_way_out() {
    let run = TestRun::new(24);
    let said = run.run(&["--method", "length", "--schema", "original"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let subset = fs_err::read_to_string(run.run_dir().join("latest")).unwrap();
    fs_err::rename(run.run_dir().join(subset.trim()), run.path("subset")).unwrap();
    let said = run.say(&["compare", "subset", "run"]);
    assert_eq!(said.code, 2);
    insta::assert_snapshot!(said.stderr, @r"
    error: `subset` cannot be compared
      caused by: its schema `original` has no ids; give the run that it was selected in
    ");
    let said = run.say(&["compare", "pool.jsonl", "run"]);
    assert_eq!(said.code, 2);
    insta::assert_snapshot!(said.stderr, @r"
    error: `pool.jsonl` cannot be compared
      caused by: it is not a run with scores, a subset folder or a scores.parquet
    ");
    assert_eq!(run.say(&["compare", "run"]).code, 2);
    // The run knows what it selected, whatever the schema.
    assert!(compare(&run, &["run", "run"]).stdout.contains("6 of 6 (1.00)"));
}

/// Leaves pages to look at, which `scripts/browser` opens.
#[test]
fn pages_to_look_at_are_written() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare");
    let write = |run: &TestRun, name: &str, sides: &[&str]| {
        let page = dir.join(name).join("compare.html");
        compare(run, &[sides, &["--out", page.to_str().unwrap()]].concat());
        fs_err::read_to_string(page).unwrap()
    };
    let run = TestRun::new(24);
    select_planted(&run, "top", Selector::Top, "5%", &[]);
    select_planted(&run, "round-robin", Selector::RoundRobin, "5%", &[]);
    let page = write(&run, "selectors", &["top", "round-robin"]);
    assert_eq!(page.matches("class=\"subset-fill\"").count(), 3);
    assert_eq!(page.matches("class=\"past\"").count(), 1);
    assert!(page.contains("* past what a side has selected, its rows are by score."), "{page}");

    // Sides with long names, of which one has rows of its own, and thirty sources.
    run_by(&run, "length");
    let mut sides = vec!["length".to_owned()];
    for turn in 0..4_u8 {
        let mut table = scores(0..100, |id| f32::from(u16::from(id) * u16::from(turn + 1) % 97));
        for (row, n) in table.rows.iter_mut().zip(0..) {
            let source = n % (27 + u16::from(turn));
            row.source = format!("instruction-mixture/a_rather_long_name_of_a_source_{source}");
        }
        sides.push(format!("a-rather-long-name-of-a-table-of-scores-{turn}.parquet"));
        table.write(&run.path(&sides[sides.len() - 1])).unwrap();
    }
    let page = write(&run, "crowded", &sides.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(page.matches("<polyline").count(), 6);
    assert!(!page.contains("class=\"past\""), "{page}");
}
