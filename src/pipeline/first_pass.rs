//! The stage of the model's first pass: a worker's job, and the one file it leaves.

use std::path::PathBuf;

use super::stages::{Output, said, with_checksums};
use super::{PipelineError, Run};
use crate::cascade::Similarities;
use crate::first_pass::FirstPass;
use crate::influence::example_scores_file::cosines_files;

impl Run<'_> {
    pub(super) fn first_pass(&self) -> Result<Output, PipelineError> {
        let dir = self.dir.root().display().to_string();
        let answer = self.worker_alone(&["first-pass", "--run", &dir])?;
        let files = self.config.first_pass().map(|wanted| self.found_by(wanted));
        Ok(Output { files: with_checksums(files.unwrap_or_default())?, summary: said(&answer) })
    }

    /// The files of what a pass finds.
    fn found_by(&self, wanted: FirstPass) -> Vec<PathBuf> {
        match wanted {
            FirstPass::Similarities => vec![self.dir.cascade()],
            FirstPass::Cosines => {
                cosines_files(&self.dir.cosines(), self.config.method.name()).to_vec()
            }
            FirstPass::Losses => vec![self.dir.losses()],
        }
    }

    /// How like the target each row is, as the pass found it for the cascade.
    pub(super) fn similarities(&self) -> Result<Similarities, PipelineError> {
        Ok(Similarities::read(&self.dir.cascade())?)
    }
}
