//! The cascade: a first pass by likeness, gradients of the best share only.

use less_select::cascade::Similarities;
use less_select::first_pass::Represent;
use less_select::pool::Example;
use less_select::progress::Silent;

use crate::toy;

/// Represents an example by how often each token is in it, and remembers the
/// largest batch.
#[derive(Default)]
struct Counts {
    largest_batch: usize,
}

impl Represent for Counts {
    type Error = std::convert::Infallible;

    fn represent(&mut self, batch: &[&Example]) -> Result<Vec<Vec<f32>>, Self::Error> {
        self.largest_batch = self.largest_batch.max(batch.len());
        Ok(batch.iter().map(|example| counts(example)).collect())
    }
}

fn counts(example: &Example) -> Vec<f32> {
    let mut counts = vec![0.0; toy::N_TOKENS as usize];
    for token_id in &example.token_ids {
        counts[*token_id as usize] += 1.0;
    }
    counts
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn a_row_is_as_like_the_target_as_its_best_subtask_says() {
    let (pool, target) = (toy::pool(60, 1), toy::target(2));
    let mut subtasks: Vec<_> = target.rows.iter().map(|row| (&row.source, &row.subtask)).collect();
    subtasks.sort();
    subtasks.dedup();
    let slow = |row: &Example| {
        let mean = |subtask: &(&String, &Option<String>)| {
            let members = target.rows.iter().zip(&target.examples);
            let members = members.filter(|(head, _)| (&head.source, &head.subtask) == *subtask);
            let cosines: Vec<f64> =
                members.map(|(_, other)| cosine(&counts(row), &counts(other))).collect();
            cosines.iter().sum::<f64>() / cosines.len() as f64
        };
        subtasks.iter().map(mean).fold(f64::NEG_INFINITY, f64::max)
    };
    for (batch_tokens, largest) in [(1, 1), (100_000, pool.examples.len())] {
        let mut model = Counts::default();
        let found = Similarities::of(&mut model, &pool, &target, batch_tokens, &Silent).unwrap();
        assert_eq!(model.largest_batch, largest);
        for (row, similarity) in pool.examples.iter().zip(&found.similarities) {
            approx::assert_abs_diff_eq!(f64::from(*similarity), slow(row), epsilon = 1e-6);
        }
    }
}

#[test]
fn similarities_come_back_from_their_file_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cascade.parquet");
    let ids = toy::random_examples(3, 5).iter().map(|example| example.id).collect();
    let found = Similarities { ids, similarities: vec![0.5, -0.25, f32::NAN] };
    found.write(&path).unwrap();
    let read = Similarities::read(&path).unwrap();
    assert_eq!(read.ids, found.ids);
    assert_eq!(read.similarities[..2], found.similarities[..2]);
    assert!(read.similarities[2].is_nan());
    fs_err::write(&path, "no table").unwrap();
    assert!(Similarities::read(&path).is_err());
}

#[cfg(feature = "torch")]
mod runs {
    use less_select::influence::scores::ScoreTable;

    use super::*;
    use crate::support::TestRun;

    #[test]
    fn gradients_are_taken_of_the_most_alike_only() {
        let run = TestRun::new(24);
        let said = run.run(&["--cascade", "50%"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert!(said.stderr.contains("30 gradients stored"), "{}", said.stderr);
        let similarities = Similarities::read(&run.run_dir().join("cascade.parquet")).unwrap();
        let kept = similarities.kept(0.5);
        let scores = ScoreTable::read(&run.run_dir().join("scores.parquet")).unwrap();
        assert_eq!(scores.rows.len(), 24);
        for (position, row) in scores.rows.iter().enumerate() {
            let flag = (!kept.contains(&position)).then_some("passed over by the cascade");
            assert_eq!(row.flag.as_deref(), flag);
        }
        // A quarter of all the pool, not of what is left of it.
        assert!(said.stdout.contains("6 of 24 examples"), "{}", said.stdout);
        assert!(said.stdout.contains("Cascade gradients of 50.0% of the pool"), "{}", said.stdout);
        let again = run.run(&["--cascade", "50%"]);
        assert_eq!(again.stderr.matches("unchanged").count(), 8, "{}", again.stderr);
    }

    #[test]
    fn a_share_of_all_changes_nothing_and_tells_the_recall_of_smaller_ones() {
        let (plain, all) = (TestRun::new(24), TestRun::new(24));
        assert_eq!(plain.run(&[]).code, 0);
        let said = all.run(&["--cascade", "100%"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert_eq!(plain.checksums("gradients"), all.checksums("gradients"));
        assert!(said.stdout.contains("a share of 50.0% would have kept"), "{}", said.stdout);
        let report = fs_err::read(all.run_dir().join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        let recalls = report["run"]["cascade"]["recalls"].as_array().unwrap();
        let recalls: Vec<f64> = recalls.iter().map(|at| at["recall"].as_f64().unwrap()).collect();
        assert!(recalls.is_sorted() && recalls.iter().all(|recall| *recall <= 1.0), "{recalls:?}");
    }

    #[test]
    fn the_stage_alone_says_how_it_is_turned_on() {
        let run = TestRun::new(12);
        assert_eq!(run.run(&["ingest"]).code, 0);
        let said = run.say(&["cascade"]);
        assert_eq!(said.code, 2, "{}", said.stderr);
        insta::assert_snapshot!(said.stderr, @r"
        error: stage `first-pass` is off with method `less`
        hint: `--cascade SHARE`, `--method rds` and `--method perplexity` turn it on
        ");
    }
}
