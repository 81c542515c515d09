//! What `gc` removes of a run, and that the run is none the worse for it.

use less_select::store::shard_list::ShardList;

use crate::support::{TestRun, committed_shards, pool_row};

#[track_caller]
fn succeeds(run: &TestRun, args: &[&str]) -> String {
    let said = run.say(args);
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.stdout
}

#[track_caller]
fn runs(run: &TestRun, args: &[&str]) -> String {
    let said = run.run(args);
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.stderr
}

/// A run with something of everything that no stage needs.
fn untidy_run() -> TestRun {
    let run = TestRun::new(12);
    let scores = ["--aggregation", "mean-of-cosines,cosine-of-mean"];
    runs(&run, &[&scores[..], &["--epochs", "3", "--budget", "50%"]].concat());
    fs_err::rename(run.path("run/checkpoints/epoch-3"), run.path("kept")).unwrap();
    // Other checkpoints: all gradients are others.
    runs(&run, &[]);
    fs_err::rename(run.path("kept"), run.path("run/checkpoints/epoch-3")).unwrap();
    for folder in ["run/checkpoints/.writing-epoch-3", "run/checkpoints/unfinished"] {
        fs_err::create_dir(run.path(folder)).unwrap();
        run.write(&format!("{folder}/trainer_state.json"), "{}");
    }
    run.write("run/checkpoints/unfinished.json", "{}");
    run.write("run/gradients/epoch-1/pool/.writing-x", "half");
    run.write("run/notes", "somebody's");
    run
}

#[test]
fn what_no_stage_needs_is_removed_and_the_rest_is_as_it_was() {
    let run = untidy_run();
    let would = succeeds(&run, &["gc", "--dry-run"]);
    assert!(would.contains("would be removed"), "{would}");
    let did = succeeds(&run, &["gc"]);
    assert_eq!(would.replace("would be removed", "removed"), did, "and nothing was before");
    for gone in [
        "run/checkpoints/epoch-3",
        "run/checkpoints/.writing-epoch-3",
        "run/checkpoints/unfinished",
        "run/checkpoints/unfinished.json",
        "run/gradients/epoch-3",
        "run/gradients/epoch-1/pool/.writing-x",
        "run/cosines/cosines-epoch-3.arrow",
    ] {
        assert!(did.contains(&format!("{gone} (")), "{gone} in {did}");
        assert!(!run.path(gone).exists(), "{gone}");
    }
    assert!(!did.contains("subset-"), "{did}");
    assert!(did.contains("scores-adam-v-cosine-of-mean.parquet ("), "{did}");
    let store = run.path("run/gradients/epoch-1/pool");
    let n_listed = ShardList::read(&store).unwrap().shards.len();
    assert_eq!(committed_shards(&store).len(), n_listed);
    assert_eq!(fs_err::read_to_string(run.path("run/notes")).unwrap(), "somebody's");

    assert!(succeeds(&run, &["fsck"]).ends_with("nothing is damaged\n"));
    assert_eq!(runs(&run, &[]).matches("unchanged").count(), 7);
    let again = succeeds(&run, &["gc", "--json"]);
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["items"], serde_json::json!([]));
}

#[test]
fn subsets_go_only_where_somebody_says_so() {
    let run = TestRun::new(12);
    let latest = || fs_err::read_to_string(run.path("run/latest")).unwrap().trim().to_owned();
    runs(&run, &["--budget", "50%"]);
    let first = latest();
    runs(&run, &[]);
    let did = succeeds(&run, &["gc"]);
    assert!(did.ends_with("0 files and folders removed, 0 bytes\n"), "{did}");
    let did = succeeds(&run, &["gc", "--subsets"]);
    assert!(did.contains(&first), "{did}");
    assert!(!run.path("run").join(first).exists());
    assert!(run.path("run").join(latest()).is_dir());
}

#[test]
fn shards_of_a_stage_that_was_interrupted_stay() {
    let run = TestRun::new(12);
    runs(&run, &[]);
    // Shards of rows that are gone, and new ones of which only some are there.
    let rows: String = (8..40).map(|row| pool_row(row) + "\n").collect();
    run.write("pool.jsonl", &rows);
    runs(&run, &["ingest"]);
    assert_eq!(runs(&run, &["warmup", "--rewarm-growth", "100%"]).matches("kept").count(), 1);
    assert_eq!(run.say(&["gradients", "--shard", "2/3"]).code, 0);
    let store = run.path("run/gradients/epoch-1/pool");
    let n_missing = || ShardList::read(&store).unwrap().missing(&store).count();
    let before = n_missing();
    assert!(before > 0, "it is complete");
    succeeds(&run, &["gc"]);
    assert_eq!(n_missing(), before);
}

#[test]
fn a_store_that_runs_share_is_left_alone() {
    let run = TestRun::new(12);
    let store = run.path("store").display().to_string();
    runs(&run, &["--gradient-store", &store]);
    fs_err::write(run.path("store/epoch-1/pool/shard-0-0.arrow"), "another run's").unwrap();
    let did = succeeds(&run, &["gc"]);
    assert!(
        did.contains("left alone: [DIR]/store/epoch-1/pool, which other runs may use"),
        "{did}"
    );
    assert!(run.path("store/epoch-1/pool/shard-0-0.arrow").exists());
}

#[test]
fn a_run_in_use_is_left_alone() {
    let run = TestRun::new(12);
    runs(&run, &["ingest"]);
    let _held = less_select::pipeline::lock::exclusive(&run.path("run/lock")).unwrap();
    assert_eq!(run.say(&["gc"]).code, 75);
}
