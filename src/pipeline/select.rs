//! The selection: what it reads, and the files it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::fingerprint::{StageInputs, inputs_of};
use super::manifest::Manifest;
use super::stages::{Output, provenance, with_checksums};
use super::{PipelineError, Run};
use crate::config::Config;
use crate::fs::UNFINISHED;
use crate::influence::InfluenceError;
use crate::influence::example_scores::ExampleScores;
use crate::influence::example_scores_file::is_cosines;
use crate::influence::index::subtask_name;
use crate::influence::scores::ScoreTable;
use crate::method::Method;
use crate::pool::table::ExampleTable;
use crate::pool::{ExampleId, Message, PoolError, for_each_said};
use crate::progress::Event;
use crate::selection::export::{
    ExportError, Published, SubsetRow, publish, publish_beside, subset_rows,
};
use crate::selection::selector::{RowCosines, TargetCosines};
use crate::selection::{
    Budget, Contaminated, Contamination, EvaluationTexts, Gate, Open, Schema, SelectFrom, Selected,
    SelectionFile, Selector, StoredRows, Taken, TextGate, ranking, select, select_for_target,
};
use crate::stage::Stage;
use crate::store::Split;
use crate::store::gradient_store::GradientStore;

/// Pool rows whose texts are read at once.
const READ_ROWS: usize = 4096;

pub(super) fn select_subset(run: &Run<'_>, inputs: &StageInputs) -> Result<Output, PipelineError> {
    let selecting = Selecting { run, inputs: &Inputs::open(run)? };
    let found = selecting.within(run.config.budget, None)?;
    let published = selecting.publish(&found, inputs, publish)?;
    let mut file = selecting.file(found);
    let mut files = published.files;
    if run.config.selection.subset_per_target {
        for target in selecting.targets() {
            let own = selecting.within(run.config.budget, Some(&target))?;
            let own = selecting.publish(&own, inputs, publish_beside)?;
            let folder = own.path.file_name().unwrap_or_default().display().to_string();
            file.by_target.insert(target, folder);
            files.extend(own.files);
        }
    }
    file.write(&run.dir.selection())?;
    files.push(run.dir.selection());
    for message in file.notes.into_iter().chain(published.notes) {
        run.observer.notify(Event::Warning { message });
    }
    let name = published.path.file_name().unwrap_or_default().display();
    let summary = format!("{} rows, {} tokens in {name}", published.n_rows, published.n_tokens);
    Ok(Output { files: with_checksums(files)?, summary })
}

/// A subset of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Swept {
    /// How much was asked for.
    pub budget: Budget,
    /// The subset folder.
    pub subset: PathBuf,
    /// Rows in it.
    pub n_rows: usize,
    /// Their tokens.
    pub n_tokens: u64,
}

impl Run<'_> {
    /// Writes the subset of each budget as the select stage would, from the scores
    /// that stand in the run; `latest` and the stage's own subset stay.
    ///
    /// # Errors
    ///
    /// If targets have budgets of their own, an earlier stage is not complete or was
    /// made from other settings, or a subset cannot be written.
    pub fn sweep(&self, budgets: &[Budget]) -> Result<Vec<Swept>, PipelineError> {
        if !self.config.selection.target_budgets.is_empty() {
            return Err(PipelineError::TargetBudgets);
        }
        let mut swept = Vec::new();
        self.under_lock(|run, checksums| {
            run.require_earlier(Stage::Select, checksums)?;
            let opened = Inputs::open(run)?;
            for budget in budgets {
                let mut config = run.config.clone();
                config.budget = *budget;
                config.raw.budget = Some(budget.to_string());
                let manifest = Manifest::read(run.dir)?;
                let inputs = inputs_of(Stage::Select, &config, &manifest, checksums)?;
                run.verify_inputs(&manifest, &inputs, checksums)?;
                let selecting =
                    Selecting { run: &Run { config: &config, ..*run }, inputs: &opened };
                let found = selecting.within(*budget, None)?;
                let Published { path, n_rows, n_tokens, .. } =
                    selecting.publish(&found, &inputs, publish_beside)?;
                swept.push(Swept { budget: *budget, subset: path, n_rows, n_tokens });
            }
            Ok(())
        })?;
        Ok(swept)
    }
}

/// How many rows were left out, by reason.
fn counts(left_out: &BTreeMap<ExampleId, String>) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for reason in left_out.values() {
        *counts.entry(reason.as_str()).or_default() += 1;
    }
    counts
}

/// Everything that is selected by, opened.
struct Selecting<'a> {
    run: &'a Run<'a>,
    inputs: &'a Inputs,
}

struct Inputs {
    /// Contaminated rows are flagged.
    scores: ScoreTable,
    pool: ExampleTable,
    target_sources: Vec<String>,
    examples: Option<ExampleScores>,
    rows: Option<StoredRows>,
    contaminated: BTreeMap<ExampleId, String>,
    /// On rows that were spared.
    note: Option<String>,
}

/// What was selected.
struct Found {
    taken: Taken,
    /// Near-duplicates that were not, each with the row that is kept.
    near_duplicate_of: BTreeMap<ExampleId, ExampleId>,
}

type Publish =
    fn(&Path, &[SubsetRow<'_>], Method, Schema, &Value) -> Result<Published, ExportError>;

impl Inputs {
    fn open(run: &Run<'_>) -> Result<Self, PipelineError> {
        let selector = run.config.selection.selector;
        let scores = ScoreTable::read(&run.dir.scores())?;
        let examples = selector.needs_examples().then(|| run.example_scores()).transpose()?;
        let rows = selector.needs_rows().then(|| stored_rows(run, &scores)).transpose()?;
        Self::of(run, scores, examples, rows)
    }

    /// What there is to select from by these scores.
    fn of(
        run: &Run<'_>,
        mut scores: ScoreTable,
        examples: Option<ExampleScores>,
        rows: Option<StoredRows>,
    ) -> Result<Self, PipelineError> {
        let pool = ExampleTable::open(&run.dir.table(Split::Pool))?;
        let target = ExampleTable::open(&run.dir.table(Split::Target))?;
        let target_sources = target_sources(&scores, &target);
        let mut contaminated = BTreeMap::new();
        let found = contamination(run, &pool, &target)?;
        let note = found.note();
        for Contaminated { row, origin } in found.rows {
            let row = &mut scores.rows[row];
            if row.flag.is_none() {
                let reason = format!("contaminated: says what is in {origin}");
                row.flag = Some(reason.clone());
                contaminated.insert(row.id, reason);
            }
        }
        Ok(Self { scores, pool, target_sources, examples, rows, contaminated, note })
    }
}

/// The target source of every subtask of the scores.
pub(super) fn target_sources(scores: &ScoreTable, target: &ExampleTable) -> Vec<String> {
    let sources: BTreeMap<String, String> =
        target.rows().iter().map(|row| (subtask_name(row), row.source.clone())).collect();
    let source = |name: &String| sources.get(name).unwrap_or(name).clone();
    scores.subtasks.iter().map(source).collect()
}

impl Selecting<'_> {
    /// The target sources.
    fn targets(&self) -> BTreeSet<String> {
        self.inputs.target_sources.iter().cloned().collect()
    }

    fn publish(
        &self,
        found: &Found,
        made_from: &StageInputs,
        publish: Publish,
    ) -> Result<Published, PipelineError> {
        let Inputs { scores, pool, .. } = self.inputs;
        let (taken, left_out) = (&found.taken, self.left_out(found));
        let rows = subset_rows(scores, &taken.rows, |positions| pool.records(positions))?;
        let mut provenance = provenance(self.run, made_from)?;
        provenance["selection"] = json!({ "left-out": counts(&left_out), "notes": taken.notes });
        let Config { method, schema, .. } = *self.run.config;
        Ok(publish(self.run.dir.root(), &rows, method, schema, &provenance)?)
    }

    fn file(&self, found: Found) -> SelectionFile {
        let selector = self.run.config.selection.selector;
        let mut file = SelectionFile::new(&self.inputs.scores, &found.taken, selector);
        file.left_out = self.left_out(&found);
        file.near_duplicate_of = found.near_duplicate_of;
        file
    }

    /// Rows that could not be taken, and why.
    fn left_out(&self, found: &Found) -> BTreeMap<ExampleId, String> {
        let mut left_out = self.inputs.contaminated.clone();
        for id in found.near_duplicate_of.keys() {
            left_out.insert(*id, "near-duplicate of a row that is kept".to_owned());
        }
        left_out
    }

    /// What is selected within `budget`, for all targets or one alone.
    fn within(&self, budget: Budget, target: Option<&str>) -> Result<Found, PipelineError> {
        let settings = &self.run.config.selection;
        let Inputs { scores, pool, target_sources, examples, rows, .. } = self.inputs;
        let from = SelectFrom {
            scores,
            target_sources,
            examples: examples.as_ref().map(|examples| examples as &dyn TargetCosines),
            rows: rows.as_ref().map(|rows| rows as &dyn RowCosines),
        };
        let select = |gate: &mut dyn Gate| match target {
            None => select(from, settings, budget, gate),
            Some(target) => select_for_target(from, settings, target, budget, gate),
        };
        let Some(threshold) = settings.near_duplicates else {
            return Ok(self.found(select(&mut Open)?, BTreeMap::new()));
        };
        let read = |positions: &[usize]| -> Result<Vec<Vec<Message>>, PoolError> {
            let records = pool.records(positions)?;
            Ok(records.into_iter().map(|record| record.messages).collect())
        };
        let likely = ranking(scores).iter().map(|row| row.position).collect();
        let mut gate = TextGate::new(threshold.value(), likely, &read);
        let taken = select(&mut gate)?;
        let id = |position: usize| scores.rows[position].id;
        let refused = gate.into_refused()?.into_iter();
        Ok(self.found(taken, refused.map(|(row, kept)| (id(row), id(kept))).collect()))
    }

    fn found(&self, taken: Taken, near_duplicate_of: BTreeMap<ExampleId, ExampleId>) -> Found {
        let notes = taken.notes.into_iter().chain(self.inputs.note.clone()).collect();
        Found { taken: Taken { notes, ..taken }, near_duplicate_of }
    }
}

impl Run<'_> {
    /// The rows of the pool that a run by `method` would select within `budget`, taken by
    /// the method's default selector, all other settings being this run's; their ids
    /// ascending. A method without a target has no budgets of targets. `None` for one that
    /// asks a model.
    pub(super) fn selected_by(
        &self,
        method: Method,
        budget: Budget,
    ) -> Result<Option<Vec<ExampleId>>, PipelineError> {
        let mut config = self.config.clone();
        config.method = method;
        config.selection.selector = Selector::by_default(method);
        if !method.has_target() {
            config.selection.target_budgets.clear();
        }
        let run = &Run { config: &config, ..*self };
        let pool = ExampleTable::open(&self.dir.table(Split::Pool))?;
        let cosines = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(self.dir.root())?;
        let Some((scores, files)) = run.scored_without_model(&pool, cosines.path())? else {
            return Ok(None);
        };
        let paths: Vec<PathBuf> =
            files.into_iter().map(|(path, _)| path).filter(|path| is_cosines(path)).collect();
        let has_examples = config.selection.selector.needs_examples();
        let examples = has_examples.then(|| ExampleScores::open(&paths)).transpose()?;
        let inputs = &Inputs::of(run, scores, examples, None)?;
        let found = Selecting { run, inputs }.within(budget, None)?;
        let id = |row: &Selected| inputs.scores.rows[row.position].id;
        let mut ids: Vec<ExampleId> = found.taken.rows.iter().map(id).collect();
        ids.sort_unstable();
        Ok(Some(ids))
    }

    /// Rows of the pool that no selection takes, for what they say.
    pub(super) fn contaminated(&self) -> Result<BTreeSet<ExampleId>, PipelineError> {
        let pool = ExampleTable::open(&self.dir.table(Split::Pool))?;
        let target = ExampleTable::open(&self.dir.table(Split::Target))?;
        let found = contamination(self, &pool, &target)?.rows;
        Ok(found.into_iter().map(|found| pool.rows()[found.row].id).collect())
    }

    /// The cosines that the score stage recorded.
    pub(super) fn example_scores(&self) -> Result<ExampleScores, PipelineError> {
        let paths = self.cosines_files()?;
        Ok(ExampleScores::open(&paths).map_err(InfluenceError::from)?)
    }

    /// Their files; none of a method that has no likeness to single examples.
    pub(super) fn cosines_files(&self) -> Result<Vec<PathBuf>, PipelineError> {
        let manifest = Manifest::read(self.dir)?;
        let record = manifest.stages.get(&Stage::Score);
        let outputs = record.into_iter().flat_map(|record| record.outputs.keys());
        let paths = outputs.map(|name| self.dir.root().join(name));
        Ok(paths.filter(|path| is_cosines(path)).collect())
    }
}

fn stored_rows(run: &Run<'_>, scores: &ScoreTable) -> Result<StoredRows, PipelineError> {
    let stores = run.weighted_stores(GradientStore::open)?;
    let checkpoint = stores[0].0.header().checkpoint.clone();
    StoredRows::new(stores, run.config.gradients[0], scores)
        .map_err(|id| InfluenceError::NoGradient { id, split: Split::Pool, checkpoint }.into())
}

/// Rows of the pool that say what the target or an evaluation says.
fn contamination(
    run: &Run<'_>,
    pool: &ExampleTable,
    target: &ExampleTable,
) -> Result<Contamination, PipelineError> {
    let settings = &run.config.selection;
    let mut evaluation = EvaluationTexts::default();
    if settings.decontaminate_target {
        let sources: BTreeSet<_> = target.rows().iter().map(|row| row.source.clone()).collect();
        let positions: Vec<usize> = (0..target.rows().len()).collect();
        let records = target.records(&positions)?;
        for source in sources {
            let own = target.rows().iter().zip(&records).filter(|(row, _)| row.source == source);
            for (_, record) in own {
                evaluation.add(&format!("target `{source}`"), &record.messages);
            }
        }
    }
    for source in &settings.decontaminate {
        for_each_said(source, &run.config.ingest.columns, &mut |file, messages| {
            evaluation.add(&format!("`{file}`"), &messages);
        })?;
    }
    if evaluation.is_empty() {
        return Ok(Contamination::default());
    }
    let mut shared = Vec::new();
    for start in (0..pool.rows().len()).step_by(READ_ROWS) {
        if run.observer.is_interrupted() {
            return Err(PipelineError::Interrupted);
        }
        let positions: Vec<usize> = (start..pool.rows().len().min(start + READ_ROWS)).collect();
        for (position, record) in positions.iter().zip(pool.records(&positions)?) {
            shared.extend(evaluation.shared(*position, &record.messages));
        }
    }
    Ok(evaluation.contamination(&shared))
}
