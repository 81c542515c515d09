//! The stages of a run in a run directory: which ones, in which order, and
//! which may be skipped.

pub mod checksums;
pub mod events;
pub mod fingerprint;
pub mod fsck;
pub mod gc;
pub mod lock;
pub mod manifest;
mod pinned;
mod stages;
pub mod state;
mod stores;
#[cfg(feature = "torch")]
pub mod torch;
pub mod worker;
mod workers;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use checksums::Checksums;
use events::EventLog;
use fingerprint::StageInputs;
use lock::{Lock, LockError};
use manifest::{Manifest, StageRecord};

use crate::checkpoint::{Checkpoint, checkpoints_in};
use crate::config::Config;
use crate::gradient::shard_plan::Part;
use crate::influence::InfluenceError;
use crate::model::DecoderConfig;
use crate::model::weights::WeightFiles;
use crate::pool::PoolError;
use crate::progress::{Event, Observer};
use crate::run_dir::RunDir;
use crate::sealed;
use crate::stage::Stage;

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Somebody else works on the run, or it is no place to write.
    #[error("cannot work in `{}`", run.display())]
    Locked {
        /// The run directory.
        run: PathBuf,
        /// Who, or what the system says.
        #[source]
        source: lock::LockError,
    },
    /// A stage cannot start because an earlier one is not complete.
    #[error("stage `{stage}` needs `{needs}`, which is not complete in `{}`", run.display())]
    Incomplete {
        /// The stage that was asked for.
        stage: Stage,
        /// The stage that is missing.
        needs: Stage,
        /// The run directory.
        run: PathBuf,
    },
    /// A stage that stands in the run was made from something else.
    #[error("`{}` was made with other settings: {stage}: {difference}", run.display())]
    OtherPlan {
        /// The earlier stage that differs.
        stage: Stage,
        /// What differs.
        difference: String,
        /// The run directory.
        run: PathBuf,
    },
    /// A stage was asked for that the settings leave out.
    #[error("stage `{0}` is off")]
    Off(Stage),
    /// A file of the run was changed after the stage that wrote it.
    #[error("`{}` is not as stage `{stage}` wrote it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The stage.
        stage: Stage,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The model's tokenizer or chat template cannot be used.
    #[error("the model cannot be used")]
    Tokenizer(#[source] PoolError),
    /// The pool or the target could not be read.
    #[error("the pool and the target could not be read")]
    Ingest(#[source] PoolError),
    /// A checkpoint could not be read.
    #[error("the checkpoints cannot be used")]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// The gradient store could not be read.
    #[error("the gradient store cannot be used")]
    Store(#[from] crate::store::StoreError),
    /// Scores could not be computed.
    #[error("the pool could not be scored")]
    Influence(#[source] InfluenceError),
    /// What the cascade found could not be written or read.
    #[error("the cascade's similarities cannot be used")]
    Cascade(#[from] crate::cascade::similarities_file::SimilaritiesError),
    /// The scores could not be written or read.
    #[error("the scores cannot be used")]
    Scores(#[from] crate::influence::scores_file::ScoresError),
    /// The subset could not be written.
    #[error("the subset could not be written")]
    Export(#[from] crate::selection::export::ExportError),
    /// The report could not be written.
    #[error("the report could not be written")]
    Report(#[from] crate::report::ReportError),
    /// The model's configuration cannot be used.
    #[error("the model cannot be used")]
    Model(#[from] crate::model::config::ConfigError),
    /// The model's weights cannot be used.
    #[error("the model cannot be used")]
    Weights(#[from] crate::model::weights::WeightsError),
    /// The adapter does not fit the model.
    #[error("the adapter does not fit the model")]
    Lora(#[from] crate::model::modules::LoraError),
    /// A checkpoint's adapter sits where the model has no module.
    #[error("the adapter of `{checkpoint}` is none for this model")]
    OtherModules {
        /// The checkpoint.
        checkpoint: String,
        /// The module.
        source: crate::model::modules::LoraError,
    },
    /// A stage in a worker process failed.
    #[error(transparent)]
    Worker(worker::WorkerError),
    /// The user, or the system, asked the run to stop.
    #[error("interrupted; what is complete is kept")]
    Interrupted,
}

/// The folder of the checkpoints: the warm-up's, or the user's own.
fn checkpoints_dir(config: &Config, run: &RunDir) -> PathBuf {
    config.checkpoints.clone().unwrap_or_else(|| run.checkpoints())
}

impl From<PoolError> for PipelineError {
    fn from(err: PoolError) -> Self {
        match err {
            PoolError::Interrupted => Self::Interrupted,
            err @ PoolError::Model { .. } => Self::Tokenizer(err),
            err => Self::Ingest(err),
        }
    }
}

impl From<InfluenceError> for PipelineError {
    fn from(err: InfluenceError) -> Self {
        match err {
            InfluenceError::Interrupted => Self::Interrupted,
            err => Self::Influence(err),
        }
    }
}

impl From<worker::WorkerError> for PipelineError {
    fn from(err: worker::WorkerError) -> Self {
        match err {
            worker::WorkerError::Interrupted => Self::Interrupted,
            err => Self::Worker(err),
        }
    }
}

/// Takes `run`, waiting at most `wait` for whoever has it.
fn wait_for_lock(
    run: &RunDir,
    take: fn(&Path) -> Result<Lock, LockError>,
    wait: Duration,
    observer: &dyn Observer,
) -> Result<Lock, PipelineError> {
    let begin = Instant::now();
    let mut told = false;
    loop {
        match take(&run.lock()) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held { .. }) if observer.is_interrupted() => {
                return Err(PipelineError::Interrupted);
            }
            Err(held @ LockError::Held { .. }) if begin.elapsed() < wait => {
                if !told {
                    let message = format!("{held}; waiting for it");
                    observer.notify(Event::Warning { message });
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(source) => {
                return Err(PipelineError::Locked { run: run.root().to_owned(), source });
            }
        }
    }
}

/// A run directory, the settings to bring it to, and who wants to know.
pub struct Run<'a> {
    /// The settings.
    pub config: &'a Config,
    /// The directory.
    pub dir: &'a RunDir,
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// Stages to run whether they have to or not.
    pub force: &'a [Stage],
    /// How long to wait while another process works on the run.
    pub wait: Duration,
}

impl Run<'_> {
    /// Brings every stage up to date.
    ///
    /// # Errors
    ///
    /// The first stage that fails; the ones before it are kept.
    pub fn all(&self) -> Result<(), PipelineError> {
        self.check_model()?;
        self.under_lock(|run, checksums| {
            run.keep_settings()?;
            run.config.stages().try_for_each(|stage| run.bring_up_to_date(stage, checksums))
        })
    }

    /// Brings one stage up to date, given the ones before it.
    ///
    /// # Errors
    ///
    /// If an earlier stage is not complete, or was made from other settings.
    pub fn one(&self, stage: Stage) -> Result<(), PipelineError> {
        if self.config.stages().all(|needed| needed != stage) {
            return Err(PipelineError::Off(stage));
        }
        self.under_lock(|run, checksums| {
            run.require_earlier(stage, checksums)?;
            run.keep_settings()?;
            run.bring_up_to_date(stage, checksums)
        })
    }

    /// Computes one part of the gradient shards, beside other processes that
    /// compute the other parts. The last one to finish completes the stage.
    ///
    /// # Errors
    ///
    /// As [`one`](Self::one).
    pub fn shards(&self, part: Part) -> Result<(), PipelineError> {
        let lock = self.lock(lock::shared)?;
        let result = self.logged(|run| {
            let mut checksums = Checksums::open(run.dir.checksums());
            run.require_earlier(Stage::Gradients, &mut checksums)?;
            let Some(inputs) = run.begin(Stage::Gradients, &mut checksums)? else {
                return Ok(());
            };
            let start = Instant::now();
            let stores = run.plan_stores(&inputs, &mut checksums)?;
            workers::gradient_shards(run, &stores, part)?;
            if stores.iter().any(|store| store.n_missing() > 0) {
                return Ok(());
            }
            // This worker was the last one.
            let output = stages::all_shards(&stores)?;
            run.complete(Stage::Gradients, inputs, output, start.elapsed().as_secs_f64())
        });
        drop(lock);
        result
    }

    /// Takes the run for this process, and works.
    fn under_lock(
        &self,
        work: impl FnOnce(&Run<'_>, &mut Checksums) -> Result<(), PipelineError>,
    ) -> Result<(), PipelineError> {
        let _lock = self.lock(lock::exclusive)?;
        self.logged(|run| {
            let mut checksums = Checksums::open(run.dir.checksums());
            let result = work(run, &mut checksums);
            let saved = checksums.save();
            // What stopped the work may be what keeps this from being written.
            result?;
            Ok(saved?)
        })
    }

    /// Writes down the settings that a stage run alone starts from.
    fn keep_settings(&self) -> io::Result<()> {
        crate::fs::write_atomic(&self.dir.config(), |out| {
            out.write_all(sealed::with_checksum(&self.config.to_toml()).as_bytes())
        })
    }

    fn logged<T>(
        &self,
        work: impl FnOnce(&Run<'_>) -> Result<T, PipelineError>,
    ) -> Result<T, PipelineError> {
        let log = EventLog::open(self.dir, self.observer)?;
        work(&Run { observer: &log, ..*self })
    }

    /// Refuses, before anything else is done, a model that a later stage would
    /// refuse. Whether its weights are finite is seen when they are loaded.
    fn check_model(&self) -> Result<(), PipelineError> {
        let model = DecoderConfig::read(&self.config.model)?;
        model.lora_layout(&self.config.lora)?;
        if self.config.random_weights.is_none() {
            WeightFiles::open(&self.config.model, &model)?;
        }
        Ok(())
    }

    /// The checkpoints gradients are taken at: the warm-up's, or the user's own.
    fn checkpoints(&self) -> Result<Vec<Checkpoint>, PipelineError> {
        Ok(checkpoints_in(&checkpoints_dir(self.config, self.dir))?)
    }

    /// Takes the run, waiting for whoever has it as long as is allowed.
    fn lock(&self, take: fn(&Path) -> Result<Lock, LockError>) -> Result<Lock, PipelineError> {
        wait_for_lock(self.dir, take, self.wait, self.observer)
    }

    /// Runs `stage` unless its output is there, made from equal inputs.
    fn bring_up_to_date(
        &self,
        stage: Stage,
        checksums: &mut Checksums,
    ) -> Result<(), PipelineError> {
        if self.observer.is_interrupted() {
            return Err(PipelineError::Interrupted);
        }
        let Some(inputs) = self.begin(stage, checksums)? else { return Ok(()) };
        let start = Instant::now();
        let output = stages::run(self, stage, &inputs, checksums)?;
        self.complete(stage, inputs, output, start.elapsed().as_secs_f64())
    }

    /// Takes `stage` off the manifest, before its files are touched; `None` if
    /// it does not have to run.
    fn begin(
        &self,
        stage: Stage,
        checksums: &mut Checksums,
    ) -> Result<Option<StageInputs>, PipelineError> {
        let manifest = Manifest::read(self.dir)?;
        let inputs = fingerprint::inputs_of(stage, self.config, &manifest, checksums)?;
        let Some(reason) = self.reason_to_run(stage, &manifest, &inputs, checksums) else {
            self.observer.notify(Event::StageUnchanged { stage });
            return Ok(None);
        };
        if let Some(record) = manifest.stages.get(&stage)
            && let Some(growth) = self.growth_of_kept(stage, record, &inputs, checksums)?
        {
            self.keep_warmup(record, inputs, growth)?;
            return Ok(None);
        }
        self.verify_inputs(&manifest, &inputs, checksums)?;
        Manifest::forget(self.dir, stage)?;
        self.observer.notify(Event::StageStarted { stage, reason });
        Ok(Some(inputs))
    }

    /// Proves that what a stage reads of earlier ones is what they wrote.
    /// Shards and the index prove it themselves when they are opened.
    fn verify_inputs(
        &self,
        manifest: &Manifest,
        inputs: &StageInputs,
        checksums: &mut Checksums,
    ) -> Result<(), PipelineError> {
        for (&stage, record) in &manifest.stages {
            let proves_itself = |name: &str| Path::new(name).extension() == Some("arrow".as_ref());
            for (name, checksum) in record.outputs.iter().filter(|(name, _)| !proves_itself(name)) {
                let path = self.dir.root().join(name);
                if inputs.files.contains_key(name) && checksums.of(&path)? != *checksum {
                    return Err(PipelineError::Damaged { path, stage });
                }
            }
        }
        Ok(())
    }

    /// Why `stage` has to run; `None` if it does not.
    fn reason_to_run(
        &self,
        stage: Stage,
        manifest: &Manifest,
        inputs: &StageInputs,
        checksums: &mut Checksums,
    ) -> Option<String> {
        match manifest.stages.get(&stage) {
            Some(_) if self.force.contains(&stage) => Some("forced".to_owned()),
            None => Some("not there yet".to_owned()),
            Some(record) if record.made_from != *inputs => {
                Some(inputs.difference(&record.made_from))
            }
            Some(record) if !record.outputs_are_whole(self.dir, checksums) => {
                Some("its files are gone or altered".to_owned())
            }
            Some(_) => None,
        }
    }

    /// Checks that every stage before `stage` is complete and made from these
    /// settings.
    fn require_earlier(
        &self,
        stage: Stage,
        checksums: &mut Checksums,
    ) -> Result<(), PipelineError> {
        let manifest = Manifest::read(self.dir)?;
        let run = || self.dir.root().to_owned();
        for earlier in self.config.stages().filter(|earlier| *earlier < stage) {
            let record = manifest.stages.get(&earlier);
            let Some(record) = record.filter(|record| record.outputs_exist(self.dir)) else {
                return Err(PipelineError::Incomplete { stage, needs: earlier, run: run() });
            };
            let inputs = fingerprint::inputs_of(earlier, self.config, &manifest, checksums)?;
            if record.made_from != inputs {
                let difference = inputs.difference(&record.made_from);
                return Err(PipelineError::OtherPlan { stage: earlier, difference, run: run() });
            }
        }
        Ok(())
    }

    fn complete(
        &self,
        stage: Stage,
        made_from: StageInputs,
        output: stages::Output,
        seconds: f64,
    ) -> Result<(), PipelineError> {
        let stages::Output { files, summary } = output;
        let outputs: BTreeMap<_, _> = files
            .into_iter()
            .map(|(path, checksum)| (self.dir.relative(&path), checksum))
            .collect();
        let finished = jiff::Timestamp::now();
        let record = StageRecord {
            made_from,
            outputs,
            summary: summary.clone(),
            seconds,
            finished,
            pool_growth: None,
        };
        Manifest::complete(self.dir, stage, record)?;
        self.observer.notify(Event::StageFinished { stage, seconds, summary });
        Ok(())
    }
}
