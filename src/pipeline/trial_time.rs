//! How long a verification takes, before it begins.
//!
//! A trial's time is that of its tokens, those it trains on and those it is assessed on.
//! What one takes is told by the run's trials that are done, and before there is one by
//! its gradients, though a training has dropout and an optimizer, too.

use super::contenders::n_tokens;
use super::manifest::Manifest;
use super::{PipelineError, Run};
use crate::pool::table::ExampleTable;
use crate::stage::Stage;
use crate::store::Split;
use crate::verify::{Outcome, Plan, Trial};

/// What a token that is trained on takes, in what one of a gradient takes: 1.5 on two
/// cores (3.1 ms and 2.0 ms); it was three on an H200 when training went through autograd.
const TRAINED: f64 = 2.0;
/// What a token that is assessed takes, in what one that is trained on takes.
const ASSESSED: f64 = 0.3;

impl Run<'_> {
    /// About how many seconds the `missing` trials of `plan` take; `None` if there is
    /// neither a trial that is done nor a gradient stage that computed something.
    pub(super) fn trial_time(
        &self,
        plan: &Plan,
        missing: &[&Trial],
    ) -> Result<Option<f64>, PipelineError> {
        let eval = ExampleTable::open(&plan.eval)?;
        let assessed = n_tokens(plan.eval_rows.iter().map(|at| &eval.rows()[*at]));
        let work = |n_trained: u64| n_trained as f64 + ASSESSED * assessed as f64;
        let (mut seconds, mut done) = (0.0, 0.0);
        for trial in &plan.trials {
            if let Some(outcome) = Outcome::read(&trial.outcome)? {
                seconds += outcome.seconds;
                done += work(outcome.n_tokens);
            }
        }
        let rate = if done > 0.0 { Some(seconds / done) } else { self.gradient_time()? };
        let left = missing.iter().fold(0.0, |left, trial| left + work(trial.n_tokens));
        Ok(rate.map(|rate| rate * left))
    }

    /// About how many seconds training on a token takes, by what the gradients took.
    fn gradient_time(&self) -> Result<Option<f64>, PipelineError> {
        let manifest = Manifest::read(self.dir)?;
        let Some(record) = manifest.stages.get(&Stage::Gradients) else { return Ok(None) };
        let mut n_once = 0;
        for split in [Split::Pool, Split::Target] {
            n_once += n_tokens(ExampleTable::open(&self.dir.table(split))?.rows());
        }
        let n_taken = n_once * self.checkpoints()?.len() as u64;
        let is_new = record.seconds > 1.0 && n_taken > 0;
        Ok(is_new.then(|| TRAINED * record.seconds / n_taken as f64))
    }
}
