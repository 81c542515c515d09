//! Settings: what the user wrote, and what the program runs on.
//!
//! [`RawConfig`] is what a layer says, [`layers`] joins them, and
//! [`Config::resolve`] checks the result once. Nothing below this module checks
//! a setting again.

mod check;
pub mod layers;
pub mod location;
mod raw;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

pub use layers::{Layer, Origin};
pub use raw::RawConfig;

use crate::checkpoint::LoraSettings;
use crate::compute::ComputeSettings;
use crate::gradient::direction::GradientKind;
use crate::influence::Aggregation;
use crate::pool::IngestSettings;
use crate::projection::ProjectionSettings;
use crate::seed::Seed;
use crate::selection::{Budget, Schema};
use crate::store::StoreDtype;
use crate::warmup::WarmupSettings;

/// The settings a run is made with, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The model's folder.
    pub model: PathBuf,
    /// Pool, target and how rows become examples.
    pub ingest: IngestSettings,
    /// Checkpoints to use instead of a warm-up of our own.
    pub checkpoints: Option<PathBuf>,
    /// The warm-up training.
    pub warmup: WarmupSettings,
    /// The adapter.
    pub lora: LoraSettings,
    /// Directions to store, at least one; the first one ranks.
    pub gradients: Vec<GradientKind>,
    /// How gradients are made short.
    pub projection: ProjectionSettings,
    /// How stored rows are written.
    pub store_dtype: StoreDtype,
    /// Rows in a shard.
    pub shard_rows: NonZeroUsize,
    /// How a subtask's examples are joined, at least one; the first one ranks.
    pub aggregations: Vec<Aggregation>,
    /// How much to keep.
    pub budget: Budget,
    /// Columns of the subset.
    pub schema: Schema,
    /// Where and how precisely the model computes.
    pub compute: ComputeSettings,
    /// The root of every random number.
    pub seed: Seed,
    /// The joined layers, as written.
    pub raw: RawConfig,
    /// Who set each setting.
    pub origins: BTreeMap<String, Origin>,
}

impl Config {
    /// The kinds of direction that are stored, in one order whatever order they
    /// were given in: another one that ranks costs no gradients.
    pub fn stored_kinds(&self) -> Vec<GradientKind> {
        let mut kinds = self.gradients.clone();
        kinds.sort_unstable();
        kinds
    }

    /// The joined settings as a TOML file that resolves to this very config.
    ///
    /// # Panics
    ///
    /// Never: the settings came from TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.raw).expect("settings are plain values")
    }

    /// What decides the subset, without what only says where and how: no path,
    /// no device. Equal for the same job on another machine.
    pub fn portable(&self) -> serde_json::Map<String, serde_json::Value> {
        const LOCAL: [&str; 7] =
            ["model", "pool", "target", "checkpoints", "device", "threads", "batch-tokens"];
        let mut settings = layers::to_map(&self.raw);
        settings.retain(|name, _| !LOCAL.contains(&name.as_str()));
        settings
    }
}

/// Why settings cannot be run on.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A pipeline file is not what it should be.
    #[error("{file}:{line}: {message}{}", did_you_mean(nearest.as_deref()))]
    File {
        /// The file, or the name of an embedded pipeline.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
        /// The setting that was probably meant.
        nearest: Option<String>,
    },
    /// A pipeline file could not be read.
    #[error(transparent)]
    Unreadable(std::io::Error),
    /// `--pipeline` names nothing.
    #[error("no pipeline `{name}`: it is neither a file nor one of {known}")]
    NoPipeline {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A setting's value is out of range.
    #[error("invalid `{setting}` ({origin}): {message}")]
    Invalid {
        /// Its name.
        setting: &'static str,
        /// Who set it.
        origin: Origin,
        /// What is wrong with it, and what would be right.
        message: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}
