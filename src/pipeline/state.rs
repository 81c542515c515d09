//! How far a run is.

use super::PipelineError;
use super::checksums::Checksums;
use super::fingerprint;
use super::manifest::{Manifest, StageRecord};
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
