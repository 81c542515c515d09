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
//! and what one batch needs. The table is read shard by shard.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::PerExampleGradients;
use super::direction::Directions;
use super::measure::{BatchRows, Measure, MeasureError, unmeasured};
use super::shard_plan::{Part, ShardPlan, batches};
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Rows in all.
    pub n_rows: usize,
    /// Rows that were there before.
    pub n_present: usize,
    /// Rows that must not be ranked.
    pub n_flagged: usize,
    /// Shards of the whole store that nobody has committed yet.
    pub n_missing_shards: usize,
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

/// Measures this worker's part of `source` at one checkpoint, into the store in
/// `dir`.
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
    assert_eq!(model.layout(), measure.projection.layout(), "the projection is the model's");
    measure.check().map_err(|source| CollectError::Measure {
        checkpoint: settings.checkpoint.clone(),
        source,
    })?;
    let n_threads = settings.threads.map_or(0, NonZeroUsize::get);
    let threads = ThreadPoolBuilder::new().num_threads(n_threads).build()?;
    let plan = ShardPlan::new(source.rows().len(), settings.shard_rows);
    let header = header(measure, settings, &plan);
    let n_rows = plan.shards(settings.part).map(|shard| plan.rows(shard).len()).sum();
    let mut collected = Collected { n_rows, ..Collected::default() };
    let directions = Directions::new(measure.kinds, measure.moments);
    let mut work = Work { measure, directions, settings, threads, observer, n_done: 0, n_rows };
    for shard_idx in plan.shards(settings.part) {
        let range = plan.rows(shard_idx);
        let heads = &source.rows()[range.clone()];
        let fingerprint = shard_fingerprint(&header, heads);
        let present = || Shard::open_made_from(dir, shard_idx, &fingerprint);
        if let Some(shard) = work.threads.install(present)? {
            collected.n_present += shard.n_rows();
            collected.n_flagged += shard.n_flagged();
            work.advance(shard.n_rows());
            continue;
        }
        let rows = work.measure_shard(model, source, range)?;
        collected.n_flagged += rows.flags.iter().flatten().count();
        work.threads.install(|| write_shard(dir, shard_idx, &header, &fingerprint, rows))?;
    }
    let is_missing = |shard: &usize| {
        let fingerprint = shard_fingerprint(&header, &source.rows()[plan.rows(*shard)]);
        committed_fingerprint(dir, *shard).as_ref() != Some(&fingerprint)
    };
    collected.n_missing_shards = plan.shards(Part::WHOLE).filter(is_missing).count();
    Ok(collected)
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

/// A collection under way.
struct Work<'a> {
    measure: Measure<'a>,
    directions: Directions<'a>,
    settings: &'a CollectSettings,
    threads: ThreadPool,
    observer: &'a dyn Observer,
    n_done: usize,
    n_rows: usize,
}

impl Work<'_> {
    /// The rows of the shard that is `range` of the table, in order of id,
    /// whatever the order of the batches.
    fn measure_shard<M: PerExampleGradients>(
        &mut self,
        model: &mut M,
        source: &dyn ExampleSource,
        range: Range<usize>,
    ) -> Result<ShardRows, CollectError<M::Error>> {
        let heads = &source.rows()[range.clone()];
        let examples = source.examples(range.clone())?;
        let mut rows = unmeasured(heads.iter().map(|head| head.id).collect(), self.measure);
        let n_tokens: Vec<u32> = heads.iter().map(|head| head.n_tokens).collect();
        for positions in batches(&n_tokens, self.settings.batch_tokens) {
            if self.observer.is_interrupted() {
                return Err(CollectError::Interrupted);
            }
            let batch: Vec<&Example> = positions.iter().map(|row| &examples[*row]).collect();
            let mut sums = BatchRows::new(self.measure.projection, &self.directions, batch.len());
            let losses = model
                .backward(&batch, &mut |param_idx, gradients| {
                    self.threads.install(|| sums.add_param(param_idx, gradients));
                })
                .map_err(|source| CollectError::Backward {
                    rows: range.clone(),
                    split: self.settings.split,
                    checkpoint: self.settings.checkpoint.clone(),
                    source,
                })?;
            sums.finish(&losses, &positions, &mut rows);
            self.advance(batch.len());
        }
        Ok(rows)
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
