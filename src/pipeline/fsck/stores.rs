//! Whether the gradient stores hold what they list, and that every row.

use std::path::{Path, PathBuf};

use super::{Check, reason};
use crate::cascade::Similarities;
use crate::cascade::kept::KeptRows;
use crate::gradient::collect::ExampleSource;
use crate::influence::index::TargetIndex;
use crate::pipeline::PipelineError;
use crate::pipeline::manifest::StageRecord;
use crate::pool::ExampleId;
use crate::pool::table::ExampleTable;
use crate::stage::Stage;
use crate::store::gradient_store::GradientStore;
use crate::store::shard::Shard;
use crate::store::shard_list::ShardList;
use crate::store::{Split, StoreError, StoreErrorKind};

impl Check<'_> {
    /// Opens every recorded shard, and then every store of whole ones.
    pub(super) fn stores(&mut self, record: &StageRecord) -> Result<(), PipelineError> {
        let mut n_done = 0;
        for dir in self.store_dirs(record) {
            let list = ShardList::read(&dir).ok();
            let folder = list.as_ref().map_or_else(|| dir.clone(), |list| list.folder(&dir));
            let (mut shards, mut all_whole) = (Vec::new(), list.is_some());
            for (name, checksum) in &record.outputs {
                let path = self.run.root().join(name);
                if path.parent() != Some(&folder) || path.extension() != Some("arrow".as_ref()) {
                    continue;
                }
                self.tell(Stage::Gradients, n_done, record.outputs.len())?;
                n_done += 1;
                match self.shard(&path, checksum)? {
                    Some(shard) => shards.push((path, shard)),
                    None => all_whole = false,
                }
            }
            if let Some(list) = list.filter(|_| all_whole) {
                self.store(&dir, &list, shards);
            }
        }
        Ok(())
    }

    /// The folders of the stores that a run's stage recorded.
    fn store_dirs(&self, record: &StageRecord) -> Vec<PathBuf> {
        let lists = record.outputs.keys().filter_map(|name| name.strip_suffix(ShardList::FILE));
        lists.map(|dir| self.run.root().join(dir.trim_end_matches('/'))).collect()
    }

    /// A shard that is as it was recorded.
    fn shard(&mut self, path: &Path, checksum: &str) -> Result<Option<Shard>, PipelineError> {
        self.count(path);
        let what = match Shard::open(path) {
            Ok(shard) if shard.checksum() == checksum => return Ok(Some(shard)),
            Ok(_) => "is another shard than was recorded".to_owned(),
            Err(err) => match err.kind {
                StoreErrorKind::Io(err) => {
                    self.unreadable(Stage::Gradients, path, err)?;
                    return Ok(None);
                }
                _ if !path.exists() => "is missing".to_owned(),
                kind => reason(&kind.at(path)),
            },
        };
        self.damaged(Some(Stage::Gradients), path, what);
        Ok(None)
    }

    /// Whether whole shards are the listed ones, are of one store, and have all
    /// rows.
    fn store(&mut self, dir: &Path, list: &ShardList, shards: Vec<(PathBuf, Shard)>) {
        let folder = list.folder(dir);
        let mut recorded: Vec<_> = list.shards.iter().map(|listed| &listed.fingerprint).collect();
        recorded.sort_unstable();
        recorded.dedup();
        let mut names: Vec<_> = shards.iter().map(|(_, shard)| shard.fingerprint()).collect();
        names.sort_unstable();
        let path = ShardList::path(dir);
        if recorded != names {
            let what = "lists other shards than were recorded".to_owned();
            return self.damaged(Some(Stage::Gradients), &path, what);
        }
        let mut shards = shards;
        shards.sort_by_key(|(_, shard)| {
            list.shards.iter().position(|listed| listed.fingerprint == shard.fingerprint())
        });
        let shards = shards.into_iter().map(|(_, shard)| shard).collect();
        match GradientStore::of_shards(dir, &folder, shards) {
            Err(err) => self.damaged(Some(Stage::Gradients), &err.path, reason(&err)),
            Ok(store) => self.places(dir, &store),
        }
    }

    /// Whether every row has a gradient.
    fn places(&mut self, dir: &Path, store: &GradientStore) {
        let split = store.header().split;
        let Some(ids) = self.rows_of(split) else { return };
        if let Err(id) = store.places(ids) {
            let what = format!("lists no shard with row {id} of the {split}");
            self.damaged(Some(Stage::Gradients), &ShardList::path(dir), what);
        }
    }

    /// The rows that the stores of `split` were made for, if they are the ones
    /// that stand in the run.
    fn rows_of(&mut self, split: Split) -> Option<Vec<ExampleId>> {
        let record = self.manifest.stages.get(&Stage::Gradients)?;
        let share = record.made_from.settings.get("cascade").and_then(serde_json::Value::as_f64);
        let from: &[Stage] =
            if share.is_some() { &[Stage::Ingest, Stage::FirstPass] } else { &[Stage::Ingest] };
        if from.iter().any(|stage| self.whole(*stage).is_none())
            || self.changed_input(record).is_some()
        {
            return None;
        }
        let table = self.table(split)?;
        let ids = |rows: &[crate::pool::table::TableRow]| rows.iter().map(|row| row.id).collect();
        let Some(share) = share.filter(|_| split == Split::Pool) else {
            return Some(ids(table.rows()));
        };
        match Similarities::read(&self.run.cascade()) {
            Ok(found) => Some(ids(KeptRows::new(&table, found.kept(share)).rows())),
            Err(err) => {
                self.damaged(Some(Stage::FirstPass), &self.run.cascade(), reason(&err));
                None
            }
        }
    }

    /// A table, unless it cannot be read.
    pub(super) fn table(&mut self, split: Split) -> Option<ExampleTable> {
        let path = self.run.table(split);
        match ExampleTable::open(&path) {
            Ok(table) => Some(table),
            Err(err) => {
                self.damaged(Some(Stage::Ingest), &path, reason(&err));
                None
            }
        }
    }

    /// Whether the index opens, and is of the target's stores.
    pub(super) fn index(&mut self) {
        let Some(record) = self.manifest.stages.get(&Stage::Index) else { return };
        let subtasks = record.outputs.keys().filter_map(|name| name.strip_suffix(".arrow"));
        let labels: Vec<_> = subtasks
            .filter(|name| !name.ends_with("-rows"))
            .filter_map(|name| Some(Path::new(name).file_name()?.to_str()?.to_owned()))
            .collect();
        for label in labels {
            match TargetIndex::open(&self.run.index(), &label) {
                Err(err) => self.unusable_index(&label, &err),
                Ok(index) if self.must_agree(Stage::Index, &[Stage::Gradients]) => {
                    self.belongs(&label, &index);
                }
                Ok(_) => {}
            }
        }
    }

    fn unusable_index(&mut self, label: &str, err: &StoreError) {
        self.damaged(Some(Stage::Index), &err.path, reason(err));
        // Each is whole by its marker: which of the markers lies is not known.
        let [subtasks, rows] = TargetIndex::files(&self.run.index(), label);
        if err.path == rows && matches!(err.kind, StoreErrorKind::Layout(_)) {
            let what = "does not belong to the rows beside it".to_owned();
            self.damaged(Some(Stage::Index), &subtasks, what);
        }
    }

    fn belongs(&mut self, label: &str, index: &TargetIndex) {
        // Its shards were proven whole before.
        let dir = self.run.store(label, Split::Target);
        let store = GradientStore::open(&dir);
        if store.is_ok_and(|store| store.fingerprint() == index.fingerprint) {
            return;
        }
        let [path, _] = TargetIndex::files(&self.run.index(), label);
        let what = "is of other gradients of the target than the run's".to_owned();
        self.damaged(Some(Stage::Index), &path, what);
    }
}
