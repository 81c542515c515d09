//! How far a run is.

use super::checksums::Checksums;
use super::fingerprint;
use super::manifest::{Manifest, StageRecord};
use super::{PipelineError, Run};
use crate::config::Config;
use crate::run_dir::RunDir;
use crate::stage::Stage;

/// One stage of a run, as it stands against the settings.
#[derive(Clone, Debug, PartialEq)]
pub enum StageState {
    /// Its output is there, made from these settings and inputs.
    Complete(StageRecord),
    /// Its output is there, made from something else.
    OutOfDate {
        /// What it was made from.
        record: StageRecord,
        /// What differs now.
        difference: String,
    },
    /// It has no output.
    Missing,
}

/// The state of every stage, first to last. Changes nothing.
///
/// # Errors
///
/// If the manifest or an input cannot be read.
pub fn stage_states(
    config: &Config,
    run: &RunDir,
) -> Result<Vec<(Stage, StageState)>, PipelineError> {
    let manifest = Manifest::read(run)?;
    let mut checksums = Checksums::open(run.checksums());
    config
        .stages()
        .map(|stage| {
            let Some(record) = manifest.stages.get(&stage).cloned() else {
                return Ok((stage, StageState::Missing));
            };
            let inputs = fingerprint::inputs_of(stage, config, &manifest, &mut checksums)?;
            if !record.outputs_are_whole(run, &mut checksums) {
                return Ok((stage, StageState::Missing));
            }
            if record.made_from == inputs {
                return Ok((stage, StageState::Complete(record)));
            }
            let difference = inputs.difference(&record.made_from);
            Ok((stage, StageState::OutOfDate { record, difference }))
        })
        .collect()
}

/// What a run would do with a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Outlook {
    /// Nothing: its output is there, made from equal inputs.
    Unchanged,
    /// Nothing, though this share of the pool is newer than the warm-up.
    Kept {
        /// The share.
        growth: f64,
    },
    /// Run it.
    Runs {
        /// Why.
        reason: String,
    },
    /// Run it, unless what an earlier stage writes turns out as it was.
    Depends {
        /// The first stage that would run.
        on: Stage,
    },
}

impl Run<'_> {
    /// What a run would do, first stage to last. Changes nothing.
    ///
    /// # Errors
    ///
    /// If the manifest or an input cannot be read.
    pub fn outlook(&self) -> Result<Vec<(Stage, Outlook)>, PipelineError> {
        let manifest = Manifest::read(self.dir)?;
        let mut checksums = Checksums::open(self.dir.checksums());
        let mut first_to_run = None;
        let mut outlooks = Vec::new();
        for stage in self.config.stages() {
            let outlook = match first_to_run {
                Some(on) if manifest.stages.contains_key(&stage) => Outlook::Depends { on },
                _ => self.outlook_of(stage, &manifest, &mut checksums)?,
            };
            if first_to_run.is_none() && matches!(outlook, Outlook::Runs { .. }) {
                first_to_run = Some(stage);
            }
            outlooks.push((stage, outlook));
        }
        Ok(outlooks)
    }

    fn outlook_of(
        &self,
        stage: Stage,
        manifest: &Manifest,
        checksums: &mut Checksums,
    ) -> Result<Outlook, PipelineError> {
        let inputs = fingerprint::inputs_of(stage, self.config, manifest, checksums)?;
        let Some(reason) = self.reason_to_run(stage, manifest, &inputs, checksums) else {
            return Ok(Outlook::Unchanged);
        };
        if let Some(record) = manifest.stages.get(&stage)
            && let Some(growth) = self.growth_of_kept(stage, record, &inputs, checksums)?
        {
            return Ok(Outlook::Kept { growth });
        }
        Ok(Outlook::Runs { reason })
    }
}
