//! `less-select fsck`: whether a run is what its stages wrote, and what the
//! next run would compute again if it is not.
//!
//! Every byte of every recorded file is read and hashed anew; the cache of
//! [`Checksums`](super::checksums::Checksums) is not asked. Without
//! [`repair`] nothing is written and nobody waited for: a run can be looked at
//! on a read-only disk, or while another process works on it.

mod contents;
mod outputs;
mod repair;
mod stores;

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::PipelineError;
use super::lock::{self, Lock};
use super::manifest::{Manifest, StageRecord};
use super::waiting::take_run;
use crate::progress::{Event, Observer};
use crate::run_dir::RunDir;
use crate::stage::Stage;

/// What is known of a run after all of it was read.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Findings {
    /// The run directory.
    pub run: PathBuf,
    /// What is not as it was written.
    pub damaged: Vec<Damage>,
    /// Every stage of the run, first to last.
    pub stages: BTreeMap<Stage, Condition>,
    /// What is no damage but worth knowing, a sentence each.
    pub notes: Vec<String>,
    /// Files that were read.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Whether what is damaged was removed.
    pub repaired: bool,
}

/// A file or folder that is not as it was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Damage {
    /// The stage that wrote it; none for what belongs to the whole run.
    pub stage: Option<Stage>,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// What there is of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Condition {
    /// All of what it wrote, and made from what stands in the run.
    Whole,
    /// Less than it wrote.
    Damaged {
        /// What the next run computes again.
        recomputed: String,
    },
    /// All of what it wrote, but made from something that has changed since.
    OutOfDate {
        /// The first input that has.
        changed: String,
    },
    /// It is not complete.
    Missing,
}

/// Reads all of `run` and says what is not as it was written. Writes nothing,
/// and has the lock only for the instant in which it sees whether it is held.
///
/// # Errors
///
/// If there is no such folder, a file may not be read, or somebody asked to stop.
pub fn fsck(run: &RunDir, observer: &dyn Observer) -> Result<Findings, PipelineError> {
    fs_err::read_dir(run.root())?;
    let mut check = Check::new(run, observer)?;
    if let Some(holder) = lock::held_by(&run.lock()) {
        check.found.notes.push(format!(
            "{holder} works on the run: what it has in hand may look missing or out of date"
        ));
    }
    check.everything()?;
    Ok(check.found)
}

/// Takes `run`, waiting at most `wait` for it, reads all of it, and removes what
/// is damaged, so that the next run makes that anew and nothing else.
///
/// # Errors
///
/// As [`fsck`], or if the run is in use or something cannot be removed.
pub fn repair(
    run: &RunDir,
    wait: Duration,
    observer: &dyn Observer,
) -> Result<Findings, PipelineError> {
    fs_err::read_dir(run.root())?;
    let _lock: Lock = take_run(run, lock::exclusive, wait, observer)?;
    let mut check = Check::new(run, observer)?;
    check.everything()?;
    let mut found = check.found;
    repair::drop_damaged(run, &found.damaged)?;
    found.repaired = !found.damaged.is_empty();
    Ok(found)
}

/// A run that is being read.
struct Check<'a> {
    run: &'a RunDir,
    observer: &'a dyn Observer,
    manifest: Manifest,
    found: Findings,
}

impl<'a> Check<'a> {
    fn new(run: &'a RunDir, observer: &'a dyn Observer) -> io::Result<Self> {
        let found = Findings {
            run: run.root().to_owned(),
            damaged: Vec::new(),
            stages: BTreeMap::new(),
            notes: Vec::new(),
            files: 0,
            bytes: 0,
            repaired: false,
        };
        let mut check = Self { run, observer, manifest: Manifest::default(), found };
        match Manifest::read(run) {
            Ok(manifest) => check.manifest = manifest,
            Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                let what = "says nothing that can be believed: no stage counts as complete";
                check.damaged(None, &run.manifest(), what.to_owned());
            }
            Err(err) => return Err(err),
        }
        Ok(check)
    }

    fn everything(&mut self) -> Result<(), PipelineError> {
        for (stage, record) in self.manifest.stages.clone() {
            self.outputs(stage, &record)?;
            if stage == Stage::Gradients {
                self.stores(&record)?;
            }
        }
        self.checkpoints()?;
        self.index();
        self.scores();
        self.cosines();
        self.latest();
        let stages = self.settings();
        self.logs();
        for stage in stages.into_iter().chain(self.manifest.stages.keys().copied()) {
            let condition = self.condition(stage);
            self.found.stages.insert(stage, condition);
        }
        Ok(())
    }

    /// Notes a damaged file; of several things wrong with one, the first.
    fn damaged(&mut self, stage: Option<Stage>, path: &Path, what: String) {
        if self.found.damaged.iter().all(|damage| damage.path != path) {
            self.found.damaged.push(Damage { stage, path: path.to_owned(), what });
        }
    }

    fn is_damaged(&self, stage: Stage) -> bool {
        self.found.damaged.iter().any(|damage| damage.stage == Some(stage))
    }

    /// The record of a stage whose files are as it wrote them.
    fn whole(&self, stage: Stage) -> Option<&StageRecord> {
        self.manifest.stages.get(&stage).filter(|_| !self.is_damaged(stage))
    }

    /// The first input of a stage that has another checksum in the record of
    /// the stage that wrote it.
    fn changed_input<'b>(&self, record: &'b StageRecord) -> Option<&'b str> {
        let mut inputs = record.made_from.files.iter();
        let is_other = |name: &str, checksum: &String| {
            let mut records = self.manifest.stages.values();
            records.any(|earlier| earlier.outputs.get(name).is_some_and(|found| found != checksum))
        };
        inputs.find(|(name, checksum)| is_other(name, checksum)).map(|(name, _)| name.as_str())
    }

    /// Whether a stage's files are whole, and so are those of the stages
    /// `from`, and they are made from them: only then must they agree.
    fn must_agree(&self, stage: Stage, from: &[Stage]) -> bool {
        from.iter().all(|stage| self.whole(*stage).is_some())
            && self.whole(stage).is_some_and(|record| self.changed_input(record).is_none())
    }

    fn condition(&self, stage: Stage) -> Condition {
        let Some(record) = self.manifest.stages.get(&stage) else { return Condition::Missing };
        if self.is_damaged(stage) {
            return Condition::Damaged { recomputed: self.recomputed(stage, record) };
        }
        match self.changed_input(record) {
            Some(changed) => Condition::OutOfDate { changed: changed.to_owned() },
            None => Condition::Whole,
        }
    }

    /// What the next run computes again of a damaged stage.
    fn recomputed(&self, stage: Stage, record: &StageRecord) -> String {
        let is_shard = |path: &Path| path.extension() == Some("arrow".as_ref());
        let of_stage = self.found.damaged.iter().filter(|damage| damage.stage == Some(stage));
        match stage {
            Stage::Gradients => {
                let n_damaged = of_stage.filter(|damage| is_shard(&damage.path)).count();
                let n_all = record.outputs.keys().filter(|name| is_shard(Path::new(name))).count();
                format!("{n_damaged} of {n_all} shards")
            }
            Stage::Warmup => "the whole training; gradients too, unless the checkpoints come out \
                              as they were"
                .to_owned(),
            Stage::Report => "the report".to_owned(),
            _ => "the stage; later ones only if it comes out otherwise".to_owned(),
        }
    }

    fn tell(&self, stage: Stage, done: usize, total: usize) -> Result<(), PipelineError> {
        let (done, total) = (done as u64, total as u64);
        let (what, unit) = ("checked".to_owned(), "files".to_owned());
        self.observer.notify(Event::Progress { stage, what, done, total, unit });
        if self.observer.is_interrupted() { Err(PipelineError::Interrupted) } else { Ok(()) }
    }
}

/// What is wrong, in one line: the causes of an error that itself only says
/// where.
fn reason(err: &dyn Error) -> String {
    let mut words = Vec::new();
    let mut next = Some(err.source().unwrap_or(err));
    while let Some(cause) = next {
        words.push(cause.to_string());
        next = cause.source();
    }
    words.dedup();
    words.join(": ")
}
