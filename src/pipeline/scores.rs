//! The score stage of the methods that take no gradients.

use std::path::{Path, PathBuf};

use super::stages::{Output, with_checksums};
use super::{PipelineError, Run};
use crate::baseline::compare::{Compare, Comparison};
use crate::baseline::{bm25::Bm25, ngram::Ngram};
use crate::baseline::{length, perplexity, random, rds, table};
use crate::first_pass::losses::Losses;
use crate::influence::example_scores::{CosinesHeader, ExampleScores};
use crate::influence::example_scores_file::{cosines_files, write_cosines};
use crate::influence::scores::ScoreTable;
use crate::method::Method;
use crate::pool::ExampleId;
use crate::pool::table::ExampleTable;
use crate::store::Split;

/// Scores, and the files of those by target example with their checksums, if any: the
/// cosines and their marker.
type Scored = (ScoreTable, Vec<(PathBuf, String)>);

impl Run<'_> {
    /// Scores the pool without its gradients.
    ///
    /// # Panics
    ///
    /// If the method takes gradients.
    pub(super) fn score_without_gradients(&self) -> Result<Output, PipelineError> {
        let pool = ExampleTable::open(&self.dir.table(Split::Pool))?;
        let method = self.config.method;
        let (scores, cosines) = match method {
            Method::Rds => self.likeness(&pool)?,
            Method::Perplexity => self.nearness_of_losses(&pool)?,
            Method::Less
            | Method::Bm25
            | Method::Ngram
            | Method::Length
            | Method::Random
            | Method::RandomBalanced => self
                .scored_without_model(&pool, &self.dir.cosines())?
                .expect("gradients are not asked for here"),
        };
        scores.write(&self.dir.scores())?;
        let n_ranked = scores.rows.iter().filter(|row| row.flag.is_none()).count();
        let summary = format!("{n_ranked} examples scored by {method}");
        let mut files = with_checksums([self.dir.scores()])?;
        files.extend(cosines);
        Ok(Output { files, summary })
    }

    /// The scores by a method that asks no model, those by target example in the folder
    /// `cosines`; `None` for one that does.
    pub(super) fn scored_without_model(
        &self,
        pool: &ExampleTable,
        cosines: &Path,
    ) -> Result<Option<Scored>, PipelineError> {
        let (method, observer) = (self.config.method, self.observer);
        let (rows, seed) = (pool.rows(), self.config.seed);
        let by_row = |scores: Vec<f32>| (table(method, rows, &scores), Vec::new());
        Ok(Some(match method {
            Method::Less | Method::Rds | Method::Perplexity => return Ok(None),
            Method::Bm25 => {
                self.compared(&Bm25::new(pool, &self.target()?, observer)?, pool, cosines)?
            }
            Method::Ngram => {
                self.compared(&Ngram::new(pool, &self.target()?, observer)?, pool, cosines)?
            }
            Method::Length => by_row(length::length(rows)),
            Method::Random => by_row(random::random(rows, seed)),
            Method::RandomBalanced => by_row(random::random_balanced(rows, seed)),
        }))
    }

    fn target(&self) -> Result<ExampleTable, PipelineError> {
        Ok(ExampleTable::open(&self.dir.table(Split::Target))?)
    }

    fn compared(
        &self,
        with: &impl Compare,
        pool: &ExampleTable,
        dir: &Path,
    ) -> Result<Scored, PipelineError> {
        let header = CosinesHeader {
            checkpoint: self.config.method.name().to_owned(),
            weight: 1.0,
            targets: with.targets().clone(),
        };
        let ids: Vec<ExampleId> = pool.rows().iter().map(|row| row.id).collect();
        let mut comparison = Comparison::new(with, pool, self.observer);
        let cosines = write_cosines(dir, header, &ids, |rows, out| {
            comparison.fill(rows, out).map_err(PipelineError::from)
        })?;
        Ok((comparison.into_table(), cosines.into()))
    }

    /// The first pass has compared the rows already; its files are this stage's, too.
    fn likeness(&self, pool: &ExampleTable) -> Result<Scored, PipelineError> {
        let files = cosines_files(&self.dir.cosines(), self.config.method.name());
        let scores = rds::rds(&ExampleScores::open(&files[..1])?, pool.rows());
        Ok((scores, with_checksums(files)?))
    }

    fn nearness_of_losses(&self, pool: &ExampleTable) -> Result<Scored, PipelineError> {
        let Losses { ids, losses } = Losses::read(&self.dir.losses())?;
        let mut scores =
            table(self.config.method, pool.rows(), &perplexity::perplexity(&ids, &losses));
        for (row, loss) in scores.rows.iter_mut().zip(losses) {
            row.loss = loss;
        }
        Ok((scores, Vec::new()))
    }
}
