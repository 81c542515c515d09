//! Trains on a run's subset and on its rivals, and compares them.
//!
//! ```text
//! verify/data/NAME/     a contender's rows and the evaluation's, as ingest writes them
//! verify/trials/        an outcome a trial, named by all that decides it
//! verify/verify.json    what the last verification found
//! ```
//!
//! A trial's file is there or not, so a verification that was stopped goes on with the
//! next trial, and one with another contender costs that contender.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::checksums::Checksums;
use super::contenders::{MOST_PASSES, Rival, Rows, SUBSET, TrainingLength, check_held_out, seed};
use super::fingerprint::model_files;
use super::{PipelineError, Run};
use crate::method::Method;
use crate::pool::table::{ExampleTable, TableRow};
use crate::pool::{ChatEncoder, Source, TARGET_TABLE};
use crate::progress::Event;
use crate::verify::answer::f1;
use crate::verify::comparison::{Comparison, compare};
use crate::verify::{EvalRow, Outcome, Plan, Trial, last_answer};

/// What to verify.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Contenders beside the run's newest subset, by name.
    pub rivals: Vec<(String, Rival)>,
    /// Held-out examples.
    pub eval: Vec<Source>,
    /// Most examples of each evaluation, the first in order of id.
    pub n_eval_rows: usize,
    /// Trials of a contender.
    pub n_seeds: u32,
    /// How long all train.
    pub training: TrainingLength,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Most tokens of an answer that the model gives itself, for F1; `None` asks for none.
    pub answer_tokens: Option<usize>,
    /// The contender that the others are compared with; `None` is [`RANDOM`], where it is
    /// among them.
    pub reference: Option<String>,
}

/// The name of [`Rival::Random`].
pub const RANDOM: &str = "random";

/// The settings of a verification are of no use.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Nothing was selected yet.
    #[error("`{}` has no subset: run `less-select` first", .0.display())]
    NoSubset(PathBuf),
    /// A method whose scores take a model.
    #[error("`{0}` needs a run of its own: `less-select --method {0} --run DIR`, and name DIR")]
    NeedsRun(Method),
    /// A method that does not look at single target examples was asked what it foretold
    /// of them.
    #[error(
        "`--halves` compares scores by target example, and method `{0}` has none: \
         select by `--method` less, rds, bm25 or ngram first"
    )]
    NoForecast(Method),
    /// Two contenders have one name.
    #[error("two contenders are called `{0}`; name one of them: NAME=PATH")]
    SameName(String),
    /// The one to compare with is not there.
    #[error("no contender is called `{wanted}`, to compare the others with: {there}")]
    NoReference {
        /// The name.
        wanted: String,
        /// The names that there are.
        there: String,
    },
    /// A name would be no file name.
    #[error("`{0}` is no name for a contender: letters, digits, `-`, `_` and `.`")]
    Name(String),
    /// More passes over the rows than anybody trains.
    #[error(
        "`{contender}` would pass over its rows {n} times, and {MOST_PASSES} is the most: train \
         on fewer tokens"
    )]
    TooLong {
        /// Who would train so long.
        contender: String,
        /// Passes.
        n: u64,
    },
    /// What is evaluated on was trained on.
    #[error(
        "{n} of the evaluation's examples are rows of `{contender}`: hold them out of the pool"
    )]
    Leaked {
        /// Who trains on them.
        contender: String,
        /// How many.
        n: usize,
    },
}

impl Run<'_> {
    /// Does the trials that `wanted` needs and that are not done, and compares all.
    ///
    /// # Errors
    ///
    /// If the run has no subset, a contender or an evaluation cannot be read, or a
    /// trial fails; the trials before it are kept.
    pub fn verify(&self, wanted: &Verification) -> Result<Vec<Comparison>, PipelineError> {
        let mut found = Vec::new();
        self.under_lock(|run, checksums| {
            found = run.verified(wanted, checksums)?;
            Ok(())
        })?;
        Ok(found)
    }

    fn verified(
        &self,
        wanted: &Verification,
        checksums: &mut Checksums,
    ) -> Result<Vec<Comparison>, PipelineError> {
        let reference = reference(wanted)?;
        let contenders = self.contenders(wanted)?;
        let eval = self.dir.verify_data(SUBSET).join(TARGET_TABLE);
        let eval_rows = eval_rows(ExampleTable::open(&eval)?.rows(), wanted.n_eval_rows);
        check_held_out(&contenders, &eval)?;
        let subset = &contenders[0];
        let made_from = self.made_from(
            wanted.learning_rate,
            &eval,
            &eval_rows,
            wanted.answer_tokens,
            checksums,
        )?;
        let mut trials = Vec::new();
        for contender in &contenders {
            let trains = !matches!(contender.rows, Rows::None);
            let n_seeds = if trains { wanted.n_seeds } else { 1 };
            for number in 0.. {
                let seed = seed(self.config.seed, number);
                let (name, trial) = contender.trial(subset, wanted.training, seed, &made_from)?;
                let outcome = self.dir.verify_trial(&name);
                // More seeds than asked for count where they were done earlier.
                if number >= n_seeds && !(trains && outcome.exists()) {
                    break;
                }
                trials.push(Trial { outcome, ..trial });
            }
        }
        let plan = Plan {
            trials,
            eval,
            eval_rows,
            learning_rate: wanted.learning_rate,
            answer_tokens: wanted.answer_tokens,
            scratch: self.dir.verify_scratch(),
        };
        let outcomes = self.outcomes(&plan)?;
        let f1 = plan.answer_tokens.map(|_| self.f1(&plan, &outcomes)).transpose()?;
        let found = compare(&outcomes, f1.as_deref(), reference);
        crate::fs::write_json(&self.dir.verify_json(), &found)?;
        Ok(found)
    }

    /// All that decides outcomes but for what a trial trains on.
    pub(super) fn made_from(
        &self,
        learning_rate: f64,
        eval: &Path,
        eval_rows: &[usize],
        answer_tokens: Option<usize>,
        checksums: &mut Checksums,
    ) -> Result<serde_json::Value, PipelineError> {
        let config = self.config;
        Ok(json!({
            "format": 1,
            "model": model_files(config, checksums)?,
            "random-weights": config.random_weights,
            "dtype": config.compute.precision(),
            "lora": config.lora,
            "batch-size": config.warmup.batch_size,
            "schedule": config.warmup.schedule,
            "warmup-ratio": config.warmup.warmup_ratio,
            "weight-decay": config.warmup.weight_decay,
            "max-grad-norm": config.warmup.max_grad_norm,
            "learning-rate": learning_rate,
            "eval": crate::fs::checksum(eval)?,
            "eval-rows": eval_rows,
            "answer-tokens": answer_tokens,
        }))
    }

    /// The outcomes of all trials, after those that are missing were done.
    pub(super) fn outcomes(&self, plan: &Plan) -> Result<Vec<Outcome>, PipelineError> {
        self.do_trials(plan)?;
        let mut found = Vec::new();
        for trial in &plan.trials {
            // It may have been done for another contender of the same rows.
            let named = |found| Outcome { contender: trial.contender.clone(), ..found };
            found.extend(Outcome::read(&trial.outcome)?.map(named));
        }
        Ok(found)
    }

    /// By outcome and example, how many words of the wanted answer the model's own has.
    fn f1(&self, plan: &Plan, outcomes: &[Outcome]) -> Result<Vec<Vec<f64>>, PipelineError> {
        let encoder = ChatEncoder::load(&self.config.model, &self.config.ingest.encoding)?;
        let examples = ExampleTable::open(&plan.eval)?.examples_at(&plan.eval_rows)?;
        let wanted = examples.iter().map(|row| encoder.decode(&row.token_ids[last_answer(row)]));
        let wanted: Vec<String> = wanted.collect();
        let of = |(row, wanted): (&EvalRow, &String)| {
            f1(&encoder.decode(row.said.as_deref().unwrap_or_default()), wanted)
        };
        Ok(outcomes
            .iter()
            .map(|outcome| outcome.eval.iter().zip(&wanted).map(of).collect())
            .collect())
    }

    fn do_trials(&self, plan: &Plan) -> Result<(), PipelineError> {
        let missing: Vec<&Trial> =
            plan.trials.iter().filter(|trial| !trial.outcome.exists()).collect();
        let n_tokens = missing.iter().map(|trial| trial.n_tokens).sum();
        self.observer.notify(Event::TrialsPlanned {
            n_trials: plan.trials.len() as u64,
            n_done: (plan.trials.len() - missing.len()) as u64,
            n_tokens,
            seconds: self.trial_time(plan, &missing)?,
        });
        if missing.is_empty() {
            return Ok(());
        }
        let path = self.dir.verify_plan();
        crate::fs::write_json(&path, plan)?;
        let path = path.display().to_string();
        self.worker_alone(&["verify", "--plan", &path])?;
        Ok(())
    }
}

/// The contender that the others are compared with.
fn reference(wanted: &Verification) -> Result<&str, VerifyError> {
    let Some(name) = &wanted.reference else { return Ok(RANDOM) };
    let there = wanted.rivals.iter().map(|(rival, _)| rival.as_str());
    let there: Vec<&str> = std::iter::once(SUBSET).chain(there).collect();
    if there.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(VerifyError::NoReference { wanted: name.clone(), there: there.join(", ") })
}

/// Positions of the first rows of every source, ascending.
fn eval_rows(heads: &[TableRow], most: usize) -> Vec<usize> {
    let mut n_taken: BTreeMap<&str, usize> = BTreeMap::new();
    let mut rows = Vec::new();
    for (at, row) in heads.iter().enumerate() {
        let n = n_taken.entry(&row.source).or_default();
        *n += 1;
        if *n <= most {
            rows.push(at);
        }
    }
    rows
}
