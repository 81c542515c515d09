//! What a stage tells while it runs, and how it learns that it must stop.
//!
//! The library never prints. It hands [`Event`]s to an [`Observer`]: the
//! command line draws bars from them, the run directory keeps them in
//! `events.jsonl`, and a worker process sends them to its parent as lines of
//! JSON.

use serde::{Deserialize, Serialize};

use crate::stage::Stage;

/// Something worth telling a person or a scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Event {
    /// A stage begins; `reason` says why it is not skipped.
    StageStarted {
        /// The stage.
        stage: Stage,
        /// `first run`, or the setting or input that changed.
        reason: String,
    },
    /// A stage's output is there already, made from equal inputs.
    StageUnchanged {
        /// The stage.
        stage: Stage,
    },
    /// The warm-up was trained on an earlier state of the pool and still serves.
    WarmupKept {
        /// Share of the pool that is newer.
        growth: f64,
    },
    /// `done` of `total` units of the stage's work are finished.
    Progress {
        /// The stage.
        stage: Stage,
        /// What is being worked on, such as `pool, epoch-1`.
        what: String,
        /// Units finished.
        done: u64,
        /// Units in all.
        total: u64,
        /// What a unit is: `rows`, `steps`, `tokens`.
        unit: String,
    },
    /// One optimizer step of the warm-up.
    WarmupStep {
        /// From 1.
        epoch: u32,
        /// From 1, over all epochs.
        step: u64,
        /// Mean cross-entropy of the step's supervised tokens, in nats.
        loss: f64,
        /// The rate this step used.
        learning_rate: f64,
        /// L2 norm of the gradient before clipping.
        gradient_norm: f64,
    },
    /// Trials of a verification are about to begin.
    TrialsPlanned {
        /// In all.
        n_trials: u64,
        /// Of these are done already.
        n_done: u64,
        /// Tokens that the others train on.
        n_tokens: u64,
        /// About how long that takes, in seconds, if it is known.
        seconds: Option<f64>,
    },
    /// One step of a trial's training.
    Trial {
        /// Who is tried.
        contender: String,
        /// The trial's number, from 1.
        number: u64,
        /// Trials in all.
        n_trials: u64,
        /// From 1.
        step: u64,
        /// Steps of this training.
        n_steps: u64,
    },
    /// A stage is complete.
    StageFinished {
        /// The stage.
        stage: Stage,
        /// Wall-clock seconds it took.
        seconds: f64,
        /// One line for people: what came out.
        summary: String,
    },
    /// `done` of `total` bytes of a model's files are here.
    Fetch {
        /// The model's name.
        model: String,
        /// The file that is being fetched.
        file: String,
        /// Bytes that are here.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Something the user should know that does not stop the run.
    Warning {
        /// One sentence without a final period.
        message: String,
    },
}

/// Receives [`Event`]s and carries the wish to stop.
pub trait Observer: Sync {
    /// Takes note of `event`. Must not fail: telling is never worth a run.
    fn notify(&self, event: Event);

    /// Whether the user asked to stop. Stages look between units of work.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// An [`Observer`] that hears nothing, for tests and library use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn notify(&self, _event: Event) {}
}
