//! `manifest.json`: which stages of a run are complete, and from what.
//!
//! A stage is complete when its record stands here. The record is written last
//! and removed first, so whatever a killed process leaves behind is never
//! mistaken for a result. It carries a checksum of itself ([`sealed`]).

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::checksums::Checksums;
use super::fingerprint::StageInputs;
use super::lock;
use crate::run_dir::RunDir;
use crate::sealed;
use crate::stage::Stage;

/// Version of the manifest's layout; another one is not read.
const FORMAT: u32 = 2;

/// The completed stages of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// The program that wrote it last.
    pub written_by: String,
    /// A record for every complete stage.
    pub stages: BTreeMap<Stage, StageRecord>,
}

/// What a completed stage was made from, and what it made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StageRecord {
    /// Settings and inputs, in full, so that a difference can be named.
    pub made_from: StageInputs,
    /// Files it wrote, relative to the run directory, with their blake3 checksums.
    pub outputs: BTreeMap<String, String>,
    /// One line for people.
    pub summary: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// When it was complete.
    pub finished: jiff::Timestamp,
    /// Share of the pool that is newer than a warm-up that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_growth: Option<f64>,
}

impl Default for Manifest {
    fn default() -> Self {
        let written_by = format!("less-select {}", env!("CARGO_PKG_VERSION"));
        Self { format: FORMAT, written_by, stages: BTreeMap::new() }
    }
}

impl Manifest {
    /// The manifest of `run`; empty where there is none yet.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not a manifest of this format.
    pub fn read(run: &RunDir) -> io::Result<Self> {
        let path = run.manifest();
        let bytes = match fs_err::read(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            bytes => bytes?,
        };
        let damaged = |why: String| {
            let message =
                format!("`{}` is not a manifest this version can read: {why}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        let manifest: Self = sealed::parse_json(&bytes).map_err(|err| damaged(err.to_string()))?;
        if manifest.format != FORMAT {
            return Err(damaged(format!("format {} instead of {FORMAT}", manifest.format)));
        }
        Ok(manifest)
    }

    /// Adds a complete stage to the manifest on disk.
    ///
    /// # Errors
    ///
    /// If the manifest cannot be read or written.
    pub fn complete(run: &RunDir, stage: Stage, record: StageRecord) -> io::Result<()> {
        Self::update(run, |manifest| {
            manifest.stages.insert(stage, record);
        })
    }

    /// Takes a stage's record, `outdated`, off the manifest on disk, before its
    /// files are touched. A newer one, of another shard worker, stays.
    ///
    /// # Errors
    ///
    /// If the manifest cannot be read or written.
    pub fn forget(run: &RunDir, stage: Stage, outdated: &StageRecord) -> io::Result<()> {
        Self::update(run, |manifest| {
            if manifest.stages.get(&stage) == Some(outdated) {
                manifest.stages.remove(&stage);
            }
        })
    }

    /// Reads, changes and writes under a lock of its own: several shard
    /// workers may finish at once.
    fn update(run: &RunDir, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        let _held = lock::briefly(&run.manifest_lock())?;
        let mut manifest = Self::read(run)?;
        manifest.written_by = Self::default().written_by;
        change(&mut manifest);
        sealed::write_json(&run.manifest(), &manifest)
    }
}

impl StageRecord {
    /// What came out, and how old it is where that matters.
    pub fn told(&self) -> String {
        let Some(growth) = self.pool_growth else { return self.summary.clone() };
        let trained = self.finished.strftime("%F");
        format!("{}; trained {trained}, {:.1} % of the pool is newer", self.summary, 100.0 * growth)
    }

    /// Whether every file is there; whoever reads one proves it whole.
    pub fn outputs_exist(&self, run: &RunDir) -> bool {
        self.outputs.keys().all(|file| run.root().join(file).is_file())
    }

    /// Whether every file is there and holds what it held when the stage was
    /// complete.
    pub fn outputs_are_whole(&self, run: &RunDir, checksums: &mut Checksums) -> bool {
        self.outputs.iter().all(|(file, expected)| {
            checksums.of(&run.root().join(file)).is_ok_and(|found| found == *expected)
        })
    }
}
