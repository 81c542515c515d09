//! Where a warm-up was when it was stopped.
//!
//! ```text
//! checkpoints/unfinished/       a checkpoint in the middle of an epoch
//! checkpoints/unfinished.json   what it is of, and the checksums of its files
//! ```
//!
//! Adapter, moments and log are all there is to a step: its rows, their order
//! and what dropout hides follow from the seed and the step's number.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Checkpoint, CheckpointError, Content, TrainerState};
use crate::fs::remove_if_there;
use crate::gradient::direction::Moments;
use crate::gradient::layout::ParamLayout;

/// Where a warm-up leaves its checkpoints, and how it keeps what it has in case
/// it is stopped.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// The folder of the checkpoints.
    pub dir: &'a Path,
    /// Fingerprint of all that the training depends on: only what was made from
    /// the same is taken up.
    pub made_from: &'a str,
    /// Time between two snapshots.
    pub interval: Duration,
}

/// The last word on a snapshot: without it, or where it disagrees, there is none.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Marker {
    made_from: String,
    /// blake3 checksums by file name.
    files: BTreeMap<String, String>,
}

/// The snapshots of one warm-up.
pub(super) struct Keeper<'a> {
    output: Output<'a>,
    written: Instant,
}

/// A training as it was after some step.
pub(super) struct Snapshot {
    /// `[grad_dim]`.
    pub(super) adapter: Vec<f32>,
    pub(super) moments: Moments,
    pub(super) state: TrainerState,
}

impl<'a> Keeper<'a> {
    /// Snapshots beside the checkpoints.
    pub(super) fn new(output: Output<'a>) -> Self {
        Self { output, written: Instant::now() }
    }

    fn folder(&self) -> PathBuf {
        self.output.dir.join("unfinished")
    }

    fn marker(&self) -> PathBuf {
        self.output.dir.join("unfinished.json")
    }

    /// Whether it is time for the next one.
    pub(super) fn is_due(&self) -> bool {
        self.written.elapsed() >= self.output.interval
    }

    /// Keeps `content` in place of the snapshot before.
    pub(super) fn write(&mut self, content: &Content<'_>) -> Result<(), CheckpointError> {
        let failed =
            |err: std::io::Error| CheckpointError { path: self.folder(), kind: err.into() };
        remove_if_there(&self.marker()).map_err(failed)?;
        checkpoint::write(&self.folder(), content)?;
        let files = checksums(&self.folder()).map_err(failed)?;
        let marker = Marker { made_from: self.output.made_from.to_owned(), files };
        crate::fs::write_json(&self.marker(), &marker).map_err(failed)?;
        self.written = Instant::now();
        Ok(())
    }

    /// The snapshot, if it is whole and of this training. One that is not is no
    /// error: the training starts over.
    pub(super) fn read(&self, layout: &ParamLayout) -> Option<Snapshot> {
        let marker: Marker = serde_json::from_slice(&fs::read(self.marker()).ok()?).ok()?;
        let is_of_this = marker.made_from == self.output.made_from;
        if !is_of_this || checksums(&self.folder()).ok()? != marker.files {
            return None;
        }
        let found = Checkpoint::open(&self.folder()).ok()?;
        Some(Snapshot {
            adapter: found.adapter(layout).ok()?,
            moments: found.moments(layout).ok()?,
            state: checkpoint::trainer_state_of(&self.folder()).ok()?,
        })
    }

    /// Removes the snapshot: the training is complete, or starts over.
    pub(super) fn remove(&self) -> std::io::Result<()> {
        remove_if_there(&self.marker())?;
        if self.folder().exists() { fs::remove_dir_all(self.folder()) } else { Ok(()) }
    }
}

fn checksums(folder: &Path) -> std::io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.insert(name, crate::fs::checksum(&path)?);
    }
    Ok(found)
}
