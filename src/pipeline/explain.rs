//! Looks up single rows in a complete run. Takes no lock and writes nothing.

use super::{PipelineError, Run};
use crate::explain::{self, ExplainError, RowExplained, TargetExplained};
use crate::influence::InfluenceError;
use crate::influence::example_scores::ExampleScores;
use crate::influence::scores::ScoreTable;
use crate::pool::table::ExampleTable;
use crate::selection::selector::RowCosines;
use crate::selection::{Selected, SelectionFile, StoredRows};
use crate::stage::Stage;
use crate::store::Split;
use crate::store::gradient_store::GradientStore;

/// What every explanation is looked up in.
struct Opened {
    scores: ScoreTable,
    selection: SelectionFile,
    selected: Vec<Selected>,
    pool: ExampleTable,
    target: ExampleTable,
    examples: Option<ExampleScores>,
    n_neighbors: usize,
}

impl Run<'_> {
    /// Explains the row of the pool that `words` names: see [`explain::find`].
    ///
    /// # Errors
    ///
    /// If nothing was selected yet, no row or several are called so, or a file cannot
    /// be read.
    pub fn explain_row(&self, words: &str) -> Result<RowExplained, PipelineError> {
        let opened = self.open_selection()?;
        let position = explain::find(&opened.pool, "pool", words)?;
        let rows = self.rows_to_compare(&opened, position)?;
        let rows = rows.as_ref().map(|rows| rows as &dyn RowCosines);
        Ok(RowExplained::new(&opened.as_run(rows), position)?)
    }

    /// Explains the example of the target that `words` names.
    ///
    /// # Errors
    ///
    /// As [`explain_row`](Self::explain_row).
    pub fn explain_target(&self, words: &str) -> Result<TargetExplained, PipelineError> {
        let opened = self.open_selection()?;
        let position = explain::find(&opened.target, "target", words)?;
        Ok(TargetExplained::new(&opened.as_run(None), position)?)
    }

    fn open_selection(&self) -> Result<Opened, PipelineError> {
        let path = self.dir.selection();
        if !path.is_file() {
            return Err(ExplainError::NoSelection(self.dir.root().to_owned()).into());
        }
        let mut scores = ScoreTable::read(&self.dir.scores())?;
        let selection = SelectionFile::read(&path)?;
        let selected = selection.apply(&mut scores, &path)?;
        let pool = ExampleTable::open(&self.dir.table(Split::Pool))?;
        let is_same = pool.rows().iter().map(|row| row.id).eq(scores.rows.iter().map(|row| row.id));
        if !is_same {
            return Err(PipelineError::Damaged { path: self.dir.scores(), stage: Stage::Score });
        }
        let target = ExampleTable::open(&self.dir.table(Split::Target))?;
        let examples = self.cosines_at_a_glance()?;
        let n_neighbors = self.config.selection.n_neighbors(scores.rows.len());
        Ok(Opened { scores, selection, selected, pool, target, examples, n_neighbors })
    }

    /// The cosines that the score stage recorded, if it recorded any.
    fn cosines_at_a_glance(&self) -> Result<Option<ExampleScores>, PipelineError> {
        let paths = self.cosines_files()?;
        if paths.is_empty() {
            return Ok(None);
        }
        Ok(Some(ExampleScores::glance(&paths).map_err(InfluenceError::from)?))
    }

    /// The stored gradients of a row and of the selected ones; `None` of a row that has
    /// none, and where the method takes none.
    fn rows_to_compare(
        &self,
        opened: &Opened,
        position: usize,
    ) -> Result<Option<StoredRows>, PipelineError> {
        let has_gradient = !opened.scores.rows[position].by_subtask.is_empty();
        if !self.config.method.takes_gradients() || !has_gradient {
            return Ok(None);
        }
        let stores = self.weighted_stores(GradientStore::glance)?;
        let checkpoint = stores[0].0.header().checkpoint.clone();
        let selected = opened.selected.iter().map(|place| place.position);
        let positions: Vec<usize> = selected.chain([position]).collect();
        let rows = StoredRows::of(stores, self.config.gradients[0], &opened.scores, &positions);
        let missing = |id| InfluenceError::NoGradient { id, split: Split::Pool, checkpoint };
        Ok(Some(rows.map_err(missing)?))
    }
}

impl Opened {
    fn as_run<'a>(&'a self, rows: Option<&'a dyn RowCosines>) -> explain::Run<'a> {
        explain::Run {
            scores: &self.scores,
            selection: &self.selection,
            selected: &self.selected,
            pool: &self.pool,
            target: &self.target,
            examples: self.examples.as_ref(),
            rows,
            n_neighbors: self.n_neighbors,
        }
    }
}
