//! What the report stage reads to say how steady a selection is.

use super::{PipelineError, Run};
use crate::checkpoint::Checkpoint;
use crate::diagnostics::sketch::{SketchHalves, sketch_halves};
use crate::diagnostics::target::{target_halves, without_checkpoints};
use crate::diagnostics::{Diagnostics, Sample};
use crate::influence::InfluenceError;
use crate::influence::example_scores::ExampleScores;
use crate::influence::index::TargetIndex;
use crate::influence::precondition::Precondition;
use crate::influence::score::ScoredCheckpoint;
use crate::influence::scores::ScoreTable;
use crate::projection::ProjectionKind;
use crate::selection::Selected;
use crate::store::Split;
use crate::store::gradient_store::GradientStore;

impl Run<'_> {
    /// How steady the selection is; `None` where nothing or everything is selected.
    pub(super) fn diagnostics(
        &self,
        scores: &ScoreTable,
        selected: &[Selected],
    ) -> Result<Option<Diagnostics>, PipelineError> {
        let Some(sample) = Sample::of(scores, selected) else { return Ok(None) };
        let mut found = Diagnostics::of(&sample);
        let files = self.cosines_files()?;
        if !files.is_empty() {
            let examples = ExampleScores::open(&files).map_err(InfluenceError::from)?;
            found.target = target_halves(&examples, &sample, self.config.seed);
            found.checkpoints = without_checkpoints(&examples, &sample);
        }
        if self.config.method.takes_gradients()
            && self.config.projection.kind != ProjectionKind::None
            // Whose halves would each have a second moment of their own.
            && self.config.precondition == Precondition::None
        {
            found.sketch = Some(self.sketch_halves(scores, &sample)?);
        }
        Ok(Some(found))
    }

    fn sketch_halves(
        &self,
        scores: &ScoreTable,
        sample: &Sample,
    ) -> Result<SketchHalves, PipelineError> {
        let checkpoints = self.checkpoints()?;
        let open = |checkpoint: &Checkpoint| -> Result<_, PipelineError> {
            let pool = GradientStore::open(&self.dir.store(checkpoint.label(), Split::Pool))?;
            Ok((pool, TargetIndex::open(&self.dir.index(), checkpoint.label())?))
        };
        let sides = checkpoints.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let sides: Vec<ScoredCheckpoint<'_>> = checkpoints
            .iter()
            .zip(&sides)
            .map(|(checkpoint, (pool, index))| ScoredCheckpoint {
                pool,
                index,
                lengths: None,
                learning_rate: checkpoint.learning_rate(),
            })
            .collect();
        let (kind, aggregation) = (self.config.gradients[0], self.config.aggregations[0]);
        Ok(sketch_halves(&sides, scores, sample, kind, aggregation)?)
    }
}
