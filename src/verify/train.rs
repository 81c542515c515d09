//! A trial: training and evaluation.

use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;

use super::repeated::Repeated;
use super::{EvalRow, Outcome, Plan, Trial, last_answer};
use crate::gradient::shard_plan::plan_batches;
use crate::model::{Assessment, LoraDecoder, ModelError, Prompt};
use crate::pool::table::{ExampleTable, TableRow};
use crate::pool::{Example, ExampleId, PoolError};
use crate::progress::{Event, Observer};
use crate::warmup::{self, Output, WarmupError, WarmupSettings};

/// What a training that is stopped has to do again at most.
const BETWEEN_SNAPSHOTS: Duration = Duration::from_mins(1);

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// It could not be trained.
    #[error("failed to train on `{contender}`")]
    Train {
        /// Who was tried.
        contender: String,
        /// Why.
        source: Box<WarmupError>,
    },
    /// The model failed on evaluation examples.
    #[error("failed to evaluate `{contender}`")]
    Assess {
        /// Who was tried.
        contender: String,
        /// Why.
        source: ModelError,
    },
    /// The model says nothing of an evaluation example that is a number.
    #[error(
        "trained on `{contender}`, the model's loss on row {id} of the evaluation is {loss}: its \
         numbers went out of bounds, which a lower --training-rate may prevent"
    )]
    NotFinite {
        /// Who was tried.
        contender: String,
        /// The example.
        id: ExampleId,
        /// Its loss.
        loss: f32,
    },
    /// A table could not be read.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// An outcome could not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The user asked to stop. Trials that are done stay.
    #[error("interrupted")]
    Interrupted,
}

/// Does every trial of `plan` that has no outcome yet; the other settings of the
/// training are `settings`'s.
///
/// # Errors
///
/// The first trial that fails; those before it are kept.
pub fn run_trials(
    model: &mut LoraDecoder,
    plan: &Plan,
    settings: &WarmupSettings,
    observer: &dyn Observer,
) -> Result<(), TrialError> {
    let eval = ExampleTable::open(&plan.eval)?;
    let examples = eval.examples_at(&plan.eval_rows)?;
    let heads: Vec<_> = plan.eval_rows.iter().map(|at| &eval.rows()[*at]).collect();
    let settings = WarmupSettings {
        share: 1.0,
        min_rows: 1,
        // What is repeated stands in the rows.
        epochs: 1,
        learning_rate: plan.learning_rate,
        ..settings.clone()
    };
    for (number, trial) in (1..).zip(&plan.trials) {
        if trial.outcome.exists() {
            continue;
        }
        let observer = &TrialProgress { observer, trial, number, n_trials: plan.trials.len() };
        let start = Instant::now();
        let (n_rows, n_tokens) = train(model, trial, &settings, &plan.scratch, observer)?;
        let found = evaluate(model, &examples, plan, trial, observer)?;
        let mut losses = found.iter().map(|(assessed, _)| assessed.loss).zip(&heads);
        if let Some((loss, head)) = losses.find(|(loss, _)| !loss.is_finite()) {
            let contender = trial.contender.clone();
            return Err(TrialError::NotFinite { contender, id: head.id, loss });
        }
        let row = |((assessed, said), head): (Evaluated, &&TableRow)| EvalRow {
            source: head.source.clone(),
            subtask: head.subtask.clone(),
            loss: assessed.loss,
            is_exact: assessed.is_exact,
            said,
        };
        let outcome = Outcome {
            contender: trial.contender.clone(),
            n_rows,
            n_tokens,
            seconds: start.elapsed().as_secs_f64(),
            eval: found.into_iter().zip(&heads).map(row).collect(),
        };
        crate::fs::write_json(&trial.outcome, &outcome)?;
    }
    Ok(())
}

/// Trains the trial's adapter and leaves it on the model; returns its distinct rows
/// and its tokens.
fn train(
    model: &mut LoraDecoder,
    trial: &Trial,
    settings: &WarmupSettings,
    scratch: &Path,
    observer: &dyn Observer,
) -> Result<(usize, u64), TrialError> {
    let Some(rows) = &trial.rows else {
        model.set_adapter(&vec![0.0; model.layout().grad_dim()]);
        return Ok((0, 0));
    };
    let table = ExampleTable::open(&rows.table)?;
    let heads = table.rows().iter().enumerate();
    let positions: Vec<usize> = match &rows.ids {
        None => (0..table.rows().len()).collect(),
        Some(ids) => heads
            .filter(|(_, row)| ids.binary_search(&row.id).is_ok())
            .map(|(position, _)| position)
            .collect(),
    };
    let repeated = Repeated::new(&table, &positions, trial.n_tokens, trial.seed);
    let made_from = trial.outcome.file_stem().unwrap_or_default().to_string_lossy();
    let dir = scratch.join(&*made_from);
    let output = Output { dir: &dir, made_from: &made_from, interval: BETWEEN_SNAPSHOTS };
    warmup::train(model, &repeated, settings, trial.seed, output, observer).map_err(|source| {
        match source {
            WarmupError::Interrupted => TrialError::Interrupted,
            source => {
                let contender = trial.contender.clone();
                TrialError::Train { contender, source: Box::new(source) }
            }
        }
    })?;
    fs::remove_dir_all(&dir)?;
    Ok((positions.len(), repeated.n_tokens()))
}

/// An evaluation example: what the model makes of its answer, and what it says itself.
type Evaluated = (Assessment, Option<Vec<u32>>);

/// Evaluates all examples with the adapter as it stands; in their order.
fn evaluate(
    model: &LoraDecoder,
    examples: &[Example],
    plan: &Plan,
    trial: &Trial,
    observer: &dyn Observer,
) -> Result<Vec<Evaluated>, TrialError> {
    let fail = |source| TrialError::Assess { contender: trial.contender.clone(), source };
    let assessed =
        in_batches(model, examples, observer, |batch| model.assess(batch).map_err(fail))?;
    let Some(most) = plan.answer_tokens else {
        return Ok(assessed.into_iter().map(|assessed| (assessed, None)).collect());
    };
    let said = in_batches(model, examples, observer, |batch| {
        let prompts: Vec<Prompt<'_>> = batch.iter().map(|row| prompt(row)).collect();
        model.generate(&prompts, most).map_err(fail)
    })?;
    Ok(assessed.into_iter().zip(said.into_iter().map(Some)).collect())
}

/// What `of` finds for every example, given batches of like lengths; in their order.
fn in_batches<T>(
    model: &LoraDecoder,
    examples: &[Example],
    observer: &dyn Observer,
    of: impl Fn(&[&Example]) -> Result<Vec<T>, TrialError>,
) -> Result<Vec<T>, TrialError> {
    let lengths: Vec<u32> = examples.iter().map(|row| row.token_ids.len() as u32).collect();
    let mut found: Vec<Option<T>> = examples.iter().map(|_| None).collect();
    for positions in plan_batches(&lengths, model.batch_tokens) {
        if observer.is_interrupted() {
            return Err(TrialError::Interrupted);
        }
        let batch: Vec<&Example> = positions.iter().map(|at| &examples[*at]).collect();
        for (at, one) in positions.iter().zip(of(&batch)?) {
            found[*at] = Some(one);
        }
    }
    Ok(found.into_iter().map(|one| one.expect("every row is in a batch")).collect())
}

/// What stands before an example's last answer, and the token that ends that.
fn prompt(example: &Example) -> Prompt<'_> {
    let answer = last_answer(example);
    Prompt { token_ids: &example.token_ids[..answer.start], end: example.token_ids[answer.end - 1] }
}

/// A training's steps as a part of all trials.
struct TrialProgress<'a> {
    observer: &'a dyn Observer,
    trial: &'a Trial,
    /// From 1.
    number: u64,
    n_trials: usize,
}

impl Observer for TrialProgress<'_> {
    fn notify(&self, event: Event) {
        let Event::Progress { done, total, .. } = event else { return };
        self.observer.notify(Event::Trial {
            contender: self.trial.contender.clone(),
            number: self.number,
            n_trials: self.n_trials as u64,
            step: done,
            n_steps: total,
        });
    }

    fn is_interrupted(&self) -> bool {
        self.observer.is_interrupted()
    }
}
