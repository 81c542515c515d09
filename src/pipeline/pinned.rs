//! The warm-up is the measure: it stays the same while the pool grows.
//!
//! Gradients at other checkpoints cannot be compared, so a warm-up that was
//! trained anew for every new row would cost all gradients of all rows. It is
//! kept until more than a set share of the pool is newer than it is. What the
//! pool was then stands beside the checkpoints, in `pool-ids`: the ids of its
//! rows, 16 bytes each, ascending.

use std::io;

use super::checksums::Checksums;
use super::fingerprint::StageInputs;
use super::manifest::{Manifest, StageRecord};
use super::{PipelineError, Run};
use crate::pool::ExampleId;
use crate::pool::table::{ExampleTable, TableRow};
use crate::progress::Event;
use crate::run_dir::RunDir;
use crate::stage::Stage;
use crate::store::Split;

/// Writes down which rows the pool has while the warm-up is trained on it.
pub(super) fn write_pool_ids(run: &RunDir) -> Result<(), PipelineError> {
    let pool = ExampleTable::open(&run.table(Split::Pool))?;
    crate::fs::write_atomic(&run.pool_ids(), |out| {
        pool.rows().iter().try_for_each(|row| out.write_all(&row.id.0))
    })
    .map_err(|err: io::Error| err.into())
}

impl Run<'_> {
    /// The share of the pool that is newer than a warm-up that is kept: one that
    /// differs from `inputs` in nothing but an earlier state of the pool, of
    /// which not too much has changed. `None` if it is to be trained.
    pub(super) fn growth_of_kept(
        &self,
        stage: Stage,
        record: &StageRecord,
        inputs: &StageInputs,
        checksums: &mut Checksums,
    ) -> Result<Option<f64>, PipelineError> {
        let serves = stage == Stage::Warmup
            && self.config.checkpoints.is_none()
            && !self.force.contains(&stage)
            && differ_in_the_pool_alone(&record.made_from, inputs, self.dir)
            && record.outputs_are_whole(self.dir, checksums);
        if !serves {
            return Ok(None);
        }
        let pool = ExampleTable::open(&self.dir.table(Split::Pool))?;
        let growth = share_of_new(pool.rows(), &read_pool_ids(self.dir)?);
        Ok((growth <= self.config.rewarm_growth).then_some(growth))
    }

    /// Writes down that a warm-up serves the pool as it is now.
    pub(super) fn keep_warmup(
        &self,
        record: &StageRecord,
        inputs: StageInputs,
        growth: f64,
    ) -> io::Result<()> {
        let kept = StageRecord { made_from: inputs, pool_growth: Some(growth), ..record.clone() };
        Manifest::complete(self.dir, Stage::Warmup, kept)?;
        self.observer.notify(Event::WarmupKept { growth });
        Ok(())
    }
}

fn differ_in_the_pool_alone(then: &StageInputs, now: &StageInputs, run: &RunDir) -> bool {
    let table = run.relative(&run.table(Split::Pool));
    let without_pool = |inputs: &StageInputs| {
        let mut inputs = inputs.clone();
        inputs.files.remove(&table);
        inputs
    };
    without_pool(then) == without_pool(now)
}

/// The ids as they were written: ascending.
fn read_pool_ids(run: &RunDir) -> io::Result<Vec<ExampleId>> {
    let bytes = fs_err::read(run.pool_ids())?;
    Ok(bytes.as_chunks().0.iter().copied().map(ExampleId).collect())
}

/// Share of `rows` that are not among `known`, which ascend.
fn share_of_new(rows: &[TableRow], known: &[ExampleId]) -> f64 {
    let n_new = rows.iter().filter(|row| known.binary_search(&row.id).is_err()).count();
    n_new as f64 / rows.len().max(1) as f64
}
