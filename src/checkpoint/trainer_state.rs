//! `trainer_state.json`: how far the training came, and its log.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::CheckpointErrorKind;

pub(super) const FILE: &str = "trainer_state.json";

/// The part of the Trainer's state that means something to others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Epochs finished, with a fraction.
    pub epoch: f64,
    /// Optimizer steps finished.
    pub global_step: u64,
    /// One entry a step, or as often as the Trainer was told to log.
    pub log_history: Vec<LogEntry>,
    /// Optimizer steps planned.
    #[serde(default)]
    pub max_steps: u64,
    /// Epochs planned.
    #[serde(default)]
    pub num_train_epochs: u64,
    /// Rows in a step.
    #[serde(default)]
    pub train_batch_size: Option<u64>,
}

/// What the log says about a step. Evaluations have no learning rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Epochs finished after the step.
    pub epoch: Option<f64>,
    /// L2 norm of the gradient before clipping.
    pub grad_norm: Option<f64>,
    /// The rate the step used.
    pub learning_rate: Option<f64>,
    /// Mean loss of the step's supervised tokens, in nats.
    pub loss: Option<f64>,
    /// Number of the step, from 1.
    pub step: u64,
}

impl TrainerState {
    /// Mean learning rate of the logged steps of the last epoch; the last one
    /// that was logged, if that epoch has none.
    pub fn learning_rate(&self) -> Option<f64> {
        let last = || self.log_history.iter().rev().find_map(|entry| entry.learning_rate);
        self.mean_of_last_epoch(|entry| entry.learning_rate).or_else(last)
    }

    /// Mean loss of the logged steps of the last epoch, in nats a token.
    pub fn loss(&self) -> Option<f64> {
        self.mean_of_last_epoch(|entry| entry.loss)
    }

    fn mean_of_last_epoch(&self, value: fn(&LogEntry) -> Option<f64>) -> Option<f64> {
        let is_last = |entry: &&LogEntry| entry.epoch.is_some_and(|epoch| epoch > self.epoch - 1.0);
        let values: Vec<f64> = self.log_history.iter().filter(is_last).filter_map(value).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }
}

pub(super) fn read(path: &Path) -> Result<TrainerState, CheckpointErrorKind> {
    Ok(serde_json::from_str(&without_nan(&fs_err::read_to_string(path)?))?)
}

/// Python writes numbers that are none as JSON does not know them; here they
/// are `null`, like what was not logged.
fn without_nan(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    let (mut is_in_text, mut is_escaped) = (false, false);
    while let Some(next) = rest.chars().next() {
        let none = ["NaN", "-Infinity", "Infinity"].into_iter().find(|none| rest.starts_with(none));
        if let Some(none) = none.filter(|_| !is_in_text) {
            plain.push_str("null");
            rest = &rest[none.len()..];
            continue;
        }
        is_in_text ^= next == '"' && !is_escaped;
        is_escaped = next == '\\' && !is_escaped;
        plain.push(next);
        rest = &rest[next.len_utf8()..];
    }
    plain
}

pub(super) fn write(dir: &Path, state: &TrainerState) -> Result<(), CheckpointErrorKind> {
    let TrainerState {
        epoch,
        global_step,
        log_history,
        max_steps,
        num_train_epochs,
        train_batch_size,
    } = state;
    let state = json!({
        "best_global_step": null,
        "best_metric": null,
        "best_model_checkpoint": null,
        "epoch": epoch,
        "eval_steps": 500,
        "global_step": global_step,
        "is_hyper_param_search": false,
        "is_local_process_zero": true,
        "is_world_process_zero": true,
        "log_history": log_history,
        "logging_steps": 1,
        "max_steps": max_steps,
        "num_input_tokens_seen": 0,
        "num_train_epochs": num_train_epochs,
        "save_steps": 500,
        "stateful_callbacks": {},
        "total_flos": 0,
        "train_batch_size": train_batch_size,
        "trial_name": null,
        "trial_params": null,
    });
    crate::fs::write_json(&dir.join(FILE), &state)?;
    Ok(())
}
