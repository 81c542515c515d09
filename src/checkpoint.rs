//! Checkpoints of a LoRA warm-up, in the layout of `peft` and the Hugging Face
//! Trainer.

use serde::{Deserialize, Serialize};

/// The adapter's shape: the `lora-*` settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoraSettings {
    /// Rank r of the update B·A.
    pub rank: usize,
    /// The update is scaled by alpha / rank.
    pub alpha: f64,
    /// Chance that an input coordinate of A is dropped in training.
    pub dropout: f64,
    /// Names of the linear modules that get an adapter, such as `q_proj`.
    pub targets: Vec<String>,
}
