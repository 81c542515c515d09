//! What the report stage reads to say how steady a selection is.

use super::select::target_sources;
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
use crate::pool::table::ExampleTable;
use crate::projection::ProjectionKind;
use crate::selection::selector::TargetCosines;
use crate::selection::{SelectFrom, Selected};
use crate::store::Split;
use crate::store::gradient_store::GradientStore;

impl Run<'_> {
    /// How steady the selection is; `None` where nothing or everything is selected.
    pub(super) fn diagnostics(
        &self,
        scores: &ScoreTable,
        selected: &[Selected],
    ) -> Result<Option<Diagnostics>, PipelineError> {
        let files = self.cosines_files()?;
        let examples = (!files.is_empty()).then(|| ExampleScores::open(&files)).transpose();
        let examples = examples.map_err(InfluenceError::from)?;
        let target = ExampleTable::open(&self.dir.table(Split::Target))?;
        let from = SelectFrom {
            scores,
            target_sources: &target_sources(scores, &target),
            examples: examples.as_ref().map(|examples| examples as &dyn TargetCosines),
            rows: None,
        };
        let Some(sample) = Sample::of(from, &self.config.selection, selected) else {
            return Ok(None);
        };
        let mut found = Diagnostics::of(&sample);
        if let Some(examples) = &examples {
            found.target = target_halves(examples, &sample, self.config.seed);
            found.checkpoints = without_checkpoints(examples, &sample);
        }
        if self.config.method.takes_gradients()
            && self.config.projection.kind != ProjectionKind::None
            // Whose halves would each have a second moment of their own.
            && self.config.precondition == Precondition::None
        {
            found.sketch = Some(self.sketch_halves(&sample)?);
        }
        Ok(Some(found))
    }

    fn sketch_halves(&self, sample: &Sample<'_>) -> Result<SketchHalves, PipelineError> {
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
        Ok(sketch_halves(&sides, sample, kind, aggregation)?)
    }
}
