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
            let seed = seed(self.config.seed, number);
            let (name, trial) = half.trial(&half, TrainingLength::Passes(passes), seed, &made_from);
            Trial { outcome: self.dir.verify_trial(&name), ..trial }
        };
        let plan = Plan {
            trials: (0..n_halves).map(trial).collect(),
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
