//! What each stage does, and which files it leaves.

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::checksums::Checksums;
use super::fingerprint::StageInputs;
use super::manifest::Manifest;
use super::select::select_subset;
use super::stores::RunStore;
use super::{PipelineError, Run, pinned, workers};
use crate::cascade::kept::KeptRows;
use crate::cascade::recall;
use crate::checkpoint::Checkpoint;
use crate::config::layers::to_map;
use crate::fs::remove_unfinished;
use crate::gradient::collect::ExampleSource;
use crate::gradient::shard_plan::Part;
use crate::influence::index::TargetIndex;
use crate::influence::score::{ScoreSettings, ScoredCheckpoint, ScoredExamples, score_examples};
use crate::influence::scores::ScoreTable;
use crate::pool::ingest;
use crate::pool::table::ExampleTable;
use crate::report::{self, CascadeFacts, CheckpointFacts, Rejected, RunFacts, StageCost, Summary};
use crate::selection::{Selected, SelectionFile};
use crate::stage::Stage;
use crate::store::Split;
use crate::store::gradient_store::GradientStore;
use crate::store::shard::Shard;
use crate::store::shard_list::ListedShard;

/// What a stage leaves behind.
pub(super) struct Output {
    /// Its files with their checksums.
    pub(super) files: Vec<(PathBuf, String)>,
    /// One line for people.
    pub(super) summary: String,
}

/// Runs `stage`, whose record has been taken off the manifest.
pub(super) fn run(
    run: &Run<'_>,
    stage: Stage,
    inputs: &StageInputs,
    checksums: &mut Checksums,
) -> Result<Output, PipelineError> {
    match stage {
        Stage::Ingest => ingest_tables(run),
        Stage::Warmup => warm_up(run),
        Stage::FirstPass => run.first_pass(),
        Stage::Gradients => gradients(run, inputs, checksums),
        Stage::Index => index_target(run),
        Stage::Score if !run.config.method.takes_gradients() => run.score_without_gradients(),
        Stage::Score => score_pool(run),
        Stage::Select => select_subset(run, inputs),
        Stage::Report => write_report(run),
    }
}

fn ingest_tables(run: &Run<'_>) -> Result<Output, PipelineError> {
    let config = run.config;
    let summary = ingest(&config.ingest, &config.model, &run.dir.tables(), run.observer)?;
    let files = [run.dir.table(Split::Pool), run.dir.table(Split::Target), run.dir.rejects()];
    Ok(Output { files: with_checksums(files)?, summary: summary.to_string() })
}

fn warm_up(run: &Run<'_>) -> Result<Output, PipelineError> {
    if run.config.checkpoints.is_some() {
        let checkpoints = run.checkpoints()?;
        let summary = format!("{} checkpoints of your own", checkpoints.len());
        return Ok(Output { files: Vec::new(), summary });
    }
    let answer = run.worker_alone(&["warmup", "--run", &run.dir.root().display().to_string()])?;
    pinned::write_pool_ids(run.dir)?;
    let mut files = vec![run.dir.pool_ids()];
    for checkpoint in run.checkpoints()? {
        files.extend(checkpoint.files());
    }
    Ok(Output { files: with_checksums(files)?, summary: said(&answer) })
}

fn gradients(
    run: &Run<'_>,
    inputs: &StageInputs,
    checksums: &mut Checksums,
) -> Result<Output, PipelineError> {
    let stores = run.plan_stores(inputs, checksums)?;
    if workers::gradient_shards(run, &stores, Part::WHOLE)? {
        remove_unfinished(run.dir.root())?;
    }
    all_shards(&stores)
}

/// The stage's output, if every shard of every store is committed.
pub(super) fn all_shards(stores: &[RunStore]) -> Result<Output, PipelineError> {
    let (mut files, mut n_new, mut n_rows, mut n_flagged) = (Vec::new(), 0, 0, 0);
    for store in stores {
        n_new += store.n_new;
        n_rows += store.list.shards.iter().map(ListedShard::n_rows).sum::<usize>();
        let store = GradientStore::open(&store.dir)?;
        n_flagged += store.shards().iter().map(Shard::n_flagged).sum::<usize>();
        files.extend(store.files()?);
    }
    let mut summary = format!("{n_rows} gradients stored");
    if n_new < n_rows {
        write!(summary, ", {n_new} of them new").expect("a string takes all");
    }
    if n_flagged > 0 {
        write!(summary, ", {n_flagged} flagged").expect("a string takes all");
    }
    Ok(Output { files, summary })
}

fn index_target(run: &Run<'_>) -> Result<Output, PipelineError> {
    let target = ExampleTable::open(&run.dir.table(Split::Target))?;
    let (mut files, mut n_examples, mut n_subtasks) = (Vec::new(), 0, 0);
    for checkpoint in run.checkpoints()? {
        let store = GradientStore::open(&run.dir.store(checkpoint.label(), Split::Target))?;
        let index = TargetIndex::build(&store, target.rows())?;
        (n_examples, n_subtasks) = (index.rows.ids.len(), index.subtasks.len());
        index.write(&run.dir.index())?;
        files.extend(TargetIndex::files(&run.dir.index(), checkpoint.label()));
    }
    let summary = format!("{n_examples} target examples in {n_subtasks} subtasks");
    Ok(Output { files: with_checksums(files)?, summary })
}

fn score_pool(run: &Run<'_>) -> Result<Output, PipelineError> {
    let config = run.config;
    let pool = ExampleTable::open(&run.dir.table(Split::Pool))?;
    let checkpoints = run.checkpoints()?;
    let kept = match run.config.cascade {
        Some(share) => Some(KeptRows::new(&pool, run.similarities()?.kept(share))),
        None => None,
    };
    let rows = kept.as_ref().map_or_else(|| pool.rows(), KeptRows::rows);
    let mut sides = Vec::new();
    for checkpoint in &checkpoints {
        let store = GradientStore::open(&run.dir.store(checkpoint.label(), Split::Pool))?;
        let index = TargetIndex::open(&run.dir.index(), checkpoint.label())?;
        let kind = config.gradients[0];
        let target = config.precondition.apply(index, &store, rows, kind, run.observer)?;
        sides.push((store, target));
    }
    let scored: Vec<_> = checkpoints
        .iter()
        .zip(&sides)
        .map(|(checkpoint, (pool, target))| ScoredCheckpoint {
            pool,
            index: &target.index,
            lengths: target.lengths.as_deref(),
            learning_rate: checkpoint.learning_rate(),
        })
        .collect();
    let settings = ScoreSettings {
        kinds: &config.gradients,
        aggregations: &config.aggregations,
        threads: config.compute.threads,
    };
    let dir = run.dir.cosines();
    let ScoredExamples { tables, cosines } =
        score_examples(&scored, rows, pool.rows(), &dir, settings, run.observer)?;
    let tables: Vec<_> = tables.into_iter().map(|scores| scores.filled_up(pool.rows())).collect();
    let paths = scores_paths(run);
    for (scores, path) in tables.iter().zip(&paths) {
        scores.write(path)?;
    }
    let n_ranked = tables[0].rows.iter().filter(|row| row.flag.is_none()).count();
    let summary = format!("{n_ranked} examples scored on {} subtasks", tables[0].subtasks.len());
    let files = with_checksums(paths)?.into_iter().chain(cosines).collect();
    Ok(Output { files, summary })
}

/// A file for every kind of gradient with every aggregation, by kind first. The
/// first pair ranks.
fn scores_paths(run: &Run<'_>) -> Vec<PathBuf> {
    let kinds = run.config.gradients.iter();
    let pairs = kinds.flat_map(|kind| run.config.aggregations.iter().map(move |a| (kind, a)));
    let others = pairs.skip(1).map(|(kind, a)| run.dir.other_scores(&format!("{kind}-{a}")));
    std::iter::once(run.dir.scores()).chain(others).collect()
}

/// What the subset was made from; no time, no host, so that equal runs give
/// equal bytes.
pub(super) fn provenance(run: &Run<'_>, inputs: &StageInputs) -> Result<Value, PipelineError> {
    let checkpoints = facts(&run.checkpoints()?);
    Ok(json!({
        "tool": format!("less-select {}", env!("CARGO_PKG_VERSION")),
        "method": run.config.method.source(),
        "settings": run.config.portable(),
        "checkpoints": checkpoints,
        "fingerprint": inputs.fingerprint(),
    }))
}

fn write_report(run: &Run<'_>) -> Result<Output, PipelineError> {
    let mut scores = ScoreTable::read(&run.dir.scores())?;
    let pool = ExampleTable::open(&run.dir.table(Split::Pool))?;
    let selection = SelectionFile::read(&run.dir.selection())?;
    let selected = selection.apply(&mut scores, &run.dir.selection())?;
    let facts = run_facts(run, &selected, &selection.notes)?;
    let diagnostics = run.diagnostics(&scores, &selected)?;
    let read = |positions: &[usize]| pool.records(positions);
    let n_quoted = run.config.report_rows;
    let summary = Summary::new(&scores, &selected, facts, diagnostics, n_quoted, read)?;
    report::write(&summary, &run.dir.report_json(), &run.dir.report_html())?;
    let text = report::text(&summary);
    crate::fs::write_atomic::<std::io::Error>(&run.dir.summary(), |out| {
        out.write_all(text.as_bytes())
    })?;
    let files = [run.dir.report_json(), run.dir.report_html(), run.dir.summary()];
    let summary = format!("{}", run.dir.report_html().display());
    Ok(Output { files: with_checksums(files)?, summary })
}

fn run_facts(
    run: &Run<'_>,
    selected: &[Selected],
    said: &[String],
) -> Result<RunFacts, PipelineError> {
    let subset = run.dir.latest_subset()?;
    let provenance: Value = serde_json::from_slice(&fs_err::read(subset.join("less-select.json"))?)
        .map_err(std::io::Error::from)?;
    let notes = provenance["notes"].as_array().into_iter().flatten();
    let rejects = BufReader::new(fs_err::File::open(run.dir.rejects())?);
    let rejected = Rejected::of(rejects.lines())?;
    // Those of another method may stand beside them.
    let mut records = Manifest::read(run.dir)?.stages;
    let stages = run.config.stages().filter_map(|stage| Some((stage, records.remove(&stage)?)));
    Ok(RunFacts {
        name: run.dir.root().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        method: run.config.method,
        budget: run.config.budget,
        cascade: run.cascade_facts(selected)?,
        subset,
        n_rejected: rejected.iter().map(|rejected| rejected.n_rows).sum(),
        rejected,
        settings: to_map(&run.config.raw),
        checkpoints: facts(&run.checkpoints()?),
        stages: stages
            .map(|(stage, record)| StageCost {
                stage,
                seconds: record.seconds,
                summary: record.told(),
            })
            .collect(),
        notes: said
            .iter()
            .cloned()
            .chain(notes.filter_map(|note| note.as_str().map(str::to_owned)))
            .collect(),
    })
}

impl Run<'_> {
    /// What there is to say of the cascade: recall only where it left nothing
    /// out.
    fn cascade_facts(&self, selected: &[Selected]) -> Result<Option<CascadeFacts>, PipelineError> {
        let Some(share) = self.config.cascade else { return Ok(None) };
        let mut recalls = Vec::new();
        if share >= 1.0 {
            let positions: Vec<usize> = selected.iter().map(|place| place.position).collect();
            recalls = recall::recalls(&self.similarities()?, &positions);
        }
        Ok(Some(CascadeFacts { share, recalls }))
    }
}

/// The checkpoints and their shares of the score.
fn facts(checkpoints: &[Checkpoint]) -> Vec<CheckpointFacts> {
    let sum: f64 = checkpoints.iter().map(Checkpoint::learning_rate).sum();
    let facts = |checkpoint: &Checkpoint| CheckpointFacts {
        name: checkpoint.label().to_owned(),
        step: checkpoint.step(),
        learning_rate: checkpoint.learning_rate(),
        weight: checkpoint.learning_rate() / sum,
        loss: checkpoint.loss(),
    };
    checkpoints.iter().map(facts).collect()
}

pub(super) fn with_checksums(
    paths: impl IntoIterator<Item = PathBuf>,
) -> Result<Vec<(PathBuf, String)>, PipelineError> {
    let checksum = |path: PathBuf| crate::fs::checksum(&path).map(|checksum| (path, checksum));
    Ok(paths.into_iter().map(checksum).collect::<Result<_, _>>()?)
}

pub(super) fn said(answer: &Value) -> String {
    answer["summary"].as_str().unwrap_or("done").to_owned()
}
