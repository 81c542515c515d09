//! Every path of a run.

use std::path::{Path, PathBuf};

use crate::store::Split;

/// A run directory. Nothing outside this type joins paths inside a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// The run at `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The settings of the run.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Settings that were found damaged and set aside.
    pub fn damaged_config(&self) -> PathBuf {
        self.root.join("config.toml.damaged")
    }

    /// Which stages are complete, and from what.
    pub fn manifest(&self) -> PathBuf {
        self.root.join("manifest.json")
    }

    /// Everything that happened, one JSON object a line.
    pub fn events(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }

    /// Held by whoever works on the run.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Held while the manifest is changed.
    pub fn manifest_lock(&self) -> PathBuf {
        self.root.join("manifest.lock")
    }

    /// Checksums of inputs that have not changed since they were computed.
    pub fn checksums(&self) -> PathBuf {
        self.root.join("checksums.json")
    }

    /// The path of `file` relative to the run, with forward slashes: its name in
    /// the manifest.
    pub fn relative(&self, file: &Path) -> String {
        file.strip_prefix(&self.root).unwrap_or(file).display().to_string()
    }

    /// Output folder of the ingest stage.
    pub fn tables(&self) -> PathBuf {
        self.root.join("pool")
    }

    /// The canonical table of a split.
    pub fn table(&self, split: Split) -> PathBuf {
        self.tables().join(format!("{}.parquet", split.name()))
    }

    /// Rows that could not be read, and why.
    pub fn rejects(&self) -> PathBuf {
        self.tables().join("rejects.jsonl")
    }

    /// Checkpoints of the warm-up.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The ids of the pool's rows when the warm-up was trained.
    pub fn pool_ids(&self) -> PathBuf {
        self.checkpoints().join("pool-ids")
    }

    /// What the cascade's first pass found of the pool.
    pub fn cascade(&self) -> PathBuf {
        self.root.join("cascade.parquet")
    }

    /// What the model's first pass found of the pool's losses.
    pub fn losses(&self) -> PathBuf {
        self.root.join("losses.parquet")
    }

    /// All gradient stores.
    pub fn gradients(&self) -> PathBuf {
        self.root.join("gradients")
    }

    /// The gradient store of one checkpoint and split.
    pub fn store(&self, checkpoint: &str, split: Split) -> PathBuf {
        self.gradients().join(checkpoint).join(split.name())
    }

    /// Output folder of the index stage.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The cosines of pool rows with single target examples, a file a checkpoint.
    pub fn cosines(&self) -> PathBuf {
        self.root.join("cosines")
    }

    /// Influence scores of the pool: those that rank.
    pub fn scores(&self) -> PathBuf {
        self.root.join("scores.parquet")
    }

    /// Influence scores of the pool, computed in another way in the same pass.
    pub fn other_scores(&self, way: &str) -> PathBuf {
        self.root.join(format!("scores-{way}.parquet"))
    }

    /// What was selected, and what was left out.
    pub fn selection(&self) -> PathBuf {
        self.root.join("selection.json")
    }

    /// The file that names the newest subset folder.
    pub fn latest(&self) -> PathBuf {
        self.root.join("latest")
    }

    /// The newest subset folder.
    ///
    /// # Errors
    ///
    /// If there is none yet.
    pub fn latest_subset(&self) -> std::io::Result<PathBuf> {
        Ok(self.root.join(fs_err::read_to_string(self.latest())?.trim()))
    }

    /// The end of the run as it was told.
    pub fn summary(&self) -> PathBuf {
        self.root.join("summary.txt")
    }

    /// Everything of verifications.
    pub fn verify(&self) -> PathBuf {
        self.root.join("verify")
    }

    /// A contender's rows, and the evaluation's, as canonical tables.
    pub fn verify_data(&self, contender: &str) -> PathBuf {
        self.verify().join("data").join(contender)
    }

    /// The outcome of one trial.
    pub fn verify_trial(&self, name: &str) -> PathBuf {
        self.verify().join("trials").join(format!("{name}.json"))
    }

    /// Trainings of trials under way.
    pub fn verify_scratch(&self) -> PathBuf {
        self.verify().join("unfinished")
    }

    /// The trials of the last verification.
    pub fn verify_plan(&self) -> PathBuf {
        self.verify().join("plan.json")
    }

    /// What the last verification found.
    pub fn verify_json(&self) -> PathBuf {
        self.verify().join("verify.json")
    }

    /// The page for people.
    pub fn report_html(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The same for programs.
    pub fn report_json(&self) -> PathBuf {
        self.root.join("report.json")
    }
}
