//! The whole pipeline on the tiny model: what is made, skipped, shared and
//! refused.

use std::path::Path;

use crate::support::{TestRun, committed_shards, pool_row};
use crate::whole_run::tiny_model;

fn subset_of(run: &TestRun) -> std::path::PathBuf {
    let latest = fs_err::read_to_string(run.run_dir().join("latest")).unwrap();
    run.run_dir().join(latest.trim())
}

#[test]
fn one_command_makes_a_subset_and_says_where_it_is() {
    let run = TestRun::new(24);
    let said = run.run(&[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let subset = subset_of(&run);
    assert!(subset.join("README.md").is_file());
    assert!(said.stdout.contains(subset.file_name().unwrap().to_str().unwrap()), "{}", said.stdout);
    assert!(run.run_dir().join("report.html").is_file());
    let report = fs_err::read(run.run_dir().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let steady = &report["diagnostics"];
    assert_eq!((&steady["n_rows"], &steady["n_selected"]), (&24.into(), &6.into()), "{steady}");
    assert!(steady["sketch"]["cosine_error"].as_f64().unwrap() > 0.0, "{steady}");
    assert_eq!(steady["checkpoints"].as_array().unwrap().len(), 2, "{steady}");
    assert!(said.stdout.contains("Steady  of 6 rows of 24"), "{}", said.stdout);
    let status = run.say(&["status"]);
    assert_eq!(status.stdout.matches("complete").count(), 7, "{}", status.stdout);
}

#[test]
fn preconditioning_costs_scores_and_no_gradient() {
    let run = TestRun::new(24);
    assert_eq!(run.run(&[]).code, 0);
    let before = ["gradients", "index", "cosines"].map(|dir| run.checksums(dir));
    let said = run.run(&["--precondition", "pool"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let after = ["gradients", "index", "cosines"].map(|dir| run.checksums(dir));
    assert_eq!((&after[0], &after[1]), (&before[0], &before[1]));
    assert_ne!(after[2], before[2]);
    assert_eq!(said.stderr.matches("unchanged").count(), 4, "{}", said.stderr);
    assert_eq!(run.say(&["fsck"]).code, 0);

    let several = run.run(&["--precondition", "pool", "--gradient", "adam-v,sgd"]);
    assert_eq!(several.code, 2, "{}", several.stderr);
    assert!(several.stderr.contains("it goes with one `--gradient`"), "{}", several.stderr);
}

#[test]
fn the_same_command_again_does_nothing() {
    let run = TestRun::new(12);
    assert_eq!(run.run(&[]).code, 0);
    let before = run.checksums("gradients");
    let again = run.run(&[]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(again.stderr.matches("unchanged").count(), 7, "{}", again.stderr);
    assert_eq!(run.checksums("gradients"), before);
}

#[test]
fn two_runs_of_the_same_inputs_are_equal_to_the_byte() {
    let (one, other) = (TestRun::new(12), TestRun::new(12));
    assert_eq!((one.run(&[]).code, other.run(&[]).code), (0, 0));
    assert_eq!(one.checksums("gradients"), other.checksums("gradients"));
    assert_eq!(one.checksums("checkpoints"), other.checksums("checkpoints"));
    assert_eq!(subset_of(&one).file_name(), subset_of(&other).file_name());
}

#[test]
fn several_devices_make_the_bytes_of_one() {
    let (one, several) = (TestRun::new(40), TestRun::new(40));
    assert_eq!(one.run(&["--devices", "cpu"]).code, 0);
    let said = several.run(&["--devices", "cpu,cpu,cpu"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(one.checksums("gradients"), several.checksums("gradients"));
    assert_eq!(subset_of(&one).file_name(), subset_of(&several).file_name());
    // 40 pool rows and 3 of the target, twice.
    let events = fs_err::read_to_string(several.run_dir().join("events.jsonl")).unwrap();
    let end = r#""stage":"gradients","what":"pool, epoch-2","done":86,"total":86,"unit":"rows"}"#;
    assert!(events.contains(end), "{events}");
}

#[test]
fn a_device_that_is_not_there_stops_the_others() {
    let run = TestRun::new(12);
    assert_eq!(run.run(&["--devices", "cpu"]).code, 0);
    let said = run.run(&["--devices", "cuda:63,cuda:64", "--proj-dim", "256"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("no CUDA device number 6"), "{}", said.stderr);
}

#[test]
fn random_weights_need_no_weights() {
    let run = TestRun::new(12);
    fs_err::create_dir(run.path("model")).unwrap();
    for entry in fs_err::read_dir(tiny_model()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension != "safetensors") {
            fs_err::copy(&path, run.path("model").join(path.file_name().unwrap())).unwrap();
        }
    }
    let said = run.run(&["--model", "model"]);
    assert_eq!(said.code, 65, "{}", said.stderr);
    let said = run.run(&["--model", "model", "--random-weights", "1"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let first = run.checksums("gradients");
    let said = run.run(&["--model", "model", "--random-weights", "2"]);
    assert!(said.stderr.contains("random-weights changed from 1 to 2"), "{}", said.stderr);
    assert_ne!(run.checksums("gradients"), first);
}

#[test]
fn a_new_budget_costs_a_selection_and_nothing_else() {
    let run = TestRun::new(12);
    assert_eq!(run.run(&[]).code, 0);
    let first = subset_of(&run);
    let said = run.run(&["--budget", "2"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("budget changed"), "{}", said.stderr);
    assert_eq!(said.stderr.matches("unchanged").count(), 5, "{}", said.stderr);
    assert_ne!(subset_of(&run), first);
    assert!(first.is_dir(), "a subset somebody may be training on is never removed");
}

#[test]
fn another_stored_direction_costs_a_score_and_nothing_else() {
    let run = TestRun::new(12);
    assert_eq!(run.run(&["--gradient", "adam-v,sgd"]).code, 0);
    let said = run.run(&["--gradient", "sgd,adam-v"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("score      started (gradient changed"), "{}", said.stderr);
    assert_eq!(said.stderr.matches("unchanged").count(), 4, "{}", said.stderr);
}

#[test]
fn a_new_target_keeps_the_pools_gradients() {
    let run = TestRun::new(12);
    assert_eq!(run.run(&[]).code, 0);
    let pool = run.checksums("gradients/epoch-1/pool");
    let target = run.checksums("gradients/epoch-1/target");
    run.write("target.jsonl", &pool_row(3));
    assert_eq!(run.run(&[]).code, 0);
    assert_eq!(run.checksums("gradients/epoch-1/pool"), pool);
    assert_ne!(run.checksums("gradients/epoch-1/target"), target);
}

#[test]
fn stages_by_hand_and_shards_by_two_workers_give_the_same_bytes() {
    let (whole, parts) = (TestRun::new(24), TestRun::new(24));
    assert_eq!(whole.run(&[]).code, 0);
    for stage in ["ingest", "warmup"] {
        assert_eq!(parts.run(&[stage]).code, 0);
    }
    // After the first stage the run knows its settings.
    for stage in [["gradients", "--shard", "2/2"], ["gradients", "--shard", "1/2"]] {
        let said = parts.say(&stage);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    for stage in ["index", "score", "select", "report"] {
        let said = parts.say(&[stage]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    assert_eq!(whole.checksums("gradients"), parts.checksums("gradients"));
    assert_eq!(subset_of(&whole).file_name(), subset_of(&parts).file_name());
}

#[test]
fn the_order_of_the_pool_decides_nothing() {
    let (forward, backward) = (TestRun::new(12), TestRun::new(12));
    let rows: String = (0..12).rev().map(|row| pool_row(row) + "\n").collect();
    backward.write("pool.jsonl", &rows);
    assert_eq!((forward.run(&[]).code, backward.run(&[]).code), (0, 0));
    assert_eq!(forward.checksums("gradients"), backward.checksums("gradients"));
    let selection = |run: &TestRun| fs_err::read_to_string(run.path("run/selection.json")).unwrap();
    assert_eq!(selection(&forward), selection(&backward));
}

#[test]
fn a_duplicate_of_a_target_example_ranks_first() {
    let run = TestRun::new(12);
    let mut rows: String = (0..12).map(|row| pool_row(row) + "\n").collect();
    rows.push_str(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Spell cat.\"}, \
         {\"role\": \"assistant\", \"content\": \"c, a, t\"}]}\n",
    );
    run.write("pool.jsonl", &rows);
    let said = run.run(&["--gradient", "sgd", "--projection", "none"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let report = fs_err::read_to_string(run.run_dir().join("report.json")).unwrap();
    let first = report.find("c, a, t").unwrap();
    assert!(!report[..first].contains("upon a time"), "another row ranks before the duplicate");
}

#[test]
fn a_stage_says_which_earlier_one_is_missing() {
    let run = TestRun::new(12);
    let said = run.run(&["score"]);
    assert_eq!(said.code, 4);
    insta::assert_snapshot!(said.stderr, @r#"
    error: stage `score` needs `ingest`, which is not complete in `run`
    hint: run `less-select ingest` first, or `less-select` for everything
    "#);
}

#[test]
fn a_stage_refuses_a_run_made_with_other_settings() {
    let run = TestRun::new(12);
    assert_eq!(run.run(&[]).code, 0);
    let said = run.say(&["score", "--proj-dim", "1024"]);
    assert_eq!(said.code, 3);
    insta::assert_snapshot!(said.stderr, @r#"
    error: `run` was made with other settings: gradients: proj-dim changed from 512 to 1024
    hint: give the run's own settings, another --run, or `less-select` without a stage to compute what changed
    "#);
    let said = run.say(&["score"]);
    assert_eq!(said.code, 0, "what was refused is not kept: {}", said.stderr);
}

#[test]
fn a_shard_is_recorded_with_the_settings_it_was_made_with() {
    let run = TestRun::new(12);
    assert_eq!(run.run(&[]).code, 0);
    let said = run.say(&["gradients", "--shard", "1/1", "--proj-dim", "256"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let said = run.say(&["index"]);
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains("proj-dim changed from 256 to 512"), "{}", said.stderr);
    let store = run.run_dir().join("gradients/epoch-1/pool");
    let store = less_select::store::gradient_store::GradientStore::open(&store).unwrap();
    assert_eq!(store.header().proj_dim, 256);
}

#[test]
fn a_run_takes_a_trainers_folder_and_minds_only_what_it_reads_of_it() {
    let run = TestRun::new(12);
    let trained = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trainers/sft");
    for label in ["checkpoint-3", "checkpoint-6"] {
        let folder = run.path("trained").join(label);
        fs_err::create_dir_all(&folder).unwrap();
        for entry in fs_err::read_dir(trained.join(label)).unwrap() {
            let file = entry.unwrap().path();
            fs_err::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
    }
    let flags = ["--checkpoints", "trained", "--gradient", "adam-v,adam"];
    let said = run.run(&flags);
    assert_eq!(said.code, 0, "{}", said.stderr);
    run.write("trained/checkpoint-6/scheduler.pt", "a pickle");
    run.write("trained/events", "a log of tensorboard's");
    let again = run.run(&flags);
    assert_eq!(again.stderr.matches("unchanged").count(), 7, "{}", again.stderr);
}

#[test]
fn a_checkpoint_trained_anew_in_its_folder_gets_new_gradients() {
    let (run, other) = (TestRun::new(12), TestRun::new(12));
    assert_eq!(run.run(&["--epochs", "1"]).code, 0);
    assert_eq!(other.run(&["--epochs", "1", "--seed", "1"]).code, 0);
    let own = run.path("checkpoint-7");
    fs_err::rename(run.run_dir().join("checkpoints/epoch-1"), &own).unwrap();
    assert_eq!(run.run(&["--checkpoints", "checkpoint-7"]).code, 0);
    let before = run.checksums("gradients/checkpoint-7");
    fs_err::remove_dir_all(&own).unwrap();
    fs_err::rename(other.run_dir().join("checkpoints/epoch-1"), &own).unwrap();
    assert_eq!(run.run(&["--checkpoints", "checkpoint-7"]).code, 0);
    let after = run.checksums("gradients/checkpoint-7");
    // The earlier shards stay beside them.
    let n_new = after.iter().filter(|file| !before.contains(file)).count();
    assert_eq!(n_new, before.len(), "{after:?}");
}

#[test]
fn a_run_in_use_is_left_alone() {
    let run = TestRun::new(12);
    let _held = less_select::pipeline::lock::exclusive(&run.run_dir().join("lock")).unwrap();
    let said = run.run(&[]);
    assert_eq!(said.code, 75);
    assert!(said.stderr.contains(&format!("process {}", std::process::id())), "{}", said.stderr);
}

#[test]
fn a_damaged_shard_is_named_and_never_scored() {
    let run = TestRun::new(12);
    assert_eq!(run.run(&[]).code, 0);
    let store = run.run_dir().join("gradients/epoch-1/pool");
    let shard = &committed_shards(&store)[0];
    flip_a_byte(shard);
    let said = run.say(&["score", "--gradient", "adam-v", "--aggregation", "cosine-of-mean"]);
    assert_ne!(said.code, 0);
    fs_err::remove_file(run.run_dir().join("scores.parquet")).unwrap();
    let said = run.say(&["score"]);
    assert_eq!(said.code, 76, "{}", said.stderr);
    let name = shard.file_name().unwrap().to_str().unwrap();
    assert!(said.stderr.contains(name), "{}", said.stderr);
}

#[test]
fn several_kinds_and_aggregations_are_scored_and_the_first_ones_rank() {
    let run = TestRun::new(12);
    let (a, b) = ("mean-of-cosines,cosine-of-mean", "cosine-of-mean,mean-of-cosines");
    let said = run.run(&["--gradient", "adam-v,sgd", "--aggregation", a, "--store-dtype", "i8"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let read = |name: &str| fs_err::read(run.run_dir().join(name)).unwrap();
    let (first, last) = (read("scores.parquet"), read("scores-sgd-cosine-of-mean.parquet"));
    read("scores-adam-v-cosine-of-mean.parquet");
    read("scores-sgd-mean-of-cosines.parquet");

    let said = run.run(&["--gradient", "sgd,adam-v", "--aggregation", b, "--store-dtype", "i8"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.stderr.matches("unchanged").count(), 4, "{}", said.stderr);
    assert_eq!(read("scores.parquet"), last);
    assert_eq!(read("scores-adam-v-mean-of-cosines.parquet"), first);
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs_err::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(path, bytes).unwrap();
}
