//! Warm-up: a short LoRA training on a random share of the pool.
//!
//! Its checkpoints are the measure that gradients are taken with: an adapter
//! that has left its random start, Adam's moments, and the learning rate that
//! weighs each epoch. What it computes is what the Hugging Face Trainer would:
//! the loss of a step is the mean over all supervised tokens of its rows,
//! gradients are clipped by their norm, AdamW follows a linear or cosine
//! schedule.
//!
//! Everything random comes from streams named by purpose ([`Seed`]): which rows
//! ([`rows`]), their order in each epoch, where LoRA starts, and what dropout
//! hides in each step. None depends on the order or the files of the pool, or
//! on another step: a training that was stopped goes on from its last snapshot
//! to the same bytes.
//!
//! [`Seed`]: crate::seed::Seed

#[cfg(feature = "torch")]
mod adamw;
#[cfg(feature = "torch")]
mod init;
pub mod rows;
pub mod schedule;
#[cfg(feature = "torch")]
mod snapshot;
#[cfg(test)]
#[cfg(feature = "torch")]
mod tests;
#[cfg(feature = "torch")]
mod train;
#[cfg(feature = "torch")]
mod training_step;

use std::path::{Path, PathBuf};

use serde::Serialize;

#[cfg(feature = "torch")]
pub use init::{initial_adapter, trial_adapter};
pub use schedule::Schedule;
#[cfg(feature = "torch")]
pub use snapshot::Output;
#[cfg(feature = "torch")]
pub use train::{Summary, WarmupError, train};

/// The folder of an epoch's checkpoint, from 1, among the checkpoints in `dir`.
pub fn epoch_dir(dir: &Path, epoch: u64) -> PathBuf {
    dir.join(format!("epoch-{epoch}"))
}

/// Whether `path` has a name that a warm-up gives its checkpoints.
pub fn is_epoch_dir(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix("epoch-").is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The settings of the warm-up, the adapter's own aside.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct WarmupSettings {
    /// Share of the pool's rows to train on, in `(0, 1]`.
    pub share: f64,
    /// Fewest rows to train on, at least one: the moments of a few steps are noise.
    pub min_rows: usize,
    /// Passes over them, at least one; each leaves a checkpoint.
    pub epochs: u32,
    /// Rows of an optimizer step, at least one.
    pub batch_size: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How the rate falls.
    pub schedule: Schedule,
    /// Share of the steps, rounded up, in which the rate rises from zero.
    pub warmup_ratio: f64,
    /// AdamW's decay of the LoRA weights themselves.
    pub weight_decay: f64,
    /// Largest L2 norm of a step's gradient; a longer one is scaled down.
    pub max_grad_norm: f64,
}

impl WarmupSettings {
    /// Rows to train on of a pool of `n_pool`: the share, rounded, but at least
    /// [`min_rows`](Self::min_rows) where there are so many.
    #[expect(clippy::cast_sign_loss, reason = "a share of a count is not negative")]
    pub fn n_rows(&self, n_pool: usize) -> usize {
        ((n_pool as f64 * self.share).round() as usize).max(self.min_rows).min(n_pool)
    }

    /// Optimizer steps of an epoch over `n_rows` rows; the last may be smaller.
    pub fn steps_per_epoch(&self, n_rows: usize) -> u64 {
        n_rows.div_ceil(self.batch_size) as u64
    }

    /// The learning rate of step number `step`, from 0, of `n_steps`.
    #[expect(clippy::cast_sign_loss, reason = "a share of a count is not negative")]
    pub fn rate(&self, step: u64, n_steps: u64) -> f64 {
        let n_rising = (n_steps as f64 * self.warmup_ratio).ceil() as u64;
        self.learning_rate * self.schedule.factor(step, n_rising, n_steps)
    }
}
