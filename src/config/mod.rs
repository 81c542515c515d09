//! Settings: what the user wrote, and what the program runs on.
//!
//! [`RawConfig`] is what a layer says, [`layers`] joins them, and
//! [`Config::resolve`] checks the result once. Nothing below this module checks
//! a setting again.

mod check;
pub mod layers;
pub mod location;
mod raw;
mod selection;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

pub use layers::{Layer, Origin};
pub use raw::RawConfig;

use crate::checkpoint::LoraSettings;
use crate::compute::{ComputeSettings, Device};
use crate::first_pass::FirstPass;
use crate::gradient::direction::GradientKind;
use crate::influence::Aggregation;
use crate::influence::precondition::Precondition;
use crate::method::Method;
use crate::pool::{IngestSettings, TemplateSource};
use crate::projection::ProjectionSettings;
use crate::seed::Seed;
use crate::selection::{Budget, Schema, SelectionSettings};
use crate::stage::Stage;
use crate::store::StoreDtype;
use crate::warmup::WarmupSettings;

/// The settings a run is made with, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The model's folder.
    pub model: PathBuf,
    /// Random weights instead of the model's own.
    pub random_weights: Option<Seed>,
    /// Pool, target and how rows become examples.
    pub ingest: IngestSettings,
    /// Checkpoints to use instead of a warm-up of our own.
    pub checkpoints: Option<PathBuf>,
    /// The warm-up training.
    pub warmup: WarmupSettings,
    /// Share of the pool, in `(0, 1]`, that may be newer than the warm-up before
    /// it is trained again.
    pub rewarm_growth: f64,
    /// The adapter.
    pub lora: LoraSettings,
    /// Directions to store, at least one; the first one ranks.
    pub gradients: Vec<GradientKind>,
    /// How the pool's rows are scored.
    pub method: Method,
    /// Share of the pool, in `(0, 1]`, that the cascade's first pass lets
    /// through to the gradients; `None` is no first pass.
    pub cascade: Option<f64>,
    /// Where shards of gradients are kept that several runs may share; `None` is
    /// the run itself.
    pub gradient_store: Option<PathBuf>,
    /// How gradients are made short.
    pub projection: ProjectionSettings,
    /// How stored rows are written.
    pub store_dtype: StoreDtype,
    /// Rows in a shard.
    pub shard_rows: NonZeroUsize,
    /// How a subtask's examples are joined, at least one; the first one ranks.
    pub aggregations: Vec<Aggregation>,
    /// Which inner product compares gradients.
    pub precondition: Precondition,
    /// How much to keep.
    pub budget: Budget,
    /// Which rows to keep.
    pub selection: SelectionSettings,
    /// Columns of the subset.
    pub schema: Schema,
    /// Rows that the report quotes.
    pub report_rows: usize,
    /// Where and how precisely the model computes; of several
    /// [`devices`](Self::devices), on the first.
    pub compute: ComputeSettings,
    /// Where gradients are computed, a worker process each; at least one.
    pub devices: Vec<Device>,
    /// Most of a CUDA device's memory that a worker may take, in `(0, 1]`.
    pub device_memory: f64,
    /// The root of every random number.
    pub seed: Seed,
    /// The joined layers, as written.
    pub raw: RawConfig,
    /// Who set each setting.
    pub origins: BTreeMap<String, Origin>,
}

impl Config {
    /// The stages that these settings need, first to last.
    pub fn stages(&self) -> impl Iterator<Item = Stage> + use<> {
        let (method, has_cascade) = (self.method, self.cascade.is_some());
        Stage::ALL.into_iter().filter(move |stage| method.takes(*stage, has_cascade))
    }

    /// What the first pass is to find, if there is one.
    pub fn first_pass(&self) -> Option<FirstPass> {
        match self.method {
            Method::Less => self.cascade.map(|_| FirstPass::Similarities),
            Method::Rds => Some(FirstPass::Cosines),
            Method::Perplexity => Some(FirstPass::Losses),
            Method::Bm25
            | Method::Ngram
            | Method::Length
            | Method::Random
            | Method::RandomBalanced => None,
        }
    }

    /// Whether a stage of these settings needs the model itself, and not only its
    /// tokenizer.
    pub fn needs_model(&self) -> bool {
        self.method.takes_gradients() || self.first_pass().is_some()
    }

    /// The kinds of direction that are stored, in one order whatever order they
    /// were given in: another one that ranks costs no gradients.
    pub fn stored_kinds(&self) -> Vec<GradientKind> {
        let mut kinds = self.gradients.clone();
        kinds.sort_unstable();
        kinds
    }

    /// These settings for one of several workers: its device, and its share of
    /// the threads.
    #[must_use]
    pub fn for_worker(&self, device: Device, threads: NonZeroUsize) -> Self {
        let mut config = self.clone();
        config.raw.devices = Some(vec![device.to_string()]);
        config.raw.threads = Some(threads.get() as u64);
        config.devices = vec![device];
        config.compute.device = device;
        config.compute.threads = Some(threads);
        config
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
        const LOCAL: [&str; 13] = [
            "decontaminate",
            "model",
            "pool",
            "target",
            "checkpoints",
            "rewarm-growth",
            "report-rows",
            "gradient-store",
            "devices",
            "device-memory",
            "threads",
            "recompute",
            "batch-tokens",
        ];
        let mut settings = layers::to_map(&self.raw);
        settings.retain(|name, _| !LOCAL.contains(&name.as_str()));
        // However it was written: 5% is 0.05.
        settings.insert("budget".to_owned(), self.budget.to_string().into());
        // What `auto` came to.
        settings.insert("selector".to_owned(), self.selection.selector.name().into());
        if let TemplateSource::File(_) = self.ingest.encoding.chat_template {
            settings.remove("chat-template");
        }
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
