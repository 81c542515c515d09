//! `less-select gc`: what stands in a run and no stage of it needs.
//!
//! Needed is what the manifest records and what a stage that was interrupted
//! goes on from. Everything that is removed has a name that this program gives;
//! somebody's notes in a run directory stay.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::manifest::Manifest;
use super::waiting::take_run;
use super::{PipelineError, lock};
use crate::fs::entries;
use crate::influence::example_scores_file::is_cosines;
use crate::progress::Observer;
use crate::run_dir::RunDir;
use crate::stage::Stage;
use crate::store::Split;
use crate::store::shard::{named_fingerprint, remove_shard};
use crate::store::shard_list::ShardList;
use crate::warmup::is_epoch_dir;

/// What is to be removed of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Subset folders other than the newest, too.
    pub subsets: bool,
    /// Nothing: only say what it would be.
    pub dry_run: bool,
}

/// What no stage needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Garbage {
    /// The run directory.
    pub run: PathBuf,
    /// Files and folders, in order of name.
    pub items: Vec<Item>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Whether they are gone.
    pub removed: bool,
    /// Stores of the run whose shards are in a folder that other runs may use:
    /// nothing there is looked at.
    pub left_alone: Vec<PathBuf>,
}

/// A file or folder that no stage needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Item {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub what: &'static str,
    /// Bytes of it.
    pub bytes: u64,
}

/// Takes `run`, waiting at most `wait` for it, and removes what no stage of it
/// needs.
///
/// # Errors
///
/// If the run is in use, its manifest or a folder cannot be read, or something
/// cannot be removed.
pub fn gc(
    run: &RunDir,
    wanted: Wanted,
    wait: Duration,
    observer: &dyn Observer,
) -> Result<Garbage, PipelineError> {
    fs_err::read_dir(run.root())?;
    let _lock = take_run(run, lock::exclusive, wait, observer)?;
    let mut search = Search {
        run,
        manifest: Manifest::read(run)?,
        items: BTreeSet::new(),
        left_alone: Vec::new(),
    };
    search.everything(wanted.subsets)?;
    let Search { items, left_alone, .. } = search;
    if !wanted.dry_run {
        for item in &items {
            if observer.is_interrupted() {
                return Err(PipelineError::Interrupted);
            }
            remove(&item.path)?;
        }
    }
    Ok(Garbage {
        run: run.root().to_owned(),
        bytes: items.iter().map(|item| item.bytes).sum(),
        items: items.into_iter().collect(),
        removed: !wanted.dry_run,
        left_alone,
    })
}

struct Search<'a> {
    run: &'a RunDir,
    manifest: Manifest,
    items: BTreeSet<Item>,
    left_alone: Vec<PathBuf>,
}

impl Search<'_> {
    fn everything(&mut self, subsets: bool) -> Result<(), PipelineError> {
        self.unfinished_files()?;
        self.checkpoints()?;
        self.stores()?;
        self.first_pass()?;
        self.scores()?;
        if subsets {
            self.subsets()?;
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, what: &'static str) -> io::Result<()> {
        // What is inside of it goes with it.
        if self.items.iter().all(|item| !path.starts_with(&item.path)) {
            let bytes = bytes_of(&path)?;
            self.items.insert(Item { path, what, bytes });
        }
        Ok(())
    }

    /// Whether a stage that is complete recorded `path` or something inside.
    fn is_recorded(&self, stage: Stage, path: &Path) -> bool {
        let record = self.manifest.stages.get(&stage);
        let mut outputs = record.into_iter().flat_map(|record| record.outputs.keys());
        outputs.any(|name| self.run.root().join(name).starts_with(path))
    }

    /// Temporary files and folders; nobody writes them while the run is ours.
    fn unfinished_files(&mut self) -> io::Result<()> {
        let run = self.run;
        let mut folders = vec![run.root().to_owned()];
        while let Some(dir) = folders.pop() {
            for path in entries(&dir)? {
                let name = name_of(&path);
                let is_ours = dir != run.root()
                    || is_subset(&path)
                    || [
                        run.tables(),
                        run.checkpoints(),
                        run.gradients(),
                        run.index(),
                        run.cosines(),
                    ]
                    .contains(&path);
                if name.starts_with(crate::fs::UNFINISHED) {
                    self.add(path, "left behind by a process that died")?;
                } else if is_ours && path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                }
            }
        }
        Ok(())
    }

    /// Checkpoints of an earlier warm-up, and the middle of one that is complete.
    fn checkpoints(&mut self) -> io::Result<()> {
        // One that is not complete may go on from what stands there.
        // Where somebody brought checkpoints, these may be them.
        let record = self.manifest.stages.get(&Stage::Warmup);
        if record.is_none_or(|record| record.outputs.is_empty()) {
            return Ok(());
        }
        for path in entries(&self.run.checkpoints())? {
            let name = name_of(&path);
            if name == "unfinished" || name == "unfinished.json" {
                self.add(path, "of a warm-up that is complete")?;
            } else if is_epoch_dir(&path) && !self.is_recorded(Stage::Warmup, &path) {
                self.add(path, "a checkpoint that the warm-up does not have")?;
            }
        }
        Ok(())
    }

    /// Stores of checkpoints that are gone, and shards that no list names.
    fn stores(&mut self) -> Result<(), PipelineError> {
        // One that is not complete takes over whatever shard it can use.
        if !self.manifest.stages.contains_key(&Stage::Gradients) {
            return Ok(());
        }
        for checkpoint in entries(&self.run.gradients())?.into_iter().filter(|path| path.is_dir()) {
            let stores = Split::ALL.map(|split| self.run.store(&name_of(&checkpoint), split));
            let lists = stores.each_ref().map(|dir| ShardList::path(dir));
            if lists.iter().any(|list| self.is_recorded(Stage::Gradients, list)) {
                stores.iter().try_for_each(|dir| self.shards(dir))?;
            } else if lists.iter().any(|list| list.is_file()) {
                self.add(checkpoint, "gradients at a checkpoint that is gone")?;
            }
        }
        Ok(())
    }

    fn shards(&mut self, dir: &Path) -> Result<(), PipelineError> {
        let list = ShardList::read(dir)?;
        let folder = list.folder(dir);
        let is_elsewhere = folder != dir;
        if is_elsewhere {
            self.left_alone.push(folder);
        }
        for path in entries(dir)? {
            let data = path.with_extension("arrow");
            let Some(fingerprint) = named_fingerprint(&data) else { continue };
            let is_listed = list.shards.iter().any(|shard| shard.fingerprint == fingerprint);
            // A marker is removed with its shard.
            let is_first = path == data || !data.exists();
            if is_first && (is_elsewhere || !is_listed) {
                self.add(path, "a shard that the store does not list")?;
            }
        }
        Ok(())
    }

    /// Scores of kinds and aggregations that are no longer asked for.
    fn scores(&mut self) -> io::Result<()> {
        if !self.manifest.stages.contains_key(&Stage::Score) {
            return Ok(());
        }
        for path in entries(self.run.root())? {
            let name = name_of(&path);
            let is_scores = name.starts_with("scores-") && name.ends_with(".parquet");
            if is_scores && !self.is_recorded(Stage::Score, &path) {
                self.add(path, "scores that are not asked for")?;
            }
        }
        for path in entries(&self.run.cosines())? {
            let stages = [Stage::FirstPass, Stage::Score];
            let is_recorded = stages.iter().any(|stage| self.is_recorded(*stage, &path));
            if is_cosines(&path) && !is_recorded {
                self.add(path, "cosines at a checkpoint that is gone")?;
            }
        }
        Ok(())
    }

    /// What the model's first pass found for something else than it is needed for now.
    fn first_pass(&mut self) -> io::Result<()> {
        if !self.manifest.stages.contains_key(&Stage::FirstPass) {
            return Ok(());
        }
        for path in [self.run.cascade(), self.run.losses()] {
            if path.is_file() && !self.is_recorded(Stage::FirstPass, &path) {
                self.add(path, "of a first pass for something else")?;
            }
        }
        Ok(())
    }

    /// Subsets that are not the newest.
    fn subsets(&mut self) -> io::Result<()> {
        let latest = match self.run.latest_subset() {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            latest => latest?,
        };
        for path in entries(self.run.root())?.into_iter().filter(|path| path.is_dir()) {
            let is_newest = path == latest || self.is_recorded(Stage::Select, &path);
            if is_subset(&path) && !is_newest {
                self.add(path, "a subset that is not the newest")?;
            }
        }
        Ok(())
    }
}

/// `subset-` and 8 hex digits.
fn is_subset(path: &Path) -> bool {
    let name = name_of(path);
    name.strip_prefix("subset-")
        .is_some_and(|hash| hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file with a marker beside it is at `path`.
fn has_marker(path: &Path) -> bool {
    is_cosines(path)
        || path.extension() == Some(OsStr::new("arrow")) && named_fingerprint(path).is_some()
}

fn bytes_of(path: &Path) -> io::Result<u64> {
    let facts = fs_err::symlink_metadata(path)?;
    if facts.is_dir() {
        return entries(path)?.iter().map(|path| bytes_of(path)).sum();
    }
    let marker = path.with_extension("json");
    let with_marker = has_marker(path) && marker.is_file();
    Ok(facts.len() + if with_marker { fs_err::metadata(&marker)?.len() } else { 0 })
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() && !path.is_symlink() {
        fs_err::remove_dir_all(path)
    } else if has_marker(path) {
        remove_shard(path)
    } else {
        fs_err::remove_file(path)
    }
}
