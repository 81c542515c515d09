//! What the worker process does with a run: the stages that need the model.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::checksums::Checksums;
use super::fingerprint::{gradient_fingerprint, inputs_of};
use super::manifest::Manifest;
use super::stores::{self, Tables};
use super::{PipelineError, checkpoints_dir};
use crate::baseline::rds;
use crate::cascade::Similarities;
use crate::checkpoint::{Checkpoint, CheckpointError, LoraSettings, checkpoints_in};
use crate::compute::Dtype;
use crate::config::Config;
use crate::first_pass::losses::Losses;
use crate::first_pass::row_values::RowValuesError;
use crate::first_pass::{FirstPass, FirstPassError};
use crate::gradient::collect::{CollectError, CollectSettings};
use crate::gradient::collect_lora;
use crate::gradient::direction::Moments;
use crate::gradient::independence::independence;
use crate::gradient::measure::Measure;
use crate::gradient::shard_plan::Part;
use crate::gradient::speed::{Speed, speed};
use crate::model::{LoraDecoder, ModelError, base_weights};
use crate::pool::PoolError;
use crate::pool::table::ExampleTable;
use crate::progress::{Event, Observer};
use crate::projection::{Projection, ProjectionError};
use crate::run_dir::RunDir;
use crate::stage::Stage;
use crate::store::Split;
use crate::store::shard_list::{ListedShard, ShardList};
use crate::verify::Plan;
use crate::verify::train::{TrialError, run_trials};
use crate::warmup::{self, Output, WarmupError};

/// Why a stage that needs the model failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The model cannot be loaded.
    #[error("the model cannot be used")]
    Model(#[from] ModelError),
    /// The warm-up failed.
    #[error("the warm-up failed")]
    Warmup(#[from] WarmupError),
    /// A checkpoint cannot be read.
    #[error("the checkpoints cannot be used")]
    Checkpoint(#[from] CheckpointError),
    /// The first pass failed.
    #[error("the first pass failed")]
    FirstPass(#[from] Box<FirstPassError<ModelError>>),
    /// What the first pass found cannot be written or read.
    #[error("what the first pass found cannot be used")]
    RowValues(#[from] RowValuesError),
    /// Gradients could not be computed or stored.
    #[error("the gradients could not be collected")]
    Collect(#[from] Box<CollectError<ModelError>>),
    /// The examples cannot be read.
    #[error("the examples cannot be read")]
    Pool(#[from] PoolError),
    /// The projection does not exist.
    #[error("the gradients cannot be projected")]
    Projection(#[from] ProjectionError),
    /// A trial of a verification failed.
    #[error("the verification failed")]
    Trial(#[from] Box<TrialError>),
    /// The run is not as it should be.
    #[error(transparent)]
    Run(#[from] PipelineError),
    /// A file of the run could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What a warm-up that is killed has to do again at most.
const BETWEEN_SNAPSHOTS: Duration = Duration::from_secs(30);

/// Trains the warm-up of `run`; an epoch's checkpoint is there when it is whole.
///
/// # Errors
///
/// See [`TorchError`].
pub fn warmup(config: &Config, run: &RunDir, observer: &dyn Observer) -> Result<Value, TorchError> {
    let pool = ExampleTable::open(&run.table(Split::Pool))?;
    let mut checksums = Checksums::open(run.checksums());
    let inputs = inputs_of(Stage::Warmup, config, &Manifest::read(run)?, &mut checksums)?;
    let mut model = load(config, &config.lora)?;
    let (dir, made_from) = (run.checkpoints(), inputs.fingerprint());
    let output = Output { dir: &dir, made_from: &made_from, interval: BETWEEN_SNAPSHOTS };
    let summary = warmup::train(&mut model, &pool, &config.warmup, config.seed, output, observer)?;
    Ok(json!({ "summary": summary.to_string() }))
}

/// Goes over the pool of `run`, and where it is compared with its target over that, by
/// one forward pass of the model as it comes.
///
/// # Errors
///
/// See [`TorchError`].
pub fn first_pass(
    config: &Config,
    run: &RunDir,
    observer: &dyn Observer,
) -> Result<Value, TorchError> {
    let wanted = config
        .first_pass()
        .ok_or(PipelineError::Off { stage: Stage::FirstPass, method: config.method })?;
    let [pool, target] =
        [Split::Pool, Split::Target].map(|split| ExampleTable::open(&run.table(split)));
    let (pool, target) = (pool?, target?);
    // Its adapter is zero.
    let mut model = load(config, &config.lora)?;
    let batch_tokens = model.batch_tokens;
    match wanted {
        FirstPass::Similarities => {
            Similarities::of(&mut model, &pool, &target, batch_tokens, observer)
                .map_err(Box::new)?
                .write(&run.cascade())?;
        }
        FirstPass::Cosines => {
            let dir = run.cosines();
            rds::write_likeness(&mut model, &pool, &target, batch_tokens, &dir, observer)
                .map_err(Box::new)?;
        }
        FirstPass::Losses => {
            Losses::of(&mut model, &pool, batch_tokens, observer)
                .map_err(Box::new)?
                .write(&run.losses())?;
        }
    }
    let done = if wanted == FirstPass::Losses { "read" } else { "compared with the target" };
    Ok(json!({ "summary": format!("{} rows {done}", pool.rows().len()) }))
}

/// Collects this part's gradient shards of `run`, pool and target, at every
/// checkpoint.
///
/// # Errors
///
/// See [`TorchError`].
pub fn gradients(
    config: &Config,
    run: &RunDir,
    part: Part,
    observer: &dyn Observer,
) -> Result<Value, TorchError> {
    let manifest = Manifest::read(run)?;
    let mut checksums = Checksums::open(run.checksums());
    let inputs = inputs_of(Stage::Gradients, config, &manifest, &mut checksums)?;
    let checkpoints = checkpoints_in(&checkpoints_dir(config, run))?;
    let mut collector = Collector::new(config, run, part, &checkpoints[0])?;
    // Before the first takes its time: the last must fit, too.
    checkpoints.iter().try_for_each(|checkpoint| collector.read(checkpoint).map(drop))?;
    let progress = StageProgress::new(observer, collector.n_rows(&checkpoints)?);
    for checkpoint in &checkpoints {
        let gradient = gradient_fingerprint(&inputs, checkpoint, &mut checksums)?;
        collector.collect(checkpoint, &gradient, &progress)?;
    }
    // What there is now stands in the stores.
    Ok(Value::Null)
}

/// Does the trials of the plan in `file` that are not done yet.
///
/// # Errors
///
/// See [`TorchError`].
pub fn verify(config: &Config, file: &Path, observer: &dyn Observer) -> Result<Value, TorchError> {
    let plan: Plan = serde_json::from_slice(&fs_err::read(file)?).map_err(std::io::Error::from)?;
    let mut model = load(config, &config.lora)?;
    run_trials(&mut model, &plan, &config.warmup, observer).map_err(Box::new)?;
    Ok(Value::Null)
}

/// The model, with the weights that the settings ask for.
fn load(config: &Config, lora: &LoraSettings) -> Result<LoraDecoder, ModelError> {
    match config.random_weights {
        Some(seed) => LoraDecoder::random(&config.model, seed, lora, &config.compute),
        None => LoraDecoder::load(&config.model, lora, &config.compute),
    }
}

/// The progress of one collection after another, as that of one stage.
struct StageProgress<'a> {
    observer: &'a dyn Observer,
    n_rows: u64,
    /// Rows of the collections before the one at work.
    n_before: AtomicU64,
}

impl<'a> StageProgress<'a> {
    fn new(observer: &'a dyn Observer, n_rows: usize) -> Self {
        Self { observer, n_rows: n_rows as u64, n_before: AtomicU64::new(0) }
    }
}

impl Observer for StageProgress<'_> {
    fn notify(&self, event: Event) {
        self.observer.notify(match event {
            Event::Progress { stage, what, done, total: _, unit } => {
                let done = done + self.n_before.load(Ordering::Relaxed);
                Event::Progress { stage, what, done, total: self.n_rows, unit }
            }
            event => event,
        });
    }

    fn is_interrupted(&self) -> bool {
        self.observer.is_interrupted()
    }
}

/// Times the model's gradients beside matrix products.
///
/// # Errors
///
/// If the model cannot be loaded or fails.
pub fn gradient_speed(config: &Config, row_tokens: usize) -> Result<Speed, TorchError> {
    let mut model = load(config, &config.lora)?;
    model.set_adapter(&warmup::trial_adapter(model.layout(), config.seed));
    Ok(speed(&mut model, &config.compute, row_tokens)?)
}

/// Compares gradients of examples alone and in a batch, on the real model.
///
/// # Errors
///
/// If the model cannot be loaded or fails.
pub fn check_batches(config: &Config) -> Result<Value, TorchError> {
    let mut model = load(config, &config.lora)?;
    model.set_adapter(&warmup::trial_adapter(model.layout(), config.seed));
    let vocab_size = model.config().vocab_size;
    let found = independence(&mut model, vocab_size)?;
    let tolerance = match config.compute.precision() {
        // Products in another order are rounded another way, and every layer adds
        // to it: 2e-2 was found for SmolLM2 in bf16, and 9e-2 for the shape of
        // Llama-2-7B. In f32, 8e-5.
        Dtype::Bf16 => 2e-1,
        Dtype::F32 | Dtype::Auto => 5e-4,
    };
    Ok(json!({
        "rows": found.n_rows,
        "largest-relative-error": found.largest_relative_error,
        "tolerance": tolerance,
    }))
}

/// The model and the tables, loaded once for all checkpoints.
struct Collector<'a> {
    config: &'a Config,
    run: &'a RunDir,
    part: Part,
    model: LoraDecoder,
    tables: Tables,
}

impl<'a> Collector<'a> {
    fn new(
        config: &'a Config,
        run: &'a RunDir,
        part: Part,
        checkpoint: &Checkpoint,
    ) -> Result<Self, TorchError> {
        // The adapter's own shape, which is not ours if it was trained elsewhere.
        let model = load(config, checkpoint.lora())?;
        Ok(Self { config, run, part, model, tables: Tables::open(config, run)? })
    }

    /// Rows of this part's shards at all checkpoints that were to be computed.
    fn n_rows(&self, checkpoints: &[Checkpoint]) -> Result<usize, TorchError> {
        let mut n_rows = 0;
        for checkpoint in checkpoints {
            for split in Split::ALL {
                let list = ShardList::read(&self.run.store(checkpoint.label(), split))
                    .map_err(PipelineError::from)?;
                n_rows += self.part.of(&list.shards).map(ListedShard::n_rows).sum::<usize>();
            }
        }
        Ok(n_rows)
    }

    /// Collects both tables.
    fn collect(
        &mut self,
        checkpoint: &Checkpoint,
        gradient: &str,
        progress: &StageProgress<'_>,
    ) -> Result<(), TorchError> {
        let config = self.config;
        let (adapter, moments) = self.read(checkpoint)?;
        let layout = self.model.layout().clone();
        self.model.set_adapter(&adapter);
        if config.random_weights.is_none() {
            let vocabulary = base_weights::vocabulary(self.model.config(), checkpoint)
                .map_err(PipelineError::from)?;
            self.model.set_vocabulary(&vocabulary)?;
        }
        let projection =
            Projection::new(config.projection, config.seed, checkpoint.label(), &layout)?;
        let kept = self.tables.kept();
        for (split, table) in self.tables.sources(kept.as_ref()) {
            let settings = CollectSettings {
                header: stores::header(config, checkpoint, split, &layout, gradient.to_owned()),
                batch_tokens: self.model.batch_tokens,
                threads: config.compute.threads,
                part: self.part,
            };
            let kinds = &settings.header.kinds;
            let measure = Measure { kinds, moments: moments.as_ref(), projection: &projection };
            let dir = self.run.store(checkpoint.label(), split);
            let collected =
                collect_lora(&mut self.model, table, measure, &dir, &settings, progress)?;
            progress.n_before.fetch_add(collected.n_rows as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The adapter, `[grad_dim]`, and the moments if a kind of gradient needs
    /// them.
    fn read(&self, checkpoint: &Checkpoint) -> Result<(Vec<f32>, Option<Moments>), TorchError> {
        let layout = self.model.layout();
        let adapter = checkpoint.adapter(layout)?;
        let needed = self.config.gradients.iter().any(|kind| kind.needs_moments());
        let moments = needed.then(|| checkpoint.moments(layout)).transpose()?;
        Ok((adapter, moments))
    }
}
