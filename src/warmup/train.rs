//! The training: steps, epochs, checkpoints.

use std::fmt;
use std::path::Path;

use fs_err as fs;

use super::init::initial_adapter;
use super::rows::{choose, epoch_order};
use super::snapshot::{Keeper, Output};
use super::training_step::{StepOutcome, Trainer};
use super::{WarmupSettings, epoch_dir, is_epoch_dir};
use crate::checkpoint::{self, CheckpointError, Content, LogEntry, TrainerState};
use crate::gradient::collect::ExampleSource;
use crate::gradient::direction::Moments;
use crate::model::{LoraDecoder, ModelError};
use crate::pool::{Example, ExampleId, PoolError};
use crate::progress::{Event, Observer};
use crate::seed::Seed;
use crate::stage::Stage;

/// Why a warm-up stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WarmupError {
    /// There is nothing to train on.
    #[error("the pool is empty")]
    EmptyPool,
    /// So few steps that none moves the adapter.
    #[error("none of its {0} steps has a learning rate: lower `batch-size`, or raise `epochs`")]
    NoRate(u64),
    /// The pool cannot be read.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A checkpoint cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The folder of checkpoints cannot be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The training has come apart: a rate too high, or a precision too low.
    #[error("{what} of step {step} is not finite (rows {})", list(rows))]
    NotFinite {
        /// `loss` or `gradient`.
        what: &'static str,
        /// From 1.
        step: u64,
        /// The rows that did it, or that were there.
        rows: Vec<ExampleId>,
    },
    /// The user asked to stop. What was done until then stays.
    #[error("interrupted")]
    Interrupted,
}

fn list(rows: &[ExampleId]) -> String {
    rows.iter().map(ExampleId::to_string).collect::<Vec<_>>().join(", ")
}

/// What a warm-up came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Rows trained on.
    pub n_rows: usize,
    /// Optimizer steps taken.
    pub n_steps: u64,
    /// Mean loss of the first epoch's steps, in nats a token.
    pub first_loss: f64,
    /// Mean loss of the last epoch's steps.
    pub last_loss: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_rows, n_steps, first_loss, last_loss } = self;
        write!(f, "{n_rows} rows, {n_steps} steps, loss {first_loss:.3} in the first epoch")?;
        if self.first_loss.to_bits() == self.last_loss.to_bits() {
            return Ok(());
        }
        write!(f, " and {last_loss:.3} in the last")
    }
}

/// Trains an adapter for `model` on a share of `pool`; writes a checkpoint an
/// epoch to `epoch-N` of the output, in place of those of an earlier warm-up. Leaves
/// the trained adapter on the model.
///
/// A training of the same that was stopped is taken up from its last snapshot.
///
/// # Errors
///
/// See [`WarmupError`].
pub fn train(
    model: &mut LoraDecoder,
    pool: &dyn ExampleSource,
    settings: &WarmupSettings,
    seed: Seed,
    output: Output<'_>,
    observer: &dyn Observer,
) -> Result<Summary, WarmupError> {
    let examples = read_share(pool, settings, seed)?;
    if examples.is_empty() {
        return Err(WarmupError::EmptyPool);
    }
    let steps_per_epoch = settings.steps_per_epoch(examples.len());
    let n_steps = steps_per_epoch * u64::from(settings.epochs);
    if (0..n_steps).all(|step| settings.rate(step, n_steps) <= 0.0) {
        return Err(WarmupError::NoRate(n_steps));
    }
    let (dir, keeper) = (output.dir, Keeper::new(output));
    let taken_up = keeper.read(model.layout()).filter(|snapshot| {
        let n_epochs = snapshot.state.global_step / steps_per_epoch;
        (1..=n_epochs).all(|epoch| checkpoint::is_checkpoint(&epoch_dir(dir, epoch)))
    });
    if let Some(snapshot) = &taken_up {
        model.set_adapter(&snapshot.adapter);
    } else {
        clear(dir)?;
        keeper.remove()?;
        model.set_adapter(&initial_adapter(model.layout(), seed));
    }
    let mut trainer = Trainer::new(model, settings, seed);
    let mut state = TrainerState {
        max_steps: n_steps,
        num_train_epochs: u64::from(settings.epochs),
        train_batch_size: Some(settings.batch_size as u64),
        ..TrainerState::default()
    };
    if let Some(snapshot) = taken_up {
        trainer.take_up(&snapshot.moments);
        state = snapshot.state;
    }
    let first_epoch = state.global_step / steps_per_epoch;
    let mut training =
        Training { model, settings, examples: &examples, trainer, state, keeper, observer };
    for epoch in (1..=settings.epochs).skip(first_epoch as usize) {
        training.epoch(epoch, &epoch_order(examples.len(), epoch, seed))?;
        training.save(&epoch_dir(dir, epoch.into()))?;
    }
    training.keeper.remove()?;
    let (summary, adapter) = (training.summary(), training.trainer.adapter());
    model.set_adapter(&adapter);
    Ok(summary)
}

/// The chosen examples, in order of id.
fn read_share(
    pool: &dyn ExampleSource,
    settings: &WarmupSettings,
    seed: Seed,
) -> Result<Vec<Example>, PoolError> {
    let ids: Vec<ExampleId> = pool.rows().iter().map(|row| row.id).collect();
    let chosen = choose(&ids, settings.n_rows(ids.len()), seed);
    pool.examples_at(&chosen)
}

/// Removes checkpoints of an earlier warm-up, so that no epoch of it stays.
fn clear(dir: &Path) -> Result<(), WarmupError> {
    fs::create_dir_all(dir)?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if is_epoch_dir(&path) {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// A warm-up under way.
struct Training<'a> {
    model: &'a LoraDecoder,
    settings: &'a WarmupSettings,
    examples: &'a [Example],
    trainer: Trainer<'a>,
    state: TrainerState,
    keeper: Keeper<'a>,
    observer: &'a dyn Observer,
}

impl Training<'_> {
    /// The steps of an epoch that are not done yet.
    fn epoch(&mut self, epoch: u32, order: &[usize]) -> Result<(), WarmupError> {
        let n_steps = self.settings.steps_per_epoch(self.examples.len());
        let n_done = self.state.global_step - n_steps * u64::from(epoch - 1);
        for rows in order.chunks(self.settings.batch_size).skip(n_done as usize) {
            if self.observer.is_interrupted() {
                self.snapshot()?;
                return Err(WarmupError::Interrupted);
            }
            if self.keeper.is_due() {
                self.snapshot()?;
            }
            let rows: Vec<&Example> = rows.iter().map(|&row| &self.examples[row]).collect();
            let rate = self.settings.rate(self.state.global_step, self.state.max_steps);
            let outcome = self.trainer.step(&rows, rate)?;
            self.log(epoch, rate, outcome);
        }
        Ok(())
    }

    /// Keeps what the steps so far came to, if there were any.
    fn snapshot(&mut self) -> Result<(), WarmupError> {
        if self.state.global_step == 0 {
            return Ok(());
        }
        let (adapter, moments) = (self.trainer.adapter(), self.trainer.moments());
        let content = content(self.model, &self.state, &adapter, &moments);
        Ok(self.keeper.write(&content)?)
    }

    fn log(&mut self, epoch: u32, learning_rate: f64, outcome: StepOutcome) {
        let StepOutcome { loss, gradient_norm } = outcome;
        let steps_per_epoch = self.settings.steps_per_epoch(self.examples.len());
        let state = &mut self.state;
        state.global_step += 1;
        state.epoch = state.global_step as f64 / steps_per_epoch as f64;
        state.log_history.push(LogEntry {
            epoch: Some(state.epoch),
            grad_norm: Some(gradient_norm),
            learning_rate: Some(learning_rate),
            loss: Some(loss),
            step: state.global_step,
        });
        let step = state.global_step;
        self.observer.notify(Event::WarmupStep { epoch, step, loss, learning_rate, gradient_norm });
        self.observer.notify(Event::Progress {
            stage: Stage::Warmup,
            what: format!("epoch-{epoch}"),
            done: step,
            total: state.max_steps,
            unit: "steps".to_owned(),
        });
    }

    fn save(&self, dir: &Path) -> Result<(), WarmupError> {
        let (adapter, moments) = (self.trainer.adapter(), self.trainer.moments());
        Ok(checkpoint::write(dir, &content(self.model, &self.state, &adapter, &moments))?)
    }

    fn summary(&self) -> Summary {
        let losses: Vec<f64> =
            self.state.log_history.iter().filter_map(|entry| entry.loss).collect();
        let n_steps = self.settings.steps_per_epoch(self.examples.len()) as usize;
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        Summary {
            n_rows: self.examples.len(),
            n_steps: self.state.global_step,
            first_loss: mean(&losses[..n_steps]),
            last_loss: mean(&losses[losses.len() - n_steps..]),
        }
    }
}

/// What a checkpoint holds after the steps of `state`.
fn content<'a>(
    model: &'a LoraDecoder,
    state: &'a TrainerState,
    adapter: &'a [f32],
    moments: &'a Moments,
) -> Content<'a> {
    Content {
        base_model: model.name(),
        lora: model.lora(),
        layout: model.layout(),
        adapter,
        moments,
        state,
    }
}
