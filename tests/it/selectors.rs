//! Selectors and limits on a whole run: what costs what, and what comes out.

use less_select::pool::ExampleId;
use less_select::selection::SelectionFile;

use crate::support::{Said, TestRun, message_row, pool_row};

#[track_caller]
fn succeeds(said: Said) -> Said {
    assert_eq!(said.code, 0, "{}", said.stderr);
    said
}

fn selection(run: &TestRun) -> SelectionFile {
    SelectionFile::read(&run.path("run/selection.json")).unwrap()
}

fn selected(run: &TestRun) -> Vec<ExampleId> {
    selection(run).selected.into_iter().map(|row| row.id).collect()
}

fn json(run: &TestRun, name: &str) -> serde_json::Value {
    let text = fs_err::read_to_string(run.path("run").join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What stands beside the newest subset.
fn subset_facts(run: &TestRun) -> serde_json::Value {
    let latest = fs_err::read_to_string(run.path("run/latest")).unwrap();
    json(run, &format!("{}/less-select.json", latest.trim()))
}

#[test]
fn another_selector_costs_a_selection_and_a_smaller_budget_is_its_beginning() {
    let run = TestRun::new(24);
    succeeds(run.run(&["--budget", "50%", "--selector", "top"]));
    let top = selected(&run);
    for selector in ["round-robin", "knn", "knn-kde", "mmr"] {
        let args = ["--selector", selector, "--neighbors", "4", "--redundancy-penalty", "1"];
        let said = succeeds(run.run(&[&args[..], &["--budget", "50%"]].concat()));
        assert_eq!(said.stderr.matches("unchanged").count(), 5, "{}", said.stderr);
        let larger = selected(&run);
        assert_eq!(larger.len(), 12);
        assert_ne!(larger, top, "{selector}");
        succeeds(run.run(&[&args[..], &["--budget", "5"]].concat()));
        assert_eq!(selected(&run), larger[..5], "{selector}");
    }
    assert!(succeeds(run.say(&["fsck"])).stdout.ends_with("nothing is damaged\n"));
}

#[test]
fn a_selector_and_a_method_that_do_not_go_together_are_told() {
    let run = TestRun::new(12);
    let message = |method, selector| {
        let said = run.run(&["--method", method, "--selector", selector]);
        assert_eq!(said.code, 2, "{}", said.stderr);
        said.stderr.lines().last().unwrap_or_default().to_owned()
    };
    insta::assert_snapshot!(message("bm25", "mmr"), @"  caused by: invalid `selector` (flag): `mmr` compares gradients of the pool's rows, and method `bm25` takes none; `top` goes with every method");
    insta::assert_snapshot!(message("length", "knn"), @"  caused by: invalid `selector` (flag): `knn` serves target examples, and method `length` does not look at them; `top` goes with every method");
    succeeds(run.run(&["--method", "bm25", "--selector", "round-robin", "--budget", "4"]));
    assert_eq!(selected(&run).len(), 4);
}

#[test]
fn a_sweep_writes_what_each_budget_alone_would_and_leaves_the_newest() {
    let run = TestRun::new(24);
    succeeds(run.run(&["--budget", "3"]));
    let latest = fs_err::read_to_string(run.path("run/latest")).unwrap();
    let said = succeeds(run.say(&["sweep", "--budgets", "10%,25%,50%", "--json"]));
    let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let subsets = said["subsets"].as_array().unwrap();
    let rows: Vec<_> = subsets.iter().map(|subset| subset["n-rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, [2, 6, 12]);
    assert_eq!(fs_err::read_to_string(run.path("run/latest")).unwrap(), latest);
    assert!(succeeds(run.say(&["fsck"])).stdout.ends_with("nothing is damaged\n"));
    succeeds(run.run(&["--budget", "25%"]));
    let latest = fs_err::read_to_string(run.path("run/latest")).unwrap();
    assert!(subsets[1]["subset"].as_str().unwrap().ends_with(latest.trim()), "{subsets:?}");
}

#[test]
fn a_sweep_of_targets_that_have_their_own_budgets_is_refused() {
    let run = TestRun::new(12);
    let budgets = ["--method", "bm25", "--target-budget", "target=4"];
    succeeds(run.run(&budgets));
    let said = run.say(&[&["sweep"], &budgets[..]].concat());
    assert_eq!(said.code, 2, "{}", said.stderr);
    insta::assert_snapshot!(said.stderr, @"
    error: budgets of a sweep are of all targets together, and `target-budget` is set
    hint: run `less-select` with other target budgets: only the selection is made anew
    ");
    let subsets = succeeds(run.run(&["--method", "bm25"]));
    assert_eq!(subsets.code, 0);
    let said = succeeds(run.say(&["sweep", "--method", "bm25"])).stdout;
    assert_eq!(said.lines().count(), 5, "1, 2, 5 and 10 % unless others are named: {said}");
}

#[test]
fn scores_on_one_scale_go_with_a_selector_that_goes_by_scores() {
    let run = TestRun::new(24);
    let args = ["--method", "bm25", "--budget", "50%"];
    let said = run.run(&[&args[..], &["--normalize", "per-task"]].concat());
    assert_eq!(said.code, 2, "{}", said.stderr);
    insta::assert_snapshot!(said.stderr.lines().last().unwrap_or_default(), @r#"  caused by: invalid `normalize` (flag): puts the scores of subtasks on one scale, and `round-robin` goes by none; `selector = "top"` does"#);
    let by = |more: &[&str]| {
        succeeds(run.run(&[&args[..], more].concat()));
        selected(&run)
    };
    let on_one_scale = by(&["--selector", "top", "--normalize", "per-task"]);
    assert_ne!(on_one_scale, by(&["--selector", "top"]));
}

#[test]
fn every_target_may_have_its_budget_and_its_folder() {
    let run = TestRun::new(24);
    run.write("more.jsonl", &message_row("", "Tell me story 5.", "Once upon a time."));
    let args = ["--target", "sums=target.jsonl", "--target", "stories=more.jsonl"];
    let budgets = ["--target-budget", "sums=4,stories=2", "--subset-per-target"];
    let said = succeeds(run.run(&[&args[..], &budgets].concat()));
    let file = selection(&run);
    assert_eq!(file.selected.len(), 6, "{}", said.stderr);
    assert_eq!(file.by_target.keys().collect::<Vec<_>>(), ["stories", "sums"]);
    for folder in file.by_target.values() {
        assert!(run.path("run").join(folder).join("README.md").is_file());
    }
    assert!(succeeds(run.say(&["fsck"])).stdout.ends_with("nothing is damaged\n"));
    let gone = succeeds(run.say(&["gc", "--subsets"])).stdout;
    assert!(!gone.contains("subset-"), "{gone}");

    let refused = run.run(&[&args[..], &["--target-budget", "essays=4"]].concat());
    assert_eq!(refused.code, 2);
    insta::assert_snapshot!(refused.stderr.lines().rev().take(2).collect::<Vec<_>>().join("\n"), @"
      caused by: `target-budget` names the target `essays`; there are `stories`, `sums`
    error: the selection cannot be made
    ");
}

#[test]
fn copies_with_other_punctuation_are_left_out_and_counted() {
    let run = TestRun::new(12);
    let said = "Once upon a time there lived two owls who never slept by day";
    let twins = [
        message_row("", "Tell me the story of the owls, please.", said),
        message_row("", "tell me the story of the owls please", &format!("{said}!")),
    ];
    let pool: Vec<String> = (0..12).map(pool_row).chain(twins).collect();
    run.write("pool.jsonl", &pool.join("\n"));
    succeeds(run.run(&["--budget", "100%", "--near-duplicates", "80%"]));
    let file = selection(&run);
    assert_eq!(file.left_out.len(), 1);
    assert_eq!(file.selected.len(), 13);
    let report = json(&run, "report.json");
    let flagged = &report["flagged"];
    assert_eq!(flagged[0]["reason"], "near-duplicate of a row that is kept");
    assert_eq!(flagged[0]["n_rows"], 1);
}

#[test]
fn what_an_evaluation_asks_is_never_selected() {
    let run = TestRun::new(12);
    let question = "A farmer has seventeen sheep and all but nine of them run away at night";
    let asked = message_row("", &format!("Think well. {question}, how many stay?"), "Nine.");
    let pool: Vec<String> = (0..12).map(pool_row).chain([asked]).collect();
    run.write("pool.jsonl", &pool.join("\n"));
    run.write("eval.jsonl", &format!("{{\"question\": \"{question}.\", \"choices\": [1, 2]}}"));
    succeeds(run.run(&["--budget", "100%", "--decontaminate", "eval.jsonl"]));
    let file = selection(&run);
    assert_eq!(file.selected.len(), 12);
    let reasons: Vec<_> = file.left_out.values().collect();
    assert_eq!(reasons, ["contaminated: says what is in `eval.jsonl`"]);
}

#[test]
fn what_a_target_example_says_is_left_out_and_counted_unless_it_is_let_in() {
    let run = TestRun::new(12);
    let question = "A farmer has seventeen sheep and all but nine of them run away at night";
    let asked = message_row("", &format!("Think well. {question}, how many stay?"), "Nine.");
    let pool: Vec<String> = (0..12).map(pool_row).chain([asked]).collect();
    run.write("pool.jsonl", &pool.join("\n"));
    run.write("target.jsonl", &message_row("", &format!("{question}."), "Nine stay."));
    succeeds(run.run(&["--budget", "100%", "--method", "bm25"]));
    let file = selection(&run);
    let reason = "contaminated: says what is in target `target`";
    assert_eq!(file.selected.len(), 12);
    assert_eq!(file.left_out.values().collect::<Vec<_>>(), [reason]);
    let report = json(&run, "report.json");
    assert_eq!(report["flagged"][0]["reason"], reason);
    assert_eq!(report["flagged"][0]["n_rows"], 1);
    let summary = fs_err::read_to_string(run.path("run/summary.txt")).unwrap();
    assert!(summary.contains(&format!("1 example has no rank: {reason} (1)")), "{summary}");
    assert_eq!(subset_facts(&run)["provenance"]["selection"]["left-out"][reason], 1);

    let let_in = ["--decontaminate-target", "false"];
    succeeds(run.run(&[&["--budget", "100%", "--method", "bm25"], &let_in[..]].concat()));
    let file = selection(&run);
    assert_eq!(file.selected.len(), 13);
    assert!(file.left_out.is_empty(), "{file:?}");
}

#[test]
fn rows_that_are_spared_for_a_template_are_told() {
    let run = TestRun::new(12);
    let task = "Answer the following question and explain your answer in one sentence: Who was";
    let row = |name: &str| message_row("", &format!("{task} {name}?"), "I do not know.");
    let pool: Vec<String> = (0..11).map(|number| row(&format!("number {number}"))).collect();
    run.write("pool.jsonl", &pool.join("\n"));
    run.write("target.jsonl", &row("Ada Lovelace"));
    let said = succeeds(run.run(&["--budget", "100%", "--method", "bm25"]));
    let file = selection(&run);
    assert_eq!(file.selected.len(), 11);
    assert!(file.notes[0].starts_with("11 rows that say more than half of an"), "{file:?}");
    assert!(said.stderr.contains(&file.notes[0]), "{}", said.stderr);
    assert_eq!(subset_facts(&run)["provenance"]["selection"]["notes"][0], file.notes[0]);
}

#[test]
fn what_is_told_of_a_selection_is_in_the_subset_too() {
    let run = TestRun::new(12);
    let args = ["--selector", "round-robin", "--source-cap", "pool=25%", "--budget", "8"];
    let said = succeeds(run.run(&args));
    assert!(said.stderr.contains("caps of sources leave 6 rows"), "{}", said.stderr);
    let facts = subset_facts(&run);
    let provenance = &facts["provenance"];
    assert_eq!(provenance["settings"]["selector"], "round-robin");
    assert_eq!(provenance["settings"]["source-cap"], serde_json::json!(["pool=25%"]));
    assert!(provenance["selection"]["notes"][0].as_str().unwrap().contains("caps of sources"));
    let report = fs_err::read_to_string(run.path("run/report.json")).unwrap();
    assert!(report.contains("caps of sources leave 6 rows"), "{report}");
}
