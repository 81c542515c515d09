//! The gradient stores of a run: what each is to hold, and what it lacks.

use std::io;
use std::path::{Path, PathBuf};

use super::checksums::Checksums;
use super::fingerprint::{StageInputs, gradient_fingerprint};
use super::{PipelineError, Run, checkpoints_dir, lock};
use crate::cascade::Similarities;
use crate::cascade::kept::KeptRows;
use crate::checkpoint::{Checkpoint, checkpoints_in};
use crate::config::Config;
use crate::gradient::collect::ExampleSource;
use crate::gradient::direction::GradientKind;
use crate::gradient::layout::ParamLayout;
use crate::gradient::shard_plan::{Part, plan_shards};
use crate::influence::score::shares;
use crate::model::{DecoderConfig, base_weights};
use crate::pool::table::ExampleTable;
use crate::projection::projection_fingerprint;
use crate::run_dir::RunDir;
use crate::stage::Stage;
use crate::store::gradient_store::GradientStore;
use crate::store::shard::{StoreHeader, remove_shards};
use crate::store::shard_list::{ListedShard, ShardList};
use crate::store::{FORMAT, Split, StoreDtype, StoreError};

impl Run<'_> {
    /// The pool's store of every checkpoint with its weight in the score, as `open` opens
    /// them: [`GradientStore::open`] or [`GradientStore::glance`]. They have the direction
    /// that ranks.
    pub(super) fn weighted_stores(
        &self,
        open: fn(&Path) -> Result<GradientStore, StoreError>,
    ) -> Result<Vec<(GradientStore, f64)>, PipelineError> {
        let checkpoints = self.checkpoints()?;
        let weights = shares(checkpoints.iter().map(Checkpoint::learning_rate).collect())?;
        let mut stores = Vec::new();
        for (checkpoint, weight) in checkpoints.iter().zip(weights) {
            let store = open(&self.dir.store(checkpoint.label(), Split::Pool))?;
            store.require(self.config.gradients[0])?;
            stores.push((store, weight));
        }
        Ok(stores)
    }
}

/// The examples whose gradients a run takes.
pub(super) struct Tables {
    target: ExampleTable,
    pool: ExampleTable,
    /// Positions of the pool's rows that the cascade lets through, if there is one.
    kept: Option<Vec<usize>>,
}

impl Tables {
    pub(super) fn open(config: &Config, run: &RunDir) -> Result<Self, PipelineError> {
        let kept = config.cascade.map(|share| {
            Similarities::read(&run.cascade()).map(|similarities| similarities.kept(share))
        });
        Ok(Self {
            target: ExampleTable::open(&run.table(Split::Target))?,
            pool: ExampleTable::open(&run.table(Split::Pool))?,
            kept: kept.transpose()?,
        })
    }

    /// The rows of the pool that go on.
    pub(super) fn kept(&self) -> Option<KeptRows<'_>> {
        self.kept.clone().map(|kept| KeptRows::new(&self.pool, kept))
    }

    /// Both tables, `kept` in the pool's place. The target comes first: it is
    /// small, and what is wrong with it is wrong early.
    pub(super) fn sources<'a>(
        &'a self,
        kept: Option<&'a KeptRows<'a>>,
    ) -> [(Split, &'a dyn ExampleSource); 2] {
        let pool: &dyn ExampleSource = match kept {
            Some(kept) => kept,
            None => &self.pool,
        };
        [(Split::Target, &self.target), (Split::Pool, pool)]
    }
}

/// The header of one of a run's stores: its rows are over `layout`, and
/// `gradient` is their [`gradient_fingerprint`].
pub(super) fn header(
    config: &Config,
    checkpoint: &Checkpoint,
    split: Split,
    layout: &ParamLayout,
    gradient: String,
) -> StoreHeader {
    let label = checkpoint.label();
    let (kinds, dtype) = match split {
        Split::Pool => (config.stored_kinds(), config.store_dtype),
        // The target's rows are the queries.
        Split::Target => (vec![GradientKind::Sgd], StoreDtype::F32),
    };
    StoreHeader {
        checkpoint: label.to_owned(),
        dtype,
        format: FORMAT,
        gradient,
        kinds,
        layout: layout.fingerprint(),
        proj_dim: config.projection.row_length(layout),
        projection: projection_fingerprint(config.projection, config.seed, label, layout),
        split,
    }
}

/// One of a run's stores, and the shards that make it.
pub(super) struct RunStore {
    pub(super) dir: PathBuf,
    pub(super) list: ShardList,
    /// Rows that it lacked when its shards were listed.
    pub(super) n_new: usize,
}

impl RunStore {
    /// Shards of `part` that are committed.
    pub(super) fn n_committed(&self, part: Part) -> usize {
        let missing: Vec<_> = self.list.missing(&self.dir).collect();
        part.of(&self.list.shards).filter(|shard| !missing.contains(shard)).count()
    }

    /// Shards that are not committed.
    pub(super) fn n_missing(&self) -> usize {
        self.list.missing(&self.dir).count()
    }
}

impl Run<'_> {
    /// Lists the shards of every store, at every checkpoint: those that have a
    /// row of the tables already, and new ones for the other rows.
    pub(super) fn plan_stores(
        &self,
        inputs: &StageInputs,
        checksums: &mut Checksums,
    ) -> Result<Vec<RunStore>, PipelineError> {
        let tables = Tables::open(self.config, self.dir)?;
        let kept = tables.kept();
        let model = DecoderConfig::read(&self.config.model)?;
        // Several processes may begin at once; all go by the first one's lists.
        let _held = lock::briefly(&self.dir.manifest_lock())?;
        let mut stores = Vec::new();
        for checkpoint in checkpoints_in(&checkpoints_dir(self.config, self.dir))? {
            let layout = model.lora_layout(checkpoint.lora()).map_err(|source| {
                let checkpoint = checkpoint.label().to_owned();
                PipelineError::OtherModules { checkpoint, source }
            })?;
            // Random weights are nobody's.
            if self.config.random_weights.is_none() {
                base_weights::check(&self.config.model, &model, &checkpoint)?;
            }
            let gradient = gradient_fingerprint(inputs, &checkpoint, checksums)?;
            for (split, source) in tables.sources(kept.as_ref()) {
                let header = header(self.config, &checkpoint, split, &layout, gradient.clone());
                let dir = self.dir.store(checkpoint.label(), split);
                let folder = self.shards_folder(&checkpoint, split)?;
                let headers = if self.force.contains(&Stage::Gradients) {
                    remove_shards(&dir.join(&folder), &header)?;
                    vec![header]
                } else {
                    header.that_serve()
                };
                let shard_rows = self.config.shard_rows;
                let list = plan_shards(&dir, &folder, &headers, source.rows(), shard_rows)?;
                let n_new = list.missing(&dir).map(ListedShard::n_rows).sum();
                stores.push(RunStore { dir, list, n_new });
            }
        }
        Ok(stores)
    }

    /// Where a store's shards are: its own folder, or one that runs share.
    fn shards_folder(&self, checkpoint: &Checkpoint, split: Split) -> io::Result<PathBuf> {
        match &self.config.gradient_store {
            None => Ok(PathBuf::new()),
            // Absolute, for it is read from wherever the run is looked at.
            Some(shared) => std::path::absolute(shared.join(checkpoint.label()).join(split.name())),
        }
    }
}
