//! The stages of a run, in order.

use serde::{Deserialize, Serialize};

/// One step of the pipeline: a function from settings and read-only inputs to
/// files of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Rows to token ids and label masks.
    Ingest,
    /// A short LoRA training; a checkpoint an epoch.
    Warmup,
    /// One forward pass over the pool, for the cascade and for methods that need no more.
    // Its name in runs of earlier versions.
    #[serde(alias = "cascade")]
    FirstPass,
    /// Projected per-example gradients at every checkpoint.
    Gradients,
    /// Unit target rows and subtask centroids.
    Index,
    /// Influence of every pool row on every subtask.
    Score,
    /// The best rows within the budget, as a dataset folder.
    Select,
    /// What came out, for people and for programs.
    Report,
}

impl Stage {
    /// Every stage, first to last.
    pub const ALL: [Self; 8] = [
        Self::Ingest,
        Self::Warmup,
        Self::FirstPass,
        Self::Gradients,
        Self::Index,
        Self::Score,
        Self::Select,
        Self::Report,
    ];

    /// The stage's name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Warmup => "warmup",
            Self::FirstPass => "first-pass",
            Self::Gradients => "gradients",
            Self::Index => "index",
            Self::Score => "score",
            Self::Select => "select",
            Self::Report => "report",
        }
    }
}

impl std::str::FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        let found = Self::ALL.into_iter().find(|stage| stage.name() == text);
        found.ok_or_else(|| UnknownStage { name: text.to_owned() })
    }
}

/// No stage has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no stage `{name}`; there are {}", Stage::ALL.map(Stage::name).join(", "))]
pub struct UnknownStage {
    /// What was asked for.
    name: String,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
