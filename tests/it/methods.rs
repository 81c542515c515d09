//! The same command by another method.

use less_select::influence::scores::ScoreTable;
use less_select::selection::{Budget, top};
use serde_json::Value;

use crate::support::{Said, TestRun, pool_row};

/// Those that compute with no model.
const WITHOUT_MODEL: [&str; 5] = ["bm25", "ngram", "length", "random", "random-balanced"];

#[track_caller]
fn succeeds(run: &TestRun, more: &[&str]) -> Said {
    let said = run.run(more);
    assert_eq!(said.code, 0, "{more:?}: {}", said.stderr);
    said
}

fn json_of(run: &TestRun, name: &str) -> Value {
    serde_json::from_slice(&fs_err::read(run.run_dir().join(name)).unwrap()).unwrap()
}

fn subset(run: &TestRun) -> String {
    fs_err::read_to_string(run.run_dir().join("latest")).unwrap().trim().to_owned()
}

fn scores(run: &TestRun) -> ScoreTable {
    ScoreTable::read(&run.run_dir().join("scores.parquet")).unwrap()
}

/// The sources' counts in the best `budget` of a run.
fn selected(run: &TestRun, budget: &str) -> Vec<String> {
    let (scores, budget) = (scores(run), budget.parse::<Budget>().unwrap());
    let places = top(&scores, budget);
    places.iter().map(|place| scores.rows[place.position].source.clone()).collect()
}

#[test]
fn a_method_without_a_model_makes_a_subset_and_says_what_made_it() {
    for method in WITHOUT_MODEL {
        let run = TestRun::new(24);
        let said = succeeds(&run, &["--method", method]);
        assert!(said.stdout.contains("6 of 24 examples"), "{method}: {}", said.stdout);
        let facts = json_of(&run, &format!("{}/less-select.json", subset(&run)));
        let paper = facts["provenance"]["method"].as_str().unwrap();
        assert!(!paper.contains("LESS"), "{paper}");
        let report = json_of(&run, "report.json");
        assert_eq!(report["run"]["method"], method);
        // What has no likeness to single examples has no halves, and none of zero.
        let steady = &report["diagnostics"];
        assert_eq!(steady["n_selected"], 6, "{method}");
        assert_eq!(steady["target"].is_object(), ["bm25", "ngram"].contains(&method), "{method}");
        assert!(steady["sketch"].is_null(), "{method}");
        let card = fs_err::read_to_string(run.run_dir().join(subset(&run)).join("README.md"));
        assert!(card.unwrap().contains(&format!("Method: {paper}.")));
        let page = fs_err::read_to_string(run.run_dir().join("report.html")).unwrap();
        assert!(page.contains(paper.split('(').next().unwrap()), "{method}");
        let again = succeeds(&run, &["--method", method]);
        assert_eq!(again.stderr.matches("unchanged").count(), 4, "{method}: {}", again.stderr);
        assert_eq!(run.say(&["fsck"]).code, 0, "{method}");
        let garbage = run.say(&["gc", "--dry-run"]);
        assert!(garbage.stdout.starts_with("0 files"), "{method}: {}", garbage.stdout);
    }
}

#[test]
fn the_order_of_the_pool_and_the_number_of_threads_decide_nothing() {
    for method in WITHOUT_MODEL {
        let (one, other) = (TestRun::new(24), TestRun::new(24));
        let shuffled: String = (0..24).map(|row| pool_row(row * 7 % 24) + "\n").collect();
        other.write("pool.jsonl", &shuffled);
        succeeds(&one, &["--method", method]);
        succeeds(&other, &["--method", method, "--threads", "2"]);
        let scores = |run: &TestRun| {
            run.checksums("").into_iter().find(|(name, _)| name == "scores.parquet").unwrap()
        };
        assert_eq!(scores(&one), scores(&other), "{method}");
    }
}

#[test]
fn the_rows_that_are_worded_like_the_target_are_found() {
    for method in ["bm25", "ngram"] {
        let run = TestRun::new(30);
        run.write(
            "sums.jsonl",
            &(0..30).step_by(3).map(|row| pool_row(row) + "\n").collect::<String>(),
        );
        let others = (0..30).filter(|row| row % 3 == 2).map(|row| pool_row(row) + "\n");
        run.write("stories.jsonl", &others.collect::<String>());
        run.write("target.jsonl", &pool_row(33));
        succeeds(&run, &["--method", method, "--pool", "sums.jsonl;stories.jsonl"]);
        let found = selected(&run, "10");
        assert_eq!(found, vec!["sums"; 10], "{method}");
    }
}

#[test]
fn a_balanced_draw_takes_as_many_from_a_small_source() {
    let run = TestRun::new(30);
    let rows =
        |rows: std::ops::Range<usize>| rows.map(|row| pool_row(row) + "\n").collect::<String>();
    run.write("large.jsonl", &rows(0..24));
    run.write("small.jsonl", &rows(24..30));
    succeeds(&run, &["--method", "random-balanced", "--pool", "large.jsonl;small.jsonl"]);
    let mut found = selected(&run, "8");
    found.sort_unstable();
    assert_eq!(found, ["large", "large", "large", "large", "small", "small", "small", "small"]);
}

#[test]
fn another_seed_draws_other_rows_and_other_methods_do_not_mind() {
    let run = TestRun::new(30);
    succeeds(&run, &["--method", "random"]);
    let first = subset(&run);
    let said = succeeds(&run, &["--method", "random", "--seed", "1"]);
    assert!(
        said.stderr.contains("score      started (seed changed from 0 to 1)"),
        "{}",
        said.stderr
    );
    assert_ne!(subset(&run), first);
    succeeds(&run, &["--method", "length"]);
    let said = succeeds(&run, &["--method", "length", "--seed", "2"]);
    assert!(said.stderr.contains("score      unchanged"), "{}", said.stderr);
}

#[test]
fn the_longest_answers_are_first_by_length() {
    let run = TestRun::new(24);
    succeeds(&run, &["--method", "length"]);
    let scores = scores(&run);
    let kept = top(&scores, "25%".parse().unwrap());
    let shortest = kept.iter().map(|place| scores.rows[place.position].n_supervised).min();
    let is_kept = |position| kept.iter().any(|place| place.position == position);
    let left_out = scores.rows.iter().enumerate().filter(|(position, _)| !is_kept(*position));
    assert!(left_out.map(|(_, row)| row.n_supervised).max() <= shortest);
}

#[test]
fn a_cascade_goes_with_gradients_alone() {
    let run = TestRun::new(3);
    let said = run.run(&["--method", "rds", "--cascade", "20%"]);
    assert_eq!(said.code, 2);
    insta::assert_snapshot!(said.stderr, @r"
    error: invalid settings
      caused by: invalid `cascade` (flag): the cascade leaves out gradients, and method `rds` takes none; it goes with `--method less`, and `--cascade off` with the others
    ");
    let said = run.run(&["--method", "tfidf"]);
    assert_eq!(said.code, 2);
    insta::assert_snapshot!(said.stderr, @r"
    error: invalid settings
      caused by: invalid `method` (flag): `tfidf` is not one of less, rds, bm25, ngram, length, perplexity, random or random-balanced
    ");
}

#[test]
fn a_stage_that_a_method_does_not_have_says_which_one_has_it() {
    let run = TestRun::new(24);
    succeeds(&run, &["--method", "bm25"]);
    for args in [&["gradients"][..], &["gradients", "--shard", "1/2"]] {
        let said = run.say(args);
        assert_eq!(said.code, 2);
        insta::allow_duplicates! {
            insta::assert_snapshot!(said.stderr, @r"
            error: stage `gradients` is off with method `bm25`
            hint: `--method less` turns it on
            ");
        }
    }
}

#[test]
fn a_plan_says_what_a_method_costs() {
    let run = TestRun::new(24);
    insta::assert_snapshot!(succeeds_plan(&run, "bm25"), @r"
    method       BM25 (Robertson and Zaragoza, 2009)
    pool         24 rows, 964 tokens, 384 of them supervised
    target       3 rows, 92 tokens, 27 of them supervised, 2 subtasks
    store        0.0 MB
    time         little more than this took: no model computes
    ");
    insta::assert_snapshot!(succeeds_plan(&run, "random"), @r"
    method       random
    pool         24 rows, 964 tokens, 384 of them supervised
    target       3 rows, 92 tokens, 27 of them supervised, 2 subtasks
    store        0.0 MB
    time         little more than this took: no model computes
    ");
}

fn succeeds_plan(run: &TestRun, method: &str) -> String {
    let said = run.said(run.whole(&["plan", "--method", method]).env("LC_ALL", "C"));
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.stdout
}

#[cfg(feature = "torch")]
mod with_a_model {
    use super::*;

    #[test]
    fn one_forward_pass_makes_a_subset() {
        for method in ["rds", "perplexity"] {
            let run = TestRun::new(24);
            let said = succeeds(&run, &["--method", method]);
            assert!(said.stdout.contains("6 of 24 examples"), "{method}: {}", said.stdout);
            assert_eq!(json_of(&run, "report.json")["run"]["method"], method);
            let again = succeeds(&run, &["--method", method]);
            assert_eq!(again.stderr.matches("unchanged").count(), 5, "{method}: {}", again.stderr);
            assert_eq!(run.say(&["fsck"]).code, 0, "{method}");
            let garbage = run.say(&["gc", "--dry-run"]);
            assert!(garbage.stdout.starts_with("0 files"), "{method}: {}", garbage.stdout);
        }
    }

    #[test]
    fn a_copy_of_a_target_example_is_most_like_it() {
        let run = TestRun::new(24);
        run.write("target.jsonl", &pool_row(5));
        succeeds(&run, &["--method", "rds"]);
        let scores = scores(&run);
        let best = top(&scores, "1".parse().unwrap())[0];
        approx::assert_abs_diff_eq!(best.score, 1.0, epsilon = 1e-5);
        let second = top(&scores, "2".parse().unwrap())[1];
        assert!(second.score < 0.999, "{second:?}");
    }

    #[test]
    fn the_rows_in_the_middle_by_loss_are_first_by_perplexity() {
        let run = TestRun::new(24);
        succeeds(&run, &["--method", "perplexity"]);
        let scores = scores(&run);
        let mut losses: Vec<f32> = scores.rows.iter().map(|row| row.loss).collect();
        losses.sort_unstable_by(f32::total_cmp);
        assert!(losses[0] > 0.0 && losses[23].is_finite());
        for place in top(&scores, "6".parse().unwrap()) {
            let loss = scores.rows[place.position].loss;
            assert!((losses[9]..=losses[14]).contains(&loss), "{loss} in {losses:?}");
        }
    }

    #[test]
    fn another_method_and_back_costs_a_score_and_no_gradient() {
        let run = TestRun::new(24);
        succeeds(&run, &[]);
        let (gradients, first) = (run.checksums("gradients"), subset(&run));
        for method in ["bm25", "rds", "perplexity", "random"] {
            let said = succeeds(&run, &["--method", method]);
            assert!(
                said.stderr.contains("score      started (method changed from"),
                "{}",
                said.stderr
            );
            let report = json_of(&run, "report.json");
            assert!(!report.to_string().contains("gradients stored"), "{report}");
            succeeds(&run, &["gc", "--method", method]);
            assert_eq!(run.checksums("gradients"), gradients, "{method}");
            let checked = run.say(&["fsck"]);
            assert_eq!(checked.code, 0, "{}", checked.stdout);
        }
        let said = succeeds(&run, &[]);
        for stage in ["ingest", "warmup", "gradients", "index"] {
            assert!(said.stderr.contains(&format!("{stage:<10} unchanged")), "{}", said.stderr);
        }
        assert_eq!(run.checksums("gradients"), gradients);
        assert_eq!(subset(&run), first);
    }

    #[test]
    fn a_cascade_after_another_pass_finds_what_it_found() {
        let run = TestRun::new(24);
        succeeds(&run, &["--cascade", "50%"]);
        let (gradients, first) = (run.checksums("gradients"), subset(&run));
        succeeds(&run, &["--method", "rds"]);
        let said = succeeds(&run, &["--cascade", "50%"]);
        assert!(said.stderr.contains("gradients  unchanged"), "{}", said.stderr);
        assert_eq!((run.checksums("gradients"), subset(&run)), (gradients, first));
    }
}
