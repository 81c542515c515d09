//! The stages of a run in a run directory: which ones, in which order, and
//! which may be skipped.

pub mod checksums;
pub mod contenders;
mod datamodel;
mod diagnostics;
mod error;
pub mod events;
mod explain;
pub mod fingerprint;
mod first_pass;
pub mod fsck;
pub mod gc;
pub mod lock;
pub mod manifest;
mod pinned;
mod scores;
pub mod select;
mod stages;
pub mod state;
mod stores;
#[cfg(feature = "torch")]
pub mod torch;
mod trial_time;
pub mod verify;
mod waiting;
pub mod worker;
mod workers;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use checksums::Checksums;
pub use error::PipelineError;
use events::EventLog;
use fingerprint::StageInputs;
use lock::{Lock, LockError};
use manifest::{Manifest, StageRecord};
use waiting::take_run;

use crate::checkpoint::{Checkpoint, checkpoints_in};
use crate::config::Config;
use crate::gradient::shard_plan::Part;
use crate::model::DecoderConfig;
use crate::model::weights::WeightFiles;
use crate::progress::{Event, Observer};
use crate::run_dir::RunDir;
use crate::sealed;
use crate::stage::Stage;

/// The folder of the checkpoints: the warm-up's, or the user's own.
fn checkpoints_dir(config: &Config, run: &RunDir) -> PathBuf {
    config.checkpoints.clone().unwrap_or_else(|| run.checkpoints())
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
        self.require_on(stage)?;
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
        self.require_on(Stage::Gradients)?;
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

    /// Refuses a stage that the settings leave out.
    fn require_on(&self, stage: Stage) -> Result<(), PipelineError> {
        let is_on = self.config.stages().any(|needed| needed == stage);
        if is_on { Ok(()) } else { Err(PipelineError::Off { stage, method: self.config.method }) }
    }

    /// Takes the run for this process, and works.
    fn under_lock(
        &self,
        work: impl FnOnce(&Run<'_>, &mut Checksums) -> Result<(), PipelineError>,
    ) -> Result<(), PipelineError> {
        let _lock = self.lock(lock::exclusive)?;
        crate::fs::remove_unfinished(self.dir.root())?;
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
        if !self.config.needs_model() {
            return Ok(());
        }
        let model = DecoderConfig::read(&self.config.model)?;
        model.lora_layout(&self.config.lora)?;
        if self.config.random_weights.is_none() {
            WeightFiles::open(&self.config.model, &model)?;
        }
        Ok(())
    }

    /// The checkpoints gradients are taken at: the warm-up's, or the user's own. A method
    /// without gradients has none.
    fn checkpoints(&self) -> Result<Vec<Checkpoint>, PipelineError> {
        if !self.config.method.takes_gradients() {
            return Ok(Vec::new());
        }
        Ok(checkpoints_in(&checkpoints_dir(self.config, self.dir))?)
    }

    /// Takes the run, waiting for whoever has it as long as is allowed.
    fn lock(&self, take: fn(&Path) -> Result<Lock, LockError>) -> Result<Lock, PipelineError> {
        take_run(self.dir, take, self.wait, self.observer)
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
        if let Some(outdated) = manifest.stages.get(&stage) {
            Manifest::forget(self.dir, stage, outdated)?;
        }
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
