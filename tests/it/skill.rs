//! It finds the skill: the real model on real rows. Minutes, not seconds.

use std::path::{Path, PathBuf};

use less_select::influence::scores::{ScoreRow, ScoreTable};
use less_select::selection::top;

use crate::support::less_select;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

fn lines(path: &str) -> Vec<serde_json::Value> {
    let text = fs_err::read_to_string(data().join(path)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write_lines(path: &Path, rows: &[serde_json::Value]) {
    let text: Vec<String> = rows.iter().map(ToString::to_string).collect();
    fs_err::write(path, text.join("\n")).unwrap();
}

/// GSM8K's questions, each with an answer to one of TyDiQA's.
fn shuffled_target() -> Vec<serde_json::Value> {
    let mut rows = lines("example/gsm8k.jsonl");
    for (row, other) in rows.iter_mut().zip(lines("example/tydiqa.jsonl")) {
        row["messages"][1]["content"] = other["messages"][1]["content"].clone();
    }
    rows
}

/// Sources of the 20 best rows by the subtasks whose name begins with `target`,
/// rows of the source `without` aside.
fn best_by(scores: &ScoreTable, target: &str, without: &str) -> Vec<String> {
    let wanted: Vec<usize> =
        (0..scores.subtasks.len()).filter(|i| scores.subtasks[*i].starts_with(target)).collect();
    let narrowed = |row: &ScoreRow| ScoreRow {
        by_subtask: wanted.iter().map(|i| row.by_subtask[*i]).collect(),
        ..row.clone()
    };
    let scores = ScoreTable {
        subtasks: wanted.iter().map(|i| scores.subtasks[*i].clone()).collect(),
        rows: scores.rows.iter().filter(|row| row.source != without).map(narrowed).collect(),
    };
    let best = top(&scores, "20".parse().unwrap());
    best.iter().map(|place| scores.rows[place.position].source.clone()).collect()
}

/// How many are of `source`, planted ones included.
fn count(sources: &[String], source: &str) -> usize {
    sources.iter().filter(|name| name.ends_with(source)).count()
}

/// The mixture holds 20 rows of GSM8K, 20 of TyDiQA and 360 others; planted in
/// it is one target example of each. One run serves four targets: those two,
/// GSM8K with TyDiQA's answers, and the planted example of GSM8K alone.
#[test]
#[ignore = "run by name: some minutes on SmolLM2, numbers in docs/measurements.md"]
fn the_skill_is_found_and_its_duplicate_ranks_first() {
    let dir = tempfile::tempdir().unwrap();
    let target = |name: &str| lines(&format!("example/{name}.jsonl"));
    write_lines(&dir.path().join("planted-gsm8k.jsonl"), &target("gsm8k")[..1]);
    // Swahili: short enough for `max-tokens`, which the Bengali one is not.
    write_lines(&dir.path().join("planted-tydiqa.jsonl"), &target("tydiqa")[7..8]);
    write_lines(&dir.path().join("shuffled.jsonl"), &shuffled_target());
    let mixture = data().join("mixtures/gsm8k-tydiqa").display().to_string();
    let output = less_select()
        .current_dir(dir.path())
        .args(["--run", "run", "--epochs", "1", "--pool", &mixture])
        .args(["--pool", "planted-gsm8k.jsonl", "--pool", "planted-tydiqa.jsonl"])
        .args(["--target", "example:gsm8k", "--target", "example:tydiqa"])
        .args(["--target", "shuffled.jsonl", "--target", "planted=planted-gsm8k.jsonl"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let scores = ScoreTable::read(&dir.path().join("run/scores.parquet")).unwrap();
    let [gsm8k, shuffled] = ["gsm8k", "shuffled"].map(|target| best_by(&scores, target, ""));
    assert_eq!(best_by(&scores, "planted", "")[0], "planted-gsm8k");
    let [n_gsm8k, n_shuffled] = [count(&gsm8k, "gsm8k"), count(&shuffled, "gsm8k")];
    assert!(n_gsm8k >= 19, "{n_gsm8k} of 20 rows are GSM8K: {gsm8k:?}");
    assert!(n_shuffled < n_gsm8k, "{n_shuffled} with shuffled answers, {n_gsm8k} without");

    // The mixture's rows of P3 are questions on a given fact, answered in a
    // word or two: TyDiQA's own skill. Whole gradients, unprojected, find 15 of
    // its rows beside them and 19 without; a projection may cost two.
    assert_eq!(best_by(&scores, "tydiqa/swahili", "")[0], "planted-tydiqa");
    let [beside, without] = ["", "t0_p3"].map(|source| best_by(&scores, "tydiqa", source));
    assert!(count(&beside, "tydiqa") >= 13, "{beside:?}");
    assert!(count(&without, "tydiqa") >= 17, "{without:?}");
}
