//! Training on a subset and on its rivals.

use std::collections::{BTreeMap, BTreeSet};

use approx::assert_relative_eq;
use less_select::fs::{UNFINISHED, write_json};
use less_select::influence::scores::ScoreTable;
use less_select::pipeline::manifest::Manifest;
use less_select::pool::ExampleId;
use less_select::pool::table::ExampleTable;
use less_select::run_dir::RunDir;
use less_select::selection::{SelectionFile, top};
use less_select::stage::Stage;
use less_select::store::Split;
use less_select::verify::{Outcome, Plan};
use serde_json::Value;

use crate::support::{TestRun, message_row, pool_row};

/// Held-out sums.
fn with_eval(run: TestRun) -> TestRun {
    let row = |n: usize| {
        let (a, b) = (n * 3 + 60, n + 51);
        message_row("", &format!("What is {a} + {b}?"), &format!("{a} + {b} = {}.", a + b))
    };
    run.write("eval.jsonl", &(0..6).map(|n| row(n) + "\n").collect::<String>());
    run
}

const VERIFY: [&str; 7] =
    ["verify", "--eval", "sums=eval.jsonl", "--seeds", "2", "--training-rate", "0.05"];

/// The number of halves is to follow.
const HALVES: [&str; 6] = ["verify", "--training-rate", "0.02", "--passes", "2", "--halves"];

fn trials(run: &TestRun) -> Vec<(std::path::PathBuf, Value)> {
    let dir = run.run_dir().join("verify/trials");
    let mut files: Vec<_> =
        fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let outcome = serde_json::from_slice(&fs_err::read(&file).unwrap()).unwrap();
            (file, outcome)
        })
        .collect()
}

#[test]
fn what_is_trained_on_the_answers_beats_what_is_not() {
    let run = with_eval(TestRun::new(24));
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    let sums: String = (0..9).map(|n| pool_row(3 * n) + "\n").collect();
    let stories: String = (0..9).map(|n| pool_row(3 * n + 2) + "\n").collect();
    run.write("sums.jsonl", &sums);
    run.write("stories.jsonl", &stories);
    let args =
        [&VERIFY[..], &["--json", "--tokens", "4000", "sums.jsonl", "stories.jsonl"]].concat();
    let said = run.run(&args);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    let standings = found[0]["standings"].as_array().unwrap();
    let names: Vec<_> =
        standings.iter().map(|standing| standing["contender"].as_str().unwrap()).collect();
    let place = |name: &str| names.iter().position(|other| *other == name).unwrap();
    assert!(place("sums") < place("stories"), "{names:?}");
    assert!(place("sums") < place("base"), "{names:?}");
    // The same tokens for all, but for less than a row.
    for standing in standings.iter().filter(|standing| standing["contender"] != "base") {
        let n_tokens = standing["n-tokens"].as_f64().unwrap();
        assert!((n_tokens - 4000.0).abs() < 60.0, "{standing}");
    }
}

#[test]
fn trials_are_kept_and_a_lost_one_comes_out_the_same() {
    let run = with_eval(TestRun::new(24));
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    assert_eq!(run.run(&VERIFY).code, 0);
    // Two of the subset, two of random, the base model once.
    let before = trials(&run);
    assert_eq!(before.len(), 5);
    fs_err::remove_file(&before[3].0).unwrap();
    let again = run.run(&VERIFY);
    assert!(again.stderr.contains("5 trials, 4 of them done"), "{}", again.stderr);
    let after = trials(&run);
    for ((path, one), (other_path, other)) in before.iter().zip(&after) {
        assert_eq!((path, &one["eval"]), (other_path, &other["eval"]));
    }
    let done = run.run(&VERIFY);
    insta::assert_snapshot!(done.stderr, @"verify     5 trials, all of them done");
    // Seeds that were tried earlier count, those of others or not.
    let one_seed = VERIFY.map(|word| if word == "2" { "1" } else { word });
    let fewer = run.run(&[&one_seed[..], &["--json"]].concat());
    let fewer: Value = serde_json::from_str(&fewer.stdout).unwrap();
    assert_eq!(fewer[0]["standings"][0]["n-trials"], 2, "{fewer}");
    // Another contender costs its own trials.
    let more = run.run(&[&VERIFY[..], &["--against", "random,base,full,length"]].concat());
    assert!(more.stderr.contains("9 trials, 5 of them done"), "{}", more.stderr);
    // The same rows under another name are not trained on again, and stand for themselves.
    run.write("all.jsonl", &(0..24).map(|row| pool_row(row) + "\n").collect::<String>());
    let args = ["--against", "full,base", "same=all.jsonl", "--json"];
    let same: Value =
        serde_json::from_str(&run.run(&[&VERIFY[..], &args].concat()).stdout).unwrap();
    for standing in same[0]["standings"].as_array().unwrap() {
        let n_trials = if standing["contender"] == "base" { 1 } else { 2 };
        assert_eq!(standing["n-trials"], n_trials, "{same}");
    }
    assert_eq!(same[0]["standings"].as_array().unwrap().len(), 4);
    let longest = trials(&run).into_iter().find(|(_, outcome)| outcome["contender"] == "length");
    assert_eq!(longest.unwrap().1["n-rows"], 6);
}

#[test]
fn the_others_are_compared_with_whom_one_asks_for() {
    let run = with_eval(TestRun::new(24));
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    let verify = |args: &[&str]| run.run(&[&VERIFY[..], args].concat());
    let differences = |args: &[&str]| -> BTreeMap<String, Option<f64>> {
        let said = verify(&[&["--json"], args].concat());
        let found: Value = serde_json::from_str(&said.stdout).unwrap();
        let standings = found[0]["standings"].as_array().unwrap().iter();
        let difference = |standing: &Value| standing["loss-difference"]["mean"].as_f64();
        let name = |standing: &Value| standing["contender"].as_str().unwrap().to_owned();
        standings.map(|standing| (name(standing), difference(standing))).collect()
    };
    let random = differences(&[]);
    let subset = differences(&["--reference", "subset"]);
    assert_eq!((random["random"], subset["subset"]), (None, None));
    assert_relative_eq!(random["subset"].unwrap(), -subset["random"].unwrap());
    let rest = subset["base"].unwrap() - subset["random"].unwrap();
    assert_relative_eq!(random["base"].unwrap(), rest, epsilon = 1e-9);

    let said = verify(&["--reference", "full"]);
    assert_eq!(said.code, 2);
    insta::assert_snapshot!(said.stderr, @"error: no contender is called `full`, to compare the others with: subset, random, base");
}

#[test]
fn the_time_of_trials_is_told_by_those_that_are_done_and_before_by_the_gradients() {
    let run = with_eval(TestRun::new(24));
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    let dir = RunDir::new(run.run_dir());
    let mut gradients = Manifest::read(&dir).unwrap().stages.remove(&Stage::Gradients).unwrap();
    gradients.seconds = 111.0;
    Manifest::complete(&dir, Stage::Gradients, gradients).unwrap();
    let verify = [&VERIFY[..], &["--against", "base"]].concat();
    assert_eq!(run.run(&verify).code, 0);

    let n_tokens = |table: &std::path::Path| -> f64 {
        let table = ExampleTable::open(table).unwrap();
        table.rows().iter().map(|row| f64::from(row.n_tokens)).sum()
    };
    // A token that is assessed counts 0.3 of one that is trained on.
    let assessed = 0.3 * n_tokens(&dir.verify_data("subset").join("target.parquet"));
    let work = |outcome: &Outcome| outcome.n_tokens as f64 + assessed;
    let done: Vec<_> = trials(&run)
        .into_iter()
        .map(|(path, _)| (Outcome::read(&path).unwrap().unwrap(), path))
        .collect();
    assert_eq!(done.len(), 3);
    // Both checkpoints' gradients took 111 s, and training on a token takes twice as long.
    let once = n_tokens(&dir.table(Split::Pool)) + n_tokens(&dir.table(Split::Target));
    let all: f64 = done.iter().map(|(outcome, _)| work(outcome)).sum();
    assert_relative_eq!(told_seconds(&dir), 2.0 * 111.0 / (2.0 * once) * all, epsilon = 1e-6);

    // Trials that took half a second a token, and one that is to be done again.
    for (outcome, path) in &done {
        let seconds = 0.5 * work(outcome);
        write_json(path, &Outcome { seconds, ..outcome.clone() }).unwrap();
    }
    let (lost, path) = done.iter().find(|(outcome, _)| outcome.contender == "subset").unwrap();
    fs_err::remove_file(path).unwrap();
    assert_eq!(run.run(&verify).code, 0);
    assert_relative_eq!(told_seconds(&dir), 0.5 * work(lost), epsilon = 1e-6);
}

/// What the last verification said that it would take.
fn told_seconds(dir: &RunDir) -> f64 {
    let events = fs_err::read_to_string(dir.events()).unwrap();
    let planned = events.lines().rfind(|line| line.contains("trials-planned")).unwrap();
    let planned: Value = serde_json::from_str(planned).unwrap();
    planned["seconds"].as_f64().unwrap()
}

#[test]
fn a_rival_by_a_method_has_the_rows_that_the_method_selects() {
    let run = with_a_row_of_the_target();
    let budget = ["--budget", "6"];
    let selected = |method: &str| {
        assert_eq!(run.run(&[&budget[..], &["--method", method]].concat()).code, 0);
        let file = SelectionFile::read(&run.run_dir().join("selection.json")).unwrap();
        let scores = ScoreTable::read(&run.run_dir().join("scores.parquet")).unwrap();
        let best = top(&scores, "6".parse().unwrap());
        let best: BTreeSet<ExampleId> =
            best.iter().map(|place| scores.rows[place.position].id).collect();
        (file.selected.iter().map(|row| row.id).collect::<BTreeSet<_>>(), best)
    };
    let methods = ["bm25", "ngram", "random-balanced", "length"];
    let wanted: BTreeMap<&str, _> = methods.map(|method| (method, selected(method))).into();
    for method in ["bm25", "ngram"] {
        let (selected, best) = &wanted[method];
        assert_ne!(selected, best, "{method} takes rows in turn, not the best");
    }
    // By another selector than the rivals'.
    let against = methods.join(",");
    let args = [&budget[..], &["--selector", "top", "--against", &against]].concat();
    let said = run.run(&[&VERIFY[..3], &["--seeds", "1", "--tokens", "600"], &args].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    for (method, (selected, _)) in wanted {
        assert_eq!(trained_on(&run, method), selected, "{method}");
    }
    // What they were taken by is not kept.
    for entry in fs_err::read_dir(run.run_dir()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(!name.to_string_lossy().starts_with(UNFINISHED), "{}", name.display());
    }
}

#[test]
fn random_rows_are_such_as_a_selection_may_take() {
    let run = with_a_row_of_the_target();
    assert_eq!(run.run(&["--budget", "24"]).code, 0);
    let args = ["--budget", "24", "--seeds", "1", "--tokens", "600", "--against", "random"];
    let said = run.run(&[&VERIFY[..3], &args].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    let selected = SelectionFile::read(&run.run_dir().join("selection.json")).unwrap().selected;
    // All of the pool but the row that the target has, too.
    let selected: BTreeSet<ExampleId> = selected.into_iter().map(|row| row.id).collect();
    assert_eq!((selected.len(), trained_on(&run, "random")), (24, selected));
}

/// A pool of 25 rows, one of which must not be taken, whatever its score is.
fn with_a_row_of_the_target() -> TestRun {
    let run = with_eval(TestRun::new(24));
    let said = "One two three four five six seven eight nine ten eleven twelve thirteen owls.";
    let row = message_row("", "Count the owls.", said) + "\n";
    for name in ["pool.jsonl", "target.jsonl"] {
        let rows = fs_err::read_to_string(run.path(name)).unwrap();
        run.write(name, &format!("{}\n{row}", rows.trim_end()));
    }
    run
}

/// The rows of a contender in the last verification.
fn trained_on(run: &TestRun, contender: &str) -> BTreeSet<ExampleId> {
    let plan = fs_err::read(run.run_dir().join("verify/plan.json")).unwrap();
    let plan: Plan = serde_json::from_slice(&plan).unwrap();
    let trial = plan.trials.into_iter().find(|trial| trial.contender == contender).unwrap();
    trial.rows.unwrap().ids.unwrap().into_iter().collect()
}

#[test]
fn models_that_answer_are_judged_by_their_words() {
    let run = with_eval(TestRun::new(24));
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    let args = ["--answers", "12", "--seeds", "1", "--against", "base", "--json"];
    let said = run.run(&[&VERIFY[..3], &VERIFY[5..], &args].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    for standing in found[0]["standings"].as_array().unwrap() {
        let f1 = standing["f1"]["mean"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&f1), "{standing}");
    }
    for (_, outcome) in trials(&run) {
        for row in outcome["eval"].as_array().unwrap() {
            assert!(row["said"].as_array().unwrap().len() <= 12, "{row}");
        }
    }
}

#[test]
fn scores_are_compared_with_what_random_halves_do() {
    let run = TestRun::new(24);
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    let args = [&HALVES[..], &["6", "--json"]].concat();
    let said = run.run(&args);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&found["n-halves"], &found["n-targets"]), (&6.into(), &3.into()));
    assert!(found["score"]["mean"].as_f64().unwrap().abs() <= 1.0);
    // Half of the pool, twice.
    let outcomes = trials(&run);
    assert!(outcomes.iter().all(|(_, outcome)| outcome["n-rows"] == 12), "{outcomes:?}");
    let again = run.run(&args);
    assert_eq!(again.stdout, said.stdout);
    assert!(again.stderr.contains("6 trials, all of them done"), "{}", again.stderr);
}

#[test]
fn scores_without_gradients_foretell_too_and_are_opened_before_any_training() {
    let run = TestRun::new(24);
    for method in ["bm25", "rds"] {
        assert_eq!(run.run(&["--method", method]).code, 0);
        let said = run.run(&[&HALVES[..], &["3", "--method", method, "--json"]].concat());
        assert_eq!(said.code, 0, "{method}: {}", said.stderr);
        let found: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!((&found["n-halves"], &found["n-targets"]), (&3.into(), &3.into()), "{method}");
    }
    // Both are compared with the same trainings.
    assert_eq!(trials(&run).len(), 3);
    fs_err::write(run.run_dir().join("cosines/cosines-rds.arrow"), "short").unwrap();
    let said = run.run(&[&HALVES[..], &["5", "--method", "rds"]].concat());
    assert_eq!((said.code, trials(&run).len()), (76, 3), "{}", said.stderr);
}

#[test]
fn scores_that_look_at_no_target_example_foretell_nothing() {
    for method in ["length", "perplexity", "random", "random-balanced"] {
        // At once: there is no run yet.
        let run = TestRun::new(6);
        let said = run.run(&["verify", "--halves", "3", "--method", method]);
        assert_eq!(said.code, 2, "{method}");
        assert!(!run.run_dir().exists(), "{method}");
        insta::allow_duplicates! {
            insta::assert_snapshot!(said.stderr.replace(method, "METHOD"), @"error: `--halves` compares scores by target example, and method `METHOD` has none: select by `--method` less, rds, bm25 or ngram first");
        }
    }
}

#[test]
fn examples_that_were_trained_on_are_refused() {
    let run = with_eval(TestRun::new(24));
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    fs_err::copy(run.path("pool.jsonl"), run.path("eval.jsonl")).unwrap();
    let said = run.run(&VERIFY);
    assert_eq!(said.code, 65);
    insta::assert_snapshot!(said.stderr, @"error: 6 of the evaluation's examples are rows of `subset`: hold them out of the pool");
}

#[test]
fn the_model_as_it_comes_trains_on_nothing_that_it_could_have_seen() {
    let run = with_eval(TestRun::new(24));
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    let selected = SelectionFile::read(&run.path("run/selection.json")).unwrap().selected;
    let table = ExampleTable::open(&run.path("run/pool/pool.parquet")).unwrap();
    let is_selected = |id: ExampleId| selected.iter().any(|row| row.id == id);
    let left = table.rows().iter().position(|row| !is_selected(row.id)).unwrap();
    let line = usize::try_from(table.origins(&[left]).unwrap()[0].line).unwrap();
    let pool = fs_err::read_to_string(run.path("pool.jsonl")).unwrap();
    run.write("eval.jsonl", pool.lines().nth(line - 1).unwrap());
    let against = |rivals: &str| run.run(&[&VERIFY[..], &["--against", rivals]].concat());
    assert_eq!(against("base").code, 0);
    let refused = against("full");
    assert_eq!(refused.code, 65, "{}", refused.stderr);
}

#[test]
fn trainings_that_make_no_sense_are_refused_before_any() {
    let run = with_eval(TestRun::new(24));
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    let refused = |args: &[&str]| {
        let said = run.run(&[&VERIFY[..5], args].concat());
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(!run.path("run/verify/trials").exists(), "{args:?}");
        said.stderr.lines().next().unwrap_or_default().to_owned()
    };
    insta::assert_snapshot!(refused(&["--passes", "nan"]), @"error: invalid value 'nan' for '--passes <N>': not a number above zero");
    insta::assert_snapshot!(refused(&["--passes=-1"]), @"error: invalid value '-1' for '--passes <N>': not a number above zero");
    insta::assert_snapshot!(refused(&["--training-rate", "inf"]), @"error: invalid value 'inf' for '--training-rate <RATE>': not a number above zero");
    insta::assert_snapshot!(refused(&["--eval-rows", "0"]), @"error: invalid value '0' for '--eval-rows <N>': 0 is not in 1..=4294967295");
    insta::assert_snapshot!(refused(&["--tokens", "1000000000000000"]), @"error: `subset` would pass over its rows 4566210045662 times, and 1000 is the most: train on fewer tokens");
}

#[test]
fn a_model_that_diverges_is_named_with_the_example() {
    let run = with_eval(TestRun::new(24));
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    // Its only step with a learning rate is the last.
    let args = ["--training-rate", "1e30", "--tokens", "250", "--against", "base"];
    let said = run.run(&[&VERIFY[..3], &args].concat());
    assert_eq!(said.code, 65);
    let cause = said.stderr.lines().last().unwrap_or_default().trim_start();
    insta::assert_snapshot!(cause, @"caused by: trained on `subset`, the model's loss on row 250b6ffc2038b241e8cf30215387904e of the evaluation is NaN: its numbers went out of bounds, which a lower --training-rate may prevent");
}

#[test]
fn a_damaged_outcome_is_named() {
    let run = with_eval(TestRun::new(24));
    assert_eq!(run.run(&["--budget", "6"]).code, 0);
    let verify = [&VERIFY[..], &["--against", "base"]].concat();
    assert_eq!(run.run(&verify).code, 0);
    let (path, _) = trials(&run).remove(0);
    fs_err::write(&path, "{").unwrap();
    let said = run.run(&verify);
    assert_ne!(said.code, 0);
    let name = path.file_name().unwrap().display().to_string();
    let expected = format!("{name}` is no outcome of a trial, which goes without it");
    assert!(said.stderr.contains(&expected), "{}", said.stderr);
    fs_err::remove_file(&path).unwrap();
    assert_eq!(run.run(&verify).code, 0);
}

#[test]
fn a_verification_needs_a_subset() {
    let run = with_eval(TestRun::new(6));
    let said = run.run(&VERIFY);
    assert_eq!(said.code, 4);
    insta::assert_snapshot!(said.stderr, @"error: `run` has no subset: run `less-select` first");
}
