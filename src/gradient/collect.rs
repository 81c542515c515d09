//! The gradients stage: every example of a table, at one checkpoint, into the
//! store.
//!
//! The rows that are not stored yet are cut into shards
//! ([`shard_plan`](super::shard_plan)). A shard is read, batched by length,
//! differentiated, measured ([`measure`](super::measure)) and written in one
//! piece; what is committed already is left alone. So a stopped collection goes
//! on where it was, and any number of workers can share one.
//!
//! Memory: the rows of one shard (`shard_rows` × `proj_dim` × 4 bytes a kind)
//! and what one batch needs. The table is read shard by shard. A batch that
//! finds too little memory is cut in two, and later ones are kept as small.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::PerExampleGradients;
use super::measure::{Measure, MeasureBatches, MeasureError, unmeasured};
use super::on_host::OnHost;
use super::shard_plan::{Part, plan_batches};
use crate::pool::table::{ExampleTable, TableRow};
use crate::pool::{Example, PoolError};
use crate::progress::{Event, Observer};
use crate::stage::Stage;
use crate::store::shard::{Shard, ShardRows, StoreHeader, write_shard};
use crate::store::shard_list::{ListedShard, ShardList, shard_fingerprint};
use crate::store::{Split, StoreError, StoreErrorKind};

/// Where examples come from, in order of id. A target may have an example
/// twice, for two subtasks.
pub trait ExampleSource {
    /// The row heads.
    fn rows(&self) -> &[TableRow];

    /// The examples at `positions` (ascending).
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn examples_at(&self, positions: &[usize]) -> Result<Vec<Example>, PoolError>;

    /// The examples at positions `range`, in order.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn examples(&self, range: Range<usize>) -> Result<Vec<Example>, PoolError> {
        self.examples_at(&range.collect::<Vec<_>>())
    }
}

impl ExampleSource for ExampleTable {
    fn rows(&self) -> &[TableRow] {
        self.rows()
    }

    fn examples_at(&self, positions: &[usize]) -> Result<Vec<Example>, PoolError> {
        self.examples_at(positions)
    }
}

/// How a table is collected.
#[derive(Clone, Debug)]
pub struct CollectSettings {
    /// What the store's rows are. A target's are the queries: keep them f32.
    pub header: StoreHeader,
    /// Most tokens of a batch, padding included.
    pub batch_tokens: usize,
    /// Threads between backward passes; `None` is all cores. The model's own
    /// threads rest meanwhile.
    pub threads: Option<NonZeroUsize>,
    /// The worker's share.
    pub part: Part,
}

/// What a collection has in its store, this worker's part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Rows in all.
    pub n_rows: usize,
    /// Rows that were there before.
    pub n_present: usize,
    /// Rows of its shards that must not be ranked.
    pub n_flagged: usize,
}

/// Why a collection stopped. `E` is the model's error.
#[derive(Debug, thiserror::Error)]
pub enum CollectError<E: std::error::Error + 'static> {
    /// The kinds of gradient asked for cannot be had.
    #[error("checkpoint `{checkpoint}`")]
    Measure {
        /// The checkpoint.
        checkpoint: String,
        /// What is missing.
        source: MeasureError,
    },
    /// The device did not take what gradients are measured with.
    #[error("failed to put the projection of `{checkpoint}` on the model's device")]
    Prepare {
        /// The checkpoint.
        checkpoint: String,
        /// The model's error.
        source: E,
    },
    /// The model failed on a batch.
    #[error("failed to differentiate {rows} of the {split} at `{checkpoint}`")]
    Backward {
        /// Which rows.
        rows: String,
        /// The table.
        split: Split,
        /// The checkpoint.
        checkpoint: String,
        /// The model's error.
        source: E,
    },
    /// The table could not be read.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no threads.
    #[error("failed to start threads")]
    Threads(#[from] ThreadPoolBuildError),
    /// The user asked to stop. Committed shards stay.
    #[error("interrupted")]
    Interrupted,
}

/// Computes this worker's part of the shards that the store in `dir` lists and
/// does not have, on the host.
///
/// The bytes of a shard depend on the table, the settings and the machine, not
/// on who computes it, when, or with how many threads.
///
/// # Errors
///
/// See [`CollectError`]. Shards committed until then stay.
///
/// # Panics
///
/// If `measure` is not what the header says, its projection is not over
/// `model`'s layout, or the model does not keep
/// [`PerExampleGradients::backward`]'s contract.
pub fn collect<M: PerExampleGradients>(
    model: &mut M,
    source: &dyn ExampleSource,
    measure: Measure<'_>,
    dir: &Path,
    settings: &CollectSettings,
    observer: &dyn Observer,
) -> Result<Collected, CollectError<M::Error>> {
    settings.check(measure)?;
    let threads = settings.thread_pool()?;
    let mut batches = OnHost::new(model, measure, &threads);
    let mut work = Work::new(source, measure, dir, settings, &threads, observer)?;
    work.collect(&mut batches)
}

impl CollectSettings {
    pub(super) fn check<E: std::error::Error>(
        &self,
        measure: Measure<'_>,
    ) -> Result<(), CollectError<E>> {
        let header = &self.header;
        assert_eq!(header.projection, measure.projection.fingerprint(), "the store's projection");
        assert_eq!(header.kinds, measure.kinds, "the store's kinds of gradient");
        let checkpoint = header.checkpoint.clone();
        measure.check().map_err(|source| CollectError::Measure { checkpoint, source })
    }

    pub(super) fn thread_pool(&self) -> Result<ThreadPool, ThreadPoolBuildError> {
        ThreadPoolBuilder::new().num_threads(self.threads.map_or(0, NonZeroUsize::get)).build()
    }
}

/// A collection under way.
pub(super) struct Work<'a> {
    source: &'a dyn ExampleSource,
    measure: Measure<'a>,
    dir: &'a Path,
    settings: &'a CollectSettings,
    threads: &'a ThreadPool,
    observer: &'a dyn Observer,
    list: ShardList,
    /// Most tokens of a batch: the setting, until memory is too small for it.
    batch_tokens: usize,
    n_done: usize,
    n_rows: usize,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        source: &'a dyn ExampleSource,
        measure: Measure<'a>,
        dir: &'a Path,
        settings: &'a CollectSettings,
        threads: &'a ThreadPool,
        observer: &'a dyn Observer,
    ) -> Result<Self, StoreError> {
        let list = ShardList::read(dir)?;
        Ok(Self {
            batch_tokens: settings.batch_tokens,
            n_done: 0,
            n_rows: settings.part.of(&list.shards).map(ListedShard::n_rows).sum(),
            source,
            measure,
            dir,
            settings,
            threads,
            observer,
            list,
        })
    }

    /// Computes the part's shards that are not there yet.
    pub(super) fn collect<B: MeasureBatches>(
        &mut self,
        batches: &mut B,
    ) -> Result<Collected, CollectError<B::Error>> {
        let mut collected = Collected { n_rows: self.n_rows, ..Collected::default() };
        let folder = self.list.folder(self.dir);
        let shards: Vec<ListedShard> = self.settings.part.of(&self.list.shards).cloned().collect();
        for listed in &shards {
            let fingerprint = &listed.fingerprint;
            let present = || Shard::open_made_from(&folder, fingerprint);
            if let Some(shard) = self.threads.install(present)? {
                collected.n_present += listed.n_rows();
                collected.n_flagged += shard.n_flagged();
                self.advance(listed.n_rows());
                continue;
            }
            let rows = self.measure_shard(batches, listed)?;
            collected.n_flagged += rows.flags.iter().flatten().count();
            let write = || write_shard(&folder, &self.settings.header, fingerprint, rows);
            self.threads.install(write)?;
        }
        Ok(collected)
    }

    /// The rows of a shard, in order of id, whatever the order of the batches.
    fn measure_shard<B: MeasureBatches>(
        &mut self,
        batches: &mut B,
        listed: &ListedShard,
    ) -> Result<ShardRows, CollectError<B::Error>> {
        let (heads, examples) = self.examples(listed)?;
        let mut rows = unmeasured(heads.iter().map(|head| head.id).collect(), self.measure);
        let n_tokens: Vec<u32> = heads.iter().map(|head| head.n_tokens).collect();
        let mut waiting = VecDeque::from(plan_batches(&n_tokens, self.batch_tokens));
        while let Some(positions) = waiting.pop_front() {
            if self.observer.is_interrupted() {
                return Err(CollectError::Interrupted);
            }
            let batch: Vec<&Example> = positions.iter().map(|row| &examples[*row]).collect();
            match batches.measure(&batch) {
                Ok(measured) => {
                    measured.write_to(&positions, &mut rows);
                    self.advance(batch.len());
                }
                Err(err) if B::is_out_of_memory(&err) && batch.len() > 1 => {
                    self.keep_smaller_than(&positions, &n_tokens);
                    waiting.push_front(positions);
                    waiting = self.cut(waiting, &n_tokens);
                }
                Err(source) => return Err(self.failed(&heads, source)),
            }
        }
        Ok(rows)
    }

    /// What a shard is of; the list must be of this very table.
    fn examples<E: std::error::Error>(
        &self,
        listed: &ListedShard,
    ) -> Result<(Vec<&'a TableRow>, Vec<Example>), CollectError<E>> {
        let rows = self.source.rows();
        let is_of = |positions: &Vec<usize>| {
            let ids = positions.iter().map(|at| rows[*at].id);
            shard_fingerprint(&self.settings.header, ids) == listed.fingerprint
        };
        let Some(positions) = listed.positions(rows.len()).filter(is_of) else {
            let kind = StoreErrorKind::Layout("lists a shard that is not of this table");
            return Err(kind.at(&ShardList::path(self.dir)).into());
        };
        let heads = positions.iter().map(|at| &rows[*at]).collect();
        Ok((heads, self.source.examples_at(&positions)?))
    }

    /// Halves what a batch may hold, measured by one that did not fit.
    fn keep_smaller_than(&mut self, positions: &[usize], n_tokens: &[u32]) {
        let longest = positions.iter().map(|row| n_tokens[*row]).max().unwrap_or(1);
        self.batch_tokens = positions.len().div_ceil(2) * longest as usize;
        self.observer.notify(Event::Warning {
            message: format!(
                "too little memory for {} rows of up to {longest} tokens at once; going on with \
                 batches of at most {} tokens (`batch-tokens` sets this from the start)",
                positions.len(),
                self.batch_tokens
            ),
        });
    }

    /// Batches that are still to come, none larger than now allowed.
    fn cut(&self, waiting: VecDeque<Vec<usize>>, n_tokens: &[u32]) -> VecDeque<Vec<usize>> {
        let cut = |positions: Vec<usize>| {
            let own: Vec<u32> = positions.iter().map(|row| n_tokens[*row]).collect();
            let batches = plan_batches(&own, self.batch_tokens).into_iter();
            batches.map(move |batch| batch.into_iter().map(|at| positions[at]).collect())
        };
        waiting.into_iter().flat_map(cut).collect()
    }

    fn failed<E: std::error::Error>(&self, heads: &[&TableRow], source: E) -> CollectError<E> {
        let StoreHeader { split, checkpoint, .. } = self.settings.header.clone();
        let rows = match heads {
            [first, .., last] => format!("rows {} to {}", first.id, last.id),
            [row] => format!("row {}", row.id),
            [] => "no row".to_owned(),
        };
        CollectError::Backward { rows, split, checkpoint, source }
    }

    fn advance(&mut self, n_rows: usize) {
        self.n_done += n_rows;
        self.observer.notify(Event::Progress {
            stage: Stage::Gradients,
            what: format!("{}, {}", self.settings.header.split, self.settings.header.checkpoint),
            done: self.n_done as u64,
            total: self.n_rows as u64,
            unit: "rows".to_owned(),
        });
    }
}
