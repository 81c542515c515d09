//! The same selection, whatever the order of the pool's rows, the number of threads and
//! the length of shards.
//!
//! The budget is the whole pool, so that its whole order is compared: a smaller subset
//! is the beginning of a larger one.

use std::ops::Range;

use less_select::pool::ExampleId;
use less_select::selection::SelectionFile;

use crate::support::{TestRun, pool_row};

/// Rows of the pool's two sources.
const SOURCES: [(&str, Range<usize>); 2] = [("pool.jsonl", 0..28), ("more.jsonl", 28..40)];

/// How a selection comes about; not what is selected.
#[derive(Clone, Copy, Debug)]
struct Way {
    is_shuffled: bool,
    threads: &'static str,
    shard_rows: &'static str,
}

const PLAIN: Way = Way { is_shuffled: false, threads: "1", shard_rows: "8" };

/// One difference each.
const OTHERS: [Way; 3] = [
    Way { is_shuffled: true, ..PLAIN },
    Way { threads: "2", ..PLAIN },
    Way { shard_rows: "3", ..PLAIN },
];

impl Way {
    /// A run that has its pool.
    fn run(self) -> TestRun {
        let run = TestRun::new(0);
        for (file, rows) in SOURCES {
            let mut rows: Vec<usize> = rows.collect();
            if self.is_shuffled {
                rows.sort_by_key(|row| row * 17 % 41);
            }
            let rows: String = rows.into_iter().map(|row| pool_row(row) + "\n").collect();
            run.write(file, &rows);
        }
        run
    }

    /// What is selected by further settings.
    fn select(self, run: &TestRun, more: &[&str]) -> SelectionFile {
        let pool = if self.is_shuffled { "more.jsonl;pool.jsonl" } else { "pool.jsonl;more.jsonl" };
        let own = ["--pool", pool, "--threads", self.threads, "--shard-rows", self.shard_rows];
        let said = run.run(&[&own[..], &["--budget", "100%"], more].concat());
        assert_eq!(said.code, 0, "{more:?}, {self:?}: {}", said.stderr);
        SelectionFile::read(&run.path("run/selection.json")).unwrap()
    }
}

/// The rows in order of rank, each with the subtask it is taken for.
fn order(selection: &SelectionFile) -> Vec<(ExampleId, usize)> {
    selection.selected.iter().map(|row| (row.id, row.subtask)).collect()
}

/// Checks that every way comes to the same rows in the same order with each of
/// `settings`. Returns the runs: the plain one, then the others.
#[track_caller]
fn assert_same_order(settings: &[&[&str]]) -> Vec<TestRun> {
    let plain = PLAIN.run();
    let expected: Vec<_> = settings.iter().map(|more| PLAIN.select(&plain, more)).collect();
    let mut runs = vec![plain];
    for way in OTHERS {
        let run = way.run();
        for (more, expected) in settings.iter().zip(&expected) {
            let found = way.select(&run, more);
            assert_eq!(found.selected.len(), 40, "{more:?}");
            assert_eq!(order(&found), order(expected), "{more:?}, {way:?}");
            for (found, expected) in found.selected.iter().zip(&expected.selected) {
                approx::assert_abs_diff_eq!(found.score, expected.score, epsilon = 1e-6);
            }
        }
        runs.push(run);
    }
    runs
}

#[test]
fn a_method_without_a_model_selects_the_same_rows_in_the_same_order() {
    let methods = ["bm25", "ngram", "length", "random", "random-balanced"];
    assert_same_order(&methods.map(|method| ["--method", method]).each_ref().map(|it| &it[..]));
}

/// What the model computes differs by rounding: with other threads, and in the other
/// batches that other shards are cut into, sums have another order, and scores other
/// last bits, here up to 2e-9. So rows whose scores are nearer to each other than that
/// may change places; in this pool there are none.
#[cfg(feature = "torch")]
mod with_a_model {
    use super::*;
    use crate::support::committed_shards;

    /// Trained once for all: other threads round otherwise in training, too, where it adds
    /// up, and at other checkpoints cosines are others.
    #[test]
    fn every_selector_takes_the_same_rows_in_the_same_order() {
        let trained = TestRun::new(24);
        for stage in ["ingest", "warmup"] {
            let said = trained.run(&[stage]);
            assert_eq!(said.code, 0, "{}", said.stderr);
        }
        let checkpoints = trained.path("run/checkpoints").display().to_string();
        // Gradients are computed for the first one; the others select from that store.
        let settings = ["round-robin", "top", "knn", "knn-kde", "mmr"].map(|selector| {
            let own = ["--selector", selector, "--neighbors", "4", "--redundancy-penalty", "1"];
            [&["--method", "less", "--checkpoints", &checkpoints][..], &own].concat()
        });
        let runs = assert_same_order(&settings.each_ref().map(|it| &it[..]));
        let store = |run: &TestRun| run.path("run/gradients/epoch-1/pool");
        let n_shards = |run: &TestRun| committed_shards(&store(run)).len();
        assert_eq!(runs.iter().map(n_shards).collect::<Vec<_>>(), [5, 5, 5, 14]);
    }

    #[test]
    fn a_method_by_a_forward_pass_selects_the_same_rows_in_the_same_order() {
        assert_same_order(&[&["--method", "rds"], &["--method", "perplexity"]]);
    }
}
