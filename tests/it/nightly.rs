//! A run that is repeated while its inputs change: what it costs, and that it
//! comes to what a run from the start comes to.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use less_select::influence::scores::ScoreTable;
use less_select::selection::{Budget, top};

use crate::support::{Said, TestRun, message_row, pool_row};

impl TestRun {
    /// A pool of these rows from now on.
    fn write_pool(&self, rows: impl IntoIterator<Item = usize>) {
        let text: String = rows.into_iter().map(|row| pool_row(row) + "\n").collect();
        self.write("pool.jsonl", &text);
    }

    #[track_caller]
    fn succeeds(&self, more: &[&str]) -> Said {
        let said = self.run(more);
        assert_eq!(said.code, 0, "{}", said.stderr);
        said
    }

    fn subset(&self) -> String {
        fs_err::read_to_string(self.run_dir().join("latest")).unwrap()
    }
}

/// The line in which a stage says what came out.
#[track_caller]
fn line<'a>(said: &'a Said, stage: &str) -> &'a str {
    let mut lines = said.stderr.lines().rev();
    lines
        .find(|line| line.starts_with(stage))
        .unwrap_or_else(|| panic!("no `{stage}` in {}", said.stderr))
}

/// Whether a run selects what one from the start with its checkpoints does.
/// Scores may differ by rounding: rows were in other batches.
#[track_caller]
fn assert_selects_as_from_the_start(run: &TestRun) {
    let clean = TestRun::new(1);
    for file in ["pool.jsonl", "target.jsonl"] {
        fs_err::copy(run.path(file), clean.path(file)).unwrap();
    }
    let checkpoints = run.run_dir().join("checkpoints");
    clean.succeeds(&["--checkpoints", checkpoints.to_str().unwrap()]);
    let [found, expected] =
        [run, &clean].map(|run| ScoreTable::read(&run.run_dir().join("scores.parquet")).unwrap());
    for (found, expected) in found.rows.iter().zip(&expected.rows) {
        assert_eq!(found.id, expected.id);
        for (found, expected) in found.by_subtask.iter().zip(&expected.by_subtask) {
            approx::assert_abs_diff_eq!(found, expected, epsilon = 1e-6);
        }
    }
    let budget: Budget = "25%".parse().unwrap();
    let ids = |scores: &ScoreTable| {
        let selected = top(scores, budget);
        selected.iter().map(|place| scores.rows[place.position].id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&found), ids(&expected));
}

#[test]
fn a_pool_that_grew_keeps_its_warm_up_and_costs_its_new_rows() {
    let run = TestRun::new(1);
    run.write_pool(0..40);
    run.succeeds(&[]);
    run.write_pool(0..44);
    let said = run.succeeds(&[]);
    assert!(line(&said, "warmup").ends_with("kept (9.1 % of the pool is newer)"), "{said:?}");
    // Four rows at two checkpoints, of 44 and the target's three.
    let gradients = line(&said, "gradients");
    assert!(gradients.contains("94 gradients stored, 8 of them new"), "{gradients}");
    assert_selects_as_from_the_start(&run);

    let report = fs_err::read_to_string(run.run_dir().join("report.json")).unwrap();
    assert!(report.contains("9.1 % of the pool is newer"), "{report}");
    let again = run.succeeds(&[]);
    assert_eq!(again.stderr.matches("unchanged").count(), 7, "{}", again.stderr);
}

#[test]
fn rows_that_left_the_pool_leave_the_result_and_cost_nothing() {
    let run = TestRun::new(1);
    run.write_pool(0..40);
    run.succeeds(&[]);
    run.write_pool(5..38);
    let said = run.succeeds(&[]);
    assert!(line(&said, "gradients").contains("72 gradients stored, 0 of them new"), "{said:?}");
    assert_selects_as_from_the_start(&run);
    // The first ones come back.
    run.write_pool(0..38);
    let said = run.succeeds(&[]);
    assert!(line(&said, "gradients").contains("82 gradients stored, 0 of them new"), "{said:?}");
}

#[test]
fn a_warm_up_is_trained_anew_when_the_pool_has_outgrown_it_or_somebody_asks() {
    let run = TestRun::new(1);
    run.write_pool(0..20);
    run.succeeds(&[]);
    run.write_pool(0..40);
    let said = run.succeeds(&["--rewarm-growth", "60%"]);
    assert!(said.stderr.contains("kept (50.0 % of the pool is newer)"), "{}", said.stderr);
    let said = run.succeeds(&[]);
    assert!(said.stderr.contains("warmup     unchanged"), "it serves: {}", said.stderr);
    run.write_pool(0..41);
    let said = run.succeeds(&[]);
    assert!(said.stderr.contains("warmup     started (pool/pool.parquet changed)"), "{said:?}");
    assert!(said.stderr.contains("gradients  88 gradients stored ("), "{}", said.stderr);
    let said = run.succeeds(&["--rewarm"]);
    assert!(said.stderr.contains("warmup     started (forced)"), "{}", said.stderr);
    // Trained on the same, it comes to the same.
    assert!(said.stderr.contains("gradients  unchanged"), "{}", said.stderr);
}

#[test]
fn a_new_target_costs_its_own_gradients() {
    let run = TestRun::new(12);
    run.succeeds(&[]);
    let target = fs_err::read_to_string(run.path("target.jsonl")).unwrap();
    let more = "{\"messages\": [{\"role\": \"user\", \"content\": \"What is 9 + 9?\"}, \
                {\"role\": \"assistant\", \"content\": \"9 + 9 = 18.\"}]}";
    run.write("target.jsonl", &format!("{target}\n{more}"));
    let said = run.succeeds(&[]);
    assert!(said.stderr.contains("warmup     unchanged"), "{}", said.stderr);
    assert!(line(&said, "gradients").contains("32 gradients stored, 2 of them new"), "{said:?}");
    assert_selects_as_from_the_start(&run);
}

#[test]
fn a_new_budget_selects_anew_and_computes_nothing() {
    let run = TestRun::new(12);
    run.succeeds(&[]);
    let said = run.succeeds(&["--budget", "50%"]);
    assert_eq!(said.stderr.matches("unchanged").count(), 5, "{}", said.stderr);
    assert!(said.stderr.contains("select     started (budget changed from"), "{}", said.stderr);
}

#[test]
fn a_dry_run_says_what_would_run_and_why_and_changes_nothing() {
    let run = TestRun::new(1);
    run.write_pool(0..20);
    let said = run.succeeds(&["--dry-run"]);
    insta::assert_snapshot!(said.stdout, @r"
    ingest     would run (not there yet)
    warmup     would run (not there yet)
    gradients  would run (not there yet)
    index      would run (not there yet)
    score      would run (not there yet)
    select     would run (not there yet)
    report     would run (not there yet)
    ");
    assert!(!run.run_dir().exists());
    run.succeeds(&[]);
    let manifest = fs_err::read(run.run_dir().join("manifest.json")).unwrap();
    run.write_pool(0..21);
    insta::assert_snapshot!(run.succeeds(&["--dry-run"]).stdout, @r"
    ingest     would run (pool pool, pool.jsonl changed)
    warmup     may run (depends on what ingest finds)
    gradients  may run (depends on what ingest finds)
    index      may run (depends on what ingest finds)
    score      may run (depends on what ingest finds)
    select     may run (depends on what ingest finds)
    report     may run (depends on what ingest finds)
    ");
    run.write_pool(0..20);
    let said = run.succeeds(&["--dry-run", "--json", "--force", "score"]);
    let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(said["stages"]["gradients"]["state"], "unchanged");
    assert_eq!(said["stages"]["score"]["why"], "forced");
    assert_eq!(said["stages"]["report"]["state"], "may run");
    assert_eq!(fs_err::read(run.run_dir().join("manifest.json")).unwrap(), manifest);
}

#[test]
fn a_forced_stage_runs_again_and_those_after_it_only_if_it_wrote_something_else() {
    let run = TestRun::new(12);
    run.succeeds(&[]);
    let before = run.checksums("gradients");
    let said = run.succeeds(&["--force", "gradients"]);
    assert!(line(&said, "gradients").contains("30 gradients stored ("), "{}", said.stderr);
    assert_eq!(said.stderr.matches("unchanged").count(), 6, "{}", said.stderr);
    assert_eq!(run.checksums("gradients"), before);
    assert_eq!(run.say(&["gradients", "--shard", "1/2", "--force", "gradients"]).code, 2);
}

#[test]
fn a_run_in_use_can_be_waited_for() {
    let run = TestRun::new(12);
    let held = less_select::pipeline::lock::exclusive(&run.run_dir().join("lock")).unwrap();
    let whole = run.whole(&["--wait", "600"]);
    let mut waiting = Command::new(whole.get_program())
        .args(whole.get_args())
        .current_dir(whole.get_current_dir().unwrap())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let first = told.next().unwrap().unwrap();
    let holder = format!("warning: the run is in use by process {} on ", std::process::id());
    assert!(first.starts_with(&holder) && first.ends_with("; waiting for it"), "{first}");
    drop(held);
    told.for_each(drop);
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn runs_of_the_same_checkpoints_share_gradients_in_a_common_folder() {
    let (one, other) = (TestRun::new(12), TestRun::new(12));
    let store = one.path("store");
    let shared = ["--gradient-store", store.to_str().unwrap()];
    one.succeeds(&shared);
    let said = other.succeeds(&[&shared[..], &["--budget", "50%"]].concat());
    assert!(line(&said, "gradients").contains("30 gradients stored, 0 of them new"), "{said:?}");
    let alone = TestRun::new(12);
    alone.succeeds(&["--budget", "50%"]);
    assert_eq!(other.subset(), alone.subset());
}

#[test]
fn a_store_of_more_directions_serves_a_run_that_asks_for_one() {
    let (several, one) = (TestRun::new(12), TestRun::new(12));
    let store = several.path("store");
    let shared = ["--gradient-store", store.to_str().unwrap()];
    several.succeeds(&[&shared[..], &["--gradient", "sgd,adam-v"]].concat());
    let said = one.succeeds(&shared);
    assert!(line(&said, "gradients").contains("30 gradients stored, 0 of them new"), "{said:?}");
    let alone = TestRun::new(12);
    alone.succeeds(&[]);
    assert_eq!(one.subset(), alone.subset());

    // What comes later has the one direction, and stands beside what was there.
    one.write_pool(0..14);
    let said = one.succeeds(&shared);
    assert!(line(&said, "gradients").contains("34 gradients stored, 4 of them new"), "{said:?}");
    assert_selects_as_from_the_start(&one);

    // Forced, they are computed, and the others' stay.
    let said = one.succeeds(&[&shared[..], &["--force", "gradients"]].concat());
    assert!(line(&said, "gradients").contains("34 gradients stored ("), "{said:?}");
    let said = several.succeeds(&[&shared[..], &["--gradient", "sgd,adam-v"]].concat());
    assert!(said.stderr.contains("gradients  unchanged"), "{}", said.stderr);
}

#[test]
fn metrics_of_the_last_run_are_written_for_prometheus() {
    let run = TestRun::new(12);
    let metrics = ["--metrics", "metrics.prom"];
    run.succeeds(&metrics);
    let read = || fs_err::read_to_string(run.path("metrics.prom")).unwrap();
    let text = read();
    for line in [
        "# TYPE less_select_rows gauge",
        r#"less_select_exit_code{run="run"} 0"#,
        r#"less_select_rows{run="run",rows="pool"} 12"#,
        r#"less_select_rows{run="run",rows="selected"} 3"#,
        r#"less_select_rows{run="run",rows="rejected"} 0"#,
    ] {
        assert!(text.lines().any(|own| own == line), "no `{line}` in {text}");
    }
    for start in [
        r#"less_select_stage_duration_seconds{run="run",stage="gradients"} "#,
        r#"less_select_gradient_bytes{run="run"} "#,
        r#"less_select_score{run="run",quantile="0.95"} "#,
        r#"less_select_duration_seconds{run="run"} "#,
    ] {
        assert!(text.lines().any(|own| own.starts_with(start)), "no `{start}` in {text}");
    }
    run.write("pool.jsonl", "{}");
    assert_eq!(run.run(&metrics).code, 65);
    assert!(read().contains(r#"less_select_exit_code{run="run"} 65"#));
}

/// The gradients that a night computed.
fn n_new(said: &Said) -> u64 {
    let Some(line) = said.stderr.lines().rev().find(|line| line.contains("gradients stored"))
    else {
        return 0;
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let before_of_them = words.windows(2).find(|pair| pair[1] == "of");
    before_of_them.map_or(words[1], |pair| pair[0]).parse().unwrap()
}

/// Two checkpoints; a growing pool, a new target, a crash, a full disk, a clock
/// that goes back.
#[test]
fn a_week_of_nights_costs_what_changed_and_ends_as_from_the_start() {
    let run = TestRun::new(1);
    let mut costs = Vec::new();
    let mut night = |what: &'static str| {
        let said = run.succeeds(&["--rewarm-growth", "50%"]);
        costs.push((what, n_new(&said)));
    };
    run.write_pool(0..60);
    night("first");
    run.write_pool(0..64);
    night("four new rows");
    run.write("target.jsonl", &message_row("", "What is 9 + 9?", "9 + 9 = 18."));
    night("a new target of one");
    run.write_pool(3..70);
    let whole = run.whole(&["--rewarm-growth", "50%"]);
    let crash = run.with_fault(&whole, "power", 40).output().unwrap();
    assert!(!crash.status.success());
    night("six new rows, three gone, after a crash");
    run.write_pool(3..72);
    let full = run.with_fault(&whole, "enospc", 40).output().unwrap();
    assert_eq!(full.status.code(), Some(74), "{}", String::from_utf8_lossy(&full.stderr));
    night("two new rows, after a full disk");
    run.write_pool(3..74);
    let slow_clock = run.with_fault(&whole, "clock", 3 * 86400).output().unwrap();
    assert!(slow_clock.status.success());
    night("nothing, after a night three days ago");
    night("nothing");
    for (what, n_new) in &costs {
        eprintln!("{n_new:>4} gradients: {what}");
    }
    assert_eq!(costs[0].1, 126);
    assert_eq!(costs[1].1, 8);
    assert_eq!(costs[2].1, 2);
    // What the killed runs had committed is not computed again.
    assert!(costs[3].1 <= 12 && costs[4].1 <= 4, "{costs:?}");
    assert_eq!([costs[5].1, costs[6].1], [0, 0]);
    assert_selects_as_from_the_start(&run);
}
