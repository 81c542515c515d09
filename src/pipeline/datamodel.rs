//! The linear datamodeling score of a run.

use super::checksums::Checksums;
use super::contenders::{Contender, Rows, TrainingLength, seed};
use super::verify::VerifyError;
use super::{PipelineError, Run};
use crate::influence::example_scores::ExampleScores;
use crate::influence::index::subtask_name;
use crate::pool::table::{ExampleTable, TableRow};
use crate::report::spearman;
use crate::stage::Stage;
use crate::store::Split;
use crate::verify::datamodel::{DatamodelingScore, Half, datamodeling_score};
use crate::verify::{Outcome, Plan, Trial};

/// Pool rows whose scores are in memory at once.
const BLOCK_ROWS: usize = 4096;

impl Run<'_> {
    /// Trains on `n_halves` random halves of the pool, `passes` over each, and compares
    /// the loss of every target example with what the run's scores foretold. `None` if
    /// nothing varies. Trials are kept as a verification's are.
    ///
    /// # Errors
    ///
    /// If the run's method has no scores by target example, the run has no scores yet, or
    /// a trial fails.
    pub fn datamodeling_score(
        &self,
        n_halves: u32,
        passes: f64,
        learning_rate: f64,
    ) -> Result<Option<DatamodelingScore>, PipelineError> {
        if !self.config.method.has_target() {
            return Err(VerifyError::NoForecast(self.config.method).into());
        }
        let mut found = None;
        self.under_lock(|run, checksums| {
            run.require_earlier(Stage::Select, checksums)?;
            found = run.foretold(n_halves, passes, learning_rate, checksums)?;
            Ok(())
        })?;
        Ok(found)
    }

    fn foretold(
        &self,
        n_halves: u32,
        passes: f64,
        learning_rate: f64,
        checksums: &mut Checksums,
    ) -> Result<Option<DatamodelingScore>, PipelineError> {
        // Before the trainings, which take long: files that are damaged end it here.
        let scores = self.example_scores()?;
        let table = self.dir.table(Split::Pool);
        let heads = ExampleTable::open(&table)?.rows().to_vec();
        let rows = Rows::Drawn(heads.len().div_ceil(2));
        let half = Contender { name: "half".to_owned(), rows, table, heads };
        let eval = self.dir.table(Split::Target);
        let targets = ExampleTable::open(&eval)?.rows().to_vec();
        let eval_rows: Vec<usize> = (0..targets.len()).collect();
        let made_from = self.made_from(learning_rate, &eval, &eval_rows, None, checksums)?;
        let trial = |number| {
            let (seed, length) = (seed(self.config.seed, number), TrainingLength::Passes(passes));
            let (name, trial) = half.trial(&half, length, seed, &made_from)?;
            Ok::<_, VerifyError>(Trial { outcome: self.dir.verify_trial(&name), ..trial })
        };
        let plan = Plan {
            trials: (0..n_halves).map(trial).collect::<Result<_, _>>()?,
            eval,
            eval_rows,
            learning_rate,
            answer_tokens: None,
            scratch: self.dir.verify_scratch(),
        };
        let outcomes = self.outcomes(&plan)?;
        let halves = halves(&plan.trials, &outcomes, &half.heads, &targets, &scores);
        Ok(datamodeling_score(&halves, spearman))
    }
}

/// What was foretold of every half, beside what came. `heads` are the pool's rows, in
/// the order of the scores, and `targets` the target's, in that of the outcomes.
fn halves(
    trials: &[Trial],
    outcomes: &[Outcome],
    heads: &[TableRow],
    targets: &[TableRow],
    scores: &ExampleScores,
) -> Vec<Half> {
    // The columns of the scores among the target's rows.
    let columns: Vec<usize> = scores
        .targets
        .examples
        .iter()
        .map(|example| {
            let name = &scores.targets.subtasks[example.subtask as usize];
            let is_it = |row: &TableRow| row.id == example.id && subtask_name(row) == *name;
            targets.iter().position(is_it).expect("the scores are of this target")
        })
        .collect();
    let half = |(foretold, outcome): (Vec<f64>, &Outcome)| Half {
        foretold,
        losses: columns.iter().map(|at| f64::from(outcome.eval[*at].loss)).collect(),
    };
    foretold_of(trials, heads, scores).into_iter().zip(outcomes).map(half).collect()
}

/// By trial and target example, the sum of the scores of the trial's rows. Rows that
/// have no score add nothing.
fn foretold_of(trials: &[Trial], heads: &[TableRow], scores: &ExampleScores) -> Vec<Vec<f64>> {
    let n_targets = scores.n_targets();
    let mut sums = vec![vec![0.0; n_targets]; trials.len()];
    for start in (0..scores.n_rows()).step_by(BLOCK_ROWS) {
        let rows = start..scores.n_rows().min(start + BLOCK_ROWS);
        let values = scores.total(rows.clone());
        for (head, values) in heads[rows].iter().zip(values.chunks_exact(n_targets)) {
            for (trial, sums) in trials.iter().zip(&mut sums) {
                let ids = trial.rows.as_ref().and_then(|rows| rows.ids.as_deref());
                if ids.is_some_and(|ids| ids.binary_search(&head.id).is_ok()) {
                    let finite =
                        |value: &f32| if value.is_finite() { f64::from(*value) } else { 0.0 };
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += finite(value));
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Range;
    use std::path::Path;

    use approx::assert_abs_diff_eq;
    use serde_json::json;

    use super::*;
    use crate::influence::example_scores::{CosinesHeader, TargetExample, TargetExamples};
    use crate::influence::example_scores_file::write_cosines;
    use crate::pool::ExampleId;
    use crate::seed::Seed;
    use crate::store::StoreError;
    use crate::verify::EvalRow;

    /// Rows that fill more than a block.
    const N_ROWS: usize = BLOCK_ROWS + 100;
    /// One that has no score.
    const FLAGGED: usize = 5;
    /// Target examples by id and subtask, as the scores have them.
    const TARGETS: [(usize, u32); 3] = [(1, 1), (2, 0), (2, 1)];
    const SUBTASKS: [&str; 2] = ["target/essay", "target/quiz"];

    fn id(number: usize) -> ExampleId {
        ExampleId((number as u128).to_be_bytes())
    }

    fn head(number: usize, subtask: Option<&str>) -> TableRow {
        TableRow {
            id: id(number),
            source: "target".to_owned(),
            subtask: subtask.map(str::to_owned),
            n_tokens: 10,
            n_supervised: 1,
            truncated: false,
        }
    }

    /// What a row does for a target example: a whole number, so that sums are exact.
    fn influence(row: usize, column: usize) -> f64 {
        ((row * [7, 13, 29][column]) % 101) as f64 - 50.0
    }

    /// Two checkpoints whose weighted sum is the influence.
    fn scores(dir: &Path) -> ExampleScores {
        let examples =
            TARGETS.map(|(number, subtask)| TargetExample { id: id(number), subtask }).to_vec();
        let subtasks = SUBTASKS.map(str::to_owned).to_vec();
        let targets = TargetExamples { subtasks, examples };
        let ids: Vec<ExampleId> = (0..N_ROWS).map(id).collect();
        let paths = [("epoch-1", 3.0), ("epoch-2", -1.0)].map(|(name, times)| {
            let checkpoint = name.to_owned();
            let header = CosinesHeader { checkpoint, weight: 0.5, targets: targets.clone() };
            let fill = |rows: Range<usize>, out: &mut [f32]| -> Result<(), StoreError> {
                for (row, out) in rows.zip(out.chunks_exact_mut(3)) {
                    for (column, out) in out.iter_mut().enumerate().filter(|_| row != FLAGGED) {
                        *out = (times * influence(row, column)) as f32;
                    }
                }
                Ok(())
            };
            write_cosines(dir, header, &ids, fill).unwrap()[0].0.clone()
        });
        ExampleScores::open(&paths).unwrap()
    }

    /// By target example, the sum of the influences of the trial's rows.
    fn sums(trial: &Trial) -> Vec<f64> {
        let ids = trial.rows.as_ref().unwrap().ids.as_ref().unwrap();
        let ids: BTreeSet<ExampleId> = ids.iter().copied().collect();
        let is_in = |row: &usize| *row != FLAGGED && ids.contains(&id(*row));
        let rows: Vec<usize> = (0..N_ROWS).filter(is_in).collect();
        let sum = |column| rows.iter().map(|row| influence(*row, column)).sum();
        (0..TARGETS.len()).map(sum).collect()
    }

    #[test]
    fn trainings_that_come_out_as_foretold_have_the_score_one_and_the_reverse_minus_one() {
        let dir = tempfile::tempdir().unwrap();
        let scores = scores(dir.path());
        let heads = (0..N_ROWS).map(|number| head(number, None)).collect();
        let half = Contender {
            name: "half".to_owned(),
            rows: Rows::Drawn(N_ROWS / 2),
            table: dir.path().to_owned(),
            heads,
        };
        let trial = |number| {
            let length = TrainingLength::Passes(1.0);
            half.trial(&half, length, seed(Seed(0), number), &json!(null)).unwrap().1
        };
        let trials: Vec<Trial> = (0..5).map(trial).collect();
        let foretold: Vec<Vec<f64>> = trials.iter().map(sums).collect();
        // The target's table has another order than the scores.
        let in_table = [2, 0, 1];
        let targets = in_table.map(|column| {
            let (number, subtask) = TARGETS[column];
            head(number, SUBTASKS[subtask as usize].strip_prefix("target/"))
        });
        for sign in [1.0, -1.0] {
            let outcome = |foretold: &Vec<f64>| Outcome {
                contender: "half".to_owned(),
                n_rows: N_ROWS / 2,
                n_tokens: 1,
                seconds: 1.0,
                eval: in_table
                    .map(|column| EvalRow {
                        source: "target".to_owned(),
                        subtask: None,
                        loss: (-sign * foretold[column]) as f32,
                        is_exact: false,
                        said: None,
                    })
                    .to_vec(),
            };
            let outcomes: Vec<Outcome> = foretold.iter().map(outcome).collect();
            let halves = halves(&trials, &outcomes, &half.heads, &targets, &scores);
            for (half, foretold) in halves.iter().zip(&foretold) {
                assert_eq!(half.foretold, *foretold);
            }
            let found = datamodeling_score(&halves, spearman).unwrap();
            assert_eq!((found.n_halves, found.n_targets), (5, 3));
            assert_abs_diff_eq!(found.score.mean, sign, epsilon = 1e-12);
        }
    }
}
