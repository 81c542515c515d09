//! The gradients stage: every example of a table, at one checkpoint, into the
//! store.
//!
//! The table is cut into shards ([`shard_plan`](super::shard_plan)). A shard is
//! read, batched by length, differentiated, measured ([`measure`](super::measure))
//! and written in one piece; what is committed already and made from the same
//! is left alone. So a stopped collection goes on where it was, and any number
//! of workers can share one.
//!
//! Memory: the rows of one shard (`shard_rows` × `proj_dim` × 4 bytes a kind)
//! and what one batch needs. The table is read shard by shard. A batch that
//! finds too little memory is cut in two, and later ones are kept as small.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::PerExampleGradients;
use super::measure::{Measure, MeasureBatches, MeasureError, unmeasured};
use super::on_host::OnHost;
use super::shard_plan::{Part, ShardPlan, plan_batches};
use crate::pool::table::{ExampleTable, TableRow};
use crate::pool::{Example, PoolError};
use crate::progress::{Event, Observer};
use crate::stage::Stage;
use crate::store::shard::{Shard, ShardRows, StoreHeader, committed_fingerprint, write_shard};
use crate::store::{FORMAT, Split, StoreDtype, StoreError};

/// Where examples come from, in order of id. A target may have an example
/// twice, for two subtasks.
pub trait ExampleSource {
    /// The row heads.
    fn rows(&self) -> &[TableRow];

    /// The examples at positions `range`, in order.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn examples(&self, range: Range<usize>) -> Result<Vec<Example>, PoolError>;
}

impl ExampleSource for ExampleTable {
    fn rows(&self) -> &[TableRow] {
        self.rows()
    }

    fn examples(&self, range: Range<usize>) -> Result<Vec<Example>, PoolError> {
        self.examples(range)
    }
}

/// How a table is collected.
#[derive(Clone, Debug)]
pub struct CollectSettings {
    /// The checkpoint's name, such as `epoch-1`.
    pub checkpoint: String,
    /// Which table it is.
    pub split: Split,
    /// Fingerprint of what the gradients are of: model, adapter, precision.
    pub gradient: String,
    /// How rows are stored. A target's are the queries: keep them f32.
    pub dtype: StoreDtype,
    /// Rows of a shard.
    pub shard_rows: NonZeroUsize,
    /// Most tokens of a batch, padding included.
    pub batch_tokens: usize,
    /// Threads between backward passes; `None` is all cores. The model's own
    /// threads rest meanwhile.
    pub threads: Option<NonZeroUsize>,
    /// The worker's share.
    pub part: Part,
}

/// What a collection has in its store, this worker's part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Rows in all.
    pub n_rows: usize,
    /// Rows that were there before.
    pub n_present: usize,
    /// Rows that must not be ranked.
    pub n_flagged: usize,
    /// Shards of the whole store that nobody has committed yet.
    pub missing: Vec<MissingShard>,
}

/// A shard that another worker owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingShard {
    dir: PathBuf,
    shard: usize,
    fingerprint: String,
}

impl MissingShard {
    /// Whether it is there now.
    pub fn is_committed(&self) -> bool {
        committed_fingerprint(&self.dir, self.shard).as_ref() == Some(&self.fingerprint)
    }
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
    #[error("failed to differentiate rows {rows:?} of the {split} at `{checkpoint}`")]
    Backward {
        /// Positions of the shard's rows in the table.
        rows: Range<usize>,
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

/// Measures this worker's part of `source` at one checkpoint on the host, into
/// the store in `dir`.
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
/// If `measure.projection` is not over `model`'s layout, or the model does not
/// keep [`PerExampleGradients::backward`]'s contract.
pub fn collect<M: PerExampleGradients>(
    model: &mut M,
    source: &dyn ExampleSource,
    measure: Measure<'_>,
    dir: &Path,
    settings: &CollectSettings,
    observer: &dyn Observer,
) -> Result<Collected, CollectError<M::Error>> {
    measure.check().map_err(|source| CollectError::Measure {
        checkpoint: settings.checkpoint.clone(),
        source,
    })?;
    let threads = settings.thread_pool()?;
    let mut batches = OnHost::new(model, measure, &threads);
    let mut work = Work::new(source, measure, settings, &threads, observer);
    work.collect(&mut batches, dir)
}

fn header(measure: Measure<'_>, settings: &CollectSettings, plan: &ShardPlan) -> StoreHeader {
    StoreHeader {
        checkpoint: settings.checkpoint.clone(),
        dtype: settings.dtype,
        format: FORMAT,
        gradient: settings.gradient.clone(),
        kinds: measure.kinds.to_vec(),
        layout: measure.projection.layout().fingerprint(),
        n_shards: plan.n_shards(),
        proj_dim: measure.projection.proj_dim(),
        projection: measure.projection.fingerprint().to_owned(),
        split: settings.split,
    }
}

/// What a shard is made from: the store it belongs to, and its examples. Not
/// the batch size, which changes nothing but rounding.
fn shard_fingerprint(header: &StoreHeader, heads: &[TableRow]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("less-select gradient shard v2");
    hasher.update(serde_json::json!(header).to_string().as_bytes());
    for head in heads {
        hasher.update(&head.id.0);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

impl CollectSettings {
    pub(super) fn thread_pool(&self) -> Result<ThreadPool, ThreadPoolBuildError> {
        ThreadPoolBuilder::new().num_threads(self.threads.map_or(0, NonZeroUsize::get)).build()
    }
}

/// A collection under way.
pub(super) struct Work<'a> {
    source: &'a dyn ExampleSource,
    measure: Measure<'a>,
    settings: &'a CollectSettings,
    threads: &'a ThreadPool,
    observer: &'a dyn Observer,
    plan: ShardPlan,
    header: StoreHeader,
    /// Most tokens of a batch: the setting, until memory is too small for it.
    batch_tokens: usize,
    n_done: usize,
    n_rows: usize,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        source: &'a dyn ExampleSource,
        measure: Measure<'a>,
        settings: &'a CollectSettings,
        threads: &'a ThreadPool,
        observer: &'a dyn Observer,
    ) -> Self {
        let plan = ShardPlan::new(source.rows().len(), settings.shard_rows);
        Self {
            header: header(measure, settings, &plan),
            batch_tokens: settings.batch_tokens,
            n_done: 0,
            n_rows: plan.n_rows(settings.part),
            source,
            measure,
            settings,
            threads,
            observer,
            plan,
        }
    }

    /// Computes the part's shards that are not in `dir` yet.
    pub(super) fn collect<B: MeasureBatches>(
        &mut self,
        batches: &mut B,
        dir: &Path,
    ) -> Result<Collected, CollectError<B::Error>> {
        let mut collected = Collected { n_rows: self.n_rows, ..Collected::default() };
        for shard_idx in self.plan.shards(self.settings.part) {
            let fingerprint = self.shard_fingerprint(shard_idx);
            let present = || Shard::open_made_from(dir, shard_idx, &fingerprint);
            if let Some(shard) = self.threads.install(present)? {
                collected.n_present += shard.n_rows();
                collected.n_flagged += shard.n_flagged();
                self.advance(shard.n_rows());
                continue;
            }
            let rows = self.measure_shard(batches, self.plan.rows(shard_idx))?;
            collected.n_flagged += rows.flags.iter().flatten().count();
            let write = || write_shard(dir, shard_idx, &self.header, &fingerprint, rows);
            self.threads.install(write)?;
        }
        let shards = self.plan.shards(Part::WHOLE).map(|shard| MissingShard {
            dir: dir.to_owned(),
            shard,
            fingerprint: self.shard_fingerprint(shard),
        });
        collected.missing = shards.filter(|shard| !shard.is_committed()).collect();
        Ok(collected)
    }

    fn shard_fingerprint(&self, shard_idx: usize) -> String {
        shard_fingerprint(&self.header, &self.source.rows()[self.plan.rows(shard_idx)])
    }

    /// The rows of the shard that is `range` of the table, in order of id,
    /// whatever the order of the batches.
    fn measure_shard<B: MeasureBatches>(
        &mut self,
        batches: &mut B,
        range: Range<usize>,
    ) -> Result<ShardRows, CollectError<B::Error>> {
        let heads = &self.source.rows()[range.clone()];
        let examples = self.source.examples(range.clone())?;
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
                Err(source) => return Err(self.failed(range, source)),
            }
        }
        Ok(rows)
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

    fn failed<E: std::error::Error>(&self, rows: Range<usize>, source: E) -> CollectError<E> {
        CollectError::Backward {
            rows,
            split: self.settings.split,
            checkpoint: self.settings.checkpoint.clone(),
            source,
        }
    }

    fn advance(&mut self, n_rows: usize) {
        self.n_done += n_rows;
        self.observer.notify(Event::Progress {
            stage: Stage::Gradients,
            what: format!("{}, {}", self.settings.split, self.settings.checkpoint),
            done: self.n_done as u64,
            total: self.n_rows as u64,
            unit: "rows".to_owned(),
        });
    }
}
